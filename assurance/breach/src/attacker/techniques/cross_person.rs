//! One person's things in another's hands.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::{Request, parameter, text_of};
use crate::attacker::script::filled;
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
    for (service, part) in &visitor.script.services {
        for route in part.routes.iter().filter(|route| route.public && route.method != "TCP") {
            let name = format!("{} {}", route.method, route.path);
            let target = format!("{}?breach={}", filled(&route.path, &visitor.own), visitor.own);
            let request = Request::new(&route.method, target);
            let request = if route.method == "GET" { request } else { request.body("application/json", "{}") };
            let said = format!("\"breach_service\":\"{service}\"");
            match visitor.door.ask(&request) {
                Ok(answer) if answer.text().contains(&said) => {
                    for cell in Cell::of_call(&format!("service.{service}"), &route.method, &name, Extent::Own) {
                        notes.reached(cell, "its own route");
                    }
                    grants(visitor, notes, &answer.text());
                }
                Ok(answer) => {
                    let by = if answer.text().contains("step_up_missing") { Control::StepUp } else { Control::Scope };
                    notes.stopped(Some(by), format!("{name}: {}", answer.status));
                }
                Err(_) => notes.stopped(None, format!("{name}: no answer")),
            }
        }
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

/// Presigned URLs that it was given, bent towards another's object.
fn grants(visitor: &Visitor<'_>, notes: &mut Notes, text: &str) {
    let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let lists = ["uploads", "downloads"].map(|name| answer.get(name).and_then(serde_json::Value::as_array).cloned().unwrap_or_default());
    for grant in lists.iter().flatten() {
        let (Some(url), Some(bucket)) = (text_of(grant, "url"), text_of(grant, "bucket")) else { continue };
        let method = text_of(grant, "method").unwrap_or("GET");
        let bent = url.replace(&visitor.own, &visitor.victim);
        let longer = parameter(url, "X-Amz-Expires").map(|life| url.replace(&format!("X-Amz-Expires={life}"), "X-Amz-Expires=999999"));
        for target in [Some(bent), longer].into_iter().flatten() {
            let request = Request::new(method, target).body("video/mp4", "x");
            match visitor.bare.ask(&request) {
                Ok(answer) if answer.is_success() => {
                    notes.reached(Cell::written(format!("bucket.{bucket}"), Extent::Everybody), "a bent grant is good");
                }
                Ok(answer) => notes.stopped(Some(Control::Policy), format!("a bent grant: {}", answer.status)),
                Err(_) => notes.stopped(None, "a bent grant: no answer"),
            }
        }
    }
}
