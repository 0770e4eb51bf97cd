//! UNIX sockets of the control plane and of the machine, by path and by abstract name.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use super::{Alone, Notes, Row, Run, refusal};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "sockets",
    title: "Connects to UNIX sockets: those of operators and guards, the machine's, and abstract ones.",
    attack: "T1559",
    stride: Stride::E,
    controls: &[Control::MountNamespace, Control::Landlock, Control::Seccomp, Control::NetworkNamespace, Control::FileModes],
    run: Run::Alone(run, &["socket"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let usual = ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"];
    for path in alone.script.targets.sockets.iter().map(String::as_str).chain(usual) {
        match UnixStream::connect(path) {
            Ok(_) => notes
                .reached(Cell::done(names::SOCKETS, names::CONNECT, Extent::Everybody), "a socket of an operator or the machine answers"),
            Err(error) => {
                let (by, seen) = refusal(&error);
                notes.stopped(by, seen);
            }
        }
    }
    let name = SocketAddr::from_abstract_name(&alone.script.targets.abstract_name);
    match name.and_then(|name| UnixStream::connect_addr(&name)) {
        Ok(_) => notes.reached(Cell::done(names::SOCKETS, names::CONNECT, Extent::Everybody), "an abstract socket of the machine answers"),
        Err(_) => notes.stopped(None, "abstract: refused"),
    }
}
