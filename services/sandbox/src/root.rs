//! The root: a small tree that holds what the profile names, and nothing else.
//!
//! Every source is cloned as a detached mount before anything is covered, gets its attributes while nobody can see it,
//! and is then attached under a fresh tmpfs, which becomes the root and is sealed read-only.
//!
//! Spec:       `open_tree(2)`, `mount_setattr(2)` (Linux 5.12), `pivot_root(2)`.
//! Guarantees: I2 files are an allow-list; I8 nothing is left from the start before; I11 no path to the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chown, pivot_root};

use crate::artefact::Bound;
use crate::namespaces::Identity;
use crate::profile::Profile;
use crate::sys;

const READ_ONLY: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
const WRITABLE: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
const DEVICE: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;

/// Device nodes of the private `/dev`. Not `/dev/zero`: a shared mapping of it is memory that counts against no rlimit.
pub(crate) const DEVICES: [&str; 4] = ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Options of the private `/proc`, or why there is none.
    pub(crate) proc: Result<String, String>,
}

/// Names the step that failed.
pub(crate) fn at<T>(what: impl std::fmt::Display, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|cause| io::Error::new(cause.kind(), format!("{what}: {cause}")))
}

/// What is mounted here from now on is mounted nowhere else.
pub(crate) fn private_mounts() -> io::Result<()> {
    let nothing: Option<&str> = None;
    at("making mounts private", Ok(mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?))
}

/// Builds the root and moves into it. PID 1 of the new namespaces calls this while it still has its capabilities there.
pub(crate) fn build(profile: &Profile, artefacts: &[Bound], identity: Identity) -> io::Result<Built> {
    private_mounts()?;
    let (trees, links) = gather(profile, artefacts, identity)?;

    let base = Path::new("/tmp");
    tmpfs(base, "mode=0755,size=1m,nr_inodes=4k", MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    let proc = furnish(base, profile, identity)?;
    for (path, tree) in &trees {
        place(base, path, tree)?;
    }

    chdir(base)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    // Only now, since links resolve from the root that is in force.
    finish(&links, identity)?;
    let root = fs::File::open("/")?;
    at("sealing the root", sys::set_attributes(root.as_fd(), READ_ONLY, false))?;
    Ok(Built { proc })
}

type Trees = BTreeMap<PathBuf, OwnedFd>;
type Links = BTreeMap<PathBuf, PathBuf>;

/// Clones every source. A `BTreeMap` orders parents before what is mounted inside them.
fn gather(profile: &Profile, artefacts: &[Bound], identity: Identity) -> io::Result<(Trees, Links)> {
    let mut trees = Trees::new();
    let mut links = Links::new();
    let mut reals = BTreeSet::new();
    for path in &profile.read {
        let real = at(path.display(), fs::canonicalize(path))?;
        if real != *path {
            links.insert(path.clone(), real.clone());
        }
        reals.insert(real);
    }
    for real in reals {
        if !trees.keys().any(|above| real.starts_with(above)) {
            trees.insert(real.clone(), tree(&real, READ_ONLY)?);
        }
    }
    for bound in artefacts {
        let tree = at(bound.real.display(), sys::clone_tree_of(bound.file.as_fd()))?;
        sys::set_attributes(tree.as_fd(), READ_ONLY, true)?;
        if bound.real != bound.artefact.path {
            links.insert(bound.artefact.path.clone(), bound.real.clone());
        }
        trees.insert(bound.real.clone(), tree);
    }
    if let Some(state) = &profile.state {
        let found = at(state.display(), fs::symlink_metadata(state))?;
        if !found.is_dir() {
            return Err(io::Error::other(format!("{}: the state folder must be a folder, not a link", state.display())));
        }
        if identity.was_root && found.uid() != identity.uid.as_raw() {
            at(state.display(), Ok(chown(state, Some(identity.uid), Some(identity.gid))?))?;
        }
        trees.insert(state.clone(), tree(state, WRITABLE)?);
    }
    for device in DEVICES {
        trees.insert(PathBuf::from(device), tree(Path::new(device), DEVICE)?);
    }
    Ok((trees, links))
}

fn tree(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let tree = at(path.display(), sys::clone_tree(path))?;
    at(path.display(), sys::set_attributes(tree.as_fd(), attributes, true))?;
    Ok(tree)
}

fn place(base: &Path, path: &Path, tree: &OwnedFd) -> io::Result<()> {
    let inside = within(base, path);
    if fs::symlink_metadata(&inside).is_err() {
        make_parent(base, path)?;
        let is_folder = fs::File::from(tree.try_clone()?).metadata()?.is_dir();
        let made = if is_folder { fs::create_dir(&inside) } else { fs::File::create(&inside).map(drop) };
        at(path.display(), made)?;
    }
    at(format_args!("mounting {}", path.display()), sys::attach(tree.as_fd(), &inside))
}

/// Private `/proc`, `/tmp` and `/dev`; what is declared beneath them is mounted into them afterwards.
fn furnish(base: &Path, profile: &Profile, identity: Identity) -> io::Result<Result<String, String>> {
    for folder in ["proc", "tmp", "dev"] {
        fs::create_dir(base.join(folder))?;
    }
    let Identity { uid, gid, .. } = identity;
    let options = format!("mode=0700,uid={uid},gid={gid},size={},nr_inodes=64k", profile.limits.tmp_bytes);
    tmpfs(&base.join("tmp"), &options, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    Ok(mount_proc(&base.join("proc")))
}

/// Links that programs expect, and where they lead.
pub(crate) const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// The few small files that programs expect.
pub(crate) fn texts(Identity { uid, gid, .. }: Identity) -> [(&'static str, String); 3] {
    [
        ("/etc/hosts", "127.0.0.1 localhost\n".to_owned()),
        ("/etc/passwd", format!("service:x:{uid}:{gid}::/tmp:/nonexistent\n")),
        ("/etc/group", format!("service:x:{gid}:\n")),
    ]
}

/// What is left to do in a root that another built: `/proc`, `/tmp` and devices as narrow as ours.
pub(crate) fn narrow(profile: &Profile, identity: Identity) -> io::Result<Built> {
    let tmp = Path::new("/tmp");
    at("/tmp", Ok(chown(tmp, Some(identity.uid), Some(identity.gid))?))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("size={},nr_inodes=64k", profile.limits.tmp_bytes);
    let nothing: Option<&str> = None;
    at("narrowing /tmp", Ok(mount(nothing, tmp, nothing, flags, Some(options.as_str()))?))?;
    for device in DEVICES {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        at(device, Ok(mount(nothing, device, nothing, flags, nothing)?))?;
    }
    Ok(Built { proc: mount_proc(Path::new("/proc")) })
}

/// Links and files.
fn finish(links: &Links, identity: Identity) -> io::Result<()> {
    let usual = LINKS.iter().map(|(link, target)| (Path::new(*link), Path::new(*target)));
    for (link, target) in links.iter().map(|(link, target)| (link.as_path(), target.as_path())).chain(usual) {
        if fs::symlink_metadata(link).is_err() {
            make_parent(Path::new("/"), link)?;
            at(link.display(), symlink(target, link))?;
        }
    }
    for (path, text) in texts(identity) {
        if fs::symlink_metadata(path).is_err() {
            make_parent(Path::new("/"), Path::new(path))?;
            at(path, fs::write(path, text))?;
        }
    }
    Ok(())
}

fn tmpfs(at_path: &Path, options: &str, flags: MsFlags) -> io::Result<()> {
    at(at_path.display(), Ok(mount(Some("tmpfs"), at_path, Some("tmpfs"), flags, Some(options))?))
}

/// Own processes only, if the kernel can; a kernel or container that forbids even that gives no `/proc` at all.
fn mount_proc(at_path: &Path) -> Result<String, String> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mut last = String::new();
    for options in ["hidepid=invisible,subset=pid", "hidepid=2,subset=pid", "hidepid=2"] {
        match mount(Some("proc"), at_path, Some("proc"), flags, Some(options)) {
            Ok(()) => return Ok(options.to_owned()),
            Err(cause) => last = format!("not mounted: {cause}; is /proc of this container masked?"),
        }
    }
    Err(last)
}

fn make_parent(base: &Path, path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let inside = within(base, parent);
    at(parent.display(), fs::create_dir_all(&inside))?;
    // The umask of the guard must not decide whether the service can pass.
    let mut folder = inside.as_path();
    while folder != base && fs::metadata(folder)?.permissions().mode() & 0o777 != 0o755 {
        if fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).is_err() {
            break; // A folder of a read-only mount: it has the mode it has.
        }
        let Some(above) = folder.parent() else { break };
        folder = above;
    }
    Ok(())
}

fn within(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

/// A folder for what a service without a root of its own writes to `/tmp`.
pub(crate) fn private_tmp(identity: Identity) -> io::Result<PathBuf> {
    let path = nix::unistd::mkdtemp(&std::env::temp_dir().join("sandbox-XXXXXX"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    if identity.was_root {
        chown(&path, Some(identity.uid), Some(identity.gid))?;
    }
    Ok(path)
}
