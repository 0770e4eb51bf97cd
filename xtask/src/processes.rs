//! The processes of a running system, and what memory they hold.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::Outcome;

/// One process.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Process {
    /// `edge`, `guard api`, `video-api`…
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Resident set size, in bytes.
    pub rss_bytes: u64,
    /// Proportional set size, in bytes: shared pages divided among those who share them. Of a process that forbids dumps, as all do that
    /// hold keys, the kernel tells it to root alone.
    pub pss_bytes: Option<u64>,
}

/// The sum of the proportional set sizes; nothing when one of them is not known.
#[must_use]
pub fn pss_bytes(all: &[Process]) -> Option<u64> {
    all.iter().map(|process| process.pss_bytes).sum()
}

/// `root` and all its descendants.
///
/// # Errors
/// Those of /proc.
pub fn tree(root: u32) -> Outcome<Vec<Process>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // A process may end while we look.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).and_then(|p| p.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut waiting = vec![root];
    while let Some(pid) = waiting.pop() {
        waiting.extend(children.get(&pid).into_iter().flatten());
        if let Some(process) = describe(pid) {
            found.push(process);
        }
    }
    found.sort_by_key(|p| p.pid);
    Ok(found)
}

fn describe(pid: u32) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let arguments = std::fs::read(Path::new(&folder).join("cmdline")).ok()?;
    let arguments: Vec<String> =
        arguments.split(|b| *b == 0).filter(|a| !a.is_empty()).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    let program = arguments.first().map(|a| a.rsplit('/').next().unwrap_or(a).to_owned())?;
    let second = arguments.get(1).map(String::as_str).unwrap_or_default();
    let third = arguments.get(2).map(String::as_str).unwrap_or_default();
    let name = match second {
        "role" => third.to_owned(),
        "guard" => format!("guard {third}"),
        "pdp" => format!("pdp {third}"),
        _ if arguments.iter().any(|a| a == "up") => "supervisor".to_owned(),
        _ if program.starts_with("python") => second.to_owned(),
        _ if second == "sandbox-init" => "sandbox-init".to_owned(),
        _ => program,
    };
    let bytes = |file: &str, field: &str| -> Option<u64> {
        let text = std::fs::read_to_string(Path::new(&folder).join(file)).ok()?;
        let kilobytes: u64 = text.lines().find(|line| line.starts_with(field))?.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    // A process that has just ended has none.
    let rss_bytes = bytes("status", "VmRSS:").unwrap_or_default();
    Some(Process { name, pid, rss_bytes, pss_bytes: bytes("smaps_rollup", "Pss:") })
}
