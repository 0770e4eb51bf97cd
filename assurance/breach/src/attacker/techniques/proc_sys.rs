//! The kernel's switches: core dumps, cgroup release agents, everything below `/proc/sys` and `/sys`.

use super::{Alone, Notes, Row, Run, fated_as, refusal};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "proc-sys",
    title: "Has the kernel run a program of its own (core_pattern, release_agent, uevent_helper, binfmt_misc, sysrq), and crashes to leave its memory.",
    attack: "T1611",
    stride: Stride::E,
    controls: &[Control::MountNamespace, Control::UserNamespace, Control::Landlock, Control::Limits],
    run: Run::Alone(run, &[]),
};

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    fated_as(alone, notes, &["core dump"], &|_| Cell::done("machine.cores", "leave", Extent::Standing));
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/yama/ptrace_scope",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent",
        "/sys/fs/cgroup/cgroup.procs",
        "/proc/sys/fs/binfmt_misc/register",
    ] {
        // Opening is enough to know, and changes nothing.
        match std::fs::OpenOptions::new().write(true).open(path) {
            Ok(_) => notes.reached(Cell::written("kernel.switches", Extent::Everybody), format!("{path} can be written")),
            Err(error) => {
                let (by, seen) = refusal(&error);
                notes.stopped(by, seen);
            }
        }
    }
}
