//! Checkpoints: signed statements of how long the log is and where its chain ends.
//!
//! A checkpoint is a signed note whose text is four lines: origin, number of records, base64 of the last link, and milliseconds since
//! the epoch. Checkpoint files hold one note a line, as a JSON string.
//!
//! Spec:       C2SP signed-note; the lines are those of C2SP tlog-checkpoint. Deviation: the third is the end of a hash chain, not
//!             the root of a Merkle tree.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as B64;

use super::entry::Link;
use crate::note::{NoteError, NoteSigner, VerifierKey};

/// What a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Records under it.
    pub size: u64,
    /// Link of the last of them.
    pub head: Link,
    /// When it was made, milliseconds since the epoch.
    pub at_ms: u64,
}

impl Checkpoint {
    /// The signed note.
    #[must_use]
    pub fn sign(&self, signer: &NoteSigner) -> String {
        signer.sign(&format!("{}\n{}\n{}\n{}\n", signer.verifier().name(), self.size, B64.encode(self.head), self.at_ms))
    }

    /// What a note says, if `key` signed it and it is a checkpoint of that key's log.
    ///
    /// # Errors
    /// Those of `VerifierKey::open`; `Form` when it says something else.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let text = key.open(note)?;
        let mut lines = text.split('\n');
        let (origin, size, head, at_ms) = (lines.next(), lines.next(), lines.next(), lines.next());
        let head: Link = head.and_then(|h| B64.decode(h).ok()).and_then(|h| h.try_into().ok()).ok_or(NoteError::Form)?;
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<u64>().ok()).ok_or(NoteError::Form);
        if origin != Some(key.name()) || lines.next() != Some("") || lines.next().is_some() {
            return Err(NoteError::Form);
        }
        Ok(Self { size: number(size)?, head, at_ms: number(at_ms)? })
    }
}

/// A line of a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A note, not yet verified.
    Note(String),
    /// A write that a crash cut short; only ever the last.
    Torn,
    /// Neither.
    Unreadable,
}

/// Bytes of a checkpoint file that a start looks at; a verification looks at all.
pub const TAIL_BYTES: u64 = 64 * 1024;

/// The lines within the last `bytes_max` bytes of a checkpoint file; an absent file has none.
///
/// # Errors
/// Those of reading, except that it is absent.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<Line>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let skipped = file.metadata()?.len().saturating_sub(bytes_max);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if skipped > 0 {
        let whole = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at.saturating_add(1));
        bytes.drain(..whole);
    }
    let parse = |line: &[u8]| {
        let note = serde_json::from_slice::<String>(line).ok()?;
        // Only the one way to write it counts, so that no byte of the file is without meaning.
        (serde_json::to_vec(&note).ok()? == line).then_some(note)
    };
    let line_of = |line: &[u8]| {
        let Some(body) = line.strip_suffix(b"\n") else {
            let altered = line.split_last().is_some_and(|(_, but_last)| parse(but_last).is_some()) || !line.starts_with(b"\"");
            return parse(line).map_or(if altered { Line::Unreadable } else { Line::Torn }, Line::Note);
        };
        parse(body).map_or(Line::Unreadable, Line::Note)
    };
    Ok(bytes.split_inclusive(|b| *b == b'\n').map(line_of).collect())
}

/// Appends notes durably; makes the file if it is absent, and first ends a torn line by cutting it off.
///
/// # Errors
/// Those of writing.
pub fn append(path: &Path, notes: &[&str]) -> io::Result<()> {
    let mut text = Vec::new();
    for note in notes {
        serde_json::to_writer(&mut text, note)?;
        text.push(b'\n');
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(&text)?;
    file.sync_data()
}

/// Ends a last line that a crash cut short: by its newline if only that is missing, else by cutting it off.
///
/// # Errors
/// Those of reading and writing.
pub fn mend(path: &Path) -> io::Result<()> {
    let Some(last) = read(path, TAIL_BYTES)?.pop() else { return Ok(()) };
    let bytes = std::fs::read(path)?;
    if bytes.last() == Some(&b'\n') {
        return Ok(());
    }
    let mut file = OpenOptions::new().append(true).open(path)?;
    if let Line::Note(_) = last {
        file.write_all(b"\n")?;
    } else {
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
        file.set_len(u64::try_from(whole).unwrap_or(0))?;
    }
    file.sync_all()
}

/// Makes the names in a folder durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
