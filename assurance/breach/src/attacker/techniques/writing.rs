//! Changing files: of the system, of the machine, of the program itself.

use super::files::{is_empty_but_given, named};
use super::{Alone, Notes, Row, Run, own_program, refusal};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "writing",
    title: "Changes programs, configuration and its own binary, so that it is there after a restart.",
    attack: "T1525",
    stride: Stride::T,
    controls: &[Control::MountNamespace, Control::Landlock, Control::FileModes, Control::ArtefactDigest],
    run: Run::Alone(run, &[]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let own = own_program().display().to_string();
    let new = ["/usr/bin/breach", "/etc/breach", "/lib/breach"].map(|path| (path.to_owned(), true));
    let there = ["/etc/ld.so.preload", "/etc/shadow", "/usr/bin/env"].map(|path| (path.to_owned(), false));
    // A folder that shows nothing but what was given is the sandbox's own, on the way to that.
    let targets = alone.script.targets.files.iter().map(|path| match std::path::Path::new(path) {
        folder if folder.is_dir() && !is_empty_but_given(alone, folder) => (format!("{path}/breach"), true),
        _ => (path.clone(), false),
    });
    for (path, create) in new.into_iter().chain(there).chain([(own, false)]).chain(targets) {
        if std::path::Path::new(&path).is_dir() {
            continue;
        }
        match std::fs::OpenOptions::new().append(true).create(create).open(&path) {
            Ok(_) => notes.reached(named(alone, std::path::Path::new(&path), true), "a file that is not its own can be written"),
            Err(error) => {
                let (by, seen) = refusal(&error);
                notes.stopped(by, seen);
            }
        }
    }
}
