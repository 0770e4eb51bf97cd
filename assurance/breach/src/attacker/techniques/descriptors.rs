//! Descriptors that were left open.

use super::{Alone, Notes, Row, Run, refusal};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "descriptors",
    title: "Looks for descriptors that it inherited: sockets of the guard, folders of the machine.",
    attack: "T1611",
    stride: Stride::I,
    controls: &[Control::MountNamespace],
    run: Run::Alone(run, &["readlink"]),
};

fn run(_alone: &Alone<'_>, notes: &mut Notes) {
    for number in 0..1024 {
        let link = format!("/proc/self/fd/{number}");
        let target = match std::fs::read_link(&link) {
            Ok(target) => target,
            // What cannot be named may be there all the same.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let (by, seen) = refusal(&error);
                notes.stopped(by, format!("none can be named: {seen}"));
                if number > 2 && std::fs::symlink_metadata(&link).is_ok() {
                    notes.reached(Cell::read("process.descriptors", Extent::Everybody), "a descriptor that nobody gave it is open");
                }
                continue;
            }
            Err(_) => continue,
        };
        let target = target.display().to_string();
        let is_own = number <= 2 && (target.starts_with("pipe:") || target.starts_with("socket:") || target == "/dev/null");
        // The folder that is being read, and what this process opened for itself.
        let is_passing = target.contains("/proc/") || target.ends_with("script.json");
        if !is_own && !is_passing {
            notes.reached(Cell::read("process.descriptors", Extent::Everybody), "a descriptor that nobody gave it is open");
        }
    }
    notes.stopped(Some(Control::MountNamespace), "its own three");
}
