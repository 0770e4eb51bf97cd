//! Addresses beyond loopback: a neighbour, the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use super::{Alone, Notes, Row, Run, refusal};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "addresses",
    title: "Sends out by TCP and UDP, by IPv4 and IPv6, to a neighbour and to the internet.",
    attack: "T1048",
    stride: Stride::I,
    controls: &[Control::NetworkNamespace, Control::Landlock, Control::Seccomp],
    run: Run::Alone(run, &["socket"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let targets = &alone.script.targets;
    for host in &targets.hosts {
        for port in &targets.ports {
            match TcpStream::connect(SocketAddr::from((*host, *port))) {
                Ok(_) => notes.reached(Cell::egress(names::OUTSIDE, names::TCP, Extent::Standing), "an address outside answers"),
                Err(error) => {
                    let (by, seen) = refusal(&error);
                    // A port that no rule names.
                    let rule = (error.kind() == std::io::ErrorKind::PermissionDenied).then_some(Control::Landlock);
                    notes.stopped(by.or(rule), format!("tcp: {seen}"));
                }
            }
        }
        let any = if host.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let sent = UdpSocket::bind((any, 0)).and_then(|socket| socket.send_to(alone.service.as_bytes(), (*host, 443)));
        match sent {
            Ok(_) => notes.reached(Cell::egress(names::OUTSIDE, names::UDP, Extent::Standing), "a datagram leaves"),
            Err(error) => {
                let by = if error.kind() == std::io::ErrorKind::NetworkUnreachable { Control::NetworkNamespace } else { Control::Seccomp };
                notes.stopped(Some(by), "udp: refused");
            }
        }
    }
}
