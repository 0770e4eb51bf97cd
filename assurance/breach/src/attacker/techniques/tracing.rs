//! The memory of other processes, by the calls of debuggers.

use super::{Alone, Notes, Row, Run, fated};
use crate::{Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "tracing",
    title: "Reads or changes the memory of another process as a debugger does.",
    attack: "T1055.008",
    stride: Stride::E,
    controls: &[Control::Seccomp, Control::ProcessNamespace],
    run: Run::Alone(run, &["ptrace", "process_vm_readv", "pidfd_getfd", "pidfd_open"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated(alone, notes, &["ptrace attach parent", "process_vm_readv parent", "pidfd_getfd"]);
}
