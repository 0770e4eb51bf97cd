//! The audit log of the copy, verified as it is and after each way to change it.
//!
//! Guarantees: J8 measured, L13.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use breach::Control;
use evidence::log::{CHECKPOINTS, verify};
use evidence::note::VerifierKey;

use super::Probed;
use crate::roles::evidence::{anchor_file, log_folder};
use crate::system::Layout;

/// Fewer records than these tell nothing.
const RECORDS_MIN: usize = 8;

/// What anybody could do to the log who may write its file.
#[derive(Debug, Clone, Copy)]
enum Change {
    Edited,
    Dropped,
    Reordered,
}

impl Change {
    const ALL: [Self; 3] = [Self::Edited, Self::Dropped, Self::Reordered];

    fn words(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Dropped => "dropped",
            Self::Reordered => "reordered",
        }
    }

    /// Does it in the middle.
    fn make(self, lines: &mut Vec<String>) {
        let middle = lines.len() / 2;
        match self {
            Self::Edited => {
                if let Some(line) = lines.get_mut(middle) {
                    *line = line.replacen("\"at_ms\":1", "\"at_ms\":2", 1);
                }
            }
            Self::Dropped => drop(lines.drain(middle..middle.saturating_add(1).min(lines.len()))),
            Self::Reordered if middle > 0 => lines.swap(middle, middle.saturating_sub(1)),
            Self::Reordered => {}
        }
    }
}

/// Verifies the log in the system's folder, and copies of it below `scratch` that were changed.
pub(in crate::breach) fn try_changes(dir: &Path, scratch: &Path) -> io::Result<Probed> {
    let layout = Layout { dir: dir.to_path_buf() };
    let key: VerifierKey = fs::read_to_string(layout.audit_key())?.trim().parse().map_err(io::Error::other)?;
    let (log, anchor) = (log_folder(&layout.data("evidence")), anchor_file(&layout.data("anchor")));
    let told = |folder: &Path| verify(folder, &key, Some(&anchor)).map(|report| report.findings);
    let before = told(&log)?;
    let mut unseen = Vec::new();
    for change in Change::ALL {
        let folder = scratch.join(format!("log-{}", change.words()));
        copied(&log, &folder, change)?;
        if told(&folder)? == before {
            unseen.push(change.words());
        }
    }
    Ok(judged(before.is_empty(), &unseen))
}

fn judged(whole: bool, unseen: &[&str]) -> Probed {
    let what = match (whole, unseen) {
        (true, []) => "a record that is edited, dropped or put elsewhere is found".to_owned(),
        (true, unseen) => format!("a record can be {} and nobody finds it", unseen.join(", ")),
        (false, []) => "no record says what came before it".to_owned(),
        (false, unseen) => format!("no record says what came before it; one that is {} is not found besides", unseen.join(", ")),
    };
    Probed::new(Control::AuditChain, "evidence", whole && unseen.is_empty(), what)
}

fn copied(from: &Path, to: &Path, change: Change) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::copy(from.join(CHECKPOINTS), to.join(CHECKPOINTS))?;
    let mut segments: Vec<PathBuf> = fs::read_dir(from)?.flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| {
        path.extension().is_some_and(|ending| ending == "jsonl") && path.file_name().is_some_and(|name| name != CHECKPOINTS)
    });
    for path in segments {
        let mut lines: Vec<String> = fs::read_to_string(&path)?.lines().map(str::to_owned).collect();
        if lines.len() >= RECORDS_MIN {
            change.make(&mut lines);
        }
        lines.push(String::new());
        fs::write(to.join(path.file_name().unwrap_or_default()), lines.join("\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // L13: only a log that verifies, and in which each change is found, is one whose chain stands.
    #[test]
    fn a_chain_stands_where_the_log_verifies_and_each_change_is_found() {
        assert!(judged(true, &[]).stands);
        for missing in [judged(true, &["dropped"]), judged(false, &["edited", "dropped", "reordered"]), judged(false, &[])] {
            assert!(!missing.stands, "{missing:?}");
        }
        let lines = || (0..10).map(|n| format!("{{\"n\":{n},\"at_ms\":1{n}}}")).collect::<Vec<_>>();
        for change in Change::ALL {
            let mut changed = lines();
            change.make(&mut changed);
            assert_ne!(changed, lines(), "{change:?}");
            change.make(&mut Vec::new());
        }
    }
}
