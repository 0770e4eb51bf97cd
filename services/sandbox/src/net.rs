//! The network inside: loopback, one listener for each flow, and inbound connections made from inside.
//!
//! Guarantees: I3 a destination that is not declared does not exist.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, setsockopt, socket, sockopt,
};

use crate::profile::Flow;
use crate::sys;

/// Brings `lo` up; it has 127.0.0.1 by itself.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sys::interface_up(socket.as_fd(), c"lo")
}

/// One listening socket for each flow, in order, with its port.
pub(crate) fn listeners(flows: &[Flow]) -> io::Result<Vec<(OwnedFd, u16)>> {
    flows
        .iter()
        .map(|flow| {
            let fd = tcp_socket(SockFlag::empty())?;
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address(flow.port))
                .map_err(|cause| io::Error::other(format!("flow {}, 127.0.0.1:{}: {cause}", flow.name, flow.port)))?;
            listen(&fd, Backlog::new(1024)?)?;
            let port = port_of(&fd)?;
            Ok((fd, port))
        })
        .collect()
}

/// Takes a free port and keeps it: nobody else is given it while the socket is there, and who is meant to may still listen on it.
pub(crate) fn reserve() -> io::Result<(OwnedFd, u16)> {
    let fd = tcp_socket(SockFlag::empty())?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address(0))?;
    let port = port_of(&fd)?;
    Ok((fd, port))
}

fn port_of(fd: &OwnedFd) -> io::Result<u16> {
    Ok(getsockname::<SockaddrIn>(std::os::fd::AsRawFd::as_raw_fd(fd))?.port())
}

/// What a connection attempt came to.
pub(crate) enum Attempt {
    Connected(OwnedFd),
    /// Not yet: the service does not listen, or its backlog is full.
    Refused,
    Pending(OwnedFd),
}

/// Tries to connect to the service, without waiting.
pub(crate) fn try_connect(port: u16) -> io::Result<Attempt> {
    let fd = tcp_socket(SockFlag::SOCK_NONBLOCK)?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address(port)) {
        Ok(()) => Ok(Attempt::Connected(fd)),
        Err(Errno::ECONNREFUSED) => Ok(Attempt::Refused),
        Err(Errno::EINPROGRESS) => Ok(Attempt::Pending(fd)),
        Err(cause) => Err(cause.into()),
    }
}

/// Whether a pending connection is there now.
pub(crate) fn try_finish(fd: OwnedFd) -> io::Result<Attempt> {
    match nix::sys::socket::getpeername::<SockaddrIn>(std::os::fd::AsRawFd::as_raw_fd(&fd)) {
        Ok(_) => Ok(Attempt::Connected(fd)),
        Err(_) => match sys::socket_error(&fd)? {
            0 => Ok(Attempt::Pending(fd)),
            _ => Ok(Attempt::Refused),
        },
    }
}

fn tcp_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)?)
}

fn address(port: u16) -> SockaddrIn {
    SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}
