//! Devices: disks and memory under a name of one's own, and keystrokes into a terminal.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "devices",
    title: "Makes device nodes of disk and memory, and types into a terminal.",
    attack: "T1006",
    stride: Stride::E,
    controls: &[Control::NoNewPrivileges, Control::UserNamespace, Control::Seccomp, Control::MountNamespace],
    run: Run::Alone(run, &["mknodat", "ioctl"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(alone, notes, &["mknod disk", "mknod mem", "push terminal input"]);
}
