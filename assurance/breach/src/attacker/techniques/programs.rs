//! Other programs than its own.

use std::process::Command;

use super::{Alone, Notes, Row, Run, refusal};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "programs",
    title: "Starts shells, interpreters and programs that give more rights, and one that it wrote itself.",
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
}
