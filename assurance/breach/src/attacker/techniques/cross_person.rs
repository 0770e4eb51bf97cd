//! One person's things in another's hands.

use std::collections::BTreeSet;

use manifest::{BucketOperation, Flow};

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::Mark;
use crate::attacker::grpc;
use crate::attacker::http::{Request, parameter, text_of};
use crate::attacker::play::content;
use crate::attacker::script::{Script, filled};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "cross-person",
    title: "Uses its own session or key at every public route, for its own things and for another person's.",
    attack: "T1078.004",
    stride: Stride::E,
    controls: &[Control::Policy, Control::Scope, Control::StepUp, Control::TransactionToken],
    run: Run::Outside(run, &[Who::Person, Who::Insider, Who::InsiderMfa, Who::Vendor]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let (mut good, fresh) = (BTreeSet::new(), next(&visitor.own));
    for (service, part) in &visitor.script.services {
        for route in part.routes.iter().filter(|route| route.public && route.method != "TCP") {
            let name = format!("{} {}", route.method, route.path);
            let said = format!("\"breach_service\":\"{service}\"");
            match visitor.door.ask(&own_request(route, &visitor.own)) {
                Ok(answer) if answer.text().contains(&said) => {
                    for cell in Cell::of_call(&format!("service.{service}"), &route.method, &name, Extent::Own) {
                        notes.reached(cell, "its own route");
                    }
                    good.extend(grants(visitor, notes, &visitor.own, grpc::message(&answer.body)));
                    // What is stored already cannot be stored again: a grant for that is of a new thing.
                    if let Ok(answer) = visitor.door.ask(&own_request(route, &fresh)) {
                        good.extend(grants(visitor, notes, &fresh, grpc::message(&answer.body)));
                    }
                }
                Ok(answer) => {
                    let by = if answer.text().contains("step_up_missing") { Control::StepUp } else { Control::Scope };
                    notes.stopped(Some(by), format!("{name}: {}", answer.status));
                }
                Err(_) => notes.stopped(None, format!("{name}: no answer")),
            }
        }
    }
    for method in handed_out(visitor.script).difference(&good) {
        notes.untried(format!("no presigned URL to {method} was given to it that is good"));
    }
    // The store, past every service.
    for bucket in visitor.script.buckets.keys() {
        for (method, path) in [
            ("GET", format!("/{bucket}/{}/{bucket}", visitor.victim)),
            ("PUT", format!("/{bucket}/{}/{bucket}", visitor.victim)),
            ("DELETE", format!("/{bucket}/{}/{bucket}", visitor.victim)),
            ("GET", format!("/{bucket}?list-type=2")),
        ] {
            match visitor.door.ask(&Request::new(method, path)) {
                Ok(answer) if answer.is_success() => {
                    notes.reached(Cell::read(format!("bucket.{bucket}"), Extent::Everybody), "the store answers a person");
                }
                Ok(answer) => notes.stopped(Some(Control::SignIn), format!("the store: {}", answer.status)),
                Err(_) => notes.stopped(None, "the store: no answer"),
            }
        }
    }
}

/// A request of its own at a route, about the things of this mark.
fn own_request(route: &manifest::Route, mark: &str) -> Request {
    let request = Request::new(&route.method, format!("{}?breach={mark}", filled(&route.path, mark)));
    if route.method == "GET" { request } else { request.body("application/json", "{}") }
}

/// The mark of things that are not there yet.
fn next(mark: &str) -> String {
    Mark::find(mark).map(|mark| Mark { number: mark.number.saturating_add(1), ..mark }.to_string()).unwrap_or_default()
}

/// Methods of presigned URLs that the public services of this system can hand out.
fn handed_out(script: &Script) -> BTreeSet<&'static str> {
    let mut methods = BTreeSet::new();
    for part in script.services.values() {
        for flow in &part.flows {
            let Flow::Bucket { operation, purposes, .. } = flow else { continue };
            let asked = part.routes.iter().any(|route| route.public && (purposes.is_empty() || purposes.contains(&route.purpose)));
            match operation {
                BucketOperation::PresignGet if asked => methods.insert("GET"),
                BucketOperation::PresignPut if asked => methods.insert("PUT"),
                _ => false,
            };
        }
    }
    methods
}

/// Presigned URLs that it was given, bent towards another's object and beyond their life; gives the methods of those that are good as they
/// are. Whatever is sent is what the grant is for, to the byte: nothing but the signature refuses it.
fn grants(visitor: &Visitor<'_>, notes: &mut Notes, own: &str, body: &[u8]) -> BTreeSet<&'static str> {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let mut good = BTreeSet::new();
    notes.shows(Some(("a presigned URL", "bent towards another object or a longer life")));
    for (name, method) in [("downloads", "GET"), ("uploads", "PUT")] {
        for grant in answer.get(name).and_then(serde_json::Value::as_array).into_iter().flatten() {
            let (Some(url), Some(bucket)) = (text_of(grant, "url"), text_of(grant, "bucket")) else { continue };
            let longer = parameter(url, "X-Amz-Expires").map(|life| url.replace(&format!("X-Amz-Expires={life}"), "X-Amz-Expires=999999"));
            // Another's thing that is there, and one that is not there yet.
            let others = [visitor.victim.clone(), next(&visitor.victim)].map(|victim| (Some(url.replace(own, &victim)), Extent::Everybody));
            for (target, extent) in others.into_iter().chain([(longer, Extent::Own)]) {
                let Some(target) = target.filter(|target| target != url) else { continue };
                match visitor.bare.ask(&as_granted(visitor, grant, method, target)) {
                    Ok(answer) if answer.is_success() => {
                        let name = format!("bucket.{bucket}");
                        let cell = if method == "GET" { Cell::read(name, extent) } else { Cell::written(name, extent) };
                        notes.reached(cell, format!("a bent grant to {method} is good"));
                    }
                    Ok(answer) => notes.stopped(Some(Control::Policy), format!("a bent grant to {method}: {}", answer.status)),
                    Err(_) => notes.stopped(None, format!("a bent grant to {method}: no answer")),
                }
            }
            // As it is it has to be good, or its refusals would tell nothing.
            if visitor.bare.ask(&as_granted(visitor, grant, method, url.to_owned())).is_ok_and(|answer| answer.is_success()) {
                good.insert(method);
            }
        }
    }
    notes.shows(None);
    good
}

/// The request that a grant is for, at this URL.
fn as_granted(visitor: &Visitor<'_>, grant: &serde_json::Value, method: &str, target: String) -> Request {
    let headers = grant.get("headers").and_then(serde_json::Value::as_object).into_iter().flatten();
    let request = headers.fold(Request::new(method, target), |to, (name, value)| to.with(name, value.as_str().unwrap_or_default()));
    let body = if method == "GET" { Vec::new() } else { content(&visitor.own, "bent", None) };
    Request { body, ..request }
}

#[cfg(test)]
mod tests;
