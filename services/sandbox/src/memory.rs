//! Memory of processes that hold keys: no other process reads it, no core dump and no swap keeps it; and what is free goes back.
//!
//! A process that once held much (policies while they were checked, a large answer) keeps the pages: glibc returns only the end of an
//! arena by itself. What is idle should cost little (O8), so processes give back what is free from time to time.
//!
//! Keys are where the TLS library puts them, so all memory is locked, each page from its first use on. That takes a right (root has it, or
//! `LimitMEMLOCK=infinity`). Without it: where nothing is swapped to, there is nothing to lock against; else the heaps are locked as far
//! as the limit goes.
//!
//! Spec:       `mlockall(2)` and `mlock2(2)` with `ONFAULT` (Linux 4.4), `prctl(2)` `PR_SET_DUMPABLE`, `proc(5)`.
//! Guarantees: I12.
//! Not here:   when (the platform decides).

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{limits, sys};

/// What keeps memory out of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All of it is locked, also what is taken later.
    All,
    /// This machine has no swap.
    NoSwap,
    /// So much of the heaps is locked, in bytes, and so large they are: the limit ends there.
    Part {
        /// Locked.
        locked: u64,
        /// Of.
        of: u64,
    },
}

/// What a process does before it holds a key: no core dump, no debugger, no `/proc` of it for others of the same user; no swap.
///
/// # Errors
/// The kernel refuses the first, which it has no reason to.
pub fn keep_keys() -> io::Result<Kept> {
    limits::forbid_dumps()?;
    Ok(lock())
}

/// Gives free pages of all arenas back; what was locked is locked again. Takes about a millisecond; on other C libraries than glibc it does
/// nothing.
pub fn give_back() {
    let held = is_locked();
    if held {
        // The kernel takes no page back that is locked. For this millisecond none is.
        sys::unlock_all();
    }
    sys::trim_heap();
    if held {
        lock();
    }
}

fn lock() -> Kept {
    const MEMLOCK: Resource = Resource::RLIMIT_MEMLOCK;
    let endless = setrlimit(MEMLOCK, u64::MAX, u64::MAX).is_ok();
    let hard = getrlimit(MEMLOCK).map_or(0, |(_, hard)| hard);
    // With a limit, success with more than the limit is the proof of the right to pass it; else the next allocation might be refused.
    if (endless || mapped() > hard) && sys::lock_all().is_ok() {
        return Kept::All;
    }
    // One line is the heading.
    if fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() <= 1) {
        return Kept::NoSwap;
    }
    let _ = setrlimit(MEMLOCK, hard, hard); // Else the soft limit is what there is.
    lock_heaps(hard)
}

fn lock_heaps(limit: u64) -> Kept {
    let (mut locked, mut of) = (0_u64, 0_u64);
    for (start, length) in heaps(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        of = of.saturating_add(length);
        if locked.saturating_add(length) <= limit && sys::lock_range(start, length).is_ok() {
            locked = locked.saturating_add(length);
        }
    }
    Kept::Part { locked, of }
}

/// Start and length of each heap in `/proc/self/maps`: the first, and glibc's arenas, which begin at multiples of 64 MiB.
fn heaps(maps: &str) -> impl Iterator<Item = (u64, u64)> {
    const ARENA: u64 = 64 << 20;
    maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let is_writable = fields.next()? == "rw-p";
        let (inode, name) = (fields.nth(2)?, fields.next());
        let is_heap = name == Some("[heap]") || (inode == "0" && name.is_none() && start % ARENA == 0);
        (is_writable && is_heap).then(|| (start, end.saturating_sub(start)))
    })
}

/// Everything that is mapped, bytes.
fn mapped() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(4096) // Pages are no smaller anywhere.
}

fn is_locked() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("VmLck:").is_some_and(|rest| rest.trim() != "0 kB"))
}

#[cfg(test)]
mod tests {
    //! Tests of this process's own memory; `tests::keys` asks others.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_holds_keys_is_locked_and_stays_so_when_memory_is_given_back() {
        // I12
        let kept = keep_keys().unwrap();
        if nix::unistd::geteuid().is_root() {
            assert_eq!(kept, Kept::All);
        }
        // Taken after the locking.
        let later = vec![1_u8; 4 << 20];
        let held = |kept: Kept| is_locked() == (kept != Kept::NoSwap);
        assert!(held(kept), "{kept:?}");
        give_back();
        assert!(held(kept), "{kept:?}");
        assert_eq!(later.last(), Some(&1));
    }

    #[test]
    fn without_the_right_to_lock_all_the_heaps_are_locked_up_to_the_limit() {
        // I12
        let keep: Vec<u8> = vec![7; 100_000]; // Below what glibc maps by itself, so in a heap.
        let Kept::Part { locked, of } = lock_heaps(u64::MAX) else { unreachable!() };
        assert!(locked == of && of > 100_000, "{locked} of {of}");
        assert!(is_locked());
        assert_eq!(lock_heaps(of - 1), Kept::Part { locked: locked - last(of - 1), of }, "one heap less");
        assert_eq!(keep.len(), 100_000);
    }

    /// The size of the first heap that does not fit into `limit` any more, when the others do.
    fn last(limit: u64) -> u64 {
        let mut sum = 0;
        let all: Vec<u64> = heaps(&fs::read_to_string("/proc/self/maps").unwrap()).map(|(_, length)| length).collect();
        all.into_iter()
            .find(|length| {
                if sum + length <= limit {
                    sum += length;
                    false
                } else {
                    true
                }
            })
            .unwrap()
    }

    #[test]
    fn heaps_are_told_from_stacks_and_files() {
        let maps = "5600-5700 rw-p 00000000 00:00 0    [heap]\n\
                    7f0000000000-7f0000021000 rw-p 00000000 00:00 0\n\
                    7f0000021000-7f0004000000 ---p 00000000 00:00 0\n\
                    7f1230000000-7f1230800000 rw-p 00000000 00:00 0\n\
                    7ffe0000-7fff0000 rw-p 00000000 00:00 0    [stack]\n\
                    7f0008000000-7f0008001000 rw-p 00000000 08:01 12 /lib/x.so\n\
                    7f000c000000-7f000c001000 r--p 00000000 00:00 0\n";
        let found: Vec<_> = heaps(maps).collect();
        assert_eq!(found.get(..2), Some(&[(0x5600, 0x100), (0x7f00_0000_0000, 0x21000)][..]));
        assert!(found.iter().all(|(start, _)| *start != 0x7ffe_0000 && *start != 0x7f00_0800_0000 && *start != 0x7f00_0c00_0000));
    }
}
