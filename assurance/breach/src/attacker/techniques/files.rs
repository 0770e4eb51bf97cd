//! Files of the machine, of the system and of other services: every path that is known, and everything that a walk finds.

use std::path::Path;

use super::{Alone, Notes, Row, Run, own_program, refusal};
use crate::attacker::script::script_of;
use crate::names;
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
            Ok(()) => notes.reached(named(alone, path, false), "a file of the machine, the control plane or another service opens"),
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
        notes.reached(Cell::read(names::FILES, Extent::Everybody), "a walk finds files that were not given");
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

/// What it is that opens, by where it lies.
pub(super) fn named(alone: &Alone<'_>, path: &Path, written: bool) -> Cell {
    let targets = &alone.script.targets;
    let of = |target: String| if written { Cell::written(target, Extent::Everybody) } else { Cell::read(target, Extent::Everybody) };
    let below = |folder: &String| path.starts_with(folder);
    match targets.states.iter().find(|(_, folder)| below(folder)) {
        Some((service, _)) => of(names::state(service)),
        None if targets.keys.as_ref().is_some_and(below) && !written => Cell::secret(names::AUTHORITY_KEY),
        None if targets.evidence.as_ref().is_some_and(below) && written => of(names::EVIDENCE.to_owned()),
        None => of(names::FILES.to_owned()),
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
    declared || program || state || path.ends_with(script_of(alone.service)) || GIVEN.iter().any(|given| path.starts_with(given))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::attacker::script::{Script, Targets};
    use crate::predict::tests::{VIDEO, parsed, predicted};

    // L8, L13: what opens has the name that the model has for it.
    #[test]
    fn what_opens_is_called_what_the_model_calls_it() {
        let targets = Targets {
            states: [("api".to_owned(), "/x/data/service-api".to_owned())].into(),
            keys: Some("/x/keys".to_owned()),
            evidence: Some("/x/data/evidence".to_owned()),
            ..Targets::default()
        };
        let script = Script::of(&parsed(VIDEO), targets, Vec::new());
        let alone = Alone { script: &script, service: "web", person: "ada", started_by: None, calls: |_, _| Default::default() };
        let prediction = predicted(VIDEO);
        let table = [
            ("/x/data/service-api/catalogue", false, "state.api"),
            ("/x/data/service-api", true, "state.api"),
            ("/x/keys/authority", false, "key.authority"),
            ("/x/data/evidence/audit-1", true, "role.evidence"),
            ("/x/palisade.lock", false, "host.files"),
            ("/etc/shadow", true, "host.files"),
        ];
        for (path, written, target) in table {
            let cell = named(&alone, Path::new(path), written);
            assert_eq!(cell.target, target, "{path}");
            let mut ways = prediction.ways.iter().filter(|way| way.profile.to_string() == "service.web" && way.cell == cell);
            assert!(ways.any(|way| !way.stops.is_empty()), "{path}: the model has no way to {cell:?}");
        }
    }
}
