//! bubblewrap as the builder of namespaces and root, for who trusts it more than what is built here.
//!
//! The outer init becomes `bwrap`, which makes the namespaces, binds what the profile names, and executes this binary again inside, as
//! PID 1. That one measures what was bound, narrows `/proc` and `/tmp`, gives up every power and goes on as with the own backend: Landlock,
//! system calls, limits, the listeners of the flows and what passes in and out are the same code. bwrap itself is believed as the kernel
//! is: its digest is nobody's.
//!
//! Spec:       `bwrap(1)`, 0.8 or later.
//! Guarantees: I16 the same layers hold, or nothing starts.
//! Not here:   the own backend (`namespaces`, `root`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{chown, pipe2};

use crate::namespaces::{self, Identity};
use crate::profile::Profile;
use crate::root::{self, DEVICES, at};
use crate::wire::Wire;

/// Where it is looked for: no PATH is believed.
const BWRAP: &str = "/usr/bin/bwrap";
/// This binary, inside.
const INIT: &str = "/.sandbox-init";

/// Becomes bwrap. `cgroup` is what the init inside says of the control group.
///
/// # Errors
/// A step that failed. On success this process is another program.
pub(crate) fn become_it(profile: &Profile, identity: Identity, guard: &Wire, cgroup: &str) -> io::Result<Infallible> {
    if !Path::new(BWRAP).exists() {
        return Err(io::Error::other(format!("{BWRAP} is not there: install bubblewrap, or leave `sandbox` out of the manifest")));
    }
    let mut command = Command::new(BWRAP);
    if let (Some(state), true) = (&profile.state, identity.was_root) {
        at(state.display(), Ok(chown(state, Some(identity.uid), Some(identity.gid))?))?;
    }
    if identity.was_root {
        // Two ids: root's for the setup, and the service's. bwrap can map one alone.
        namespaces::enter_user(identity)?;
    } else {
        command.arg("--unshare-user");
    }
    command.args(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--as-pid-1"]);
    command.args(["--die-with-parent", "--clearenv", "--cap-add", "ALL", "--hostname", &profile.name]);
    // One more of them is mounted on it, with less in it; the kernel allows that where there is one.
    command.args(["--proc", "/proc", "--perms", "0755", "--dir", "/dev", "--perms", "0755", "--dir", "/etc"]);
    command.args(["--perms", "0700", "--size", &profile.limits.tmp_bytes.min(i64::MAX.unsigned_abs()).to_string(), "--tmpfs", "/tmp"]);
    command.args(binds(profile)?);
    let texts: Vec<(&str, OwnedFd)> =
        root::texts(identity).into_iter().map(|(path, text)| Ok((path, passed(text.as_bytes())?))).collect::<io::Result<_>>()?;
    for (path, fd) in &texts {
        command.args(["--perms", "0644", "--ro-bind-data", &fd.as_raw_fd().to_string(), path]);
    }
    let this = fs::read_link("/proc/self/exe")?;
    command.arg("--ro-bind").arg(this).arg(INIT).args(["--remount-ro", "/", "--", INIT, "sandbox-init", "inside", cgroup]);
    fcntl(guard.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    let cause = command.exec();
    Err(io::Error::new(cause.kind(), format!("{BWRAP}: {cause}")))
}

/// A descriptor to read this text from, which the next program inherits.
fn passed(text: &[u8]) -> io::Result<OwnedFd> {
    let (read, write) = pipe2(OFlag::empty())?;
    fs::File::from(write).write_all(text)?; // A pipe holds 64 KiB.
    Ok(read)
}

/// The arguments for what the profile names, parents before what is inside them.
fn binds(profile: &Profile) -> io::Result<Vec<OsString>> {
    let mut links = BTreeMap::new();
    let mut reals = BTreeSet::new();
    let mut measured = BTreeSet::new();
    for (path, is_read) in profile.read.iter().map(|path| (path, true)).chain(profile.artefacts().map(|it| (&it.path, false))) {
        let real = at(path.display(), fs::canonicalize(path))?;
        if real != *path {
            links.insert(path.clone(), real.clone());
        }
        if is_read {
            reals.insert(real)
        } else {
            measured.insert(real)
        };
    }
    let mut bound: Vec<PathBuf> = Vec::new();
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |option: &str, from: &Path, to: &Path| arguments.extend([option.into(), from.into(), to.into()]);
    for real in reals {
        if !bound.iter().any(|above| real.starts_with(above)) {
            add("--ro-bind", &real, &real);
            bound.push(real);
        }
    }
    // Each by itself, also below a folder that is bound: what becomes of its path later is not seen inside.
    for real in measured {
        add("--ro-bind", &real, &real);
        bound.push(real);
    }
    if let Some(state) = &profile.state {
        if !at(state.display(), fs::symlink_metadata(state))?.is_dir() {
            return Err(io::Error::other(format!("{}: the state folder must be a folder, not a link", state.display())));
        }
        add("--bind", state, state);
    }
    for device in DEVICES.map(Path::new) {
        add("--dev-bind", device, device);
    }
    for (link, target) in links.iter().filter(|(link, _)| !bound.iter().any(|above| link.starts_with(above))) {
        add("--symlink", target, link);
    }
    for (link, target) in root::LINKS {
        add("--symlink", Path::new(target), Path::new(link));
    }
    // bwrap would make what is above for itself alone.
    let ends = bound.iter().chain(&profile.state).chain(links.keys());
    let above: BTreeSet<&Path> = ends.flat_map(|end| end.ancestors().skip(1)).filter(|folder| folder.parent().is_some()).collect();
    let own = |folder: &&Path| *folder != Path::new("/tmp") && !bound.iter().any(|bound| folder.starts_with(bound));
    let made = above.into_iter().filter(own).flat_map(|folder| ["--perms".into(), "0755".into(), "--dir".into(), folder.into()]);
    Ok(made.chain(arguments).collect())
}

#[cfg(test)]
mod tests {
    //! Tests of the arguments; `tests::backends` runs it.
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_bound_is_what_the_profile_names() {
        // I2, I16
        let folder = tempfile::tempdir().unwrap();
        let (read, state) = (folder.path().join("read"), folder.path().join("state"));
        for path in [&read, &state] {
            fs::create_dir(path).unwrap();
        }
        let mut profile: Profile = crate::tests::Ground::new().profile(&[]);
        (profile.read, profile.state) = (vec![read.clone(), read.join(".")], Some(state.clone()));
        let all: Vec<String> = binds(&profile).unwrap().into_iter().map(|word| word.into_string().unwrap()).collect();
        let after = |option: &str, index: usize| {
            all.iter().enumerate().filter(|(_, word)| *word == option).map(|(at, _)| all[at + index].as_str()).collect()
        };
        let of = |option: &str| -> Vec<&str> { after(option, 2) };
        let program = fs::canonicalize(&profile.program.path).unwrap().display().to_string();
        assert_eq!(of("--ro-bind"), [read.display().to_string(), program]);
        assert_eq!(of("--bind"), [state.display().to_string()]);
        assert_eq!(of("--dev-bind"), DEVICES);
    }
}
