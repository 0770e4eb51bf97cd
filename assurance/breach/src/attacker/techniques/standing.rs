//! What it may do on nobody's authority: between requests, or with one that it does not pass along.

use manifest::{BucketOperation, Flow};
use serde_json::json;

use super::own_work::outside;
use super::{Act, Hand, Notes, Row, Run, judged, let_out};
use crate::attacker::hand::{HOPS_MAX, Peer};
use crate::attacker::http::Request;
use crate::attacker::play::CONTENT_BYTES;
use crate::attacker::raw;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "standing",
    title: "Performs its declared flows without any person's or job's authority.",
    attack: "T1078.003",
    stride: Stride::E,
    controls: &[Control::TransactionToken, Control::Policy],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let others = hand.before(&hand.mark.person);
    for flow in &hand.part.flows {
        match flow {
            Flow::Bucket { bucket, operation, .. } => {
                let (path, name) = (format!("/{bucket}/{}", others.key(bucket)), format!("bucket.{bucket}"));
                let (request, cell) = match operation {
                    BucketOperation::Read => (Request::new("GET", path), Cell::read(name, Extent::Standing)),
                    BucketOperation::Write => {
                        // What the bucket takes, where nothing is yet: after the policy nothing else refuses.
                        let media_type = hand.script.buckets.get(bucket).map_or("", |it| it.0.as_str());
                        let path = format!("/{bucket}/{}/standing", hand.folder());
                        (Request::new("PUT", path).body(media_type, vec![b' '; CONTENT_BYTES]), Cell::written(name, Extent::Standing))
                    }
                    BucketOperation::Delete => (Request::new("DELETE", path), Cell::written(name, Extent::Standing)),
                    BucketOperation::List => {
                        (Request::new("GET", format!("/{bucket}?list-type=2")), Cell::done(name, "list", Extent::Standing))
                    }
                    BucketOperation::Verdict => {
                        let media_type = hand.script.buckets.get(bucket).map_or("", |it| it.0.as_str());
                        let body = json!({ "verdict": "clean", "reason": "", "media_type": media_type }).to_string();
                        let request = Request::new("POST", format!("{path}?verdict")).body("application/json", body);
                        (request, Cell::done(name, "verdict", Extent::Standing))
                    }
                    BucketOperation::PresignPut => {
                        let media_type = hand.script.buckets.get(bucket).map_or("", |it| it.0.as_str());
                        let wish = json!({ "method": "PUT", "expires_s": 60, "content_length": CONTENT_BYTES, "content_type": media_type });
                        let path = format!("/{bucket}/{}/standing?presign", hand.folder());
                        (Request::new("POST", path).body("application/json", wish.to_string()), Cell::written(name, Extent::Standing))
                    }
                    BucketOperation::PresignGet | BucketOperation::Share => {
                        let body = "{\"method\":\"GET\",\"expires_s\":60}";
                        let request = Request::new("POST", format!("{path}?presign")).body("application/json", body);
                        (request, Cell::read(name, Extent::Standing))
                    }
                };
                judged(notes, hand.ask_as(Peer::Objects, request, None), cell, "on nobody's authority");
            }
            Flow::Publish { queue, .. } => {
                let answer = hand.ask_as(Peer::Queue, hand.event(queue, "standing"), None);
                judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::Standing), "on nobody's authority");
            }
            Flow::Call { service, method, path } if method != raw::METHOD => {
                let route = format!("{method} {path}");
                let request = Request::new(method, filled(path, "x"));
                let answer = hand.ask_as(Peer::Named(service), request, None);
                judged(notes, answer, Cell::done(format!("service.{service}"), route, Extent::Standing), "on nobody's authority");
            }
            Flow::Egress { destination, method, path, .. } => {
                let answer = hand.ask_as(Peer::Named(destination), outside(method, path), None);
                let_out(notes, answer, Cell::egress(format!("egress.{destination}"), format!("{method} {path}"), Extent::Standing));
            }
            Flow::Call { service, method, path } => {
                let request = Request::new(method, path.clone()).body("application/json", hand.words(HOPS_MAX));
                let (target, route) = (format!("service.{service}"), format!("{method} {path}"));
                let said = format!("\"breach_service\":\"{service}\"");
                match hand.ask_as(Peer::Named(service), request, None) {
                    Ok(answer) if answer.text().contains(&said) => {
                        for cell in Cell::of_call(&target, method, &route, Extent::Standing) {
                            notes.reached(cell, "a raw flow");
                        }
                        notes.answered(service, &route);
                    }
                    Ok(_) => notes.stopped(None, "a raw flow: not its answer"),
                    Err(_) => notes.stopped(None, "a raw flow: no answer"),
                }
            }
            Flow::Secret { .. } => {}
        }
    }
}
