//! Queues that it does not publish to.

use manifest::Flow;

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "queues-of-others",
    title: "Publishes to queues that it has no flow to, about its own work and about others'.",
    attack: "T1199",
    stride: Stride::T,
    controls: &[Control::Policy, Control::GuardOut, Control::JobToken],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    for queue in hand.script.queues.keys() {
        if hand.flows().any(|flow| matches!(flow, Flow::Publish { queue: own, .. } if own == queue)) {
            continue;
        }
        let answer = hand.ask(Peer::Queue, hand.event(queue, "stray"));
        judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::InFlight), "publish");
    }
}
