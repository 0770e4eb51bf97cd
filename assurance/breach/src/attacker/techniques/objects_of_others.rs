//! Objects that are not the work's: of the same person, and of another.

use serde_json::json;

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::attacker::play::CONTENT_BYTES;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "objects-of-others",
    title: "Reads, lists, writes, copies, shares, judges and removes objects of others, with its genuine authority.",
    attack: "T1530",
    stride: Stride::I,
    controls: &[Control::Policy, Control::JobToken, Control::Quarantine],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let person = hand.mark.person.as_str();
    let victim = if person == "ada" { "bob" } else { "ada" };
    for bucket in hand.script.buckets.keys() {
        // With a request in hand, all that the person has is in flight; with a job, one object is.
        let same = hand.before(person).key(bucket);
        on(hand, notes, bucket, &same, Extent::InFlight, hand.is_job());
        on(hand, notes, bucket, &hand.before(victim).key(bucket), Extent::Everybody, true);
        let everybody = Request::new("GET", format!("/{bucket}?list-type=2"));
        judged(notes, hand.ask(Peer::Objects, everybody), Cell::done(format!("bucket.{bucket}"), "list", Extent::InFlight), "list");
    }
}

fn on(hand: &Hand<'_>, notes: &mut Notes, bucket: &str, key: &str, extent: Extent, destroys: bool) {
    let (name, path) = (format!("bucket.{bucket}"), format!("/{bucket}/{key}"));
    let media_type = hand.script.buckets.get(bucket).map_or("", |it| it.0.as_str());
    let read = || Cell::read(name.clone(), extent);
    let written = || Cell::written(name.clone(), extent);
    let post =
        |query: &str, body: serde_json::Value| Request::new("POST", format!("{path}?{query}")).body("application/json", body.to_string());
    let mut ask = |request: Request, cell: Cell, what: &str| judged(notes, hand.ask(Peer::Objects, request), cell, what);
    ask(Request::new("GET", path.clone()), read(), "read");
    ask(Request::new("HEAD", path.clone()), read(), "head");
    ask(Request::new("GET", path.clone()).with("range", "bytes=0-9"), read(), "read a range");
    ask(Request::new("GET", format!("/presigned{path}")), read(), "read as the edge does");
    ask(post("presign", json!({ "method": "GET", "expires_s": 60 })), read(), "presign for reading");
    let copied = Request::new("PUT", format!("/{bucket}/{}/copy", hand.folder())).with("x-amz-copy-source", path.clone());
    ask(copied.with("content-length", "0"), read(), "copy");
    let wish = json!({ "method": "PUT", "expires_s": 60, "content_length": CONTENT_BYTES, "content_type": media_type });
    let verdict = json!({ "verdict": "clean", "reason": "", "media_type": media_type });
    ask(post("verdict", verdict), Cell::done(name.clone(), "verdict", extent), "verdict");
    if destroys {
        ask(post("presign", wish), written(), "presign for writing");
        ask(Request::new("PUT", path.clone()).body(media_type, vec![b'x'; 16]), written(), "write");
        ask(Request::new("POST", format!("{path}?uploads")), written(), "begin an upload in parts");
        ask(Request::new("DELETE", path.clone()), written(), "remove");
    }
}
