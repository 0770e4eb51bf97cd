//! Other programs than its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::{Alone, Notes, Row, Run, refusal};
use crate::{Cell, Control, Extent, Stride};

/// What the dynamic loader starts, which every program needs.
pub(crate) const BY_LOADER: &str = "execute by the loader";

/// The row.
pub(super) const ROW: Row = Row {
    id: "programs",
    title: "Starts shells, interpreters, the dynamic loader, programs that give more rights, and some that it wrote itself.",
    attack: "T1059.004",
    stride: Stride::E,
    controls: &[Control::Landlock, Control::MountNamespace, Control::NoNewPrivileges],
    run: Run::Alone(run, &["chmod"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let declared = |path: &str| alone.script.services.get(alone.service).is_some_and(|part| part.files.iter().any(|file| file == path));
    let written = std::env::temp_dir().join("breach-program").display().to_string();
    let own = written.as_str();
    let wrote = std::fs::write(own, b"#!/bin/sh\n").and_then(|()| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o4755))
    });
    let usual = ["/bin/sh", "/bin/bash", "/usr/bin/perl", "/usr/bin/su", "/usr/bin/sudo", "/usr/bin/mount", "/usr/bin/curl", own];
    for path in usual.into_iter().filter(|path| !declared(path) && (*path != own || wrote.is_ok())) {
        match Command::new(path).arg("--version").status() {
            Ok(_) => notes.reached(Cell::done("programs", "execute", Extent::Standing), "a program that was not declared starts"),
            Err(error) => {
                let (_, seen) = refusal(&error);
                notes.stopped(Some(Control::Landlock), seen);
            }
        }
    }
    // What loads its own program loads another as well: no wall forbids that (docs/sandbox.md, "Programs").
    for loader in LOADERS.iter().filter(|loader| Path::new(loader).exists()) {
        // A shell makes calls that a list of a service's own may lack.
        for (program, arguments) in [("/bin/sh", &["-c", "exit 0"] as &[&str]), ("/bin/true", &[])] {
            started(notes, by_loader(loader, program, arguments), BY_LOADER, &format!("the dynamic loader with {program}"));
        }
    }
    let state = std::env::var_os("STATE_DIR").map(PathBuf::from);
    for folder in [Some(std::env::temp_dir()), state, Some("/dev/shm".into())].into_iter().flatten() {
        let (small, copied) = (folder.join("breach-elf"), folder.join("breach-true"));
        if write(&small, &nothing_but_an_end()).is_ok() {
            started(notes, Command::new(&small).status(), "execute", "a program that it wrote");
        }
        if std::fs::read("/bin/true").and_then(|bytes| write(&copied, &bytes)).is_ok() {
            for loader in LOADERS.iter().filter(|loader| Path::new(loader).exists()) {
                started(
                    notes,
                    by_loader(loader, &copied.display().to_string(), &[]),
                    BY_LOADER,
                    "the dynamic loader with a program that it wrote",
                );
            }
        }
        for path in [small, copied] {
            // Not there is as well.
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// Where dynamic loaders are.
const LOADERS: &[&str] = &["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn by_loader(loader: &str, program: &str, arguments: &[&str]) -> io::Result<ExitStatus> {
    Command::new(loader).arg(program).args(arguments).status()
}

/// Only what ended well has run: a loader that starts and may not load ends with 127, and does not say who forbade it.
fn started(notes: &mut Notes, ended: io::Result<ExitStatus>, action: &str, what: &str) {
    match ended {
        Ok(ended) if ended.success() => {
            notes.reached(Cell::done("programs", action, Extent::Standing), format!("{what} starts"));
        }
        Ok(_) => notes.stopped(None, format!("{what}: starts, and may not load")),
        Err(error) => {
            let (_, seen) = refusal(&error);
            notes.stopped(Some(Control::Landlock), format!("{what}: {seen}"));
        }
    }
}

/// The smallest program there is: it ends with 0. (System V ABI, chapter 4: one header, one segment, and the call `exit`.)
fn nothing_but_an_end() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // `mov eax, 60; xor edi, edi; syscall`; `mov x8, 93; mov x0, 0; svc 0`.
    let (machine, code): (u16, &[u8]) = if cfg!(target_arch = "aarch64") {
        (183, &[0xa8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4])
    } else {
        (62, &[0xb8, 0x3c, 0x00, 0x00, 0x00, 0x31, 0xff, 0x0f, 0x05])
    };
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let size = HEADERS.saturating_add(u64::try_from(code.len()).unwrap_or_default());
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // L10: where nothing stands against it, both work: it is the sandbox that stops them.
    #[test]
    fn what_it_writes_and_the_loader_run_where_nothing_forbids_it() {
        let folder = std::env::temp_dir().join(format!("breach-programs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let small = folder.join("small");
        write(&small, &nothing_but_an_end()).unwrap();
        assert!(Command::new(&small).status().unwrap().success());
        let loader = LOADERS.iter().find(|loader| Path::new(loader).exists()).unwrap();
        assert!(Command::new(loader).args(["/bin/sh", "-c", "exit 0"]).status().unwrap().success());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
