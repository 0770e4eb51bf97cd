//! Other kinds of sockets than TCP.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "families",
    title: "Opens raw, packet, netlink, datagram and virtual-machine sockets.",
    attack: "T1095",
    stride: Stride::E,
    controls: &[Control::Seccomp, Control::NetworkNamespace],
    run: Run::Alone(run, &["socket", "sendto"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(
        alone,
        notes,
        &[
            "socket udp4",
            "socket udp6",
            "socket raw4",
            "socket packet",
            "socket netlink",
            "socket vsock",
            "socket alg",
            "socket key",
            "socket xdp",
            "socket sctp",
            "socket mptcp",
            "tcp fast open",
        ],
    );
}
