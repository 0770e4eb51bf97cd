//! The access log: one line of JSON for each request, written by a thread of its own into files that are bounded in number, size and age.
//!
//! A request costs one line written into a buffer. When the thread cannot follow, or the disk is full, lines are dropped and counted
//! (`palisade_access_lines_dropped_total`), and requests go on: who may have done what is in the audit log, which refuses instead.
//!
//! Each run writes files of its own, named by the door and the moment, `edge-20261122T080156.123Z.jsonl`: nothing is renamed, so nothing
//! that reads along loses its place. They are for their owner alone.
//!
//! Not here: what a line says (`telemetry::access`), `palisade logs` (`cli::logs`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry::{Access, AccessSink, Metrics};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use trust::Clock;

/// Lines that wait to be written; more are dropped and counted.
const WAITING_MAX: usize = 8_192;
/// Bytes of them; what would be more is dropped and counted.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a buffer keeps of its room once it is written.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Pause in which lines gather for one write.
const GATHER: Duration = Duration::from_millis(100);
/// A file is at most this part of all that is kept, so that the oldest goes in small pieces.
const FILES_OF_ALL: u64 = 16;
/// And at most so large.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A file is written for so long at most, so that age can end it.
const FILE_AGE_MS: u64 = 24 * 3_600_000;
/// Names tried for a new file, one for each millisecond.
const NAMES_MAX: u64 = 1_000;
/// What is kept is looked at anew after so long, also when nothing is written.
const LOOK: Duration = Duration::from_secs(3_600);

const IN_NAMES: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");
const IN_LINES: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Where the lines go, and how many are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder of all access logs.
    pub folder: PathBuf,
    /// The door: `edge`, `guard-api`.
    pub door: String,
    /// The service behind a guard; empty at the edge.
    pub service: String,
    /// Bytes kept of this door.
    pub bytes_max: u64,
    /// Age of the oldest line, in milliseconds.
    pub age_ms_max: u64,
}

/// Takes requests.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    service: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: usize,
    moments: Moments,
    ended: bool,
}

/// Moments as lines have them. Those of one second differ in their last digits alone.
#[derive(Debug, Default)]
struct Moments {
    second: Option<u64>,
    text: String,
}

impl Moments {
    fn write(&mut self, unix_ms: u64) -> &str {
        let second = unix_ms / 1_000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = moment(unix_ms, IN_LINES);
        }
        self.text.truncate(self.text.len().saturating_sub("123Z".len()));
        let digit = |of: u64| char::from(b'0' | u8::try_from(unix_ms / of % 10).unwrap_or_default());
        self.text.extend([digit(100), digit(10), digit(1), 'Z']);
        &self.text
    }
}

impl AccessLog {
    /// Makes the folder and starts the thread.
    ///
    /// # Errors
    /// Those of the file system, and of a thread that cannot be made.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> std::io::Result<Arc<Self>> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.folder)?;
        let shared = Arc::new(Shared { waiting: Mutex::default(), bell: Condvar::new(), metrics });
        let service = settings.service.clone();
        let (theirs, mut files) = (Arc::clone(&shared), Files { settings, clock, open: None, complained: false });
        files.prune();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || theirs.write(&mut files))?;
        Ok(Arc::new(Self { shared, service, thread: Mutex::new(Some(thread)) }))
    }

    /// Writes what waits, and ends. What is taken after that is dropped and counted.
    pub fn finish(&self) {
        self.shared.lock().ended = true;
        self.shared.bell.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the access log's thread failed; its last lines are lost");
        }
    }
}

impl AccessSink for AccessLog {
    fn take(&self, access: &Access<'_>) {
        let mut waiting = self.shared.lock();
        let Waiting { text, lines, moments, ended } = &mut *waiting;
        if *lines >= WAITING_MAX || text.len() >= WAITING_BYTES_MAX || *ended {
            drop(waiting);
            return self.shared.metrics.access_lines_dropped(1);
        }
        let time = moments.write(access.began_ns.saturating_add(access.took_ns) / 1_000_000);
        access.write(time, &self.service, text);
        text.push(b'\n');
        *lines = lines.saturating_add(1);
        // The thread is asleep only while there is nothing.
        if *lines == 1 {
            self.shared.bell.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, files: &mut Files) {
        let mut text = Vec::new();
        loop {
            let waiting = self.lock();
            let (mut waiting, _) = self
                .bell
                .wait_timeout_while(waiting, LOOK, |waiting| waiting.lines == 0 && !waiting.ended)
                .unwrap_or_else(PoisonError::into_inner);
            let (is_idle, mut ended) = (waiting.lines == 0, waiting.ended);
            if !is_idle && !ended {
                waiting = self.bell.wait_timeout_while(waiting, GATHER, |waiting| !waiting.ended).unwrap_or_else(PoisonError::into_inner).0;
                ended = waiting.ended;
            }
            // The two buffers take turns.
            std::mem::swap(&mut waiting.text, &mut text);
            waiting.lines = 0;
            drop(waiting);
            if is_idle {
                files.prune();
            }
            let lost = files.write(&text);
            text.clear();
            text.shrink_to(KEPT_BYTES_MAX);
            if lost > 0 {
                self.metrics.access_lines_dropped(lost);
            }
            if ended {
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    since_ms: u64,
}

/// The files of one door.
#[derive(Debug)]
struct Files {
    settings: Settings,
    clock: Arc<dyn Clock>,
    open: Option<Open>,
    complained: bool,
}

impl Files {
    /// Writes these lines; how many were lost.
    fn write(&mut self, text: &[u8]) -> usize {
        let piece_max = usize::try_from(self.file_bytes_max() / 4).unwrap_or(usize::MAX);
        let (mut rest, mut lost) = (text, 0_usize);
        while !rest.is_empty() {
            let piece = lines_within(rest, piece_max);
            rest = rest.get(piece.len()..).unwrap_or_default();
            lost = lost.saturating_add(self.append(piece));
        }
        lost
    }

    /// Writes these together; how many lines that lost.
    fn append(&mut self, piece: &[u8]) -> usize {
        match self.try_append(piece) {
            Ok(()) => {
                self.complained = false;
                0
            }
            Err(error) => {
                // What is torn stays the last line of its file.
                self.open = None;
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::error!(%error, folder = %self.settings.folder.display(), "the access log cannot be written: its lines are dropped and counted; make room");
                }
                piece.iter().filter(|byte| **byte == b'\n').count()
            }
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let (now_ms, length, most) = (self.clock.unix_ms(), u64::try_from(bytes.len()).unwrap_or(u64::MAX), self.file_bytes_max());
        let is_over = |open: &Open| open.bytes.saturating_add(length) > most || now_ms.saturating_sub(open.since_ms) >= FILE_AGE_MS;
        if self.open.as_ref().is_none_or(is_over) {
            self.open = None;
            self.prune();
            self.open = Some(self.begin(now_ms)?);
        }
        if let Some(open) = &mut self.open {
            open.file.write_all(bytes)?;
            open.bytes = open.bytes.saturating_add(length);
        }
        Ok(())
    }

    fn begin(&self, now_ms: u64) -> std::io::Result<Open> {
        for at_ms in now_ms..now_ms.saturating_add(NAMES_MAX) {
            let path = self.settings.folder.join(format!("{}-{}.jsonl", self.settings.door, moment(at_ms, IN_NAMES)));
            match OpenOptions::new().create_new(true).append(true).mode(0o600).open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return Ok(Open { file: made?, bytes: 0, since_ms: now_ms }),
            }
        }
        Err(std::io::ErrorKind::AlreadyExists.into())
    }

    fn file_bytes_max(&self) -> u64 {
        (self.settings.bytes_max / FILES_OF_ALL).clamp(1, FILE_BYTES_MAX)
    }

    /// Removes what is too old, and the oldest while all of it and one more file would be too much.
    fn prune(&self) {
        let room = self.settings.bytes_max.saturating_sub(self.file_bytes_max());
        let oldest_ms = self.clock.unix_ms().saturating_sub(self.settings.age_ms_max);
        let mut kept = 0_u64;
        for path in files_of(&self.settings.folder, &self.settings.door).into_iter().rev() {
            let Ok(about) = std::fs::metadata(&path) else { continue };
            let written_ms =
                about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |at| at.as_millis());
            kept = kept.saturating_add(about.len());
            if kept > room || written_ms < u128::from(oldest_ms) {
                // Another run of this door may have done it already.
                let _gone = std::fs::remove_file(&path);
            }
        }
    }
}

/// The files of a door, oldest first.
#[must_use]
pub fn files_of(folder: &Path, door: &str) -> Vec<PathBuf> {
    let is_meant = |path: &PathBuf| {
        let moment = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(door)?.strip_prefix('-')?.strip_suffix(".jsonl"));
        moment.is_some_and(|moment| moment.len() == 20 && moment.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut all: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_meant).collect(),
        Err(_) => Vec::new(),
    };
    all.sort();
    all
}

/// As many whole lines from the beginning as fit, and one at least.
fn lines_within(text: &[u8], bytes_max: usize) -> &[u8] {
    let is_end = |byte: &u8| *byte == b'\n';
    let fits = text.get(..bytes_max.min(text.len())).unwrap_or_default().iter().rposition(is_end);
    let end = fits.or_else(|| text.iter().position(is_end)).map_or(text.len(), |at| at.saturating_add(1));
    text.get(..end).unwrap_or(text)
}

fn moment(unix_ms: u64, format: &[BorrowedFormatItem<'_>]) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms).saturating_mul(1_000_000));
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
