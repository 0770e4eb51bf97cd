//! Bombs: each takes one resource until it is refused, and says how much it got.
//!
//! Not here: the limits.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::say;
use crate::sys;

const TASKS_MAX: usize = 5_000;
const MEBIBYTES_MAX: usize = 8 * 1024;

/// Forks sleepers, until the kernel refuses.
pub(super) fn fork() -> u8 {
    let mut count = 0;
    while count < TASKS_MAX {
        match sys::fork() {
            Ok(Some(_)) => count += 1,
            Ok(None) => loop {
                std::thread::sleep(std::time::Duration::from_secs(60));
            },
            Err(cause) => return say(&format!("{count} processes, then {cause}")),
        }
    }
    say(&format!("{count} processes, no end"))
}

/// Private memory, touched, until the kernel refuses.
pub(super) fn memory() -> u8 {
    let mut all: Vec<Vec<u8>> = Vec::new();
    while all.len() < MEBIBYTES_MAX {
        let mut piece: Vec<u8> = Vec::new();
        if let Err(cause) = piece.try_reserve_exact(1 << 20) {
            let got = all.len();
            drop(all);
            return say(&format!("{got} MiB, then {cause}"));
        }
        piece.resize(1 << 20, 1);
        all.push(piece);
    }
    say(&format!("{} MiB, no end", all.len()))
}

/// The ways around a limit on private memory: shared mappings of `/dev/zero` and of files in `/tmp`.
pub(super) fn shared_memory() -> u8 {
    let zero = fs::OpenOptions::new().read(true).write(true).open("/dev/zero").is_ok();
    let mut written = 0;
    if let Ok(mut file) = fs::File::create("/tmp/bomb") {
        let piece = vec![1_u8; 1 << 20];
        while written < MEBIBYTES_MAX && file.write_all(&piece).is_ok() {
            written += 1;
        }
    }
    say(&format!("dev zero {zero}, tmp {written} MiB"))
}

/// One file, until the kernel refuses (or SIGXFSZ kills).
pub(super) fn file(path: &Path) -> u8 {
    let Ok(mut file) = fs::File::create(path) else { return say("not created") };
    let piece = vec![1_u8; 1 << 20];
    for written in 0..MEBIBYTES_MAX {
        if let Err(cause) = file.write_all(&piece) {
            return say(&format!("{written} MiB, then {cause}"));
        }
    }
    say("no end")
}

/// Leaves a grandchild in a session of its own that counts in a file, then ends.
pub(super) fn orphan(path: &Path) -> u8 {
    match sys::fork() {
        Ok(Some(_)) => {
            std::thread::sleep(std::time::Duration::from_millis(100));
            say("left")
        }
        Ok(None) => {
            let _ = nix::unistd::setsid();
            let _ = sys::fork().map(|child| {
                if child.is_some() {
                    sys::exit_now(0)
                }
            });
            for count in 0..1000 {
                let _ = fs::write(path, format!("{count}\n"));
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            sys::exit_now(0)
        }
        Err(cause) => say(&cause.to_string()),
    }
}

/// Leaves a process that counts, two files and a link, and stays.
pub(super) fn orphan_and_stay(path: &Path) -> u8 {
    let left = fs::write("/tmp/a-left", "left").and_then(|()| fs::write("/tmp/b-more", "more!"));
    let linked = left.and_then(|()| std::os::unix::fs::symlink("/etc/hostname", "/tmp/c-link"));
    if linked.is_err() {
        return 1;
    }
    orphan(path);
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
