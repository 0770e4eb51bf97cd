//! The spool: audit records are in a file of this process before the act that they record happens, and leave it once `evidence` has
//! them durably.
//!
//! A `write(2)` survives the death of the process (`kill -9`), and the file is shipped by the next run under the name of the run that
//! wrote it, once that one no longer holds its lock: two runs of a guard share a folder while one takes the other's place. When the file is
//! full because `evidence` has been away too long, `audit` fails and the act is refused: audit loss means stop.
//!
//! What is shipped leaves the file at once when nothing else waits. A busy process always has something that waits: so once that is the
//! smaller part of a large file, what waits is written into a new one, which takes the place of the old in one step.
//!
//! Not here: the log itself (`evidence`).

mod waiting;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::evidence::{Batch, EvidenceClient, WrittenBatch};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use telemetry::{AuditLost, Metrics, NewRecord, NewSpan, Sink};
use tokio::sync::Notify;
use trust::{AuditRecord, Entropy, clock};

use self::waiting::Waiting;

/// A spool file never grows past this; then acts are refused until `evidence` is back.
const SPOOL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A file of this size is written anew once less than half of it still waits.
const SPOOL_BYTES_OLD: u64 = 8 * 1024 * 1024;
/// What a file is called until it takes the place of another.
const UNFINISHED: &str = "new";
/// Spans that wait in memory; more are dropped and counted.
const SPANS_MAX: usize = 4096;
/// Records and spans of one batch.
const BATCH_MAX: usize = 512;
/// Pause that gathers a batch.
const GATHER: Duration = Duration::from_millis(100);
/// Metrics are sent this often even when nothing else happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// And no sooner than so long after the last time.
const METRICS_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failure to ship.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Inner {
    kept: Kept,
    next_seq: u64,
    /// Records as they stand in the file.
    unshipped: Waiting,
    /// Spans as JSON.
    spans: Waiting,
}

/// The file.
#[derive(Debug)]
struct Kept {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// A write has failed: part of a line may stand behind `bytes`.
    torn: bool,
}

/// The sink of a process.
#[derive(Debug)]
pub struct Spool {
    process: String,
    inner: Mutex<Inner>,
    wake: Notify,
    metrics: Arc<Metrics>,
    leftovers: Vec<PathBuf>,
}

impl Spool {
    /// Opens a new spool file in `dir` (made if missing); files of earlier runs are found and shipped first.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path, entropy: &dyn Entropy, metrics: Arc<Metrics>) -> std::io::Result<Arc<Self>> {
        std::fs::create_dir_all(dir)?;
        let mut leftovers = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "spool") {
                leftovers.push(path);
            } else if path.extension().is_some_and(|e| e == UNFINISHED) {
                // Of a run that died over it: what it held is in the old one. A run that lives goes on with its old one, too.
                let _gone = std::fs::remove_file(path);
            }
        }
        let process = clock::random_hex(entropy, 8);
        let path = dir.join(format!("{process}.spool"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let (unshipped, spans) = (Waiting::default(), Waiting::default());
        let kept = Kept { file, path, bytes: 0, torn: false };
        let inner = Inner { kept, next_seq: 1, unshipped, spans };
        Ok(Arc::new(Self { process, inner: Mutex::new(inner), wake: Notify::new(), metrics, leftovers }))
    }

    /// Ships to `evidence` for ever.
    pub async fn ship(self: Arc<Self>, evidence: EvidenceClient) {
        let mut leftovers = self.leftovers.clone();
        let (mut told, mut behind) = (tokio::time::Instant::now(), true);
        loop {
            for path in std::mem::take(&mut leftovers) {
                if !self.ship_leftover(&path, &evidence).await {
                    leftovers.push(path);
                }
            }
            let (pause, since) = (if behind { METRICS_PAUSE } else { HEARTBEAT }, told.elapsed());
            let notified = tokio::time::timeout(pause.saturating_sub(since), self.wake.notified()).await;
            if notified.is_ok() {
                tokio::time::sleep(GATHER).await;
                behind = true;
                self.ship_waiting(&evidence).await;
            }
            if told.elapsed() >= pause {
                self.tell_metrics(&evidence).await;
                (told, behind) = (tokio::time::Instant::now(), false);
            }
        }
    }

    /// Tells what is counted, in a batch of its own: it can be long.
    async fn tell_metrics(&self, evidence: &EvidenceClient) {
        {
            let inner = self.lock();
            self.metrics.audit_waiting(inner.unshipped.len(), inner.kept.bytes);
        }
        let batch = WrittenBatch::new(&self.process, (b"", 0), (b"", 0), &self.metrics.render());
        if let Err(fault) = evidence.append_written(batch).await {
            // The next one says it all again.
            tracing::warn!(%fault, "evidence does not take metrics");
        }
    }

    /// Ships what waits now, for at most `within`; for the end of a drain.
    pub async fn flush(&self, evidence: &EvidenceClient, within: Duration) {
        let all = async {
            self.ship_waiting(evidence).await;
            self.tell_metrics(evidence).await;
        };
        // What does not get through in time stays in the file and is shipped by the next run.
        let _late = tokio::time::timeout(within, all).await;
    }

    async fn ship_waiting(&self, evidence: &EvidenceClient) {
        loop {
            let batch = self.next_batch();
            let (audits, spans) = (batch.audit(), batch.spans());
            match evidence.append_written(batch).await {
                Ok(appended) => self.shipped(appended.seq, spans),
                Err(fault) => {
                    tracing::warn!(%fault, cause = fault.cause.as_deref().map(tracing::field::display), "evidence does not take records; they wait in the spool");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            if audits < BATCH_MAX && spans < BATCH_MAX {
                return;
            }
        }
    }

    fn next_batch(&self) -> WrittenBatch {
        let inner = self.lock();
        WrittenBatch::new(&self.process, inner.unshipped.first(BATCH_MAX), inner.spans.first(BATCH_MAX), "")
    }

    fn shipped(&self, seq: u64, spans: usize) {
        let mut inner = self.lock();
        // Numbers are given in turn, and the last one given is that of the last record that waits.
        let behind = usize::try_from(inner.next_seq.saturating_sub(1).saturating_sub(seq)).unwrap_or(usize::MAX);
        let taken = inner.unshipped.len().saturating_sub(behind);
        inner.unshipped.forget(taken);
        inner.spans.forget(spans);
        // All of the file is with `evidence`: begin anew in place. If that fails, it only grows until the next time.
        if inner.unshipped.len() == 0 && inner.kept.bytes > 0 && inner.kept.file.set_len(0).is_ok() {
            inner.kept.bytes = 0;
        }
        let waiting = u64::try_from(inner.unshipped.bytes()).unwrap_or(u64::MAX);
        if inner.kept.bytes >= SPOOL_BYTES_OLD && waiting <= inner.kept.bytes / 2 {
            let Inner { kept, unshipped, .. } = &mut *inner;
            if let Err(error) = kept.begin_anew(&unshipped.kept()) {
                tracing::warn!(%error, path = %kept.path.display(), "the spool could not be written anew; it grows until it can");
            }
        }
    }

    /// Ships what an earlier run left; whether that is done with. Not while that run lives: then it ships its records itself.
    async fn ship_leftover(&self, path: &Path, evidence: &EvidenceClient) -> bool {
        let Some(process) = path.file_stem().map(|s| s.to_string_lossy().into_owned()) else { return true };
        let records = match read_leftover(path) {
            Ok(Some(records)) => records,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "a spool of an earlier run cannot be read; it is kept, look at it");
                return true;
            }
        };
        for chunk in records.chunks(BATCH_MAX) {
            let batch = Batch { process: process.clone(), audit: chunk.to_vec(), spans: Vec::new(), metrics: String::new() };
            while let Err(fault) = evidence.append(&batch).await {
                tracing::warn!(%fault, "evidence does not take an earlier run's records; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "a shipped spool could not be removed");
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Spool {
    fn audit(&self, record: NewRecord<'_>) -> Result<(), AuditLost> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let seq = inner.next_seq;
        let kept = &mut inner.kept;
        inner.unshipped.add(|line| record.write(seq, line), |line| kept.append(line))?;
        inner.next_seq = seq.saturating_add(1);
        self.wake.notify_one();
        Ok(())
    }

    fn span(&self, span: NewSpan<'_>) {
        let mut inner = self.lock();
        if inner.spans.len() >= SPANS_MAX {
            self.metrics.span_dropped();
            return;
        }
        let write = |line: &mut Vec<u8>| {
            span.write(line);
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(()) = inner.spans.add(write, |_| Ok(()));
        drop(inner);
        self.wake.notify_one();
    }
}

impl Kept {
    /// Puts a file with these lines alone in the place of this one. When that fails, this one is as it was.
    fn begin_anew(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let path = self.path.with_extension(UNFINISHED);
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        // Before it has the name by which another run finds it: whoever can lock that name's file must know that this run is dead.
        let made = flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(std::io::Error::from);
        let made = made.and_then(|()| file.write_all(lines)).and_then(|()| std::fs::rename(&path, &self.path));
        if let Err(error) = made {
            let _gone = std::fs::remove_file(&path);
            return Err(error);
        }
        (self.file, self.bytes, self.torn) = (file, u64::try_from(lines.len()).unwrap_or(u64::MAX), false);
        Ok(())
    }

    /// Writes a line at its end. What a failed write has left of one is cut off before the next, which would be spoilt by it.
    fn append(&mut self, line: &[u8]) -> Result<(), AuditLost> {
        let length = u64::try_from(line.len()).map_err(|_| AuditLost)?;
        if self.bytes.saturating_add(length) > SPOOL_BYTES_MAX {
            tracing::error!(path = %self.path.display(), "the spool is full: evidence has been away too long; requests are refused until it is back");
            return Err(AuditLost);
        }
        if self.torn {
            self.file.set_len(self.bytes).map_err(|_| AuditLost)?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(line) {
            self.torn = true;
            tracing::error!(%error, "the spool cannot be written; requests are refused until it can");
            return Err(AuditLost);
        }
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }
}

/// Records of an earlier run, or nothing while it lives; a torn last line was never acknowledged to anybody and is left out.
fn read_leftover(path: &Path) -> std::io::Result<Option<Vec<AuditRecord>>> {
    let (file, mut records) = (File::open(path)?, Vec::new());
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    // A run that lives may have put another file in its place in this very moment.
    if file.metadata()?.ino() != std::fs::metadata(path)?.ino() {
        return Ok(None);
    }
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line?) {
            Ok(record) => records.push(record),
            Err(_) => break,
        }
    }
    Ok(Some(records))
}

#[cfg(test)]
mod tests;
