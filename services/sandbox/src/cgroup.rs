//! The control group: limits for the service as a whole, over all its processes.
//!
//! With cgroup v2 a leaf is made in our own cgroup, or (since a cgroup with processes cannot give controllers to children) beside it,
//! which is what systemd's `Delegate=` with `DelegateSubgroup=` and containers with a private cgroup namespace allow. Where the controllers
//! belong to cgroup v1, there is a leaf for each of them below our own, if we may make one. The guard removes what init made: init has
//! given up the right to.
//!
//! A move by `cgroup.procs` takes a lock under which no process of the machine can fork or end, and waits up to 20 ms for it. So version 1
//! takes init, which has one thread, by `tasks`, and with version 2 PID 1 is born in its group; neither needs that lock.
//!
//! What is written to the private `/tmp` is memory too, so it is counted besides.
//!
//! Spec:       kernel `Documentation/admin-guide/cgroup-v2.rst`, "No Internal Process Constraint"; `cgroup-v1/memory.rst`, `pids.rst`.
//! Guarantees: I7 in sum over all processes. Absence is reported, and rlimits hold.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;

use crate::profile::Limits;
use crate::sys;

const BASE: &str = "/sys/fs/cgroup";
const WANTED: [&str; 2] = ["memory", "pids"];
/// What takes a process; and, with version 1, what takes the one thread that writes to it.
const PROCESS: &str = "cgroup.procs";
const THREAD: &str = "tasks";
/// Tasks of init's in the same group.
const OWN_TASKS: u64 = 2;
const PERIOD_US: f64 = 100_000.0;

/// Where leaves can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One tree for all controllers: our own folder, and the one that the leaf is made in.
    Unified { own: PathBuf, above: PathBuf },
    /// A tree for each controller: its name and our own folder.
    Split(Vec<(&'static str, PathBuf)>),
}

/// What the service runs in. Held by descriptors, since paths are out of reach once the root has changed.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// With version 2 the leaf itself and its door, which nobody went through yet.
    born: Option<(File, File)>,
    /// This process is in it, too.
    entered: Cell<bool>,
    back: Vec<File>,
    kill: Option<File>,
    pub(crate) detail: String,
}

impl Leaf {
    /// A leaf of version 2 that is there, without limits.
    #[cfg(test)]
    pub(crate) fn born_in(leaf: &Path) -> io::Result<Self> {
        let open = |path: PathBuf| File::options().write(true).open(path);
        let born = Some((File::open(leaf)?, open(leaf.join(PROCESS))?));
        Ok(Self { born, entered: Cell::new(false), back: Vec::new(), kill: Some(open(leaf.join("cgroup.kill"))?), detail: String::new() })
    }

    /// Forks; the child is in the leaf.
    pub(crate) fn fork(&self) -> io::Result<Option<Pid>> {
        let Some((leaf, _)) = &self.born else { return sys::fork() };
        sys::fork_into(leaf.as_fd()).or_else(|_| self.enter().and_then(|()| sys::fork()))
    }

    /// Puts this process in, where it is not yet.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let Some((_, door)) = &self.born else { return Ok(()) };
        let mut door: &File = door;
        door.write_all(b"0")?;
        self.entered.set(true);
        Ok(())
    }

    /// Leaves it, and ends every other process in it (cgroup v2, Linux 5.14).
    pub(crate) fn leave(&self) {
        // Best effort: every process in it ends with PID 1 anyway.
        for mut back in self.back.iter().filter(|_| self.entered.get()) {
            let _ = back.write_all(b"0");
        }
        if let Some(mut kill) = self.kill.as_ref() {
            let _ = kill.write_all(b"1");
        }
    }
}

/// Where leaves with the wanted controllers can be made, or why nowhere.
pub(crate) fn place() -> Result<Place, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|cause| cause.to_string())?;
    find(Path::new(BASE), &own)
}

fn find(base: &Path, own: &str) -> Result<Place, String> {
    unified(base, own).or_else(|| split(base, own)).ok_or_else(|| {
        "no delegated cgroup; with systemd: Delegate=yes and DelegateSubgroup=guard. Limits hold for each process".to_owned()
    })
}

fn may_write(folder: &Path) -> bool {
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// A folder below `base` for a line's path in `/proc/self/cgroup`; none for one outside of our cgroup namespace.
fn below(base: &Path, path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix('/')?;
    let folder = if path.is_empty() { base.to_owned() } else { base.join(path) };
    (!path.split('/').any(|part| part == "..") && folder.join("cgroup.procs").exists()).then_some(folder)
}

fn unified(base: &Path, own: &str) -> Option<Place> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = below(base, path)?;
    let candidates = [Some(own.as_path()), own.parent().filter(|above| above.starts_with(base))];
    let above = candidates.into_iter().flatten().find(|folder| {
        let given = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
        WANTED.iter().all(|wanted| given.split_whitespace().any(|it| it == *wanted)) && may_write(folder)
    })?;
    Some(Place::Unified { above: above.to_owned(), own })
}

fn split(base: &Path, own: &str) -> Option<Place> {
    let folder = |controller: &'static str| {
        let line = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|it| it == controller).then_some(path)
        })?;
        below(&base.join(controller), line).filter(|folder| may_write(folder))
    };
    let mut all = Vec::new();
    for controller in WANTED {
        all.push((controller, folder(controller)?));
    }
    all.extend(folder("cpu").map(|folder| ("cpu", folder)));
    Some(Place::Split(all))
}

/// How the names of our leaves begin: process numbers are those of one PID namespace, and others may have systems beside it.
pub(crate) fn prefix() -> String {
    let of = fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
    format!("palisade-{of:x}-")
}

fn name(init: u32) -> String {
    format!("{}{init}", prefix())
}

/// Makes a leaf and sets the limits. With version 1 this process is in it then.
pub(crate) fn make(limits: &Limits) -> Result<Leaf, String> {
    let place = place()?;
    make_at(&place, limits).map_err(|cause| {
        remove_at(&place, std::process::id()); // Nobody is in it, or we leave again.
        cause.to_string()
    })
}

fn make_at(place: &Place, limits: &Limits) -> io::Result<Leaf> {
    let name = name(std::process::id());
    let open = |path: PathBuf| File::options().write(true).open(path);
    let mut born = None;
    let (back, kill, leaves) = match place {
        Place::Unified { own, above } => {
            let leaf = above.join(&name);
            fs::create_dir(&leaf)?;
            set_unified(&leaf, limits)?;
            born = Some((File::open(&leaf)?, open(leaf.join(PROCESS))?));
            (vec![open(own.join(PROCESS))?], open(leaf.join("cgroup.kill")).ok(), Vec::new())
        }
        Place::Split(parts) => {
            let mut back = Vec::new();
            let mut leaves = Vec::new();
            for (controller, own) in parts {
                let leaf = own.join(&name);
                fs::create_dir(&leaf)?;
                set_split(controller, &leaf, limits)?;
                back.push(open(own.join(THREAD))?);
                leaves.push(leaf);
            }
            (back, None, leaves)
        }
    };
    for (index, leaf) in leaves.iter().enumerate() {
        if let Err(cause) = fs::write(leaf.join(THREAD), "0") {
            for mut back in back.iter().take(index) {
                let _ = back.write_all(b"0"); // What it came from takes it back.
            }
            return Err(cause);
        }
    }
    let (version, kept) = match place {
        Place::Unified { .. } => ("v2", limits.cpu_cores),
        Place::Split(parts) => ("v1", limits.cpu_cores.filter(|_| parts.iter().any(|(controller, _)| *controller == "cpu"))),
    };
    let cores = kept.map_or_else(String::new, |cores| format!(", {cores} cores"));
    let detail = format!("{version}: {} MiB with /tmp, {} processes in all{cores}", memory(limits) >> 20, limits.processes);
    let entered = Cell::new(born.is_none());
    Ok(Leaf { born, entered, back, kill, detail })
}

/// What the service may hold, with what it writes to its `/tmp`.
fn memory(limits: &Limits) -> u64 {
    // The kernel's counters end before.
    limits.memory_bytes.saturating_add(limits.tmp_bytes).min(i64::MAX.unsigned_abs())
}

fn set_unified(leaf: &Path, limits: &Limits) -> io::Result<()> {
    fs::write(leaf.join("memory.max"), memory(limits).to_string())?;
    // Absent without swap accounting; memory.max then counts as before.
    let _ = fs::write(leaf.join("memory.swap.max"), "0");
    fs::write(leaf.join("memory.oom.group"), "1")?;
    fs::write(leaf.join("pids.max"), limits.processes.saturating_add(OWN_TASKS).to_string())?;
    match limits.cpu_cores {
        Some(cores) => fs::write(leaf.join("cpu.max"), format!("{:.0} {PERIOD_US:.0}", cores * PERIOD_US)),
        None => Ok(()),
    }
}

fn set_split(controller: &str, leaf: &Path, limits: &Limits) -> io::Result<()> {
    match (controller, limits.cpu_cores) {
        ("memory", _) => {
            fs::write(leaf.join("memory.limit_in_bytes"), memory(limits).to_string())?;
            // Absent without swap accounting.
            let _ = fs::write(leaf.join("memory.memsw.limit_in_bytes"), memory(limits).to_string());
            Ok(())
        }
        ("pids", _) => fs::write(leaf.join("pids.max"), limits.processes.saturating_add(OWN_TASKS).to_string()),
        ("cpu", Some(cores)) => {
            fs::write(leaf.join("cpu.cfs_period_us"), format!("{PERIOD_US:.0}"))?;
            fs::write(leaf.join("cpu.cfs_quota_us"), format!("{:.0}", cores * PERIOD_US))
        }
        _ => Ok(()),
    }
}

/// Removes what the init with this pid made, once it is gone, and what inits made whose guards are gone. The guard's part.
pub(crate) fn remove(init: u32) {
    let Ok(place) = place() else { return };
    remove_at(&place, init);
    let folders: Vec<&PathBuf> = match &place {
        Place::Unified { above, .. } => vec![above],
        Place::Split(parts) => parts.iter().map(|(_, own)| own).collect(),
    };
    let of_ours = prefix();
    for entry in folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let of = entry.file_name().to_str().and_then(|name| name.strip_prefix(&of_ours)?.parse::<u32>().ok());
        if of.is_some_and(|init| !Path::new("/proc").join(init.to_string()).exists()) {
            let _ = fs::remove_dir(entry.path()); // With a process in it, it stays.
        }
    }
}

fn remove_at(place: &Place, init: u32) {
    const TURNS: u32 = 40;
    let leaves: Vec<PathBuf> = match place {
        Place::Unified { above, .. } => vec![above.join(name(init))],
        Place::Split(parts) => parts.iter().map(|(_, own)| own.join(name(init))).collect(),
    };
    for leaf in leaves {
        // Its last process may be counted for some milliseconds after its end. A leaf that stays behind holds nothing and limits nobody.
        for _ in 0..TURNS {
            match fs::remove_dir(&leaf) {
                Err(cause) if cause.kind() == io::ErrorKind::ResourceBusy => pause(),
                _ => break,
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own waits for the kernel, outside of every simulation")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[cfg(test)]
mod tests {
    //! Tests with folders that look like the kernel's; `tests::groups` has the kernel's own.
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn limits() -> Limits {
        Limits {
            memory_bytes: 100 << 20,
            processes: 10,
            open_files: 10,
            file_bytes: 1,
            cpu_seconds: None,
            cpu_cores: Some(1.5),
            wall_ms: None,
            tmp_bytes: 28 << 20,
            state_bytes: 1,
        }
    }

    fn folder(base: &Path, path: &str, controllers: &str) -> PathBuf {
        let folder = base.join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup.procs"), "").unwrap();
        fs::write(folder.join("cgroup.subtree_control"), controllers).unwrap();
        folder
    }

    #[test]
    fn a_delegated_group_of_version_2_is_found_and_its_limits_are_written() {
        // I7
        let base = tempfile::tempdir().unwrap();
        let above = folder(base.path(), "system.slice/palisade.service", "cpu memory pids");
        let own = folder(base.path(), "system.slice/palisade.service/guard", "");
        let place = find(base.path(), "0::/system.slice/palisade.service/guard\n").unwrap();
        assert_eq!(place, Place::Unified { own, above: above.clone() });
        let leaf = above.join("leaf");
        fs::create_dir(&leaf).unwrap();
        set_unified(&leaf, &limits()).unwrap();
        let read = |file: &str| fs::read_to_string(leaf.join(file)).unwrap();
        assert_eq!(
            (read("memory.max"), read("pids.max"), read("cpu.max")),
            ((128_u64 << 20).to_string(), "12".into(), "150000 100000".into())
        );
        assert_eq!((read("memory.swap.max"), read("memory.oom.group")), ("0".into(), "1".into()));
    }

    #[test]
    fn where_nothing_is_delegated_the_absence_says_what_to_do() {
        // I7
        let base = tempfile::tempdir().unwrap();
        folder(base.path(), "user.slice", "cpu");
        folder(base.path(), "user.slice/session", "");
        for own in ["0::/user.slice/session\n", "0::/../elsewhere\n", "4:memory:/x\n8:pids:/x\n", ""] {
            assert!(find(base.path(), own).unwrap_err().contains("Delegate=yes"), "{own}");
        }
    }

    #[test]
    fn version_1_has_a_leaf_for_each_controller() {
        // I7
        let base = tempfile::tempdir().unwrap();
        let memory = folder(base.path(), "memory/a/b", "");
        let pids = folder(base.path(), "pids", "");
        let own = "8:pids:/\n4:memory:/a/b\n2:cpu,cpuacct:/nowhere\n0::/\n";
        assert_eq!(find(base.path(), own).unwrap(), Place::Split(vec![("memory", memory.clone()), ("pids", pids)]));
        set_split("memory", &memory, &limits()).unwrap();
        assert_eq!(fs::read_to_string(memory.join("memory.limit_in_bytes")).unwrap(), (128_u64 << 20).to_string());
        set_split("cpu", &memory, &limits()).unwrap();
        assert_eq!(fs::read_to_string(memory.join("cpu.cfs_quota_us")).unwrap(), "150000");
    }
}
