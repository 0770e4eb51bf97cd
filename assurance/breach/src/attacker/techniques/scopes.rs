//! Routes whose scope the key in hand does not have.
//!
//! Guarantees: A8 measured, L13.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "scopes",
    title: "Asks at every route that has a scope with a key of the same partner that has none.",
    attack: "T1078.004",
    stride: Stride::E,
    controls: &[Control::Scope],
    run: Run::Outside(run, &[Who::Vendor]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let Some(lesser) = visitor.lesser else { return notes.untried("there is no key with fewer scopes") };
    for (service, part) in &visitor.script.services {
        for route in part.routes.iter().filter(|route| route.public && route.method != "TCP" && !route.websocket) {
            let Some(scope) = &route.scope else { continue };
            let request = Request::new(&route.method, format!("{}?breach={}", filled(&route.path, &visitor.own), visitor.own));
            let request = if route.method == "GET" { request } else { request.body("application/json", "{}") };
            match lesser.ask(&request) {
                Ok(answer) if answer.text().contains(&format!("\"breach_service\":\"{service}\"")) => {
                    let action = format!("{} {}", route.method, route.path);
                    notes.reached(Cell::done(format!("scope.{scope}"), action, Extent::Own), "a service answers");
                }
                Ok(answer) => notes.stopped(None, answer.status.to_string()),
                Err(_) => notes.stopped(None, "no answer"),
            }
        }
    }
}
