//! Ways out of a container, each tried in full (with arguments that would work where nothing stands against it) in a child of its own.
//!
//! Not here: what the answers should be.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::AsRawFd;

use nix::sys::wait::WaitStatus;

use super::fate;
use crate::sys::{self, raw_call};

fn at(text: &CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}

fn number(value: i32) -> libc::c_long {
    value.into()
}

fn number_of(flags: libc::c_ulong) -> libc::c_long {
    libc::c_long::try_from(flags).unwrap_or_default()
}

/// Tries those that are wanted.
pub(super) fn try_those(wanted: &dyn Fn(&str) -> bool, started_by: Option<i32>) -> BTreeMap<String, String> {
    let mut fates = BTreeMap::new();
    let (own, parent) = (libc::c_long::from(std::process::id()), super::parent(started_by));
    let call = |name: &str, number: libc::c_long, arguments: [libc::c_long; 6], fates: &mut BTreeMap<String, String>| {
        if wanted(name) {
            fates.insert(name.to_owned(), fate(|| raw_call(number, arguments)));
        }
    };
    let here = number(libc::AT_FDCWD);
    let fates_of = &mut fates;
    // Mounts and roots.
    call("mount tmpfs", libc::SYS_mount, [at(c"none"), at(c"/tmp"), at(c"tmpfs"), 0, 0, 0], fates_of);
    call("mount proc", libc::SYS_mount, [at(c"proc"), at(c"/tmp"), at(c"proc"), 0, 0, 0], fates_of);
    let bind = number_of(libc::MS_BIND);
    call("mount bind root", libc::SYS_mount, [at(c"/"), at(c"/tmp"), 0, bind, 0, 0], fates_of);
    let again = number_of(libc::MS_BIND | libc::MS_REMOUNT);
    call("remount usr writable", libc::SYS_mount, [0, at(c"/usr"), 0, again, 0, 0], fates_of);
    call("umount proc", libc::SYS_umount2, [at(c"/proc"), number(libc::MNT_DETACH), 0, 0, 0, 0], fates_of);
    call("pivot_root here", libc::SYS_pivot_root, [at(c"/tmp"), at(c"/tmp"), 0, 0, 0, 0], fates_of);
    call("chroot tmp", libc::SYS_chroot, [at(c"/tmp"), 0, 0, 0, 0, 0], fates_of);
    // The same, by whoever is root of a user namespace of their own.
    let root = || raw_call(libc::SYS_mount, [at(c"none"), at(c"/tmp"), at(c"tmpfs"), 0, 0, 0]);
    let chains: &[(&str, libc::c_int, &dyn Fn() -> libc::c_long)] = &[
        ("mount tmpfs as its own root", libc::CLONE_NEWNS, &root),
        ("mount bind root as its own root", libc::CLONE_NEWNS, &|| {
            let deep = number_of(libc::MS_BIND | libc::MS_REC);
            raw_call(libc::SYS_mount, [at(c"/"), at(c"/tmp"), 0, deep, 0, 0])
        }),
        ("pivot_root as its own root", libc::CLONE_NEWNS, &|| {
            // It must be a mount; whether it can be made one, the first of these tells.
            root();
            raw_call(libc::SYS_pivot_root, [at(c"/tmp"), at(c"/tmp"), 0, 0, 0, 0])
        }),
        ("chroot tmp as its own root", 0, &|| raw_call(libc::SYS_chroot, [at(c"/tmp"), 0, 0, 0, 0, 0])),
        ("setns as its own root", libc::CLONE_NEWNET, &|| {
            let network = std::fs::File::open("/proc/self/ns/net");
            let network = network.as_ref().map_or(-1, |file| number(file.as_raw_fd()));
            raw_call(libc::SYS_setns, [network, number(libc::CLONE_NEWNET), 0, 0, 0, 0])
        }),
    ];
    for (name, also, act) in chains.iter().filter(|(name, ..)| wanted(name)) {
        fates_of.insert((*name).to_owned(), fate(|| as_own_root(*also, act)));
    }
    // Namespaces.
    for (name, flag) in [
        ("unshare mount namespace", libc::CLONE_NEWNS),
        ("unshare user and mount namespace", libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
        ("unshare pid namespace", libc::CLONE_NEWPID),
        ("unshare cgroup namespace", libc::CLONE_NEWCGROUP),
    ] {
        call(name, libc::SYS_unshare, [number(flag), 0, 0, 0, 0, 0], fates_of);
    }
    // Others' memory and files.
    // To seize is to attach without stopping: a parent that was stopped would stay so.
    const SEIZE: libc::c_long = 0x4206;
    call("ptrace attach parent", libc::SYS_ptrace, [SEIZE, parent, 0, 0, 0, 0], fates_of);
    let mut seen = [0_u8; 16];
    let local = libc::iovec { iov_base: seen.as_mut_ptr().cast(), iov_len: seen.len() };
    // What is mapped there cannot always be known. Where nothing stands against it the answer is then EFAULT, and no refusal.
    let mapped = mapped_in(parent).unwrap_or(0x40_0000);
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(mapped), iov_len: seen.len() };
    let (local, remote) = (std::ptr::from_ref(&local) as libc::c_long, std::ptr::from_ref(&remote) as libc::c_long);
    call("process_vm_readv parent", libc::SYS_process_vm_readv, [parent, local, 1, remote, 1, 0], fates_of);
    // A handle of eight bytes, of the kind that names the root of most file systems (`struct file_handle`).
    let handle = [8_u32, 1, 2, 0];
    let handle = std::ptr::from_ref(&handle) as libc::c_long;
    call("open_by_handle_at", libc::SYS_open_by_handle_at, [here, handle, 0, 0, 0, 0], fates_of);
    // Signal 0 asks whether one may, and does nothing; what is set is what it is already.
    let asked: [(&str, &dyn Fn(libc::c_long) -> libc::c_long); 2] = [
        ("signal others", &|pid| raw_call(libc::SYS_kill, [pid, 0, 0, 0, 0, 0])),
        ("slow down others", &|pid| raw_call(libc::SYS_setpriority, [number_of_which(libc::PRIO_PROCESS), pid, 0, 0, 0, 0])),
    ];
    for (name, ask) in asked.iter().filter(|(name, _)| wanted(name)) {
        fates_of.insert((*name).to_owned(), fate(|| others([own, parent], ask)));
    }
    call("signal init", libc::SYS_kill, [1, 0, 0, 0, 0, 0], fates_of);
    if wanted("signal init by descriptor") {
        let act = || {
            let init = raw_call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]);
            if init < 0 { init } else { raw_call(libc::SYS_pidfd_send_signal, [init, 0, 0, 0, 0, 0]) }
        };
        fates_of.insert("signal init by descriptor".to_owned(), fate(act));
    }
    let ordinary = std::ptr::from_ref(&0_i32) as libc::c_long;
    call("scheduler of init", libc::SYS_sched_setscheduler, [1, number(libc::SCHED_OTHER), ordinary, 0, 0, 0], fates_of);
    // Devices, terminals, identities.
    let (block, dev) = (libc::c_long::from(libc::S_IFBLK | 0o600), 8 << 8);
    call("mknod disk", libc::SYS_mknodat, [here, at(c"/tmp/disk"), block, dev, 0, 0], fates_of);
    let character = libc::c_long::from(libc::S_IFCHR | 0o600);
    call("mknod mem", libc::SYS_mknodat, [here, at(c"/tmp/mem"), character, (1 << 8) | 1, 0, 0], fates_of);
    if wanted("push terminal input") {
        fates_of.insert("push terminal input".to_owned(), fate(push));
    }
    call("setuid root", libc::SYS_setresuid, [0, 0, 0, 0, 0, 0], fates_of);
    call("setgid root", libc::SYS_setresgid, [0, 0, 0, 0, 0, 0], fates_of);
    call("ask for the kernel log", libc::SYS_syslog, [10, 0, 0, 0, 0, 0], fates_of);
    let more = libc::rlimit { rlim_cur: 1 << 24, rlim_max: 1 << 24 };
    let more = std::ptr::from_ref(&more) as libc::c_long;
    call("raise own limit", libc::SYS_prlimit64, [0, libc::c_long::from(libc::RLIMIT_NPROC), more, 0, 0, 0], fates_of);
    if wanted("core dump") {
        fates.insert("core dump".to_owned(), core_dump());
    }
    fates
}

/// Whether the end of a process leaves its memory behind, though it asked for that: `done`, or `no core`.
fn core_dump() -> String {
    let ended = sys::in_child(|| {
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        let all = std::ptr::from_ref(&all) as libc::c_long;
        // Where it may not, the limit that there is counts; and it crashes wherever it is.
        raw_call(libc::SYS_prlimit64, [0, libc::c_long::from(libc::RLIMIT_CORE), all, 0, 0, 0]);
        let _elsewhere = std::env::set_current_dir("/tmp");
        std::process::abort()
    });
    match ended {
        Ok(WaitStatus::Signaled(_, _, true)) => "done".to_owned(),
        Ok(WaitStatus::Signaled(_, _, false)) => "no core".to_owned(),
        other => format!("not tried: {other:?}"),
    }
}

/// In namespaces of its own, a user namespace among them, of which it is root.
fn as_own_root(also: libc::c_int, act: &dyn Fn() -> libc::c_long) -> libc::c_long {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let entered = raw_call(libc::SYS_unshare, [number(libc::CLONE_NEWUSER | also), 0, 0, 0, 0, 0]);
    if entered < 0 {
        return entered;
    }
    // Not everything needs it.
    let _unmapped = std::fs::write("/proc/self/setgroups", "deny");
    let _unmapped = std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"));
    let _unmapped = std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"));
    act()
}

/// An address that is mapped in this process, if its mappings may be read.
fn mapped_in(process: libc::c_long) -> Option<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    usize::from_str_radix(maps.lines().next()?.split('-').next()?, 16).ok()
}

fn number_of_which(which: libc::__priority_which_t) -> libc::c_long {
    libc::c_long::from(which)
}

/// Asks of every process that is neither itself, nor of these, nor its init, whether this may be done to it.
fn others([started, by]: [libc::c_long; 2], ask: &dyn Fn(libc::c_long) -> libc::c_long) -> libc::c_long {
    const NOBODY: libc::c_long = 4_194_303;
    const ALL: libc::c_long = 32_768;
    // Who may not even ask for one that is not there is answered by a filter.
    if ask(NOBODY) < 0 && nix::errno::Errno::last() != nix::errno::Errno::ESRCH {
        return -1;
    }
    let own = libc::c_long::from(std::process::id());
    let family = [own, started, by];
    // Threads have numbers, too. (Every list has this call: `calls::ALWAYS`.)
    let is_of = |of: libc::c_long, thread| raw_call(libc::SYS_tgkill, [of, thread, 0, 0, 0, 0]) == 0;
    let mut refused = nix::errno::Errno::ESRCH;
    for pid in (2..ALL).filter(|pid| !family.contains(pid)) {
        let answer = ask(pid);
        let why = nix::errno::Errno::last();
        if answer == 0 && !family.iter().any(|of| is_of(*of, pid)) {
            return 0;
        }
        // Of one that is there and is kept from it, that is told.
        if answer < 0 && why != nix::errno::Errno::ESRCH {
            refused = why;
        }
    }
    refused.set();
    -1
}

/// Types into a terminal of its own; where none can be had, into what stands in its place.
fn push() -> libc::c_long {
    let ioctl =
        |terminal: libc::c_long, request: libc::c_ulong, value| raw_call(libc::SYS_ioctl, [terminal, number_of(request), value, 0, 0, 0]);
    raw_call(libc::SYS_setsid, [0; 6]);
    let terminal = raw_call(libc::SYS_openat, [number(libc::AT_FDCWD), at(c"/dev/ptmx"), number(libc::O_RDWR), 0, 0, 0]);
    let mut peer = 0;
    if terminal >= 0 {
        let unlocked = 0_i32;
        ioctl(terminal, libc::TIOCSPTLCK, std::ptr::from_ref(&unlocked) as libc::c_long);
        peer = ioctl(terminal, libc::TIOCGPTPEER, number(libc::O_RDWR)).max(0);
        ioctl(peer, libc::TIOCSCTTY, 0);
    }
    ioctl(peer, libc::TIOCSTI, at(c"x"))
}
