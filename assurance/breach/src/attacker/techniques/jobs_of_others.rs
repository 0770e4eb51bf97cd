//! Jobs that are not its own. Leases that others hold are tried by `leases`, by their names.

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "jobs-of-others",
    title: "Takes deliveries of others' queues, and looks at what waits in them.",
    attack: "T1078",
    stride: Stride::E,
    controls: &[Control::Policy, Control::GuardOut],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    // Its own queue gives it work, one job at a time: that is no other's.
    for queue in hand.script.queues.keys().filter(|queue| !hand.part.consumes.contains(*queue)) {
        let lease = Request::new("POST", format!("/queues/{queue}/lease")).body("application/json", "{}");
        judged(notes, hand.ask(Peer::Queue, lease), Cell::read(format!("queue.{queue}"), Extent::Everybody), "take a delivery");
    }
    let what = "figures of all queues";
    judged(notes, hand.ask(Peer::Queue, Request::new("GET", "/queues")), Cell::done("role.queue", what, Extent::Everybody), what);
}
