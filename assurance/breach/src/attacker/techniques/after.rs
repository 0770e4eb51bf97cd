//! The token of work that is over.

use manifest::{BucketOperation, Flow};

use super::own_work::outside;
use super::{Hand, Notes, Row, Run, judged, let_out};
use crate::attacker::hand::{HOPS_MAX, Peer};
use crate::attacker::http::Request;
use crate::attacker::raw;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "after",
    title: "Keeps the token of a request or job, and uses it once that is over.",
    attack: "T1550.001",
    stride: Stride::E,
    controls: &[Control::TransactionToken, Control::Lease, Control::FreshSandbox],
    run: Run::After(run),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    notes.shows(Some(("a service's token", "where it was in flight, after its end")));
    for flow in &hand.part.flows {
        match flow {
            Flow::Bucket { bucket, operation: BucketOperation::PresignGet, .. } => {
                let key = hand.before(&hand.mark.person).key(bucket);
                let wish = Request::new("POST", format!("/{bucket}/{key}?presign"));
                let answer = hand.ask(Peer::Objects, wish.body("application/json", "{\"method\":\"GET\",\"expires_s\":60}"));
                judged(notes, answer, Cell::read(format!("bucket.{bucket}"), Extent::Everybody), "after its end");
            }
            Flow::Bucket { bucket, .. } => {
                let key = hand.own(bucket);
                let answer = hand.ask(Peer::Objects, Request::new("GET", format!("/{bucket}/{key}")));
                judged(notes, answer, Cell::read(format!("bucket.{bucket}"), Extent::Everybody), "after its end");
            }
            Flow::Publish { queue, .. } => {
                let answer = hand.ask(Peer::Queue, hand.event(queue, "after"));
                judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::Everybody), "after its end");
            }
            Flow::Call { service, method, path } if method != raw::METHOD => {
                let request =
                    Request::new(method, format!("{}?breach={}&hops={HOPS_MAX}", filled(path, &hand.mark.to_string()), hand.mark));
                let request = if method == "GET" { request } else { request.body("application/json", "{}") };
                let cell = Cell::done(format!("service.{service}"), format!("{method} {path}"), Extent::Everybody);
                judged(notes, hand.ask(Peer::Named(service), request), cell, "after its end");
            }
            Flow::Egress { destination, method, path, .. } => {
                let answer = hand.ask(Peer::Named(destination), outside(method, path));
                let_out(notes, answer, Cell::egress(format!("egress.{destination}"), format!("{method} {path}"), Extent::Everybody));
            }
            Flow::Call { .. } | Flow::Secret { .. } => {}
        }
    }
}
