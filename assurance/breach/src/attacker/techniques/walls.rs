//! Walls: whether each wall of its own sandbox stands, looked at by itself and not by what lies behind it.
//!
//! Guarantees: L13: a wall that is missing is found though another still stops what is tried.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use super::{Alone, Row, Run};
use crate::absent::WALL;
use crate::attacker::http::Port;
use crate::attacker::{Notes, hand};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "walls",
    title: "Looks whether each wall of its own sandbox stands.",
    attack: "T1613",
    stride: Stride::E,
    controls: &[Control::Seccomp, Control::Landlock, Control::MountNamespace, Control::NetworkNamespace],
    run: Run::Alone(run, &["socket"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    // A family of sockets that every user may have, and no filter of ours lets through.
    const FAMILY: &str = "socket netlink";
    let filtered = alone.fates(&[FAMILY]).get(FAMILY).map(|fate| fate != "done");
    note(notes, Control::Seccomp, filtered, "netlink");
    // The root is there for everybody to open, but no rule names it.
    note(notes, Control::Landlock, Some(std::fs::File::open("/").is_err()), "the root opens");
    if !alone.is_full() {
        return;
    }
    // Rules about files do not keep anybody from asking whether there is one.
    let outside = alone.script.targets.files.first();
    note(notes, Control::MountNamespace, outside.map(|path| Path::new(path).symlink_metadata().is_err()), "a file of the machine");
    // By the one call that every list has: there is nobody who would let it wait.
    // To the port of a flow, which no rule about ports forbids: where the address is of this network, the kernel itself refuses.
    let ports = hand::ports();
    let at = |port: &Port| SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), port.0.port()));
    let refused = ports.values().next().map(|port| match TcpStream::connect(at(port)) {
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
    });
    note(notes, Control::NetworkNamespace, refused, "an address of the machine");
}

fn note(notes: &mut Notes, wall: Control, stands: Option<bool>, by: &str) {
    match stands {
        Some(true) => notes.stopped(Some(wall), format!("{wall} stands: {by}")),
        Some(false) => notes.reached(Cell::done(format!("{WALL}{wall}"), "missing", Extent::Standing), format!("{wall} is missing: {by}")),
        None => notes.untried(format!("nothing tells whether {wall} stands")),
    }
}
