//! What its own authority is good for: everything that its flows declare, for the work in hand. No attack, but its radius.

use manifest::{BucketOperation, Flow};
use serde_json::json;

use super::{Act, Hand, Notes, Row, Run, judged, let_out};
use crate::attacker::hand::{Entry, HOPS_MAX, Peer};
use crate::attacker::http::Request;
use crate::attacker::play::CONTENT_BYTES;
use crate::attacker::raw;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "own-work",
    title: "Uses its genuine authority for all that it is good for.",
    attack: "T1078",
    stride: Stride::E,
    controls: &[Control::Policy, Control::JobToken, Control::TransactionToken],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    match &hand.entry {
        Entry::Queue { queue, .. } => {
            notes.reached(Cell::read(format!("queue.{queue}"), Extent::Job), "the message in hand");
            notes.reached(Cell::done(format!("queue.{queue}"), "consume", Extent::Job), "the message in hand");
        }
        Entry::Route { .. } => {
            let own = format!("service.{}", hand.service);
            // With a raw flow comes nobody's authority.
            let extent = if hand.is_raw() { Extent::Standing } else { Extent::InFlight };
            notes.reached(Cell::read(own.clone(), extent), "the request in hand");
            notes.reached(Cell::written(own, extent), "the answer is its own");
        }
    }
    let whole = if hand.is_raw() { Extent::Standing } else { Extent::InFlight };
    for flow in hand.flows() {
        match flow {
            Flow::Bucket { bucket, operation, .. } => on_bucket(hand, notes, bucket, *operation),
            Flow::Publish { queue, .. } if hand.hops < HOPS_MAX => {
                let answer = hand.ask(Peer::Queue, hand.event(queue, "attack"));
                judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", whole), "publish");
            }
            Flow::Call { service, method, path } if method != raw::METHOD => {
                let route = format!("{method} {path}");
                let target = format!("{}?breach={}&hops={HOPS_MAX}", filled(path, &hand.mark.to_string()), hand.mark);
                let request = Request::new(method, target);
                let request = if method == "GET" { request } else { request.body("application/json", "{}") };
                let answer = hand.ask(Peer::Named(service), request);
                let target = format!("service.{service}");
                if judged(notes, answer, Cell::done(target.clone(), route.clone(), whole), "call") {
                    for cell in Cell::of_call(&target, method, &route, whole) {
                        notes.reached(cell, "call");
                    }
                    notes.answered(service, &route);
                }
            }
            Flow::Egress { destination, method, path, .. } => {
                let answer = hand.ask(Peer::Named(destination), outside(method, path));
                let_out(notes, answer, Cell::egress(format!("egress.{destination}"), format!("{method} {path}"), whole));
            }
            Flow::Publish { .. } | Flow::Call { .. } | Flow::Secret { .. } => {}
        }
    }
}

/// A request for a destination outside.
pub(super) fn outside(method: &str, path: &str) -> Request {
    let request = Request::new(method, filled(path, "x"));
    if method == "GET" { request } else { request.body("application/json", "{}") }
}

fn on_bucket(hand: &Hand<'_>, notes: &mut Notes, bucket: &str, operation: BucketOperation) {
    let input = hand.input.clone().filter(|(of, _)| of == bucket);
    let name = format!("bucket.{bucket}");
    let own = format!("/{bucket}/{}", hand.own(bucket));
    let extent = match (hand.is_job(), &input) {
        (true, Some(_)) => Extent::JobInput,
        (true, None) => Extent::JobFolder,
        (false, _) => Extent::InFlight,
    };
    let media_type = hand.script.buckets.get(bucket).map_or("", |it| it.0.as_str());
    let post = |path: String, body: serde_json::Value| Request::new("POST", path).body("application/json", body.to_string());
    match operation {
        BucketOperation::Read => {
            judged(notes, hand.ask(Peer::Objects, Request::new("GET", own)), Cell::read(name, extent), "read");
        }
        BucketOperation::Write => {
            let path = format!("/{bucket}/{}", hand.output(bucket));
            let body = Request::new("PUT", path).body(media_type, vec![b' '; CONTENT_BYTES]);
            let extent = if hand.is_job() { Extent::JobFolder } else { Extent::InFlight };
            judged(notes, hand.ask(Peer::Objects, body), Cell::written(name, extent), "write");
        }
        BucketOperation::Delete => {
            let extent = if hand.is_job() { Extent::JobFolder } else { Extent::InFlight };
            let path = format!("/{bucket}/{}-of-no-use", hand.output(bucket));
            judged(notes, hand.ask(Peer::Objects, Request::new("DELETE", path)), Cell::written(name, extent), "delete");
        }
        BucketOperation::Verdict => {
            let verdict = json!({ "verdict": "clean", "reason": "", "media_type": media_type });
            judged(notes, hand.ask(Peer::Objects, post(format!("{own}?verdict"), verdict)), Cell::done(name, "verdict", extent), "verdict");
        }
        BucketOperation::PresignGet => {
            let wish = json!({ "method": "GET", "expires_s": 60 });
            let path = format!("/{bucket}/{}?presign", older(hand, bucket));
            judged(notes, hand.ask(Peer::Objects, post(path, wish)), Cell::read(name, extent), "presign for reading");
        }
        BucketOperation::PresignPut => {
            let wish = json!({ "method": "PUT", "expires_s": 60, "content_length": CONTENT_BYTES, "content_type": media_type });
            let path = format!("/{bucket}/{}/another?presign", hand.mark);
            judged(notes, hand.ask(Peer::Objects, post(path, wish)), Cell::written(name, extent), "presign for writing");
        }
        BucketOperation::List => {
            let path = format!("/{bucket}?list-type=2");
            judged(notes, hand.ask(Peer::Objects, Request::new("GET", path)), Cell::done(name, "list", extent), "list");
        }
        BucketOperation::Share => {}
    }
}

/// An object of the person whose work this is, made before.
fn older(hand: &Hand<'_>, bucket: &str) -> String {
    hand.before(&hand.mark.person).key(bucket)
}
