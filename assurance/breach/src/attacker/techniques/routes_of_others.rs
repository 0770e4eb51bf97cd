//! Every route of every other service, by every flow that there is.

use std::io;

use manifest::Protocol;

use super::{Act, Hand, Notes, Row, Run};
use crate::attacker::hand::{self, HOPS_MAX};
use crate::attacker::http::{Answer, Ask, Port, Request};
use crate::attacker::script::filled;
use crate::attacker::{grpc, raw};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "routes-of-others",
    title: "Calls every route of every other service, by every flow, under the names of others, as HTTP and as what the service speaks.",
    attack: "T1021",
    stride: Stride::E,
    controls: &[Control::NetworkNamespace, Control::GuardOut, Control::GuardIn, Control::Mtls],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let mark = hand.mark.to_string();
    for (service, part) in hand.script.services.iter().filter(|(name, _)| *name != hand.service) {
        for route in &part.routes {
            let target = format!("{}?breach={mark}&hops={HOPS_MAX}", filled(&route.path, &mark));
            for (variable, port) in hand::ports() {
                let mut request = Request::new(&route.method, target.clone()).with("host", format!("{service}.internal"));
                if let Some(token) = &hand.token {
                    request = request.with("txn-token", token.clone());
                }
                if route.method != "GET" {
                    request = request.body("application/json", hand.words(HOPS_MAX));
                }
                // Only the service itself says its name.
                let said = format!("\"breach_service\":\"{service}\"");
                for answer in ways(part.protocol, port, &request) {
                    match answer {
                        Ok(answer) if answer.text().contains(&said) => notes.answered(service, &format!("{} {}", route.method, route.path)),
                        Ok(_) if route.method == raw::METHOD => notes.stopped(None, "not its answer"),
                        Ok(answer) => notes.stopped(None, answer.status.to_string()),
                        Err(_) => notes.stopped(Some(Control::NetworkNamespace), format!("{variable}: no answer")),
                    }
                }
            }
        }
    }
}

/// What a port answers in each way that the service could be spoken to.
fn ways(protocol: Protocol, port: Port, request: &Request) -> Vec<io::Result<Answer>> {
    match protocol {
        Protocol::Http => vec![port.ask(request)],
        Protocol::Grpc => vec![port.ask(request), grpc::ask(port.0, request)],
        Protocol::Tcp => vec![raw::ask(port, &request.body)],
    }
}
