//! Watching: what services say in their guards' logs, and what the audit log of the copy has of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use breach::attacker::note::{Line, Said};
use breach::{Measured, Profile};
use evidence::log::Entry;
use manifest::{Isolation, Manifest};
use serde::Deserialize;
use serde_json::Value;

/// What was said, by which service, in order.
#[derive(Debug)]
pub(super) struct Watch {
    logs: PathBuf,
    /// How far each log was read.
    read: BTreeMap<PathBuf, u64>,
    /// Everything so far.
    pub(super) said: Vec<(String, Said)>,
    /// Lines that a service told and that came torn or not at all.
    pub(super) lost: BTreeMap<String, u64>,
}

/// A line of a guard's log, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Logged {
    fields: Fields,
}
#[derive(Debug, Deserialize)]
struct Fields {
    service_line: Option<String>,
    /// Lines before it that the guard did not keep.
    #[serde(default)]
    lost: u64,
}

impl Watch {
    /// Nothing was said yet.
    pub(super) fn new(logs: PathBuf) -> Self {
        Self { logs, read: BTreeMap::new(), said: Vec::new(), lost: BTreeMap::new() }
    }

    /// Reads what is new; gives how much that is.
    pub(super) fn look(&mut self) -> usize {
        let before = self.said.len();
        let Ok(entries) = std::fs::read_dir(&self.logs) else { return 0 };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(service) = name.strip_prefix("guard-").and_then(|rest| rest.split('.').next()) else { continue };
            // What cannot be read now is read at the next look.
            let _later = self.look_at(&path, service);
        }
        self.said.len().saturating_sub(before)
    }

    fn look_at(&mut self, path: &Path, service: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(File::open(path)?);
        let at = self.read.entry(path.to_path_buf()).or_default();
        reader.seek(SeekFrom::Start(*at))?;
        loop {
            let mut line = String::new();
            let count = reader.read_line(&mut line)?;
            // A line that is not whole yet is read whole later.
            if count == 0 || !line.ends_with('\n') {
                return Ok(());
            }
            *at = at.saturating_add(u64::try_from(count).unwrap_or_default());
            let Ok(Logged { fields: Fields { service_line: Some(said), mut lost } }) = serde_json::from_str(&line) else { continue };
            match serde_json::from_str::<Line>(&said) {
                Ok(Line { breach }) => self.said.push((service.to_owned(), breach)),
                Err(_) => lost = lost.saturating_add(u64::from(said.starts_with(Line::BEGIN))),
            }
            if lost > 0 {
                let all = self.lost.entry(service.to_owned()).or_default();
                *all = all.saturating_add(lost);
            }
        }
    }
}

/// A refusal, or another record that tells of an attack.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    /// When it happened, and when the log had it, milliseconds since the epoch.
    pub(super) at_ms: u64,
    pub(super) taken_ms: u64,
    /// Whose request it was, as far as the record says.
    pub(super) principal: String,
    /// Where.
    pub(super) point: String,
    /// The refusal's reason, or the event's name.
    pub(super) what: String,
    /// Whether a connection was refused, before any request.
    pub(super) connection: bool,
    /// The system call, where one was denied.
    pub(super) call: Option<String>,
    /// The trace that the record belongs to, or empty.
    pub(super) trace: String,
}

/// Every alarm of the audit log, in order.
pub(super) fn alarms(folder: &Path) -> Vec<Alarm> {
    entries(folder).iter().filter_map(alarm).collect()
}

/// Every entry of the audit log, in order.
pub(super) fn entries(folder: &Path) -> Vec<Entry> {
    #[derive(Deserialize)]
    struct Framed {
        entry: Entry,
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit-")));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let Ok(file) = File::open(&path) else { continue };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if let Ok(Framed { entry }) = serde_json::from_str(&line) {
                all.push(entry);
            }
        }
    }
    all
}

/// Refusals beyond those that are recorded singly.
pub(super) const GATHERED: &str = "RefusalsGathered";
/// A system call was denied.
pub(super) const SYSCALL_DENIED: &str = "SyscallDenied";

fn alarm(entry: &Entry) -> Option<Alarm> {
    let fields = &entry.record.fields;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let what = match entry.record.event.as_str() {
        "CallDecided" => fields.get("decision")?.get("deny")?.get("reason")?.as_str()?.to_owned(),
        "ConnectionRefused" | "SignInRefused" => text("reason"),
        event @ (GATHERED | "TamperingFound" | "AlertRaised" | SYSCALL_DENIED) => event.to_owned(),
        _ => return None,
    };
    let connection = entry.record.event == "ConnectionRefused";
    let call = Some(text("call")).filter(|_| what == SYSCALL_DENIED);
    let principal = [text("principal"), text("peer"), entry.workload.to_string()].into_iter().find(|it| !it.is_empty())?;
    let (at_ms, trace) = (entry.record.at_ms, entry.record.trace.clone());
    Some(Alarm { at_ms, taken_ms: entry.taken_ms, principal, point: text("point"), connection, what, call, trace })
}

/// How strong the sandboxes of each service were, as its guard recorded their starts.
pub(super) fn levels(manifest: &Manifest, entries: &[Entry], wanted: &dyn Fn(&Profile) -> bool) -> BTreeMap<String, Measured> {
    let of = |(name, service): (&String, &manifest::Service)| {
        let text = |entry: &Entry, field: &str| entry.record.fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let started = |entry: &&Entry| text(entry, "act") == "sandbox.start" && text(entry, "to") == *name;
        let level = |detail: String| match detail.split(',').next().unwrap_or_default() {
            level if level.contains("Full") => Some(Isolation::Full),
            level if level.contains("Confined") => Some(Isolation::Confined),
            _ => None,
        };
        let at = entries.iter().filter(started).filter_map(|entry| level(text(entry, "detail"))).collect();
        (name.clone(), Measured { accepts: service.isolation, at })
    };
    // Whoever comes from outside comes by the ports of all that were started.
    let met = |(name, measured): &(String, Measured)| {
        wanted(&Profile::Service(name.clone())) || (wanted(&Profile::External) && !measured.at.is_empty())
    };
    manifest.services.iter().map(of).filter(met).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // L8, L10: a line that came torn, and those that a guard did not keep, are counted.
    #[test]
    fn lines_that_are_lost_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let ended = serde_json::to_string(&Line { breach: Said::Ended { mark: "m".to_owned(), entry: "GET /".to_owned() } }).unwrap();
        let torn: String = ended.chars().take(20).collect();
        let logged = |said: &str, lost: u64| serde_json::json!({ "fields": { "service_line": said, "lost": lost } }).to_string();
        let lines = [logged(&ended, 0), logged("listening", 0), logged(&torn, 0), "no line of a service".to_owned(), logged(&ended, 3)];
        std::fs::write(folder.path().join("guard-web.log"), lines.join("\n") + "\n").unwrap();
        std::fs::write(folder.path().join("guard-api.log"), logged(&ended, 0) + "\n").unwrap();
        let mut watch = Watch::new(folder.path().to_path_buf());
        assert_eq!(watch.look(), 3);
        assert_eq!(watch.lost, BTreeMap::from([("web".to_owned(), 4)]));
    }
}
