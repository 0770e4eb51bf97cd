//! Another tree of files: mounts, roots.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "mounts",
    title: "Changes what is mounted, or where the root is: as it is, and as root of a user namespace of its own.",
    attack: "T1611",
    stride: Stride::E,
    controls: &[Control::Seccomp, Control::Landlock, Control::NoNewPrivileges],
    run: Run::Alone(run, &["mount", "umount2", "pivot_root", "chroot", "open_by_handle_at", "unshare"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(
        alone,
        notes,
        &[
            "mount tmpfs",
            "mount proc",
            "mount bind root",
            "remount usr writable",
            "umount proc",
            "pivot_root here",
            "chroot tmp",
            "open_by_handle_at",
            "mount tmpfs as its own root",
            "mount bind root as its own root",
            "pivot_root as its own root",
            "chroot tmp as its own root",
        ],
    );
}
