//! Wide doors of the kernel that no service needs.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "calls-of-kernel",
    title: "Uses kernel interfaces in which most escapes were found: io_uring, bpf, keyrings, userfaultfd, perf, modules.",
    attack: "T1068",
    stride: Stride::E,
    controls: &[Control::Seccomp, Control::NoNewPrivileges],
    run: Run::Alone(
        run,
        &["io_uring_setup", "keyctl", "add_key", "bpf", "userfaultfd", "perf_event_open", "kexec_load", "init_module", "seccomp", "prctl"],
    ),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(
        alone,
        notes,
        &[
            "io_uring_setup",
            "keyctl",
            "add_key",
            "bpf",
            "userfaultfd",
            "perf_event_open",
            "kexec_load",
            "init_module",
            "seccomp",
            "prctl seccomp",
        ],
    );
}
