//! A file that a service runs is changed in the copy after it was locked: whether it is started nevertheless.
//!
//! Guarantees: C6, I15 measured, L13.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use breach::attacker::note::now_ms;
use breach::attacker::script::script_of;
use breach::{Act, Control, Mark};
use evidence::log::Entry;
use serde_json::Value;

use super::Probed;
use crate::breach::copy::Copy;
use crate::breach::rounds::{Rounds, wave};
use crate::breach::watch;

/// How long is waited for a start, or for the refusal of one. A sandbox looks at its files once a second.
const WAITS: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
/// Work is sent again after so many looks.
const LOOKS: usize = 8;

/// Changes what `service` runs, gives it work, and sees whether it is started so.
pub(in crate::breach) fn change(rounds: &Rounds<'_>, copy: &Copy, service: &str, number: u32) -> std::io::Result<Option<Probed>> {
    let folder = copy.path.parent().unwrap_or(Path::new("/"));
    let since_ms = now_ms();
    // What it reads is the same; that it is not what was locked is all that differs.
    std::fs::OpenOptions::new().append(true).open(folder.join(script_of(service)))?.write_all(b"\n")?;
    let log = crate::roles::evidence::log_folder(&copy.dir.join("data/evidence"));
    let mark = Mark::new(Act::Calm, "none", "ada", number);
    let (mut waited, mut looks) = (Duration::ZERO, 0_usize);
    while waited < WAITS {
        if looks.is_multiple_of(LOOKS) {
            wave(rounds.script, &rounds.people.ada, &mark, None);
        }
        let seen = happened(&watch::entries(&log), service, since_ms);
        if seen.is_some() {
            return Ok(seen);
        }
        std::thread::sleep(LOOK);
        (waited, looks) = (waited.saturating_add(LOOK), looks.saturating_add(1));
    }
    Ok(None)
}

fn happened(entries: &[Entry], service: &str, since_ms: u64) -> Option<Probed> {
    let text = |entry: &Entry, name: &str| entry.record.fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for entry in entries.iter().filter(|entry| entry.record.at_ms > since_ms && entry.workload.as_service() == Some(service)) {
        match entry.record.event.as_str() {
            "ActDone" if text(entry, "act") == "sandbox.start" => {
                return Some(Probed::new(Control::ArtefactDigest, service, false, "a file that is not the locked one is started"));
            }
            // One that ran while it was changed is stopped; only a start counts.
            "TamperingFound" if text(entry, "what") == "artefact" && !text(entry, "detail").starts_with("while it ran") => {
                return Some(Probed::new(Control::ArtefactDigest, service, true, "a file that is not the locked one is not started"));
            }
            _ => {}
        }
    }
    None
}
