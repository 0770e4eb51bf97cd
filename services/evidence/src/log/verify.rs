//! Verification: whether a log is whole and as it was signed, told by somebody who has the files, the verifier key, and the anchor.
//!
//! Guarantees: J8. An edit, a drop, a reorder, a duplicate or a truncation is found, and its first place named. A rewritten chain is
//!             found by the signed checkpoints; a log cut back together with its checkpoints by the anchor, which is kept elsewhere.
//!             What it cannot see: records newer than the newest checkpoint (at most `CHECKPOINT_RECORDS` or `CHECKPOINT_S` seconds),
//!             cut at a record's border. Their senders see that: evidence then asks them for numbers that they know were taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::CHECKPOINTS;
use super::checkpoint::{self, Checkpoint, Line};
use super::entry::{GENESIS, Link, Unfinished};
use super::segment::{self, Position};
use crate::note::{NoteError, VerifierKey};

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// A record or its hash was changed.
    Edited,
    /// Records are missing in the middle.
    Dropped,
    /// Records stand in another order.
    Reordered,
    /// A record or a segment is there twice.
    Duplicated,
    /// Records are missing at the end: a checkpoint was signed over more.
    Truncated,
    /// The chain is whole, but not the one that was signed.
    Rewritten,
    /// A checkpoint was signed by another key.
    ForeignKey,
    /// A line of a checkpoint file is no checkpoint, or its signature is wrong.
    CheckpointUnreadable,
    /// A checkpoint that the anchor has is not beside the log, or there is none at all.
    CheckpointMissing,
    /// The anchor is absent or empty although there are checkpoints.
    AnchorMissing,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub wrong: Wrong,
    /// File.
    pub file: String,
    /// Line in it, from 1; 0 for the file as a whole.
    pub line: u64,
    /// The first record that cannot be relied on.
    pub record: u64,
    /// In words.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(wrong: Wrong, file: String, line: u64, record: u64, detail: String) -> Self {
        Self { wrong, file, line, record, detail }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {:?}: {} (first record affected: {})", self.file, self.line, self.wrong, self.detail, self.record)
    }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records whose chain is whole, from the first.
    pub records: u64,
    /// Link of the last of them, 64 hexadecimal digits.
    pub head: String,
    /// Checkpoints that verified.
    pub checkpoints: u64,
    /// Records under the newest checkpoint.
    pub checkpointed: u64,
    /// Records under the anchor's newest checkpoint.
    pub anchored: u64,
    /// The last line is the beginning of a record that was never acknowledged: evidence was killed while it wrote, or writes now.
    pub unfinished: bool,
    /// What is wrong, in the order of the log; empty for an intact one.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_intact() { "intact" } else { "BROKEN" };
        writeln!(f, "audit log {state}: {} records, head {}", self.records, self.head)?;
        write!(
            f,
            "{} checkpoints verified; signed up to record {}, anchored up to record {}",
            self.checkpoints, self.checkpointed, self.anchored
        )?;
        if self.unfinished {
            write!(f, "\nthe last line is unfinished and was never acknowledged; evidence cuts it off when it starts")?;
        }
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

/// Verifies the whole log in `dir` against `key`, and against the checkpoints in the file `anchor`.
///
/// # Errors
/// Those of reading files; what is wrong with the log is in the report.
pub fn verify(dir: &Path, key: &VerifierKey, anchor: Option<&Path>) -> io::Result<Report> {
    examine(dir, key, anchor, Extent::Whole, &mut |_| ()).map(|(report, _)| report)
}

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything.
    Whole,
    /// The last segment and the newest checkpoints: what a start can afford.
    Tail,
}

/// Where the log ends.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) at: Position,
    pub(crate) segment: Option<segment::Segment>,
    pub(crate) bytes: u64,
    pub(crate) unfinished: Option<Unfinished>,
    pub(crate) newest: Option<Checkpoint>,
    /// Notes beside the log that the anchor does not have yet.
    pub(crate) unanchored: Vec<String>,
}

pub(crate) fn examine(
    dir: &Path,
    key: &VerifierKey,
    anchor: Option<&Path>,
    extent: Extent,
    each: &mut dyn FnMut(super::Entry),
) -> io::Result<(Report, End)> {
    let bytes_max = if extent == Extent::Whole { u64::MAX } else { checkpoint::TAIL_BYTES };
    let local = Signed::read(&dir.join(CHECKPOINTS), key, bytes_max)?;
    let outside = anchor.map(|path| Signed::read(path, key, bytes_max)).transpose()?;
    let mut findings = Vec::new();
    let known: BTreeMap<u64, (Link, &Place)> =
        local.all.iter().chain(outside.iter().flat_map(|o| &o.all)).rev().map(|(c, _, place)| (c.size, (c.head, place))).collect();
    let mut heads: BTreeMap<u64, Option<Link>> = known.keys().map(|size| (*size, (*size == 0).then_some(GENESIS))).collect();

    let (segments, strays) = segment::list(dir)?;
    for stray in strays {
        let detail = "this file is named like a segment of the log but is none".to_owned();
        findings.push(Finding::new(Wrong::Duplicated, stray, 0, 0, detail));
    }
    let skipped = if extent == Extent::Tail { segments.len().saturating_sub(1) } else { 0 };
    let mut at = Position::START;
    if let Some(before) = skipped.checked_sub(1).and_then(|i| segments.get(i)) {
        // A segment whose end cannot be read leaves `at` behind, so that the next one does not follow and is reported.
        at = segment::last_link(before)?.unwrap_or(Position::START);
    }
    let mut end = End { at, segment: None, bytes: 0, unfinished: None, newest: None, unanchored: Vec::new() };
    let mut broken = false;
    for (index, segment) in segments.iter().enumerate().skip(skipped) {
        let expected = end.at.n.saturating_add(1);
        if segment.first != expected || end.unfinished.is_some() {
            findings.push(misplaced(segment, expected, end.unfinished.is_some()));
            broken = true;
            break;
        }
        let walked = segment::walk(segment, end.at, &mut heads, each)?;
        end = End { at: walked.at, segment: Some(segment.clone()), bytes: walked.bytes, unfinished: walked.unfinished, ..end };
        if let Some(wrong) = walked.wrong {
            findings.push(wrong);
            broken = true;
            break;
        }
        if walked.at.n < segment.first && index.saturating_add(1) < segments.len() {
            findings.push(Finding::new(
                Wrong::Dropped,
                segment.name(),
                0,
                expected,
                "the segment is empty, and another follows".to_owned(),
            ));
            broken = true;
            break;
        }
    }
    let reach = Reach { end: end.at.n, broken };
    compare(&known, &heads, &reach, &mut findings);
    findings.extend(local.findings.iter().cloned());
    if let Some(outside) = &outside {
        findings.extend(outside.findings.iter().cloned());
        compare_anchor(&local, outside, &mut findings);
        let there: BTreeSet<&String> = outside.all.iter().map(|(_, note, _)| note).collect();
        end.unanchored = local.all.iter().map(|(_, note, _)| note).filter(|note| !there.contains(note)).cloned().collect();
    }
    if local.all.is_empty() && local.findings.is_empty() && (end.at.n > 0 || outside.as_ref().is_some_and(|o| !o.all.is_empty())) {
        let detail = "there is no signed checkpoint beside the log, and evidence writes one before its first record".to_owned();
        findings.push(Finding::new(Wrong::CheckpointMissing, CHECKPOINTS.to_owned(), 0, 1, detail));
    }
    end.newest = local.newest();
    let report = Report {
        records: end.at.n,
        head: hex::encode(end.at.head),
        checkpoints: u64::try_from(local.all.len()).unwrap_or(u64::MAX),
        checkpointed: end.newest.map_or(0, |c| c.size),
        anchored: outside.as_ref().and_then(Signed::newest).map_or(0, |c| c.size),
        unfinished: matches!(end.unfinished, Some(Unfinished::Torn | Unfinished::NewlineMissing)) || local.torn,
        findings,
    };
    Ok((report, end))
}

fn misplaced(segment: &segment::Segment, expected: u64, unfinished: bool) -> Finding {
    let (wrong, detail) = match segment.first {
        first if unfinished => (Wrong::Edited, format!("the segment before record {first} ends in the middle of a record")),
        first if first > expected => {
            (Wrong::Dropped, format!("records {expected} to {} are missing: no segment has them", first.saturating_sub(1)))
        }
        first => (Wrong::Duplicated, format!("this segment says that it begins with record {first}, where record {expected} belongs")),
    };
    Finding::new(wrong, segment.name(), 0, expected, detail)
}

/// What part of the log was walked.
struct Reach {
    end: u64,
    broken: bool,
}

fn compare(known: &BTreeMap<u64, (Link, &Place)>, heads: &BTreeMap<u64, Option<Link>>, reach: &Reach, findings: &mut Vec<Finding>) {
    let mut sure = 0_u64;
    for (size, (signed, place)) in known {
        let found = heads.get(size).copied().flatten();
        match found {
            Some(head) if head == *signed => sure = *size,
            Some(_) => {
                let detail = format!(
                    "the chain is whole, but at record {size} it is not what {}:{} signed: records {} to {size} were rewritten",
                    place.file,
                    place.line,
                    sure.saturating_add(1)
                );
                findings.push(Finding::new(Wrong::Rewritten, place.file.clone(), place.line, sure.saturating_add(1), detail));
                return;
            }
            None if *size > reach.end && !reach.broken => {
                let detail = format!(
                    "{}:{} was signed over {size} records, but the log ends after {}: it was cut",
                    place.file, place.line, reach.end
                );
                findings.push(Finding::new(Wrong::Truncated, place.file.clone(), place.line, reach.end.saturating_add(1), detail));
                return;
            }
            // Before what was walked (a start looks at the end alone), or beyond where it broke, which is reported already.
            None => {}
        }
    }
}

fn compare_anchor(local: &Signed, outside: &Signed, findings: &mut Vec<Finding>) {
    if outside.all.is_empty() && outside.findings.is_empty() && !local.all.is_empty() {
        let detail =
            "the anchor is absent or empty; without it a log cut back together with its checkpoints cannot be told from a young one";
        findings.push(Finding::new(Wrong::AnchorMissing, outside.file.clone(), 0, 0, detail.to_owned()));
        return;
    }
    let here: BTreeSet<&String> = local.all.iter().map(|(_, note, _)| note).collect();
    let oldest_here = local.all.iter().map(|(c, ..)| c.size).min().unwrap_or(0);
    // When only the ends of both files were read, older ones are out of sight on either side.
    let missing = outside.all.iter().find(|(c, note, _)| !here.contains(note) && (c.size >= oldest_here || local.all.is_empty()));
    if let Some((c, _, place)) = missing {
        let detail = format!("the anchor has a checkpoint over {} records that is not beside the log: it was taken away", c.size);
        findings.push(Finding::new(Wrong::CheckpointMissing, place.file.clone(), place.line, c.size, detail));
    }
}

/// Where a checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: String,
    line: u64,
}

/// A checkpoint file, verified line by line.
#[derive(Debug)]
struct Signed {
    file: String,
    all: Vec<(Checkpoint, String, Place)>,
    findings: Vec<Finding>,
    torn: bool,
}

impl Signed {
    fn read(path: &Path, key: &VerifierKey, bytes_max: u64) -> io::Result<Self> {
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut this = Self { file: file.clone(), all: Vec::new(), findings: Vec::new(), torn: false };
        for (number, line) in (1_u64..).zip(checkpoint::read(path, bytes_max)?) {
            let mut bad = |wrong, detail: String| this.findings.push(Finding::new(wrong, file.clone(), number, 0, detail));
            match line {
                Line::Torn => this.torn = true,
                Line::Unreadable => bad(Wrong::CheckpointUnreadable, "this line is no checkpoint as evidence writes it".to_owned()),
                Line::Note(note) => match Checkpoint::open(&note, key) {
                    Ok(checkpoint) => this.all.push((checkpoint, note, Place { file: file.clone(), line: number })),
                    Err(NoteError::ForeignKey) => bad(Wrong::ForeignKey, format!("another key than {} signed this checkpoint", key.name())),
                    Err(error) => bad(Wrong::CheckpointUnreadable, error.to_string()),
                },
            }
        }
        Ok(this)
    }

    fn newest(&self) -> Option<Checkpoint> {
        self.all.iter().map(|(c, ..)| *c).max_by_key(|c| c.size)
    }
}
