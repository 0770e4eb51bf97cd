//! The answering side of the filters: init decides what they ask for, and sees what is tried.
//!
//! Without a network namespace it decides each `connect`, `bind` and `listen`. The kernel stops the caller and asks. The address is copied once,
//! compared with the flows, and the call is made here on a duplicate of the caller's socket: what was checked is what is used, however the
//! caller changes its memory or its descriptors meanwhile. A service that binds to every address is bound to loopback.
//!
//! Every other call that is asked for was denied: the answer is an error, never "go on", and who reached for what only attacks use is
//! killed before it returns. (In a trace, calls that another filter has allowed are asked for too, and let pass.)
//!
//! Spec:       `seccomp_unotify(2)`, `pidfd_getfd(2)` (Linux 5.6).
//! Guarantees: I3 by destination, on hosts without user namespaces (I1); I6 a denied call is told.
//! Not here:   which calls are asked for (`seccomp`), when the guard is told (`seen`), who may connect *to* a flow's listener on the host's
//!             loopback.
#![allow(unsafe_code, reason = "the notification ioctls have no safe binding")]

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, getsockname, listen, setsockopt, sockopt};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::calls::{self, Calls};
use crate::profile::{Level, Profile};
use crate::seen::Watched;
use crate::{seccomp, sys};

/// Connections that may wait for a slow listener at the same time; the next ones are refused with EAGAIN.
const CONNECTS_MAX: usize = 64;
const ADDRESS_BYTES_MAX: u64 = 128; // sizeof(struct sockaddr_storage)

/// The answering side.
pub(crate) struct Notifier {
    listener: Arc<OwnedFd>,
    /// Where it may connect and listen, if init decides that.
    broker: Option<Broker>,
    tracing: bool,
    connecting: Arc<AtomicUsize>,
}

struct Broker {
    flows: Vec<u16>,
    port: Option<u16>,
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// What is to be done for the caller.
enum Verdict {
    Connect(OwnedFd, SockaddrStorage),
    Bind(OwnedFd, SockaddrStorage),
    Listen(OwnedFd, Backlog),
    Refuse(i32),
}

impl Notifier {
    pub(crate) fn new(listener: OwnedFd, profile: &Profile, level: Level) -> Self {
        let flows = profile.flows.iter().map(|flow| flow.port).collect();
        let broker = (level == Level::Confined).then_some(Broker { flows, port: profile.port });
        Self { listener: Arc::new(listener), broker, tracing: profile.calls == Calls::Traced, connecting: Arc::default() }
    }

    /// Takes one question and answers it, now or (a connect that must wait) from a thread. What was seen is put into `seen`.
    pub(crate) fn answer_one(&self, seen: &mut Watched) {
        let Ok(question) = receive(&self.listener) else {
            return; // The caller died meanwhile.
        };
        let call = i64::from(question.data.nr);
        match &self.broker {
            Some(broker) if calls::BROKERED.contains(&call) => self.decide(broker, &question, seen),
            _ if self.tracing => {
                seen.traced(call);
                pass(&self.listener, question.id);
            }
            _ => self.deny(&question, seen),
        }
    }

    fn deny(&self, question: &libc::seccomp_notif, seen: &mut Watched) {
        let call = i64::from(question.data.nr);
        let fatal = seccomp::is_fatal(call);
        if fatal && let Ok(pid) = i32::try_from(question.pid) {
            // The caller waits in the kernel and never comes back from this call. A thread's number stands for its process. If this
            // fails, the call is denied all the same.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let [first, second, ..] = question.data.args;
        let what = if call == libc::SYS_socket { calls::socket(first, second) } else { calls::name(call) };
        seen.denied(what, fatal);
        respond(&self.listener, question.id, seccomp::denial(call));
    }

    fn decide(&self, broker: &Broker, question: &libc::seccomp_notif, seen: &mut Watched) {
        let listens = i64::from(question.data.nr) == libc::SYS_listen;
        let judged = if listens { self.judge_listen(broker, question, seen) } else { self.judge(broker, question, seen) };
        match judged.unwrap_or(Verdict::Refuse(libc::EACCES)) {
            Verdict::Refuse(errno) => respond(&self.listener, question.id, errno),
            Verdict::Listen(socket, backlog) => {
                respond(&self.listener, question.id, listen(&socket, backlog).map_or_else(|cause| cause as i32, |()| 0));
            }
            Verdict::Bind(socket, address) => {
                // The port is kept for it by a socket of ours that does not listen (`net::reserve`).
                let result = setsockopt(&socket, sockopt::ReuseAddr, &true).and_then(|()| bind(socket.as_raw_fd(), &address));
                respond(&self.listener, question.id, result.map_or_else(|cause| cause as i32, |()| 0));
            }
            Verdict::Connect(socket, address) => self.connect(question.id, socket, address),
        }
    }

    fn connect(&self, id: u64, socket: OwnedFd, address: SockaddrStorage) {
        if self.connecting.fetch_add(1, Ordering::Relaxed) >= CONNECTS_MAX {
            self.connecting.fetch_sub(1, Ordering::Relaxed);
            return respond(&self.listener, id, libc::EAGAIN);
        }
        let (listener, connecting) = (Arc::clone(&self.listener), Arc::clone(&self.connecting));
        let work = move || {
            let result = connect(socket.as_raw_fd(), &address);
            respond(&listener, id, result.map_or_else(|cause| cause as i32, |()| 0));
            connecting.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().stack_size(64 * 1024).spawn(work).is_err() {
            self.connecting.fetch_sub(1, Ordering::Relaxed);
            respond(&self.listener, id, libc::EAGAIN);
        }
    }

    /// Only what was bound to the service's own port listens: the kernel gives any other socket a port at every address.
    fn judge_listen(&self, broker: &Broker, question: &libc::seccomp_notif, seen: &mut Watched) -> io::Result<Verdict> {
        let [fd, backlog, ..] = question.data.args;
        let socket = take_socket(question.pid, RawFd::try_from(fd).map_err(io::Error::other)?)?;
        if !still_asking(&self.listener, question.id) {
            return Err(io::Error::other("the caller is gone; its number may be another's"));
        }
        // A socket keeps the address that it is bound to.
        let bound = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|at| internet(&at));
        let allowed = bound.is_some_and(|at| broker.port == Some(at.port()) && is_loopback(at.ip()));
        if !allowed {
            let at = bound.map_or_else(|| "elsewhere".to_owned(), |at| at.to_string());
            seen.denied(format!("listen {at}"), false);
            return Ok(Verdict::Refuse(libc::EACCES));
        }
        // As the kernel reads it: what is less than nought or too much is the most there is.
        let wanted = u32::try_from(backlog & u64::from(u32::MAX)).unwrap_or(u32::MAX).cast_signed();
        Ok(Verdict::Listen(socket, Backlog::new(wanted).unwrap_or(Backlog::MAXCONN)))
    }

    fn judge(&self, broker: &Broker, question: &libc::seccomp_notif, seen: &mut Watched) -> io::Result<Verdict> {
        let [fd, pointer, length, ..] = question.data.args;
        let address = read_address(question.pid, pointer, length)?;
        let Some(address) = address else { return Ok(Verdict::Refuse(libc::EAFNOSUPPORT)) };
        let is_bind = libc::c_long::from(question.data.nr) == libc::SYS_bind;
        let allowed = if is_bind {
            broker.port == Some(address.port()) && (is_loopback(address.ip()) || address.ip().is_unspecified())
        } else {
            broker.flows.contains(&address.port()) && is_loopback(address.ip())
        };
        if !allowed {
            seen.denied(format!("{} {address}", if is_bind { "bind" } else { "connect" }), false);
            return Ok(Verdict::Refuse(libc::EACCES));
        }
        let socket = take_socket(question.pid, RawFd::try_from(fd).map_err(io::Error::other)?)?;
        if !still_asking(&self.listener, question.id) {
            return Err(io::Error::other("the caller is gone; its number may be another's"));
        }
        // In the caller's own family: an IPv6 socket takes the mapped form.
        let to = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
            SocketAddr::V6(_) => SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port())),
        };
        let to = SockaddrStorage::from(to);
        Ok(if is_bind { Verdict::Bind(socket, to) } else { Verdict::Connect(socket, to) })
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip.to_ipv4_mapped() == Some(Ipv4Addr::LOCALHOST),
    }
}

fn internet(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|at| SocketAddr::from((at.ip(), at.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|at| SocketAddr::from((at.ip(), at.port()))))
}

/// Copies the address out of the caller, once. `None`: neither IPv4 nor IPv6.
fn read_address(pid: u32, pointer: u64, length: u64) -> io::Result<Option<SocketAddr>> {
    let length = usize::try_from(length.min(ADDRESS_BYTES_MAX)).map_err(io::Error::other)?;
    let base = usize::try_from(pointer).map_err(io::Error::other)?;
    let mut bytes = vec![0_u8; length];
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base, len: length }])?;
    let bytes = bytes.get(..read).unwrap_or_default();
    Ok(parse_address(bytes))
}

/// `struct sockaddr_in` and `sockaddr_in6`.
fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let (ip, _) = rest.split_first_chunk::<4>()?;
            Some(SocketAddr::new(Ipv4Addr::from(*ip).into(), port))
        }
        libc::AF_INET6 => {
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, _) = rest.split_first_chunk::<16>()?;
            Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port))
        }
        _ => None,
    }
}

/// A duplicate of the caller's socket. The notification names a thread; descriptors are asked of its process.
fn take_socket(pid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(str::trim);
    let process: libc::pid_t = process.and_then(|it| it.parse().ok()).ok_or_else(|| io::Error::other("no Tgid"))?;
    let call = |result: libc::c_long| {
        if result < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(result).map(sys::own_fd).map_err(io::Error::other) }
    };
    // SAFETY: numbers only; both calls return a new descriptor or an error.
    let pidfd = call(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: as above.
    call(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

fn receive(listener: &OwnedFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all zero is a valid value, and the one that the kernel demands.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is this ioctl's type and lives through the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, std::ptr::from_mut(&mut question)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(question) }
}

fn still_asking(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the kernel reads one u64, which lives through the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, std::ptr::from_ref(&id)) == 0 }
}

/// Answers with an error number, or success for 0.
fn respond(listener: &OwnedFd, id: u64, errno: i32) {
    send(listener, &libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 });
}

/// Lets the kernel make the call: in a trace alone, where another filter has decided already.
fn pass(listener: &OwnedFd, id: u64) {
    const CONTINUE: u32 = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    send(listener, &libc::seccomp_notif_resp { id, val: 0, error: 0, flags: CONTINUE });
}

fn send(listener: &OwnedFd, answer: &libc::seccomp_notif_resp) {
    // SAFETY: the struct is this ioctl's type and lives through the call. It fails if the caller is gone: then nobody waits.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, std::ptr::from_ref(answer)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_internet_addresses_are_parsed() {
        // I3
        let mut v4 = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        v4.extend([0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(parse_address(&v4), Some("127.0.0.1:8080".parse().unwrap_or_else(|_| unreachable!())));
        assert_eq!(parse_address(v4.get(..7).unwrap_or_default()), None);
        let mut unix = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        unix.extend(b"/run/docker.sock");
        assert_eq!(parse_address(&unix), None);
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
        assert!(!is_loopback("::1".parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))));
        assert!(!is_loopback(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))));
    }
}
