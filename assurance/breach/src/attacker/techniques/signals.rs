//! Other processes, by what the kernel lets one do to them without opening anything: signals, priorities, processors.

use super::{Alone, Notes, Row, Run, fated_as};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "signals",
    title: "Signals, slows down and reschedules its guard, its init and other services.",
    attack: "T1489",
    stride: Stride::D,
    controls: &[Control::ProcessNamespace, Control::Landlock, Control::UserNamespace],
    run: Run::Alone(run, &["kill", "pidfd_open", "pidfd_send_signal", "setpriority", "sched_setaffinity", "sched_setscheduler"]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let worth = |name: &str| Cell::done(names::PROCESSES, name, Extent::Everybody);
    fated_as(alone, notes, &["signal others", "slow down others"], &worth);
    let init = |_: &str| Cell::done(names::PROCESSES, names::SIGNAL_INIT, Extent::Standing);
    fated_as(alone, notes, &["signal init", "signal init by descriptor"], &init);
    // With processes of its own these are about itself and its own init; without, about everybody of that user.
    if !alone.is_full() {
        fated_as(alone, notes, &["slow down everybody of this user", "bind the parent to a processor", "scheduler of init"], &worth);
    }
}
