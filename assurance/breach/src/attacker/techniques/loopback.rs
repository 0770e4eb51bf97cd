//! Every port of loopback: neighbours' and the control plane's are on the machine's, and none is on the sandbox's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use super::{Alone, Notes, Row, Run};
use crate::attacker::hand;
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "loopback",
    title: "Connects to every port of loopback, where the ports of roles, guards and the edge are on the machine.",
    attack: "T1046",
    stride: Stride::I,
    controls: &[Control::NetworkNamespace, Control::Mtls],
    run: Run::Alone(run, &[]),
};

fn run(_alone: &Alone<'_>, notes: &mut Notes) {
    let mut known: BTreeSet<u16> = hand::ports().values().map(|port| port.0.port()).collect();
    known.extend(std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()));
    // Whoever tries every port comes upon its own: a connection from a port to itself succeeds, and nobody has answered.
    let answers = |to: SocketAddr| TcpStream::connect(to).is_ok_and(|stream| stream.local_addr().ok() != Some(to));
    let mut own = (1..=u16::MAX).filter(|port| !known.contains(port)).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // Of IPv6 what machines listen on; the rest of that loopback is the same network, or is not.
    let beside = (1..=1024).map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let mut beside = beside.chain([SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 80))]);
    if own.any(answers) || beside.any(answers) {
        notes.reached(Cell::egress(names::LOOPBACK, names::TCP, Extent::Standing), "a port of the machine answers");
    } else {
        notes.stopped(Some(Control::NetworkNamespace), "its own flows, and nothing else");
    }
}
