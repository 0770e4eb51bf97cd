//! System calls and socket families that only an escape needs, each tried in a child of its own, with what it takes to work: where nothing
//! stands against it, and the kernel has it, the answer is `done`.
//!
//! Not here: what the answers should be.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use super::{FILTER, fate, parent};
use crate::sys::raw_call;

/// Tries those that are wanted.
pub(super) fn try_those(wanted: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut fates = BTreeMap::new();
    let sockets: &[(&str, i32, i32, i32)] = &[
        ("tcp4", libc::AF_INET, libc::SOCK_STREAM, 0),
        ("tcp6", libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, libc::IPPROTO_TCP),
        ("udp4", libc::AF_INET, libc::SOCK_DGRAM, 0),
        ("udp6", libc::AF_INET6, libc::SOCK_DGRAM, 0),
        ("raw4", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        ("ping4", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        ("sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        ("mptcp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
        ("netlink", libc::AF_NETLINK, libc::SOCK_RAW, 0),
        ("unix stream", libc::AF_UNIX, libc::SOCK_STREAM, 0),
        ("unix datagram", libc::AF_UNIX, libc::SOCK_DGRAM, 0),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("key", libc::AF_KEY, libc::SOCK_RAW, 2),
        ("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
        ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
    ];
    for (name, family, kind, protocol) in sockets {
        let (name, act) =
            (format!("socket {name}"), || raw_call(libc::SYS_socket, [(*family).into(), (*kind).into(), (*protocol).into(), 0, 0, 0]));
        if wanted(&name) {
            fates.insert(name, fate(act));
        }
    }
    let new = |flag: i32| -> [libc::c_long; 6] { [libc::c_long::from(flag), 0, 0, 0, 0, 0] };
    let none = [0; 6];
    let own = libc::c_long::from(std::process::id());
    let here = |value: *const u8| value as libc::c_long;
    // `struct io_uring_params`; `union bpf_attr`, an array of one element; `struct perf_event_attr`, a counter of software that counts
    // nothing, of this process and not in the kernel.
    let ring = [0_u64; 15];
    let map = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let event = [1_u64 | (128 << 32), 9, 0, 0, 0, 0x61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A filter that lets everything through: who may install that may install another.
    let mut pass = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let filter = libc::sock_fprog { len: 1, filter: std::ptr::from_mut(&mut pass) };
    let filter = here(std::ptr::from_ref(&filter).cast());
    let (kind, words) = (c"user".as_ptr().cast::<u8>(), c"breach".as_ptr().cast::<u8>());
    let (process_keyring, session_keyring) = (-2, -3);
    let network = std::fs::File::open("/proc/self/ns/net");
    let network = network.as_ref().map_or(-1, |file| libc::c_long::from(file.as_raw_fd()));
    let calls: &[(&str, libc::c_long, [libc::c_long; 6])] = &[
        // To seize is to attach without stopping: where nothing forbids it, who tries must go on.
        ("ptrace", libc::SYS_ptrace, [0x4206, own, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [own, 0, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [own, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, here(ring.as_ptr().cast()), 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, session_keyring, 1, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [here(kind), here(words), here(words), 6, process_keyring, 0]),
        ("bpf", libc::SYS_bpf, [0, here(map.as_ptr().cast()), 72, 0, 0, 0]),
        // For faults of programs alone, which everybody may ask for.
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [here(event.as_ptr().cast()), 0, -1, -1, 0, 0]),
        ("mount", libc::SYS_mount, none),
        ("umount2", libc::SYS_umount2, none),
        ("pivot_root", libc::SYS_pivot_root, none),
        ("open_tree", libc::SYS_open_tree, none),
        ("fsopen", libc::SYS_fsopen, none),
        ("unshare user", libc::SYS_unshare, new(libc::CLONE_NEWUSER)),
        ("unshare net", libc::SYS_unshare, new(libc::CLONE_NEWNET)),
        ("setns", libc::SYS_setns, [network, libc::CLONE_NEWNET.into(), 0, 0, 0, 0]),
        ("clone user", libc::SYS_clone, new(libc::CLONE_NEWUSER | libc::SIGCHLD)),
        ("clone3", libc::SYS_clone3, none),
        ("memfd_create", libc::SYS_memfd_create, none),
        ("kexec_load", libc::SYS_kexec_load, none),
        ("init_module", libc::SYS_init_module, none),
        ("seccomp", libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, filter, 0, 0, 0]),
        ("prctl seccomp", libc::SYS_prctl, [libc::PR_SET_SECCOMP.into(), libc::SECCOMP_MODE_FILTER.into(), filter, 0, 0, 0]),
        ("personality", libc::SYS_personality, none),
        ("setuid 0", libc::SYS_setuid, none),
        ("shmget", libc::SYS_shmget, [0, 1 << 20, 0o1600, 0, 0, 0]),
        ("shared anonymous mmap", libc::SYS_mmap, [0, 4096, 3, (libc::MAP_SHARED | libc::MAP_ANONYMOUS).into(), -1, 0]),
        ("future call", 10_000, none),
        ("x32 getpid", 0x4000_0000 + libc::SYS_getpid, none),
        ("getpid", libc::SYS_getpid, none),
    ];
    let mut made = [0_i32; 2];
    let pair = made.as_mut_ptr() as libc::c_long;
    // A timer that lets who is stopped go on (`struct sigevent`: value, signal, SIGEV_SIGNAL), and where its number is written.
    let (event, mut timer) = ([0_u64, libc::SIGCONT.cast_unsigned().into(), 0, 0, 0, 0, 0, 0], 0_u64);
    let (event, timer) = (std::ptr::from_ref(&event) as libc::c_long, std::ptr::from_mut(&mut timer) as libc::c_long);
    let goes_on = libc::c_long::from(libc::SIGCONT);
    let uid = libc::c_long::from(nix::unistd::getuid().as_raw());
    let more: &[(&str, libc::c_long, [libc::c_long; 6])] = &[
        ("socketpair unix stream", libc::SYS_socketpair, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, pair, 0, 0]),
        ("socketpair unix datagram", libc::SYS_socketpair, [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0, pair, 0, 0]),
        ("timer that continues", libc::SYS_timer_create, [libc::CLOCK_MONOTONIC.into(), event, timer, 0, 0, 0]),
        ("input that continues", libc::SYS_fcntl, [0, 10, goes_on, 0, 0, 0]), // F_SETSIG
        ("parent's end that continues", libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), goes_on, 0, 0, 0, 0]),
        ("hide from who looks", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 0, 0, 0, 0, 0]),
        ("child's end that continues", libc::SYS_clone, new(libc::SIGCONT)),
        ("slow down everybody of this user", libc::SYS_setpriority, [libc::PRIO_USER.into(), uid, 0, 0, 0, 0]),
        (
            "bind the parent to a processor",
            libc::SYS_sched_setaffinity,
            [parent(None), 8, std::ptr::from_ref(&1_u64) as libc::c_long, 0, 0, 0],
        ),
    ];
    if wanted("listen at every address") {
        fates.insert("listen at every address".to_owned(), fate(listen_unbound));
    }
    for (name, number, arguments) in calls.iter().chain(more).filter(|(name, ..)| wanted(name)) {
        fates.insert((*name).to_owned(), fate(|| raw_call(*number, *arguments)));
    }
    if wanted("pidfd_getfd") {
        // Whatever came of the first, the second is what is tried.
        let taken = || raw_call(libc::SYS_pidfd_getfd, [raw_call(libc::SYS_pidfd_open, [own, 0, 0, 0, 0, 0]), 0, 0, 0, 0, 0]);
        fates.insert("pidfd_getfd".to_owned(), fate(taken));
    }
    if wanted("tcp fast open") {
        fates.insert("tcp fast open".to_owned(), fate(fast_open));
    }
    if wanted(FILTER) {
        fates.insert(FILTER.to_owned(), filtered().to_owned());
    }
    fates
}

/// Without `bind` the kernel gives a socket a port at every address.
fn listen_unbound() -> libc::c_long {
    let socket = raw_call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]);
    if socket < 0 { socket } else { raw_call(libc::SYS_listen, [socket, 8, 0, 0, 0, 0]) }
}

/// Connects by sending, to the port that this program has for itself or to one where nobody is.
fn fast_open() -> libc::c_long {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).unwrap_or(1);
    let socket = raw_call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]);
    let address = std::net::Ipv4Addr::LOCALHOST.octets();
    let to = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address) },
        sin_zero: [0; 8],
    };
    let (text, to) = (c"x".as_ptr() as libc::c_long, std::ptr::from_ref(&to) as libc::c_long);
    raw_call(libc::SYS_sendto, [socket, text, 1, libc::MSG_FASTOPEN.into(), to, 16])
}

/// Whether this process has a filter of system calls: `there` or `none`.
fn filtered() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim) {
        Some("2") => return "there",
        Some(_) => return "none",
        None => {}
    }
    // Without `/proc`. By itself the kernel does not refuse this question.
    match raw_call(libc::SYS_prctl, [libc::PR_GET_SECCOMP.into(), 0, 0, 0, 0, 0]) {
        0 => "none",
        1.. => "there",
        _ if nix::errno::Errno::last() == nix::errno::Errno::EINVAL => "none",
        _ => "there",
    }
}
