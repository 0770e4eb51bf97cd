//! The outer network: where a whole system is attacked, so that no packet can leave the machine whatever is switched off.
//!
//! A network namespace with loopback alone, and on it the addresses that a test puts up itself: a metadata service, a neighbour, "the
//! internet". Nothing leads out of it; there is no route, no device and no way to make one that ends outside. With it go mounts, processes,
//! IPC and host name: what an attack mounts, signals or leaves running where nothing stands against it is nowhere else, and is gone with
//! the first process in there.
//!
//! Spec:       `network_namespaces(7)`, `mount_namespaces(7)`, `pid_namespaces(7)`, `user_namespaces(7)`.
//! Guarantees: L8 an attack stays inside; entering is the first thing that happens, and failing to is a refusal.
//! Not here:   who listens on these addresses.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, pipe2};

use crate::{net, sys};

/// Whether those inside may have user namespaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// As the machine has it.
    Granted,
    /// The kernel refuses them in there, and nowhere else.
    Refused,
}

/// Enters namespaces of its own: a network with loopback up and these addresses on it (of IPv6 where the kernel has that), mounts with a
/// `/proc` of its own, processes, IPC and host name; as an unprivileged user a user namespace as well, in which it stays who it was. To be
/// called while this process has one thread.
///
/// It returns in another process, the second one in there. This one waits for that one's end, and ends with its code; when it is killed,
/// or its parent is, the first process in there is killed with it, and with that one everything that was ever started in there.
///
/// # Errors
/// The kernel grants no namespaces here (then nothing was entered, or what was entered leads nowhere); an address cannot be put up; root
/// wants user namespaces refused, which would be so for the whole machine.
pub fn enter(addresses: &[Ipv4Addr], addresses_6: &[Ipv6Addr], inner: Inner) -> io::Result<()> {
    if sys::threads() > 1 {
        return Err(io::Error::other("only a process with one thread can enter a namespace"));
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let (user, group) = (geteuid(), getegid());
    let mut all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    all |= CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let refused = |error: nix::Error| io::Error::other(format!("{error}; allow user namespaces (user.max_user_namespaces) or run as root"));
    if user.is_root() {
        if inner == Inner::Refused {
            return Err(io::Error::other("root shares the machine's user namespace; run this as a user without rights"));
        }
        unshare(all).map_err(refused)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | all).map_err(refused)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        if inner == Inner::Refused {
            // A limit of the namespace that this process is in, and of those below (`namespaces(7)`, "The /proc/sys/user directory").
            std::fs::write("/proc/sys/user/max_user_namespaces", "0")?;
        }
    }
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    become_the_second_process()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, nothing).map_err(|error| {
        io::Error::other(format!("{error} for a /proc of its own; where a container's /proc is masked in part, give it a whole one"))
    })?;
    net::loopback_up()?;
    let ioctl = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    for (number, address) in addresses.iter().enumerate() {
        let alias = CString::new(format!("lo:{number}")).map_err(io::Error::other)?;
        sys::interface_address(ioctl.as_fd(), &alias, *address)?;
    }
    // A kernel without IPv6 has none of these, and nothing can be reached by them either.
    if let Ok(ioctl) = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
        let loopback = nix::net::if_::if_nametoindex("lo")?;
        for address in addresses_6 {
            match sys::interface_address_6(ioctl.as_fd(), loopback, *address) {
                // Switched off by `net.ipv6.conf.*.disable_ipv6`.
                Err(error) if error.raw_os_error() == Some(nix::Error::EACCES as i32) => {}
                done => {
                    done?;
                    wait_for(*address)?;
                }
            }
        }
    }
    if is_closed()? { Ok(()) } else { Err(io::Error::other("this network namespace has more than loopback in it")) }
}

/// How often an address is looked at until it is nobody's but ours.
const LOOKS_MAX: u32 = 500;
/// Between two looks.
const LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// Waits until an address of IPv6 can be used: the kernel looks for others who have it (RFC 4862, section 5.4), some moments later.
fn wait_for(address: Ipv6Addr) -> io::Result<()> {
    for _ in 0..LOOKS_MAX {
        if std::net::UdpSocket::bind((address, 0)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Err(io::Error::other(format!("the address {address} stays tentative")))
}

/// Forks twice. The first of the new PID namespace only reaps: when it ends, the kernel ends everything in there.
fn become_the_second_process() -> io::Result<()> {
    let (alive_read, alive_write) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(first) = sys::fork()? {
        drop(alive_read);
        let code = end_of(first, false);
        drop(alive_write);
        sys::exit_now(code);
    }
    drop(alive_write);
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut fds = [PollFd::new(alive_read.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    if fds.iter().any(|fd| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))) {
        return Err(io::Error::other("the process that broke in has ended"));
    }
    if let Some(second) = sys::fork()? {
        // What is asked to end is the second; this one ends after it.
        sys::exit_now(end_of(second, true));
    }
    Ok(())
}

/// Waits for the end of `child`, reaping whatever else ends, and gives its code.
fn end_of(child: Pid, reaps: bool) -> i32 {
    loop {
        match waitpid(if reaps { None } else { Some(child) }, None) {
            Ok(WaitStatus::Exited(ended, code)) if ended == child => return code,
            Ok(WaitStatus::Signaled(ended, ..)) if ended == child => return 1,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Whether the network that this process is in has loopback and nothing else.
///
/// # Errors
/// It cannot be found out: to be taken for no.
pub fn is_closed() -> io::Result<bool> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let mut names = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    names.retain(|c| c != ' ');
    let devices = names.lines().skip(2).filter_map(|line| line.split_once(':')).filter(|(name, _)| *name != "lo").count();
    let elsewhere = interfaces.filter(|it| it.interface_name != "lo" && !it.interface_name.starts_with("lo:")).count();
    Ok(devices == 0 && elsewhere == 0)
}
