//! The outer network: where a whole system is attacked, so that no packet can leave the machine whatever is switched off.
//!
//! A network namespace with loopback alone, mounts of its own (what an attack mounts where nothing stands against it is nowhere else), and
//! on the network the addresses that a test puts up itself: a metadata service, a neighbour, "the
//! internet". Nothing leads out of it; there is no route, no device and no way to make one that ends outside.
//!
//! Spec:       `network_namespaces(7)`, `mount_namespaces(7)`, `user_namespaces(7)`.
//! Guarantees: L8 an attack stays inside; entering is the first thing that happens, and failing to is a refusal.
//! Not here:   who listens on these addresses.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{getegid, geteuid};

use crate::{net, sys};

/// Enters a network namespace of its own, with loopback up and `addresses` on it, and a mount namespace of its own. As an unprivileged user it enters a user namespace as
/// well, in which it stays who it was. To be called while this process has one thread.
///
/// # Errors
/// The kernel grants no namespaces here (then nothing was entered, or what was entered leads nowhere); an address cannot be put up.
pub fn enter(addresses: &[Ipv4Addr]) -> io::Result<()> {
    if sys::threads() > 1 {
        return Err(io::Error::other("only a process with one thread can enter a namespace"));
    }
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    net::loopback_up()?;
    let ioctl = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    for (number, address) in addresses.iter().enumerate() {
        let alias = CString::new(format!("lo:{number}")).map_err(io::Error::other)?;
        sys::interface_address(ioctl.as_fd(), &alias, *address)?;
    }
    if is_closed()? { Ok(()) } else { Err(io::Error::other("this network namespace has more than loopback in it")) }
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
