//! Destinations without a network namespace: init decides each `connect` and `bind`, and does it itself.
//!
//! The kernel stops the caller and asks. The address is copied once, compared with the flows, and the call is made here
//! on a duplicate of the caller's socket: what was checked is what is used, however the caller changes its memory or its
//! descriptors meanwhile. A service that binds to every address is bound to loopback.
//!
//! Spec:       `seccomp_unotify(2)`, `pidfd_getfd(2)` (Linux 5.6).
//! Guarantees: I3 by destination, on hosts without user namespaces (I1).
//! Not here:   who may connect *to* a flow's listener on the host's loopback; the guard must tell its own service from
//!             others there.
#![allow(unsafe_code, reason = "the notification ioctls have no safe binding")]

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::socket::{SockaddrStorage, bind, connect};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::profile::Profile;
use crate::sys;

/// Connections that may wait for a slow listener at the same time; the next ones are refused with EAGAIN.
const CONNECTS_MAX: usize = 64;
const ADDRESS_BYTES_MAX: u64 = 128; // sizeof(struct sockaddr_storage)

/// Installs the filter that asks for `connect` and `bind`, and returns the descriptor to answer at.
pub(crate) fn install() -> io::Result<OwnedFd> {
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset }; // BPF_LD | BPF_W | BPF_ABS
    let equal = |value: u32, jt: u8, jf: u8| libc::sock_filter { code: 0x15, jt, jf, k: value }; // BPF_JMP | BPF_JEQ | BPF_K
    let answer = |value: u32| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value }; // BPF_RET | BPF_K
    let call = |number: libc::c_long| u32::try_from(number).map_err(io::Error::other);
    let program = [
        load(4), // seccomp_data.arch
        equal(AUDIT_ARCH, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(0), // seccomp_data.nr
        equal(call(libc::SYS_connect)?, 2, 0),
        equal(call(libc::SYS_bind)?, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_USER_NOTIF),
    ];
    sys::install_filter(&program, true)?.ok_or_else(|| io::Error::other("no listener"))
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// The answering side.
pub(crate) struct Notifier {
    listener: Arc<OwnedFd>,
    flows: Vec<u16>,
    port: Option<u16>,
    connecting: Arc<AtomicUsize>,
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
    Refuse(i32),
}

impl Notifier {
    pub(crate) fn new(listener: OwnedFd, profile: &Profile) -> Self {
        let flows = profile.flows.iter().map(|flow| flow.port).collect();
        Self { listener: Arc::new(listener), flows, port: profile.port, connecting: Arc::default() }
    }

    /// Takes one question and answers it, now or (a connect that must wait) from a thread.
    pub(crate) fn answer_one(&self) {
        let Ok(question) = receive(&self.listener) else {
            return; // The caller died meanwhile.
        };
        match self.judge(&question).unwrap_or(Verdict::Refuse(libc::EACCES)) {
            Verdict::Refuse(errno) => respond(&self.listener, question.id, errno),
            Verdict::Bind(socket, address) => {
                let result = bind(socket.as_raw_fd(), &address);
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

    fn judge(&self, question: &libc::seccomp_notif) -> io::Result<Verdict> {
        let [fd, pointer, length, ..] = question.data.args;
        let address = read_address(question.pid, pointer, length)?;
        let Some(address) = address else { return Ok(Verdict::Refuse(libc::EAFNOSUPPORT)) };
        let is_bind = libc::c_long::from(question.data.nr) == libc::SYS_bind;
        let allowed = if is_bind {
            self.port == Some(address.port()) && (is_loopback(address.ip()) || address.ip().is_unspecified())
        } else {
            self.flows.contains(&address.port()) && is_loopback(address.ip())
        };
        if !allowed {
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
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the struct is this ioctl's type and lives through the call. It fails if the caller is gone: then nobody waits.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, std::ptr::from_ref(&answer)) };
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
