//! The audit log: append-only files of hash-chained records under signed checkpoints, with an anchor elsewhere.
//!
//! Files:      `audit-N.jsonl` (segments, see `entry` for a line's form), `checkpoints.jsonl`, `lock`; and the anchor, a second
//!             checkpoint file in a place that the assembly gives, on another disk or machine where there is one.
//! Guarantees: J7 (what is acknowledged is on the disk) and J8 (`verify`). A log that does not verify is not appended to.
//! Not here:   who may append and in what order (`intake`), the searchable copy (`index`).

pub mod checkpoint;
pub mod entry;
pub mod segment;
pub mod verify;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use trust::{AuditRecord, SpiffeId};

pub use checkpoint::Checkpoint;
pub use entry::Entry;
pub use verify::{Finding, Report, Wrong, verify};

use crate::note::NoteSigner;
use entry::Unfinished;
use segment::{Position, Segment};
use verify::Extent;

/// Name of the checkpoint file beside the log.
pub const CHECKPOINTS: &str = "checkpoints.jsonl";
/// A checkpoint is signed after so many records at the latest…
pub const CHECKPOINT_RECORDS: u64 = 256;
/// …or so many seconds, if there is anything new.
pub const CHECKPOINT_S: u64 = 5;
/// Size at which a new segment is begun, in bytes.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// A log stops while its disk has less free than this, in bytes: the rest is for what must still be written to end in order (databases,
/// spools, checkpoints).
pub const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Where a log is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its folder; made with mode 0700 if absent.
    pub dir: PathBuf,
    /// The anchor: a checkpoint file elsewhere.
    pub anchor: PathBuf,
    /// Size at which a new segment is begun, in bytes (`SEGMENT_BYTES`).
    pub segment_bytes: u64,
    /// Nothing is appended while the disk has less free than this, in bytes (`FREE_BYTES_MIN`).
    pub free_bytes_min: u64,
}

impl Place {
    /// Bytes that the log's disk has free for this process.
    ///
    /// # Errors
    /// When the folder is gone.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It does not verify.
    #[error(
        "the audit log does not verify, and nothing is appended to it: {}. Keep {} and {} as evidence: move both away, run \
         `palisade audit verify` on the copy, then start again with a new log or with a backup that verifies",
        .report.findings.first().map_or_else(String::new, ToString::to_string), .place.dir.display(), .place.anchor.display()
    )]
    Broken {
        /// Everything that is wrong.
        report: Box<Report>,
        /// Where.
        place: Box<Place>,
    },
    /// Another process has it open.
    #[error("another process has the audit log open")]
    Locked,
    /// The anchor cannot be written.
    #[error("the anchor {} cannot be written; make its folder writable, so that a log that is cut back can be found out", .0.display())]
    Anchor(PathBuf),
    /// A file could not be read or written.
    #[error("the audit log's files cannot be used")]
    Io(#[from] io::Error),
}

/// The log, open for appending by this process alone.
#[derive(Debug)]
pub struct AuditLog {
    place: Place,
    signer: NoteSigner,
    at: Position,
    file: File,
    // INVARIANT: the length of `file` up to which lines are whole; a failed write is cut back to it, or nothing is appended again.
    bytes: u64,
    damaged: bool,
    signed: Option<Checkpoint>,
    unanchored: Vec<String>,
    _lock: File,
    dangerous_unchained: bool,
}

impl AuditLog {
    /// Opens the log, or begins one; verifies its end, cuts a torn last line off, and signs a checkpoint.
    ///
    /// # Errors
    /// `Broken`, `Locked`, `Io`.
    pub fn open(place: Place, signer: NoteSigner, now_ms: u64) -> Result<Self, LogError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place.dir)?;
        if let Some(folder) = place.anchor.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(place.dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let (report, end) = verify::examine(&place.dir, &signer.verifier(), Some(&place.anchor), Extent::Tail, &mut |_| ())?;
        // An anchor that never got its first line (killed between the two writes) is made up for; any other absence is a finding.
        let young = report.records == 0 && report.checkpoints == 1;
        if report.findings.iter().any(|f| !(young && f.wrong == Wrong::AnchorMissing)) {
            return Err(LogError::Broken { report: Box::new(report), place: Box::new(place) });
        }
        checkpoint::mend(&place.dir.join(CHECKPOINTS))?;
        checkpoint::mend(&place.anchor)?;
        let segment = end.segment.unwrap_or_else(|| Segment::named(&place.dir, 1));
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&segment.path)?;
        match end.unfinished {
            Some(Unfinished::Torn) => file.set_len(end.bytes)?,
            Some(Unfinished::NewlineMissing) => file.write_all(b"\n")?,
            Some(Unfinished::Altered) | None => {}
        }
        file.sync_all()?;
        checkpoint::sync_folder(&place.dir)?;
        let at = match end.unfinished {
            // The record whose newline was added counts: read it like any other.
            Some(Unfinished::NewlineMissing) => segment::last_link(&segment)?.unwrap_or(end.at),
            _ => end.at,
        };
        let bytes = file.metadata()?.len();
        let signed = end.newest;
        let unanchored = end.unanchored;
        let mut log = Self { place, signer, at, file, bytes, damaged: false, signed, unanchored, _lock: lock, dangerous_unchained: false };
        log.checkpoint(now_ms)?;
        if !log.unanchored.is_empty() {
            return Err(LogError::Anchor(log.place.anchor));
        }
        checkpoint::sync_folder(log.place.anchor.parent().unwrap_or(&log.place.dir))?;
        Ok(log)
    }

    /// The same, in which no record says what came before it. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_unchained(self) -> Self {
        Self { dangerous_unchained: true, ..self }
    }

    /// Appends; on the disk when this returns. All or none.
    ///
    /// # Errors
    /// `InvalidInput` for a record whose line would be longer than `LINE_BYTES_MAX`; `StorageFull` while the disk has less than
    /// `free_bytes_min` free: then nothing was written, and it goes on by itself once there is room; else those of writing, after which what was
    /// written is cut off again, or, if even that fails, nothing is appended by this process any more.
    pub fn append(&mut self, told: Vec<(SpiffeId, String, AuditRecord)>, now_ms: u64) -> io::Result<Vec<Entry>> {
        if self.damaged {
            return Err(io::Error::other("an earlier write to the audit log failed and could not be taken back"));
        }
        let (mut at, mut lines, mut entries) = (self.at, Vec::new(), Vec::with_capacity(told.len()));
        for (workload, process, record) in told {
            let entry = Entry { n: at.n.saturating_add(1), taken_ms: now_ms, workload, process, record };
            let before = if self.dangerous_unchained { entry::GENESIS } else { at.head };
            let (line, head) = entry::frame(&before, &serde_json::to_vec(&entry)?);
            if line.len() >= entry::LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record is longer than a line of the audit log may be"));
            }
            lines.extend_from_slice(&line);
            at = Position { n: entry.n, head };
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(entries);
        }
        if self.place.free_bytes()? < self.place.free_bytes_min {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.bytes >= self.place.segment_bytes {
            self.begin_segment()?;
        }
        if let Err(error) = self.file.write_all(&lines).and_then(|()| self.file.sync_data()) {
            self.damaged = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all()).is_err();
            return Err(error);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
        self.at = at;
        Ok(entries)
    }

    /// Signs a checkpoint if there is anything new under it, and copies it to the anchor. Whether one was made.
    ///
    /// # Errors
    /// Those of writing beside the log. An anchor that cannot be reached is tried again at the next checkpoint.
    pub fn checkpoint(&mut self, now_ms: u64) -> io::Result<bool> {
        let due = self.signed.is_none_or(|s| s.size != self.at.n);
        if due {
            let checkpoint = Checkpoint { size: self.at.n, head: self.at.head, at_ms: now_ms };
            let note = checkpoint.sign(&self.signer);
            checkpoint::append(&self.place.dir.join(CHECKPOINTS), &[&note])?;
            self.signed = Some(checkpoint);
            self.unanchored.push(note);
        }
        if !self.unanchored.is_empty() {
            let notes: Vec<&str> = self.unanchored.iter().map(String::as_str).collect();
            match checkpoint::append(&self.place.anchor, &notes) {
                Ok(()) => self.unanchored.clear(),
                Err(error) => {
                    tracing::error!(anchor = %self.place.anchor.display(), %error, "the anchor cannot be written; make its place writable")
                }
            }
        }
        Ok(due)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.at.n
    }

    /// Link of the last record, 64 hexadecimal digits.
    #[must_use]
    pub fn head(&self) -> String {
        hex::encode(self.at.head)
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn signed(&self) -> Option<Checkpoint> {
        self.signed
    }

    /// The newest checkpoint as a signed note.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.signed.map(|s| s.sign(&self.signer)) // Ed25519 is deterministic: the same note that was written.
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let segment = Segment::named(&self.place.dir, self.at.n.saturating_add(1));
        self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&segment.path)?;
        checkpoint::sync_folder(&self.place.dir)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
