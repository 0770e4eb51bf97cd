//! Namespaces: a world of its own for each start.
//!
//! An unprivileged guard maps its own uid and gid to themselves. A guard that is root maps 0 (for the setup) and one
//! unprivileged id, and everything after the setup runs under that id: root's files, its exemption from process limits
//! and its ownership of the host's sockets are left behind with it.
//!
//! Spec:       `user_namespaces(7)`, `pid_namespaces(7)`.
//! Guarantees: I1 works without root; I12 neither init is dumpable.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, getegid, geteuid, getpid, pipe2, read, setgroups, setresgid, setresuid, write};

use crate::sys;

/// The ids under which the service runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The guard is root, so ids change after the setup.
    pub(crate) was_root: bool,
}

impl Identity {
    pub(crate) fn of_this_process(run_as_id: u32) -> Self {
        if geteuid().is_root() {
            Self { uid: Uid::from_raw(run_as_id), gid: Gid::from_raw(run_as_id), was_root: true }
        } else {
            Self { uid: geteuid(), gid: getegid(), was_root: false }
        }
    }
}

/// Whether a child could enter what [`enter_user`] and [`enter_others`] enter: some hosts allow a user namespace, but no
/// power in it.
pub(crate) fn try_out() -> io::Result<()> {
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    match sys::in_child(|| if unshare(all).is_ok() { 0 } else { -1 })? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Enters a new user namespace and maps the identity.
pub(crate) fn enter_user(identity: Identity) -> io::Result<()> {
    if identity.was_root {
        return enter_user_as_root(identity);
    }
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", identity.gid))?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", identity.uid))
}

/// Two ids can be mapped only from outside: a child stays there and writes the maps.
fn enter_user_as_root(identity: Identity) -> io::Result<()> {
    let parent = getpid();
    let (entered_read, entered_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let Some(child) = sys::fork()? else {
        drop(entered_write);
        let mut byte = [0];
        let mapped = matches!(read(&entered_read, &mut byte), Ok(1))
            && fs::write(format!("/proc/{parent}/uid_map"), format!("0 0 1\n{0} {0} 1", identity.uid)).is_ok()
            && fs::write(format!("/proc/{parent}/gid_map"), format!("0 0 1\n{0} {0} 1", identity.gid)).is_ok();
        sys::exit_now(i32::from(!mapped));
    };
    let entered = unshare(CloneFlags::CLONE_NEWUSER);
    if entered.is_ok() {
        write(&entered_write, &[1])?;
    }
    drop(entered_write);
    let status = waitpid(child, None)?;
    entered?;
    if matches!(status, WaitStatus::Exited(_, 0)) {
        Ok(())
    } else {
        Err(io::Error::other("the maps of the user namespace could not be written; has the guard CAP_SETUID and CAP_SETGID?"))
    }
}

/// Enters all the others but that of control groups; the network stays the guard's only in a throw-away copy (`DangerousWithout`). The
/// PID namespace begins with the next fork.
pub(crate) fn enter_others(network: bool) -> io::Result<()> {
    let network = if network { CloneFlags::CLONE_NEWNET } else { CloneFlags::empty() };
    let most = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    Ok(unshare(most | network | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?)
}

/// Makes the control group that this process is in the top of what it sees; false where the kernel has no such namespace. After the
/// process is in its group: from inside it could not be put anywhere else.
pub(crate) fn enter_cgroups() -> bool {
    unshare(CloneFlags::CLONE_NEWCGROUP).is_ok()
}

/// Leaves the setup's powers for good: ids, capabilities, dumps, new privileges.
pub(crate) fn leave_powers(identity: Identity, bounding: bool) -> io::Result<()> {
    if identity.was_root {
        setgroups(&[])?;
        setresgid(identity.gid, identity.gid, identity.gid)?;
        // Capabilities go explicitly below, with the bounding set, for which they are still needed.
        nix_keep_capabilities(|| Ok(setresuid(identity.uid, identity.uid, identity.uid)?))?;
    }
    sys::drop_capabilities(bounding)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

fn nix_keep_capabilities(change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    sys::keep_capabilities(true)?;
    change()?;
    sys::restore_effective()?;
    sys::keep_capabilities(false)
}
