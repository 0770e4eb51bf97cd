//! Segments: the log's files, each named by the number of its first record, and the walk along them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::entry::{self, Entry, GENESIS, LINE_BYTES_MAX, Link, Unfinished};
use super::verify::{Finding, Wrong};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Number of its first record, as its name says.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Segment {
    /// The segment of `dir` that begins with record `first`.
    #[must_use]
    pub fn named(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("{PREFIX}{first:020}{SUFFIX}")) }
    }

    /// Its file's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The segments of a folder in order, and files that look like segments but are none.
///
/// # Errors
/// Those of listing the folder, except that it is absent.
pub fn list(dir: &Path) -> io::Result<(Vec<Segment>, Vec<String>)> {
    let (mut segments, mut strays) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((segments, strays)),
        Err(error) => return Err(error),
    };
    for item in entries {
        let name = item?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let first = rest.strip_suffix(SUFFIX).and_then(|digits| digits.parse().ok()).map(|first| Segment::named(dir, first));
        match first.filter(|segment| segment.name() == name) {
            Some(segment) => segments.push(segment),
            None => strays.push(name),
        }
    }
    segments.sort();
    strays.sort();
    Ok((segments, strays))
}

/// How far a walk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Records passed.
    pub n: u64,
    /// Link of the last of them.
    pub head: Link,
}

impl Position {
    /// Before the first record.
    pub const START: Self = Self { n: 0, head: GENESIS };
}

/// What a walk along one segment found.
#[derive(Debug)]
pub struct Walked {
    /// After its last good record.
    pub at: Position,
    /// Bytes of good lines.
    pub bytes: u64,
    /// What follows the last newline.
    pub unfinished: Option<Unfinished>,
    /// The first thing wrong.
    pub wrong: Option<Finding>,
}

/// Walks along a segment from `from`, checks every link, fills in the heads at the sizes asked for, and shows every entry to `each`.
///
/// # Errors
/// Those of reading.
pub fn walk(segment: &Segment, from: Position, heads: &mut BTreeMap<u64, Option<Link>>, each: &mut dyn FnMut(Entry)) -> io::Result<Walked> {
    let mut reader = BufReader::new(File::open(&segment.path)?);
    let mut walked = Walked { at: from, bytes: 0, unfinished: None, wrong: None };
    let (mut line, mut line_number) = (Vec::new(), 0_u64);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    loop {
        line.clear();
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(walked);
        }
        line_number = line_number.saturating_add(1);
        let expected = walked.at.n.saturating_add(1);
        if line.last() != Some(&b'\n') && read < LINE_BYTES_MAX {
            let verdict = entry::judge(&walked.at.head, &line);
            if verdict == Unfinished::Altered {
                let detail =
                    "the last line has no newline where a whole record ends, or is no beginning of one; a crash does not leave that";
                walked.wrong = Some(Finding::new(Wrong::Edited, segment.name(), line_number, expected, detail.to_owned()));
            }
            walked.unfinished = Some(verdict);
            return Ok(walked);
        }
        let good = entry::unframe(&line)
            .filter(|(link, json)| entry::chain(&walked.at.head, json) == *link)
            .and_then(|(link, json)| Some((link, serde_json::from_slice::<Entry>(json).ok().filter(|e| e.n == expected)?)));
        let Some((link, entry)) = good else {
            walked.wrong = Some(explain(segment, &line, line_number, expected, reader)?);
            return Ok(walked);
        };
        walked.at = Position { n: expected, head: link };
        walked.bytes = walked.bytes.saturating_add(u64::try_from(read).unwrap_or(0));
        if let Some(head) = heads.get_mut(&expected) {
            *head = Some(link);
        }
        each(entry);
    }
}

/// Says what happened at a line that does not follow on the one before.
fn explain(segment: &Segment, line: &[u8], line_number: u64, expected: u64, rest: impl BufRead) -> io::Result<Finding> {
    let number_in = |line: &[u8]| entry::unframe(line).and_then(|(_, json)| serde_json::from_slice::<Entry>(json).ok()).map(|e| e.n);
    let (wrong, detail) = match number_in(line) {
        Some(n) if n > expected => {
            let mut later = false;
            for other in rest.split(b'\n') {
                let mut other = other?;
                other.push(b'\n');
                later |= number_in(&other) == Some(expected);
            }
            if later {
                (Wrong::Reordered, format!("record {n} stands where record {expected} belongs, which comes later"))
            } else {
                (Wrong::Dropped, format!("records {expected} to {} are missing: record {n} follows", n.saturating_sub(1)))
            }
        }
        Some(n) if n < expected => (Wrong::Duplicated, format!("record {n} is here again, where record {expected} belongs")),
        Some(n) => (Wrong::Edited, format!("record {n} was changed (its hash does not follow from its content and the record before)")),
        None => (Wrong::Edited, "this line is not a record as evidence writes it".to_owned()),
    };
    Ok(Finding::new(wrong, segment.name(), line_number, expected, detail))
}

/// Link and number of a segment's last whole line; nothing if there is none or it is no record.
///
/// # Errors
/// Those of reading.
pub fn last_link(segment: &Segment) -> io::Result<Option<Position>> {
    let mut file = File::open(&segment.path)?;
    let window = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX).saturating_mul(2);
    let start = file.metadata()?.len().saturating_sub(window);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some(body) = bytes.strip_suffix(b"\n") else { return Ok(None) };
    let line_start = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
    let last = bytes.get(line_start..).and_then(entry::unframe);
    Ok(last.and_then(|(head, json)| Some(Position { n: serde_json::from_slice::<Entry>(json).ok()?.n, head })))
}

/// Shows every entry numbered above `after` to `each`, without checking links (a walk did, or will).
///
/// # Errors
/// Those of reading.
pub fn replay(dir: &Path, after: u64, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
    let (segments, _) = list(dir)?;
    let begin = segments.partition_point(|s| s.first <= after.saturating_add(1)).saturating_sub(1);
    for segment in segments.iter().skip(begin) {
        for line in BufReader::new(File::open(&segment.path)?).split(b'\n') {
            let mut line = line?;
            line.push(b'\n');
            let entry = entry::unframe(&line).and_then(|(_, json)| serde_json::from_slice::<Entry>(json).ok());
            if let Some(entry) = entry.filter(|e| e.n > after) {
                each(entry);
            }
        }
    }
    Ok(())
}
