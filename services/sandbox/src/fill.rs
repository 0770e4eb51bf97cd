//! How much a service keeps in its state folder.
//!
//! Without root no limit of the kernel holds a folder as a whole, so init looks, again and again: at what the files take on the disk, and
//! at those that were removed and are still open or mapped. What cannot be looked into counts as too much. Between two looks a service
//! can write more than it may; the next look ends it.
//!
//! Guarantees: I7 a service cannot fill the disk that everybody's audit log is on.
//! Not here:   files that are neither in the folder nor open nor mapped, because a socket pair holds their descriptors: so many as may be
//!             open, each as large as a file may be.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and folders that are looked at; more are too many.
const ENTRIES_MAX: usize = 200_000;
/// What `st_blocks` counts in, bytes (`stat(2)`).
const BLOCK: u64 = 512;

/// What is counted, so far.
struct Count {
    device: u64,
    bytes: u64,
    entries: usize,
    /// Files that have several names, or none: counted once.
    seen: BTreeSet<u64>,
}

/// What is wrong with what a service keeps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Filled {
    /// It takes too much, or the folder cannot be looked into.
    #[error("{0}")]
    Over(String),
    /// What a process of it holds cannot be seen. For a moment of `execve(2)` that is so of every process that was made by one that is
    /// hidden, as init is.
    #[error("{0}")]
    Hidden(String),
}

/// Looks whether what is below `state`, and what these processes hold of it, takes more than `bytes_max` on the disk. A removed file that is
/// mapped only counts as `file_bytes`, the most that it can be.
///
/// # Errors
/// It does, or cannot be looked into: in words.
pub(crate) fn check(state: &Path, processes: &[i32], bytes_max: u64, file_bytes: u64) -> Result<(), Filled> {
    let device = fs::metadata(state).map_err(|cause| Filled::Over(format!("{}: {cause}", state.display())))?.dev();
    let mut count = Count { device, bytes: 0, entries: 0, seen: BTreeSet::new() };
    count.folders(state).map_err(Filled::Over)?;
    let mut hidden = None;
    for pid in processes {
        if let Err(why) = count.open(*pid).and_then(|()| count.mapped(*pid, file_bytes)) {
            hidden = Some(why);
        }
    }
    if count.bytes > bytes_max {
        return Err(Filled::Over(format!(
            "it takes {} MiB of the {} MiB that limits.state allows; remove something from {} or raise the limit",
            count.bytes >> 20,
            bytes_max >> 20,
            state.display()
        )));
    }
    hidden.map_or(Ok(()), |why| Err(Filled::Hidden(why)))
}

impl Count {
    fn folders(&mut self, state: &Path) -> Result<(), String> {
        let mut left = vec![state.to_path_buf()];
        while let Some(folder) = left.pop() {
            let hidden = |cause: io::Error| format!("{} cannot be looked into: {cause}", folder.display());
            let Some(entries) = there(fs::read_dir(&folder)).map_err(hidden)? else { continue };
            for entry in entries {
                let path = entry.map_err(hidden)?.path();
                let Some(about) = there(fs::symlink_metadata(&path)).map_err(hidden)? else { continue };
                self.entries = self.entries.saturating_add(1);
                if self.entries > ENTRIES_MAX {
                    return Err(format!("{} has more than {ENTRIES_MAX} files", state.display()));
                }
                if about.is_dir() && about.dev() == self.device {
                    left.push(path);
                }
                self.add(&about);
            }
        }
        Ok(())
    }

    fn add(&mut self, about: &Metadata) {
        let once = about.is_dir() || about.nlink() == 1;
        if about.dev() == self.device && (once || self.seen.insert(about.ino())) {
            self.bytes = self.bytes.saturating_add(about.blocks().saturating_mul(BLOCK));
        }
    }

    /// Removed files that a process has open.
    fn open(&mut self, pid: i32) -> Result<(), String> {
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        let hidden = |cause: io::Error| format!("what process {pid} has open cannot be seen: {cause}");
        let Some(entries) = there(fs::read_dir(folder)).map_err(hidden)? else { return Ok(()) };
        for entry in entries {
            let Some(entry) = there(entry).map_err(hidden)? else { return Ok(()) };
            let Some(about) = there(fs::metadata(entry.path())).map_err(hidden)? else { continue };
            if about.is_file() && about.nlink() == 0 {
                self.add(&about);
            }
        }
        Ok(())
    }

    /// Removed files that a process has mapped: `maps` has their device and number, not their size.
    fn mapped(&mut self, pid: i32, file_bytes: u64) -> Result<(), String> {
        let hidden = |cause: io::Error| format!("what process {pid} has mapped cannot be seen: {cause}");
        let Some(maps) = there(fs::read_to_string(format!("/proc/{pid}/maps"))).map_err(hidden)? else { return Ok(()) };
        for line in maps.lines().filter(|line| line.ends_with(" (deleted)")) {
            let mut fields = line.split_whitespace().skip(3);
            let (device, inode) = (fields.next().and_then(device), fields.next().and_then(|number| number.parse().ok()));
            if device == Some(self.device) && inode.is_some_and(|inode| self.seen.insert(inode)) {
                self.bytes = self.bytes.saturating_add(file_bytes);
            }
        }
        Ok(())
    }
}

/// `MAJOR:MINOR`, in hexadecimal, as `st_dev` has it.
fn device(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}

/// Nothing where it is gone meanwhile.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    //! Limits, from both sides.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn files_count_once_by_what_they_take_and_also_when_they_are_removed_and_still_open() {
        // I7
        let ground = tempfile::tempdir().unwrap();
        let state = ground.path();
        let own = [i32::try_from(std::process::id()).unwrap()];
        let fits = |mib: u64| check(state, &own, mib * MIB + MIB / 2, 64 * MIB).is_ok();
        fs::create_dir(state.join("below")).unwrap();
        let bytes = vec![1; 2 * usize::try_from(MIB).unwrap()];
        fs::write(state.join("below/two"), &bytes).unwrap();
        fs::hard_link(state.join("below/two"), state.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", state.join("elsewhere")).unwrap();
        // It is 1 GiB long and takes nothing.
        fs::File::create(state.join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(!fits(1) && fits(2));
        fs::write(state.join("removed"), &bytes).unwrap();
        let open = fs::File::open(state.join("removed")).unwrap();
        fs::remove_file(state.join("removed")).unwrap();
        assert!(!fits(3) && fits(4));
        drop(open);
        assert!(!fits(1) && fits(2));
    }

    #[test]
    fn what_cannot_be_looked_into_is_too_much() {
        // I7
        let ground = tempfile::tempdir().unwrap();
        assert!(check(&ground.path().join("gone"), &[], MIB, MIB).is_err());
        assert!(check(ground.path(), &[i32::MAX], MIB, MIB).is_ok(), "a process that has ended holds nothing");
        let line = "7f0-7f1 rw-s 00000000 fe:00 1234  /data/x (deleted)";
        // A process that nobody may look into; what can be seen counts all the same.
        let mut hidden = std::process::Command::new("/usr/bin/python3");
        hidden.args(["-c", "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0); print(flush=True); sys.stdin.read()"]);
        hidden.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut hidden = hidden.spawn().unwrap();
        std::io::Read::read_exact(hidden.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = [i32::try_from(hidden.id()).unwrap()];
        if !nix::unistd::geteuid().is_root() {
            assert!(matches!(check(ground.path(), &pid, MIB, MIB), Err(Filled::Hidden(_))));
        }
        fs::write(ground.path().join("much"), vec![1; 1 << 20]).unwrap();
        assert!(matches!(check(ground.path(), &pid, 1, MIB), Err(Filled::Over(_))));
        drop(hidden.stdin.take());
        hidden.wait().unwrap();
        assert_eq!(line.split_whitespace().nth(3).and_then(device), Some(libc::makedev(0xfe, 0)));
    }
}
