//! System calls and socket families that only an escape needs, each tried in a child of its own.
//!
//! Not here: what the answers should be.

use std::collections::BTreeMap;

use super::fate;
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
    let calls: &[(&str, libc::c_long, [libc::c_long; 6])] = &[
        // To seize is to attach without stopping: where nothing forbids it, who tries must go on.
        ("ptrace", libc::SYS_ptrace, [0x4206, own, 0, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [own, 0, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [own, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, none),
        ("keyctl", libc::SYS_keyctl, none),
        ("add_key", libc::SYS_add_key, none),
        ("bpf", libc::SYS_bpf, none),
        ("userfaultfd", libc::SYS_userfaultfd, none),
        ("perf_event_open", libc::SYS_perf_event_open, none),
        ("mount", libc::SYS_mount, none),
        ("umount2", libc::SYS_umount2, none),
        ("pivot_root", libc::SYS_pivot_root, none),
        ("open_tree", libc::SYS_open_tree, none),
        ("fsopen", libc::SYS_fsopen, none),
        ("unshare user", libc::SYS_unshare, new(libc::CLONE_NEWUSER)),
        ("unshare net", libc::SYS_unshare, new(libc::CLONE_NEWNET)),
        ("setns", libc::SYS_setns, none),
        ("clone user", libc::SYS_clone, new(libc::CLONE_NEWUSER | libc::SIGCHLD)),
        ("clone3", libc::SYS_clone3, none),
        ("memfd_create", libc::SYS_memfd_create, none),
        ("kexec_load", libc::SYS_kexec_load, none),
        ("init_module", libc::SYS_init_module, none),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, none),
        ("seccomp", libc::SYS_seccomp, none),
        ("prctl seccomp", libc::SYS_prctl, [libc::PR_SET_SECCOMP.into(), 2, 0, 0, 0, 0]),
        ("personality", libc::SYS_personality, none),
        ("setuid 0", libc::SYS_setuid, none),
        ("shmget", libc::SYS_shmget, [0, 1 << 20, 0o1600, 0, 0, 0]),
        ("shared anonymous mmap", libc::SYS_mmap, [0, 4096, 3, (libc::MAP_SHARED | libc::MAP_ANONYMOUS).into(), -1, 0]),
        ("tcp fast open", libc::SYS_sendto, [0, 0, 0, libc::MSG_FASTOPEN.into(), 0, 0]),
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
        ("bind the parent to a processor", libc::SYS_sched_setaffinity, [parent(), 8, std::ptr::from_ref(&1_u64) as libc::c_long, 0, 0, 0]),
    ];
    if wanted("listen at every address") {
        fates.insert("listen at every address".to_owned(), fate(listen_unbound));
    }
    for (name, number, arguments) in calls.iter().chain(more).filter(|(name, ..)| wanted(name)) {
        fates.insert((*name).to_owned(), fate(|| raw_call(*number, *arguments)));
    }
    fates
}

fn parent() -> libc::c_long {
    nix::unistd::getppid().as_raw().into()
}

/// Without `bind` the kernel gives a socket a port at every address.
fn listen_unbound() -> libc::c_long {
    let socket = raw_call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]);
    if socket < 0 { socket } else { raw_call(libc::SYS_listen, [socket, 8, 0, 0, 0, 0]) }
}
