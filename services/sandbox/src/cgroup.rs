//! The control group: limits for the service as a whole, where a delegated cgroup v2 is there.
//!
//! A leaf is made in our own cgroup, or (since a cgroup with processes cannot give controllers to children) beside it,
//! which is what systemd's `Delegate=` with `DelegateSubgroup=` and containers with a private cgroup namespace allow.
//!
//! Spec:       kernel `Documentation/admin-guide/cgroup-v2.rst`, "No Internal Process Constraint".
//! Guarantees: I7 in sum over all processes. Absence is reported, and rlimits hold.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::profile::Limits;

const BASE: &str = "/sys/fs/cgroup";
const WANTED: [&str; 2] = ["memory", "pids"];

/// A leaf of our own. Held by descriptors, since its path is out of reach once the root has changed.
#[derive(Debug)]
pub(crate) struct Leaf {
    above: File,
    name: String,
    kill: Option<File>,
    back: File,
    pub(crate) detail: String,
}

impl Leaf {
    /// Leaves it, ends every other process in it (Linux 5.14) and removes it.
    pub(crate) fn leave(&self) {
        // Best effort: an empty leaf that stays behind holds nothing and limits nobody.
        let _ = (&self.back).write_all(b"0");
        if let Some(mut kill) = self.kill.as_ref() {
            let _ = kill.write_all(b"1");
        }
        let _ = unlinkat(&self.above, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// A folder where a leaf with the wanted controllers can be made, or why there is none.
pub(crate) fn parent() -> Result<PathBuf, String> {
    let own = own_folder()?;
    let base = Path::new(BASE);
    let candidates = [Some(own.as_path()), own.parent().filter(|above| above.starts_with(base))];
    for folder in candidates.into_iter().flatten() {
        let given = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
        let complete = WANTED.iter().all(|wanted| given.split_whitespace().any(|it| it == *wanted));
        if complete && nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok() {
            return Ok(folder.to_owned());
        }
    }
    Err("no delegated cgroup; with systemd: Delegate=yes and DelegateSubgroup=guard. Limits hold for each process".to_owned())
}

fn own_folder() -> Result<PathBuf, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|cause| cause.to_string())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroup v2 here; limits hold for each process")?;
    let own = Path::new(BASE).join(own);
    if !own.join("cgroup.procs").exists() {
        return Err("cgroup v2 is not mounted at /sys/fs/cgroup; limits hold for each process".to_owned());
    }
    Ok(own)
}

/// Makes a leaf, sets the limits and moves this process into it.
pub(crate) fn enter(limits: &Limits) -> Result<Leaf, String> {
    let above = parent()?;
    let own = own_folder()?;
    let name = format!("palisade-{}", std::process::id());
    let path = above.join(&name);
    let text = |cause: io::Error| format!("{}: {cause}", path.display());
    fs::create_dir(&path).map_err(text)?;
    let detail = match set(&path, limits) {
        Ok(detail) => detail,
        Err(cause) => {
            let _ = fs::remove_dir(&path); // Nobody is in it yet.
            return Err(text(cause));
        }
    };
    Ok(Leaf {
        above: File::open(&above).map_err(text)?,
        kill: File::options().write(true).open(path.join("cgroup.kill")).ok(),
        back: File::options().write(true).open(own.join("cgroup.procs")).map_err(text)?,
        name,
        detail,
    })
}

fn set(path: &Path, limits: &Limits) -> io::Result<String> {
    fs::write(path.join("memory.max"), limits.memory_bytes.to_string())?;
    // Absent without swap accounting; memory.max then counts as before.
    let _ = fs::write(path.join("memory.swap.max"), "0");
    fs::write(path.join("memory.oom.group"), "1")?;
    fs::write(path.join("pids.max"), limits.processes.saturating_add(2).to_string())?;
    let mut detail = format!("{} MiB, {} processes in all", limits.memory_bytes >> 20, limits.processes);
    if let Some(cores) = limits.cpu_cores {
        match fs::write(path.join("cpu.max"), format!("{:.0} 100000", cores * 100_000.0)) {
            Ok(()) => detail.push_str(&format!(", {cores} cores")),
            Err(cause) => detail.push_str(&format!("; cpu not limited: {cause}")),
        }
    }
    fs::write(path.join("cgroup.procs"), "0")?;
    Ok(detail)
}
