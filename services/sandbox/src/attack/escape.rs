//! Ways out of a container, each tried in full (with arguments that would work where nothing stands against it) in a child of its own.
//!
//! Not here: what the answers should be.

use std::collections::BTreeMap;
use std::ffi::CStr;

use super::fate;
use crate::sys::raw_call;

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
pub(super) fn try_those(wanted: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut fates = BTreeMap::new();
    let parent = number(nix::unistd::getppid().as_raw());
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
    let remote = libc::iovec { iov_base: std::ptr::from_ref(&seen).cast_mut().cast(), iov_len: seen.len() };
    let (local, remote) = (std::ptr::from_ref(&local) as libc::c_long, std::ptr::from_ref(&remote) as libc::c_long);
    call("process_vm_readv parent", libc::SYS_process_vm_readv, [parent, local, 1, remote, 1, 0], fates_of);
    call("pidfd_open parent", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0], fates_of);
    // A handle of eight bytes, of the kind that names the root of most file systems (`struct file_handle`).
    let handle = [8_u32, 1, 2, 0];
    let handle = std::ptr::from_ref(&handle) as libc::c_long;
    call("open_by_handle_at", libc::SYS_open_by_handle_at, [here, handle, 0, 0, 0, 0], fates_of);
    // Signals beyond its own.
    call("signal everybody", libc::SYS_kill, [-1, 0, 0, 0, 0, 0], fates_of);
    // Signal 0 asks whether one may, and does nothing.
    call("signal init", libc::SYS_kill, [1, 0, 0, 0, 0, 0], fates_of);
    // Devices, terminals, identities.
    let (block, dev) = (libc::c_long::from(libc::S_IFBLK | 0o600), 8 << 8);
    call("mknod disk", libc::SYS_mknodat, [here, at(c"/tmp/disk"), block, dev, 0, 0], fates_of);
    let character = libc::c_long::from(libc::S_IFCHR | 0o600);
    call("mknod mem", libc::SYS_mknodat, [here, at(c"/tmp/mem"), character, (1 << 8) | 1, 0, 0], fates_of);
    let key = c"x";
    call("push terminal input", libc::SYS_ioctl, [0, number_of(libc::TIOCSTI), at(key), 0, 0, 0], fates_of);
    call("setuid root", libc::SYS_setresuid, [0, 0, 0, 0, 0, 0], fates_of);
    call("setgid root", libc::SYS_setresgid, [0, 0, 0, 0, 0, 0], fates_of);
    call("ask for the kernel log", libc::SYS_syslog, [10, 0, 0, 0, 0, 0], fates_of);
    let more = libc::rlimit { rlim_cur: 1 << 24, rlim_max: 1 << 24 };
    let more = std::ptr::from_ref(&more) as libc::c_long;
    call("raise own limit", libc::SYS_prlimit64, [0, libc::c_long::from(libc::RLIMIT_NPROC), more, 0, 0, 0], fates_of);
    fates
}
