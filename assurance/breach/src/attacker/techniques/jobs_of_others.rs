//! Jobs and leases that are not its own.

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "jobs-of-others",
    title: "Takes, extends, ends and inspects deliveries of others.",
    attack: "T1078",
    stride: Stride::E,
    controls: &[Control::Policy, Control::GuardOut, Control::Lease],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    // Its own queue gives it work, one job at a time: that is no other's.
    for queue in hand.script.queues.keys().filter(|queue| !hand.part.consumes.contains(*queue)) {
        let lease = Request::new("POST", format!("/queues/{queue}/lease")).body("application/json", "{}");
        judged(notes, hand.ask(Peer::Queue, lease), Cell::read(format!("queue.{queue}"), Extent::Everybody), "take a delivery");
    }
    for (method, path, what) in [
        ("GET", "/leases/1", "inspect a lease"),
        ("POST", "/leases/1/extend", "extend a lease"),
        ("POST", "/leases/1/ack", "end a delivery"),
        ("POST", "/leases/1/nack", "give a delivery back"),
        ("GET", "/queues", "figures of all queues"),
    ] {
        let request = Request::new(method, path);
        let request = if method == "POST" { request.body("application/json", "{}") } else { request };
        judged(notes, hand.ask(Peer::Queue, request), Cell::done("role.queue", what, Extent::Everybody), what);
    }
}
