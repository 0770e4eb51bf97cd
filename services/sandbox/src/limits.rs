//! Limits: a bomb goes off inside.
//!
//! Spec:       `setrlimit(2)`.
//! Guarantees: I7 memory, processes, descriptors, file size, CPU; the wall clock is in `supervise`. I12 [`forbid_dumps`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Uid;

use crate::profile::Limits;

/// Tasks beside the service that count against its process limit: outer init and PID 1.
const OWN_TASKS: u64 = 2;

/// Applies every limit to this process and what it becomes. `already` tasks of the same uid are not the service's.
pub(crate) fn apply(limits: &Limits, already: u64) -> io::Result<()> {
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_DATA, limits.memory_bytes)?;
    set(Resource::RLIMIT_NPROC, limits.processes.saturating_add(already))?;
    set(Resource::RLIMIT_NOFILE, limits.open_files)?;
    set(Resource::RLIMIT_FSIZE, limits.file_bytes)?;
    set(Resource::RLIMIT_MEMLOCK, 1 << 20)?;
    set(Resource::RLIMIT_MSGQUEUE, 0)?;
    set(Resource::RLIMIT_SIGPENDING, 1024)?;
    if let Some(seconds) = limits.cpu_seconds {
        set(Resource::RLIMIT_CPU, seconds)?;
    }
    Ok(())
}

/// Never above what this process may have: lowering needs no privilege.
fn set(resource: Resource, wish: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let value = wish.min(hard);
    Ok(setrlimit(resource, value, value)?)
}

/// Tasks that count against the limit before the service starts. With a user namespace only its own count; without one,
/// all of this uid on the host do.
pub(crate) fn counted_already(own_user_namespace: bool, uid: Uid) -> u64 {
    if own_user_namespace {
        return OWN_TASKS;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return OWN_TASKS };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid.as_raw()))
        .map(|entry| fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count() as u64))
        .sum::<u64>()
        .max(OWN_TASKS)
}

/// What the guard and every role does first: no core dump, no debugger, no `/proc` of it for others of the same uid.
///
/// # Errors
/// The kernel refuses, which it has no reason to.
pub fn forbid_dumps() -> io::Result<()> {
    set(Resource::RLIMIT_CORE, 0)?;
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// One line for the report.
pub(crate) fn describe(limits: &Limits) -> String {
    let mut text = format!(
        "each process: {} MiB data, {} files, {} MiB a file; {} processes",
        limits.memory_bytes >> 20,
        limits.open_files,
        limits.file_bytes >> 20,
        limits.processes
    );
    if let Some(seconds) = limits.cpu_seconds {
        text.push_str(&format!(", {seconds} s CPU"));
    }
    if let Some(wall) = limits.wall_ms {
        text.push_str(&format!("; {wall} ms in all"));
    }
    text
}
