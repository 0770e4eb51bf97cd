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
//! Spec:       proc(5), pidfd_open(2).
//! Guarantees: C5 a process with another program gets no identity, nor does one that took over a number.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

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

/// The digest of the program that `peer` runs. Reads the whole file: call it where blocking is allowed.
///
/// # Errors
/// `Gone` and `Unreadable`.
pub fn program_of(peer: &LocalPeer) -> Result<Digest, AttestError> {
    program_if(peer, || ())
}

/// As `program_of`, with something done between opening and checking, for tests of the race.
pub(crate) fn program_if(peer: &LocalPeer, between: impl FnOnce()) -> Result<Digest, AttestError> {
    let pid = peer.pid;
    let gone = || AttestError::Gone(pid);
    let before = Moment::of(peer).ok_or_else(gone)?;
    let opened = File::open(format!("/proc/{pid}/exe"));
    between();
    if Moment::of(peer) != Some(before) {
        return Err(gone());
    }
    opened.and_then(Digest::of_reader).map_err(|cause| AttestError::Unreadable { pid, cause })
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
