//! Every public route and method, as a stranger.

use super::{Notes, Row, Run, Visitor, Who, patiently};
use crate::attacker::hand::HOPS_MAX;
use crate::attacker::http::Request;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "public-routes",
    title: "Calls every public route with every method, with no credential and with claims of its own.",
    attack: "T1190",
    stride: Stride::S,
    controls: &[Control::SignIn],
    run: Run::Outside(run, &[Who::Stranger]),
};

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
const CLAIMS: &[(&str, &str)] = &[
    ("accept", "*/*"),
    ("palisade-user", "ada"),
    ("txn-token", "eyJhbGciOiJub25lIn0.e30."),
    ("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),
    ("x-forwarded-user", "ada"),
    ("x-original-url", "/console"),
    ("x-api-key", "palk_0000000000000000000000000000000000000000000000000000000000000000"),
    ("authorization", "Bearer palt_0000000000000000000000000000000000000000000000000000000000000000"),
];

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for (service, part) in &visitor.script.services {
        for route in part.routes.iter().filter(|route| route.method != "TCP") {
            for method in METHODS.iter().filter(|method| **method == route.method || route.method == "GET") {
                for (name, value) in CLAIMS {
                    let target = format!("{}?breach={}&hops={HOPS_MAX}", filled(&route.path, &visitor.victim), visitor.victim);
                    let answer = patiently(visitor.bare, &Request::new(method, target).with(name, *value));
                    let said = format!("\"breach_service\":\"{service}\"");
                    match answer {
                        Ok(answer) if answer.text().contains(&said) => {
                            notes.reached(Cell::read(format!("service.{service}"), Extent::Everybody), "a service answers a stranger");
                        }
                        Ok(answer) => notes.stopped(Some(Control::SignIn), answer.status.to_string()),
                        Err(_) => notes.stopped(Some(Control::SignIn), "no answer"),
                    }
                }
            }
        }
    }
}
