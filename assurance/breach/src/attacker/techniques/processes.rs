//! Other processes: what `/proc` shows of the guard, of the sandbox's init and of other services.

use super::files::cannot_list;
use super::{Alone, Notes, Row, Run, refusal};
use crate::names;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "processes",
    title: "Reads environment, memory, files and root of every other process that it sees.",
    attack: "T1057",
    stride: Stride::I,
    controls: &[Control::ProcessNamespace, Control::UserNamespace, Control::Landlock],
    run: Run::Alone(run, &["getdents64", "readlink"]),
};

fn run(_alone: &Alone<'_>, notes: &mut Notes) {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return notes.stopped(Some(Control::Landlock), "no /proc");
    };
    if let Some(error) = cannot_list("/proc") {
        let (by, seen) = refusal(&error);
        return notes.stopped(by, format!("no folder can be listed: {seen}"));
    }
    let own = std::env::current_exe().ok();
    // Itself, and the service that it was started by: the same attacker.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|pid| pid.trim().parse().ok());
    let same = [Some(std::process::id()), parent];
    let pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    for pid in pids {
        let ours = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        if pid != 1 && (same.contains(&Some(pid)) || (ours.is_some() && ours == own)) {
            continue;
        }
        for file in ["environ", "mem", "maps", "fd", "root", "cwd"] {
            let path = format!("/proc/{pid}/{file}");
            let opens = if matches!(file, "fd" | "root" | "cwd") {
                std::fs::read_dir(&path).map(drop)
            } else {
                std::fs::File::open(&path).map(drop)
            };
            match opens {
                Ok(()) => notes.reached(Cell::read(names::PROCESSES, Extent::Everybody), format!("{file} of another process opens")),
                Err(_) => notes.stopped(Some(Control::ProcessNamespace), format!("{file} of its init: refused")),
            }
        }
    }
    notes.stopped(Some(Control::ProcessNamespace), "no process of the machine is seen");
}
