//! More rights by asking for them.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "privileges",
    title: "Asks the kernel for another user, for other limits, and for the kernel's log.",
    attack: "T1548.001",
    stride: Stride::E,
    controls: &[Control::NoNewPrivileges, Control::UserNamespace, Control::Limits],
    run: Run::Alone(run, &["setresuid", "setresgid", "syslog"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(alone, notes, &["setuid root", "setgid root", "raise own limit", "ask for the kernel log"]);
}
