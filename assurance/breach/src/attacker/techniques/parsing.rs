//! Requests that could be read in two ways: paths out of a folder, double lengths, other peers' hosts.

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::{self, Peer};
use crate::attacker::http::{Ask, Request};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "parsing",
    title: "Hides a path or a second request in one: dots, encodings, double slashes, two lengths, absolute targets.",
    attack: "T1190",
    stride: Stride::T,
    controls: &[Control::GuardOut, Control::Policy],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let victim = if hand.mark.person == "ada" { "bob" } else { "ada" };
    let folder = hand.folder();
    for bucket in hand.script.buckets.keys() {
        let stranger = hand.before(victim).key(bucket);
        for path in [
            format!("/{bucket}/{folder}/../{stranger}"),
            format!("/{bucket}/{folder}/%2e%2e/{stranger}"),
            format!("/{bucket}/{folder}%2f..%2f{stranger}"),
            format!("/{bucket}//{stranger}"),
            format!("//{bucket}/{stranger}"),
            format!("/{bucket}/{stranger}#/{folder}"),
            format!("http://127.0.0.1/{bucket}/{stranger}"),
            format!("/{bucket}/{stranger}?x=/{folder}"),
        ] {
            let cell = Cell::read(format!("bucket.{bucket}"), Extent::Everybody);
            judged(notes, hand.ask(Peer::Objects, Request::new("GET", path)), cell, "a path that could be read in two ways");
        }
        // A second request in the body of the first (RFC 9112, section 11.2).
        let hidden = format!("0\r\n\r\nGET /{bucket}/{stranger} HTTP/1.1\r\nhost: x\r\n\r\n");
        let request = Request::new("PUT", format!("/{bucket}/{folder}/x"))
            .with("transfer-encoding", "chunked")
            .with("content-length", hidden.len().to_string());
        let request = Request { body: hidden.into_bytes(), ..request };
        let cell = Cell::read(format!("bucket.{bucket}"), Extent::Everybody);
        judged(notes, hand.ask(Peer::Objects, request), cell, "two lengths");
    }
    for port in hand::ports().values() {
        match port.ask(&Request::new("CONNECT", "169.254.169.254:80")) {
            Ok(answer) if answer.is_success() => {
                notes.reached(Cell::egress(names::OUTSIDE, names::CONNECT, Extent::Standing), "a guard is a proxy")
            }
            Ok(answer) => notes.stopped(Some(Control::GuardOut), format!("connect: {}", answer.status)),
            Err(_) => notes.stopped(Some(Control::GuardOut), "connect: no answer"),
        }
    }
}
