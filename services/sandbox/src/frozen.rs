//! Freezing a sandbox, and keeping what is in it as evidence.
//!
//! Every process but init is stopped, in rounds until a round finds nobody new: a stopped process forks no more, so rounds end. A process
//! is stopped through a descriptor and only after it was found in the sandbox once more, so no number that was given to somebody else
//! meanwhile is ever signalled. What stands still can be read in peace: what each process is, has open and has mapped, and the files of
//! the private `/tmp`. Memory is not copied; it stays in the frozen processes until the sandbox is killed.
//!
//! Spec:       `pidfd_open(2)`, `proc(5)`; SIGSTOP cannot be caught or ignored, SIGCONT lets go on whatever becomes of it (`signal(7)`).
//! Guarantees: L15 in part.
//! Not here:   when (the guard's process), cutting the connections (`proxy`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::profile::Level;
use crate::running::Running;
use crate::sys;

/// Rounds until it is given up; each needs a process that began in the one before.
const ROUNDS_MAX: usize = 1_000;
/// Of each text under `/proc` so much is kept, in bytes.
const TEXT_BYTES_MAX: u64 = 256 * 1024;
/// Folders below `/tmp` are followed so deep.
const DEPTH_MAX: usize = 32;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceLimits {
    /// Files of the private `/tmp`.
    pub files: usize,
    /// Bytes of them together.
    pub bytes: u64,
}

/// What was kept of a frozen sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its processes, by their number outside.
    pub processes: BTreeMap<u32, Process>,
    /// SHA-256 of each file that was kept, by its path below `/tmp`; lower-case hexadecimal.
    pub files: BTreeMap<String, String>,
    /// What was there and was not kept, and why.
    pub left_out: Vec<String>,
}

/// A process as `/proc` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// `/proc/PID/status`.
    pub status: String,
    /// `/proc/PID/maps`.
    pub maps: String,
    /// Open descriptors, and what they are.
    pub descriptors: BTreeMap<String, String>,
}

impl Running {
    /// Stops every process of the sandbox; their numbers outside. They stay stopped until the sandbox is killed.
    ///
    /// # Errors
    /// When one cannot be signalled, or new ones keep appearing: then kill it.
    pub fn freeze(&self) -> io::Result<BTreeSet<u32>> {
        let mut frozen = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let all = self.of_the_service();
            let running: Vec<u32> = all.iter().copied().filter(|pid| !stands(*pid)).collect();
            if running.is_empty() && all.is_subset(&frozen) {
                return Ok(all);
            }
            for pid in running {
                let Ok(process) = sys::pidfd(pid) else { continue };
                // The number may have been given to another meanwhile; the descriptor not.
                if self.of_the_service().contains(&pid) {
                    sys::signal(process.as_fd(), libc::SIGSTOP).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })?;
                }
            }
            frozen = all;
        }
        Err(io::Error::other("its processes multiply faster than they can be stopped"))
    }

    /// Whether nobody in it runs. Nothing in there can let itself go on (the filters keep the signal for that from timers, descriptors and
    /// children), but whoever is root outside can: so it is looked at for as long as it is to stand.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.of_the_service().into_iter().all(stands)
    }

    /// Every process but init's, which run none of the service's code and must go on: PID 1 of the sandbox and what is above it, which
    /// built it (the outer init, or bubblewrap). The service can make no such namespace, so nobody below it is taken for another PID 1.
    fn of_the_service(&self) -> BTreeSet<u32> {
        let all = self.processes();
        let inits = match self.applied().level {
            Some(Level::Full) => all.iter().position(|pid| is_first_of_its_namespace(*pid)).map_or(all.len(), |at| at.saturating_add(1)),
            _ => 1,
        };
        all.into_iter().skip(inits).collect()
    }

    /// Keeps what is in a frozen sandbox below `folder`, which is made.
    ///
    /// # Errors
    /// Those of writing; what cannot be read is listed as left out.
    pub fn keep_evidence(&self, folder: &Path, limits: EvidenceLimits) -> io::Result<Evidence> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut evidence = Evidence::default();
        for pid in self.of_the_service() {
            evidence.processes.insert(pid, process(pid));
        }
        let tmp = match self.applied().level {
            Some(Level::Full) => evidence.processes.keys().next().map(|pid| PathBuf::from(format!("/proc/{pid}/root/tmp"))),
            _ => None,
        };
        if let Some(tmp) = tmp {
            let device = fs::metadata(&tmp).map(|about| about.dev()).ok();
            let mut keeper = Keeper { folder: folder.join("tmp"), device, left: limits, evidence: &mut evidence };
            keeper.folder(&tmp, Path::new(""), 0)?;
        }
        Ok(evidence)
    }
}

/// Whether it is PID 1 of a namespace below ours.
fn is_first_of_its_namespace(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_first(status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default())
}

/// Of the numbers that a process has, from our namespace to its own.
fn is_first(numbers: &str) -> bool {
    let mut numbers = numbers.split_whitespace();
    numbers.next().is_some() && numbers.next_back() == Some("1")
}

/// Whether a process runs no instruction of its own: stopped, or dead and not yet reaped.
fn stands(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before it may hold anything, also parentheses.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('T' | 't' | 'Z' | 'X'))
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn process(pid: u32) -> Process {
    let place = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let text = |name: &str| {
        let mut bytes = Vec::new();
        // What cannot be read is empty.
        let _read = File::open(place(name)).and_then(|file| file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let link = |path: &Path| fs::read_link(path).map(|to| to.display().to_string()).unwrap_or_default();
    let entries = fs::read_dir(place("fd")).into_iter().flatten().flatten();
    Process {
        program: link(&place("exe")),
        arguments: text("cmdline").split_terminator('\0').map(str::to_owned).collect(),
        status: text("status"),
        maps: text("maps"),
        descriptors: entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), link(&entry.path()))).collect(),
    }
}

/// Copies files, as long as there is room.
struct Keeper<'e> {
    folder: PathBuf,
    /// Of `/tmp` itself: what is mounted below it, such as a state folder, stays where it is.
    device: Option<u64>,
    left: EvidenceLimits,
    evidence: &'e mut Evidence,
}

impl Keeper<'_> {
    fn folder(&mut self, from: &Path, below: &Path, depth: usize) -> io::Result<()> {
        let Ok(entries) = fs::read_dir(from) else {
            self.leave_out(below, "it cannot be opened");
            return Ok(());
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let (path, below) = (from.join(&name), below.join(&name));
            // Not followed: a link could lead out of the sandbox.
            match fs::symlink_metadata(&path) {
                Ok(about) if Some(about.dev()) != self.device => self.leave_out(&below, "mounted there"),
                Ok(about) if about.is_dir() && depth < DEPTH_MAX => self.folder(&path, &below, depth.saturating_add(1))?,
                Ok(about) if about.is_file() => self.file(&path, &below, about.len())?,
                Ok(about) if about.is_dir() => self.leave_out(&below, "too deep"),
                _ => self.leave_out(&below, "no file"),
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, below: &Path, length: u64) -> io::Result<()> {
        if self.left.files == 0 || length > self.left.bytes {
            self.leave_out(below, "no room is left");
            return Ok(());
        }
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from);
        let Ok(opened) = opened else {
            self.leave_out(below, "it cannot be opened");
            return Ok(());
        };
        let to = self.folder.join(below);
        if let Some(parent) = to.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut kept = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to)?;
        let (mut opened, mut digest, mut buffer) = (opened.take(self.left.bytes), Sha256::new(), vec![0_u8; 64 * 1024]);
        loop {
            let count = opened.read(&mut buffer)?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
            digest.update(piece);
            kept.write_all(piece)?;
            self.left.bytes = self.left.bytes.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        self.left.files = self.left.files.saturating_sub(1);
        let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.evidence.files.insert(below.display().to_string(), digest);
        Ok(())
    }

    fn leave_out(&mut self, below: &Path, why: &str) {
        // The list itself is bounded by what `/tmp` can hold.
        self.evidence.left_out.push(format!("{}: {why}", below.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::is_first;

    #[test]
    fn pid_1_is_told_by_its_own_number_and_not_by_its_place() {
        // L15: alone, in a container, and as bubblewrap's child.
        for (numbers, first) in
            [("\t812\t1", true), ("812 40 1", true), ("812", false), ("1", false), ("812 2", false), ("1 12", false), ("", false)]
        {
            assert_eq!(is_first(numbers), first, "{numbers:?}");
        }
    }
}
