//! Files of the machine, of the system and of other services: every path that is known, and everything that a walk finds.

use std::path::Path;

use super::{Alone, Notes, Row, Run, own_program, refusal};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "files",
    title: "Opens every file that it knows of or finds, of the machine, the control plane and other services.",
    attack: "T1005",
    stride: Stride::I,
    controls: &[Control::MountNamespace, Control::Landlock, Control::FileModes],
    run: Run::Alone(run, &["getdents64"]),
};

/// What every sandbox shows besides the distribution's own: for the dynamic linker, and names of its own making.
const GIVEN: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/group",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/proc",
    "/dev",
    "/tmp",
];
/// Files that a walk looks at, at most.
const WALK_MAX: usize = 50_000;

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    for path in &alone.script.targets.files {
        let path = Path::new(path);
        let opened = if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) };
        match opened {
            // A folder above something that was given can be there, and be empty but for that.
            Ok(()) if path.is_dir() && is_empty_but_given(alone, path) => notes.stopped(Some(Control::MountNamespace), "empty"),
            Ok(()) => notes.reached(Cell::read("host.files", Extent::Everybody), "a file of the machine or the control plane opens"),
            Err(error) => {
                let (by, seen) = refusal(&error);
                notes.stopped(by.or_else(|| readable_for_all(path).then_some(Control::Landlock)), seen);
            }
        }
    }
    let mut left = WALK_MAX;
    if let Some(error) = cannot_list("/") {
        let (by, seen) = refusal(&error);
        notes.stopped(by, format!("no folder can be listed: {seen}"));
    } else if walk(Path::new("/"), alone, &mut left) {
        notes.reached(Cell::read("host.files", Extent::Everybody), "a walk finds files that were not given");
    } else {
        notes.stopped(Some(Control::MountNamespace), "a walk finds nothing that was not given");
    }
    // What every program has: its own text.
    if std::fs::File::open(own_program()).is_ok() {
        notes.reached(Cell::read(format!("files.{}", alone.service), Extent::Standing), "its own files open");
    }
    if let Some(folder) = std::env::var_os("STATE_DIR") {
        let target = format!("state.{}", alone.service);
        if std::fs::read_dir(&folder).is_ok() {
            notes.reached(Cell::read(target.clone(), Extent::Everybody), "its own folder opens");
        }
        if std::fs::write(Path::new(&folder).join("breach"), b"was here").is_ok() {
            notes.reached(Cell::written(target, Extent::Everybody), "its own folder takes files");
        }
    }
}

/// Why a folder that opens cannot be listed, if it cannot.
pub(super) fn cannot_list(folder: &str) -> Option<std::io::Error> {
    std::fs::read_dir(folder).ok()?.next()?.err()
}

/// Whether a file's mode would let everybody read it, so that it is a rule that does not.
fn readable_for_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

/// Whether a file was given: declared, the program itself, or the script.
fn is_given(alone: &Alone<'_>, path: &Path) -> bool {
    let declared = alone
        .script
        .services
        .get(alone.service)
        .is_some_and(|part| part.files.iter().any(|file| path.to_string_lossy().contains(file.trim_start_matches("./"))));
    let program = own_program() == path;
    let state = std::env::var_os("STATE_DIR").is_some_and(|folder| path.starts_with(folder));
    declared || program || state || path.ends_with("breach/script.json") || GIVEN.iter().any(|given| path.starts_with(given))
}

pub(super) fn is_empty_but_given(alone: &Alone<'_>, folder: &Path) -> bool {
    let mut left = WALK_MAX;
    !walk(folder, alone, &mut left)
}

/// Whether there is a file below that opens and was not given.
fn walk(folder: &Path, alone: &Alone<'_>, left: &mut usize) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        *left = left.saturating_sub(1);
        if *left == 0 || GIVEN.iter().any(|given| path == Path::new(given)) {
            continue;
        }
        let found = match kind {
            Ok(kind) if kind.is_dir() => walk(&path, alone, left),
            Ok(kind) if kind.is_file() => !is_given(alone, &path) && std::fs::File::open(&path).is_ok(),
            _ => false,
        };
        if found {
            return true;
        }
    }
    false
}
