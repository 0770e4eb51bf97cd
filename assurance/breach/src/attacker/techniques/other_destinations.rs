//! Destinations that are not declared, asked of the socket of one that is.
//!
//! Guarantees: D10 measured, L13.

use manifest::Flow;

use super::own_work::outside;
use super::{Act, Hand, Notes, Row, Run};
use crate::attacker::hand::Peer;
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "other-destinations",
    title: "Asks its guard for hosts outside that no flow names, at the socket of a destination that one does.",
    attack: "T1048",
    stride: Stride::I,
    controls: &[Control::EgressList],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    for flow in &hand.part.flows {
        let Flow::Egress { destination, method, path, .. } = flow else { continue };
        for host in &hand.script.targets.hosts {
            for port in &hand.script.targets.ports {
                // Who comes there is seen there: the answer tells nothing of where it was asked for.
                let request = outside(method, path).with("host", format!("{host}:{port}"));
                match hand.ask(Peer::Named(destination), request) {
                    Ok(answer) => notes.stopped(Some(Control::EgressList), format!("another host: {}", answer.status)),
                    Err(_) => notes.stopped(Some(Control::EgressList), "another host: no answer"),
                }
            }
        }
    }
}
