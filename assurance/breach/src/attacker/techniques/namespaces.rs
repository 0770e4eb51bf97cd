//! New namespaces: powers of root over something of one's own, and from there to the kernel.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "namespaces",
    title: "Makes itself root of namespaces of its own, where most escapes begin.",
    attack: "T1611",
    stride: Stride::E,
    controls: &[Control::Seccomp],
    run: Run::Alone(run, &["unshare", "clone", "setns"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(
        alone,
        notes,
        &[
            "unshare user",
            "unshare net",
            "unshare mount namespace",
            "unshare user and mount namespace",
            "unshare pid namespace",
            "unshare cgroup namespace",
            "clone user",
            "setns",
            "setns as its own root",
        ],
    );
}
