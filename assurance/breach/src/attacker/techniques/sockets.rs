//! UNIX sockets of the control plane and of the machine, by path and by abstract name.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use super::{Alone, Notes, Row, Run, fated_as, refusal};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "sockets",
    title: "Connects and sends to UNIX sockets of operators, guards and the machine, and listens where nobody let it.",
    attack: "T1559",
    stride: Stride::E,
    controls: &[Control::MountNamespace, Control::Landlock, Control::Seccomp, Control::NetworkNamespace, Control::FileModes],
    run: Run::Alone(run, &["socket", "socketpair", "listen"]),
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
    // A pair that was born connected sends to any name, where the names can be seen; what is there and takes no datagrams says so.
    const PROTOTYPE: i32 = 91;
    match UnixDatagram::pair() {
        Err(error) => {
            let (by, seen) = refusal(&error);
            notes.stopped(by, format!("a pair of datagrams: {seen}"));
        }
        Ok((pair, _other)) => {
            let loggers = ["/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/notify"];
            for path in alone.script.targets.sockets.iter().map(String::as_str).chain(loggers) {
                match pair.send_to(b"breach", path) {
                    Err(error) if error.raw_os_error() != Some(PROTOTYPE) => {
                        let (by, seen) = refusal(&error);
                        notes.stopped(by, format!("a datagram: {seen}"));
                    }
                    _ => {
                        let what = "a datagram finds a socket of an operator or the machine";
                        notes.reached(Cell::done(names::SOCKETS, "send", Extent::Everybody), what);
                    }
                }
            }
        }
    }
    // In a network of its own it may listen wherever it likes: nobody else is there.
    if !alone.is_full() {
        fated_as(alone, notes, &["listen at every address"], &|_| Cell::done("machine.ports", "listen", Extent::Standing));
    }
    let name = SocketAddr::from_abstract_name(&alone.script.targets.abstract_name);
    match name.and_then(|name| UnixStream::connect_addr(&name)) {
        Ok(_) => notes.reached(Cell::done(names::SOCKETS, names::CONNECT, Extent::Everybody), "an abstract socket of the machine answers"),
        Err(_) => notes.stopped(None, "abstract: refused"),
    }
}
