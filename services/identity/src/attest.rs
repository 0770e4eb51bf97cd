//! Attestation: which program the process at the other end of a UNIX socket runs.
//!
//! The file behind `/proc/PID/exe` is opened first; only if the process is afterwards still the one that connected was that its file,
//! because a number is not given again while its process lives. With a handle on the process (`SO_PEERPIDFD`, Linux 6.5) this is
//! exact: the kernel names the number that the handle stands for, or -1 once the process is gone. On older kernels the start time is compared before and after, which leaves
//! the moment between connecting and the first look.
//!
//! Limit: a process may pass its socket to another, or replace its program once it has connected. That is why a join needs the
//! single-use token too: only the supervisor's own child was ever told it.
//!
//! A program that was measured before is not read again as long as its file is untouched: the same inode with the same size, times of
//! writing and time of change, asked of the descriptor that `/proc/PID/exe` gave. A name plays no part, so a file that was put in another's
//! place is another inode. Nobody but the kernel sets the time of change, and every write and every setting of other times moves it; it
//! moves in steps of some milliseconds, so a file that was changed shortly before it was measured is not remembered, and one that changes
//! while it is measured is not either. Besides, no file can be opened for writing while the supervisor runs it (`ETXTBSY`, but on Linux
//! 6.11 and 6.12). Whoever sets the machine's clock back or writes to its disk past the file system is root, who is not kept out.
//!
//! Spec:       proc(5), pidfd_open(2), inode(7).
//! Guarantees: C5 a process with another program gets no identity, nor does one that took over a number.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use contract::LocalPeer;
use trust::Digest;

/// Why nothing can be said of a process.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The process that connected is gone, or its number is another's now.
    #[error("process {0} is no longer the one that connected")]
    Gone(i32),
    /// Its program cannot be read: it belongs to another user, or it made itself undumpable.
    #[error("the program of process {pid} cannot be read; it must be of the same user and dumpable until it has joined")]
    Unreadable {
        /// Which process.
        pid: i32,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// A file whose last change is younger than this is not remembered.
const SETTLED_MS: i128 = 3_000;
/// Programs that are remembered; a system runs one.
const REMEMBERED_MAX: usize = 16;

/// Programs that were measured.
#[derive(Debug, Default)]
pub struct Programs {
    measured: Mutex<Vec<(Print, Digest)>>,
}

/// What changes whenever a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    fn changed_ms(&self) -> i128 {
        let (seconds, nanoseconds) = self.changed;
        i128::from(seconds).saturating_mul(1_000).saturating_add(i128::from(nanoseconds) / 1_000_000)
    }
}

impl Programs {
    /// The digest of the program that `peer` runs, at `now_ms` (wall clock). Reads the whole file the first time: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// `Gone` and `Unreadable`.
    pub fn of(&self, peer: &LocalPeer, now_ms: u64) -> Result<Digest, AttestError> {
        program_if(peer, || (), |file| self.digest(&file, now_ms))
    }

    fn digest(&self, file: &File, now_ms: u64) -> io::Result<Digest> {
        let before = Print::of(file)?;
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, digest)) = measured.iter().find(|(print, _)| *print == before) {
            return Ok(*digest);
        }
        // Under the lock: processes that join together have the same program, which is then read once.
        let digest = Digest::of_reader(file)?;
        if i128::from(now_ms).saturating_sub(before.changed_ms()) >= SETTLED_MS && Print::of(file)? == before {
            if measured.len() >= REMEMBERED_MAX {
                measured.remove(0);
            }
            measured.push((before, digest));
        }
        Ok(digest)
    }
}

/// Something made of the program's file that `peer` runs, with something done between opening and checking, for tests of the race.
pub(crate) fn program_if<T>(peer: &LocalPeer, between: impl FnOnce(), read: impl FnOnce(File) -> io::Result<T>) -> Result<T, AttestError> {
    let pid = peer.pid;
    let gone = || AttestError::Gone(pid);
    let before = Moment::of(peer).ok_or_else(gone)?;
    let opened = File::open(format!("/proc/{pid}/exe"));
    between();
    if Moment::of(peer) != Some(before) {
        return Err(gone());
    }
    opened.and_then(read).map_err(|cause| AttestError::Unreadable { pid, cause })
}

/// What stays the same as long as a process is the same.
#[derive(Debug, PartialEq, Eq)]
enum Moment {
    /// The handle still stands for this number.
    Handle,
    /// The process with this number started then (clock ticks since boot).
    Started(u64),
}

impl Moment {
    fn of(peer: &LocalPeer) -> Option<Self> {
        match &peer.pidfd {
            Some(handle) => (number_of(handle)? == peer.pid).then_some(Self::Handle),
            None => started(peer.pid).map(Self::Started),
        }
    }
}

/// The number that a handle stands for; nothing for a process that is gone.
fn number_of(handle: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).ok()?;
    let number: i32 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (number > 0).then_some(number)
}

/// Field 22 of `/proc/PID/stat`. The second field is in parentheses and may hold anything, so counting begins after the last one.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use super::*;

    /// Whatever the clock says: the file's last change is long ago.
    const LATER_MS: u64 = 1 << 60;

    // C5, C6: what is remembered is remembered of this very content.
    #[test]
    fn a_program_is_read_once_and_again_when_anything_of_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("program"), folder.path().join("other"));
        let programs = Programs::default();
        let measure = || programs.digest(&File::open(&path).unwrap(), LATER_MS).unwrap();
        fs::write(&path, "good").unwrap();
        assert_eq!(measure(), Digest::of(b"good"));
        // The mark of one that was not read: what is remembered is what is said.
        let mark = Digest::of(b"mark");
        programs.measured.lock().unwrap().iter_mut().for_each(|(_, digest)| *digest = mark);
        assert_eq!(measure(), mark);
        // Written in place, as long as before, and its time of writing set back.
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let before = Print::of(&File::open(&path).unwrap()).unwrap().changed;
        while Print::of(&File::open(&path).unwrap()).unwrap().changed == before {
            fs::write(&path, "evil").unwrap(); // The kernel's clock moves in steps.
        }
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        assert_eq!(measure(), Digest::of(b"evil"));
        // Another file of the same size and time in its place.
        fs::write(&other, "ugly").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(written).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(measure(), Digest::of(b"ugly"));
    }

    // Two writes within one step of the kernel's clock leave the same time of change.
    #[test]
    fn a_program_that_changed_just_now_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "good").unwrap();
        let file = File::open(&path).unwrap();
        let changed = u64::try_from(Print::of(&file).unwrap().changed_ms()).unwrap();
        let programs = Programs::default();
        let remembered = || programs.measured.lock().unwrap().len();
        let settled = u64::try_from(SETTLED_MS).unwrap();
        programs.digest(&file, changed + settled - 1).unwrap();
        programs.digest(&File::open(&path).unwrap(), changed.saturating_sub(60_000)).unwrap();
        assert_eq!(remembered(), 0);
        programs.digest(&File::open(&path).unwrap(), changed + settled).unwrap();
        assert_eq!(remembered(), 1);
    }

    #[test]
    fn no_more_programs_are_remembered_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::default();
        for number in 0..=REMEMBERED_MAX {
            let path = folder.path().join(number.to_string());
            fs::write(&path, "x").unwrap();
            programs.digest(&File::open(&path).unwrap(), LATER_MS).unwrap();
        }
        assert_eq!(programs.measured.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
