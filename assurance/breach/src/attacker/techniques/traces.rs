//! The collector: what a service tells it, and what others told it.

use contract::Who as Caller;

use super::{Act, Hand, Notes, Row, Run};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "traces",
    title: "Calls every route of the collector: tells spans, and tries to read what others told and to tell audit records.",
    attack: "T1562.006",
    stride: Stride::R,
    controls: &[Control::GuardOut, Control::Policy],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    for route in contract::evidence::ROUTES {
        let what = format!("{} {}", route.method, route.path);
        let request =
            Request::new(route.method, route.path.replace("{trace}", "0123456789abcdef0123456789abcdef").replace("{*page}", "audit"));
        let body = match route.path {
            "/v1/traces" => "{\"resourceSpans\":[]}",
            "/v1/logs" => "{\"resourceLogs\":[]}",
            "/v1/metrics" => "{\"resourceMetrics\":[]}",
            _ => "{\"records\":[]}",
        };
        let request = if route.method == "POST" { request.body("application/json", body) } else { request };
        let own = route.who == Caller::Policy && route.path.starts_with("/v1/");
        // Its own telemetry is told in its own name, whatever has become of the work meanwhile.
        let token = hand.token.as_deref().filter(|_| !own);
        match hand.ask_as(Peer::Telemetry, request, token) {
            Ok(answer) if answer.is_success() => {
                let extent = if own { Extent::Standing } else { Extent::Everybody };
                notes.reached(Cell::done("role.evidence", what.clone(), extent), what);
            }
            Ok(answer) => notes.stopped(Some(Control::GuardOut), format!("{what}: {}", answer.status)),
            Err(_) => notes.stopped(Some(Control::GuardOut), format!("{what}: no answer")),
        }
    }
}
