//! Every route of every other service, by every flow that there is.

use super::{Act, Hand, Notes, Row, Run};
use crate::attacker::hand::{self, HOPS_MAX};
use crate::attacker::http::{Ask, Request};
use crate::attacker::script::filled;
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "routes-of-others",
    title: "Calls every route of every other service, by every flow, under the names of others.",
    attack: "T1021",
    stride: Stride::E,
    controls: &[Control::NetworkNamespace, Control::GuardOut, Control::GuardIn, Control::Mtls],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let mark = hand.mark.to_string();
    for (service, part) in hand.script.services.iter().filter(|(name, _)| *name != hand.service) {
        for route in part.routes.iter().filter(|route| route.method != "TCP") {
            let target = format!("{}?breach={mark}&hops={HOPS_MAX}", filled(&route.path, &mark));
            for (variable, port) in hand::ports() {
                let mut request = Request::new(&route.method, target.clone()).with("host", format!("{service}.internal"));
                if let Some(token) = &hand.token {
                    request = request.with("txn-token", token.clone());
                }
                if route.method != "GET" {
                    request = request.body("application/json", "{}");
                }
                // Only the service itself says its name.
                let said = format!("\"breach_service\":\"{service}\"");
                match port.ask(&request) {
                    Ok(answer) if answer.text().contains(&said) => notes.answered(service, &format!("{} {}", route.method, route.path)),
                    Ok(answer) => notes.stopped(None, answer.status.to_string()),
                    Err(_) => notes.stopped(Some(Control::NetworkNamespace), format!("{variable}: no answer")),
                }
            }
        }
    }
}
