//! What may be done to a log, and how it is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;

use serde_json::{Map, json};
use trust::{AuditRecord, SpiffeId};

use super::*;
use crate::note::{NoteSigner, VerifierKey};

fn signer() -> NoteSigner {
    NoteSigner::from_seed("video.example/audit", &[7; 32]).unwrap()
}

fn key() -> VerifierKey {
    signer().verifier()
}

fn told(seq: u64) -> (SpiffeId, String, AuditRecord) {
    let mut fields = Map::new();
    fields.insert("reason".to_owned(), json!("policy_denied"));
    let record = AuditRecord { seq, at_ms: 1_000 + seq, event: "CallDecided".into(), trace: String::new(), span: String::new(), fields };
    ("spiffe://video.example/service/api".parse().unwrap(), "run1".to_owned(), record)
}

/// A folder with a log of `n` records in segments of about three, checkpoints in between and at the end.
struct Made {
    folder: tempfile::TempDir,
    place: Place,
}

impl Made {
    fn empty() -> Self {
        // In memory where that can be had: what is tested is what is in the files, a few thousand times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let place =
            Place { dir: folder.path().join("log"), anchor: folder.path().join("anchor.jsonl"), segment_bytes: 600, free_bytes_min: 0 };
        Self { folder, place }
    }
    fn with(n: u64) -> Self {
        let made = Self::empty();
        let mut log = made.open().unwrap();
        for seq in 1..=n {
            log.append(vec![told(seq)], 5_000 + seq).unwrap();
            if seq % 2 == 0 {
                log.checkpoint(6_000 + seq).unwrap();
            }
        }
        log.checkpoint(9_000).unwrap();
        made
    }
    fn open(&self) -> Result<AuditLog, LogError> {
        AuditLog::open(self.place.clone(), signer(), 4_000)
    }
    fn verify(&self) -> Report {
        verify(&self.place.dir, &key(), Some(&self.place.anchor)).unwrap()
    }
    fn segments(&self) -> Vec<std::path::PathBuf> {
        segment::list(&self.place.dir).unwrap().0.into_iter().map(|s| s.path).collect()
    }
    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    }
    fn checkpoints(&self) -> std::path::PathBuf {
        self.place.dir.join(CHECKPOINTS)
    }
}

// J7: under its floor of free space nothing is appended and nothing is half written; above it, it goes on.
#[test]
fn a_log_stops_at_its_floor_of_free_space() {
    let mut made = Made::with(3);
    let free = made.place.free_bytes().unwrap();
    made.place.free_bytes_min = free.saturating_mul(2);
    let mut log = made.open().unwrap();
    let refused = log.append(vec![told(4)], 5_004).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!((log.records(), log.append(Vec::new(), 5_004).unwrap().len()), (3, 0));
    drop(log);
    assert_eq!(made.verify().records, 3);
    made.place.free_bytes_min = free / 2;
    let mut log = made.open().unwrap();
    assert_eq!(log.append(vec![told(4)], 5_004).unwrap().len(), 1, "there is room again");
}

// J8
#[test]
fn an_untouched_log_is_intact_also_after_reopening() {
    let made = Made::with(8);
    assert!(made.segments().len() >= 3, "several segments");
    let report = made.verify();
    assert!(report.is_intact(), "{report}");
    assert_eq!((report.records, report.checkpointed, report.anchored, report.unfinished), (8, 8, 8, false));
    let mut log = made.open().unwrap();
    assert_eq!(log.records(), 8);
    log.append(vec![told(9)], 1).unwrap();
    assert!(matches!(made.open(), Err(LogError::Locked)), "one writer");
    drop(log);
    drop(made.open().unwrap());
    assert_eq!(made.verify().checkpointed, 9);
}

// J8: exhaustive: every byte of every file of a small log, three ways.
#[test]
fn any_one_changed_byte_anywhere_is_found_and_the_log_is_not_appended_to() {
    let made = Made::with(4);
    let mut files = made.segments();
    files.extend([made.checkpoints(), made.place.anchor.clone()]);
    let mut flips = 0;
    for path in &files {
        let good = fs::read(path).unwrap();
        for at in 0..good.len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                fs::write(path, &bad).unwrap();
                let report = made.verify();
                assert!(!report.is_intact(), "{} byte {at} mask {mask:#x}", path.display());
                flips += 1;
            }
        }
        fs::write(path, &good).unwrap();
    }
    assert!(flips > 5_000, "{flips}");
    assert!(made.verify().is_intact());
    // A start looks at the last segment: there too each byte counts.
    let last = made.segments().pop().unwrap();
    let good = fs::read(&last).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        fs::write(&last, &bad).unwrap();
        assert!(matches!(made.open(), Err(LogError::Broken { .. })), "byte {at}");
        assert_eq!(fs::read(&last).unwrap(), bad, "a broken log is left as it is");
    }
}

type Act = fn(&Made);

// J8: the table of what an intruder with write access to the folder may do, and what is said of it.
#[test]
fn each_way_of_tampering_is_named_with_file_line_and_first_record() {
    let table: Vec<(&str, Act, Wrong, u64)> = vec![
        ("a value edited", |m| edit(&m.segments()[0], |l| l[1] = l[1].replace("policy_denied", "policy_failed")), Wrong::Edited, 2),
        ("a hash edited", |m| edit(&m.segments()[0], |l| l[1] = l[1].replacen("hash\":\"", "hash\":\"0", 1)), Wrong::Edited, 2),
        ("a record dropped", |m| edit(&m.segments()[0], |l| drop(l.remove(1))), Wrong::Dropped, 2),
        ("two records swapped", |m| edit(&m.segments()[0], |l| l.swap(0, 1)), Wrong::Reordered, 1),
        ("a record duplicated", |m| edit(&m.segments()[0], |l| l.insert(1, l[0].clone())), Wrong::Duplicated, 2),
        ("a segment dropped", |m| fs::remove_file(&m.segments()[1]).unwrap(), Wrong::Dropped, 0),
        ("the last segment dropped", |m| fs::remove_file(m.segments().pop().unwrap()).unwrap(), Wrong::Truncated, 0),
        ("the last record cut at its border", |m| edit(&m.segments().pop().unwrap(), |l| drop(l.pop())), Wrong::Truncated, 8),
        ("the last segment emptied", |m| edit(&m.segments().pop().unwrap(), Vec::clear), Wrong::Truncated, 0),
        (
            "a segment copied under a later name",
            |m| {
                fs::copy(&m.segments()[0], Segment::named(&m.place.dir, 9).path).map(|_| ()).unwrap();
            },
            Wrong::Duplicated,
            9,
        ),
        (
            "a segment copied under a foreign name",
            |m| {
                fs::copy(&m.segments()[0], m.place.dir.join("audit-copy.jsonl")).map(|_| ()).unwrap();
            },
            Wrong::Duplicated,
            0,
        ),
        ("everything rewritten with a fitting chain", |m| rechain(m, 3), Wrong::Rewritten, 3),
        (
            "the log cut back together with its checkpoints",
            |m| {
                edit(&m.checkpoints(), |l| l.truncate(2));
                for path in m.segments().iter().skip(1) {
                    fs::remove_file(path).unwrap();
                }
                edit(&m.segments()[0], |l| l.truncate(2));
            },
            Wrong::Truncated,
            3,
        ),
        ("the whole folder removed", |m| fs::remove_dir_all(&m.place.dir).unwrap(), Wrong::Truncated, 1),
        ("the checkpoints removed", |m| fs::remove_file(m.checkpoints()).unwrap(), Wrong::CheckpointMissing, 0),
        ("one checkpoint removed", |m| edit(&m.checkpoints(), |l| drop(l.remove(1))), Wrong::CheckpointMissing, 0),
        ("the anchor removed", |m| fs::remove_file(&m.place.anchor).unwrap(), Wrong::AnchorMissing, 0),
        (
            "a checkpoint of another key",
            |m| {
                let other = NoteSigner::from_seed("video.example/audit", &[9; 32]).unwrap();
                let note = Checkpoint { size: 8, head: [0; 32], at_ms: 1 }.sign(&other);
                checkpoint::append(&m.checkpoints(), &[&note]).unwrap();
            },
            Wrong::ForeignKey,
            0,
        ),
        (
            "everything made anew with another key",
            |m| {
                let other = NoteSigner::from_seed("video.example/audit", &[9; 32]).unwrap();
                fs::remove_dir_all(&m.place.dir).unwrap();
                fs::remove_file(&m.place.anchor).unwrap();
                AuditLog::open(m.place.clone(), other, 1).unwrap().append(vec![told(1)], 1).map(|_| ()).unwrap();
            },
            Wrong::ForeignKey,
            0,
        ),
    ];
    for (name, act, wrong, record) in table {
        let made = Made::with(8);
        act(&made);
        let report = made.verify();
        let found = report.findings.iter().find(|f| f.wrong == wrong);
        let found = found.unwrap_or_else(|| panic!("{name}: {report}"));
        assert!(record == 0 || found.record == record, "{name}: {report}");
        assert!(!found.file.is_empty(), "{name}");
        assert!(matches!(made.open(), Err(LogError::Broken { .. })) || early(name), "{name}: must not be appended to");
    }
}

/// Tampering before the last segment is found by `verify`, not at each start.
fn early(name: &str) -> bool {
    ["a value edited", "a hash edited", "a record dropped", "two records swapped", "a record duplicated", "a segment dropped"]
        .contains(&name)
        || name.starts_with("everything rewritten")
}

fn edit(path: &Path, f: impl Fn(&mut Vec<String>)) {
    let mut lines = Made::lines(path);
    f(&mut lines);
    fs::write(path, lines.concat()).unwrap();
}

/// Changes records from `from` on and computes every later hash anew, as somebody without the signing key can.
fn rechain(made: &Made, from: u64) {
    let mut head = entry::GENESIS;
    for path in made.segments() {
        let mut out = Vec::new();
        for line in Made::lines(&path) {
            let (_, json) = entry::unframe(line.as_bytes()).unwrap();
            let mut entry: Entry = serde_json::from_slice(json).unwrap();
            if entry.n >= from {
                entry.record.fields.insert("reason".to_owned(), json!("rate_exceeded"));
            }
            let (line, link) = entry::frame(&head, &serde_json::to_vec(&entry).unwrap());
            head = link;
            out.extend(line);
        }
        fs::write(path, out).unwrap();
    }
}

// J7, J8: killed in the middle of a write: at every possible byte.
#[test]
fn a_write_cut_at_any_byte_is_recovered_and_what_was_acknowledged_stays() {
    let mut made = Made::empty();
    made.place.segment_bytes = SEGMENT_BYTES;
    let mut log = made.open().unwrap();
    log.append(vec![told(1), told(2)], 1).unwrap();
    let last = made.segments().pop().unwrap();
    let acknowledged = fs::read(&last).unwrap();
    log.append(vec![told(3), told(4)], 1).unwrap();
    drop(log);
    let whole = fs::read(&last).unwrap();
    let third = whole[acknowledged.len()..].iter().position(|b| *b == b'\n').unwrap() + acknowledged.len() + 1;
    let checkpoints = fs::read(made.checkpoints()).unwrap();
    let anchor = fs::read(&made.place.anchor).unwrap();
    for cut in acknowledged.len()..=whole.len() {
        fs::write(&last, &whole[..cut]).unwrap();
        fs::write(made.checkpoints(), &checkpoints).unwrap();
        fs::write(&made.place.anchor, &anchor).unwrap();
        let before = made.verify();
        assert!(before.is_intact(), "cut {cut}: {before}");
        let expect = if cut + 1 >= whole.len() {
            4
        } else if cut + 1 >= third {
            3
        } else {
            2
        };
        let mut log = made.open().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        assert_eq!(log.records(), expect, "cut {cut}");
        log.append(vec![told(expect + 1)], 1).unwrap();
        log.checkpoint(2).unwrap();
        drop(log);
        let report = made.verify();
        assert!(report.is_intact() && report.records == expect + 1 && !report.unfinished, "cut {cut}: {report}");
    }
}

// J8: killed while a checkpoint is written beside the log, or to the anchor.
#[test]
fn a_checkpoint_cut_at_any_byte_is_recovered() {
    let made = Made::empty();
    let mut log = made.open().unwrap();
    log.append(vec![told(1)], 1).unwrap();
    let before = fs::read(made.checkpoints()).unwrap();
    log.checkpoint(2).unwrap();
    drop(log);
    let after = fs::read(made.checkpoints()).unwrap();
    for (local, anchor) in
        (before.len()..after.len()).map(|cut| (cut, before.len())).chain((before.len()..after.len()).map(|c| (after.len(), c)))
    {
        fs::write(made.checkpoints(), &after[..local]).unwrap();
        fs::write(&made.place.anchor, &after[..anchor]).unwrap();
        drop(made.open().unwrap_or_else(|e| panic!("local {local} anchor {anchor}: {e}")));
        let report = made.verify();
        assert!(report.is_intact() && report.anchored == 1, "local {local} anchor {anchor}: {report}");
    }
}

#[test]
fn a_record_longer_than_a_line_is_refused_and_nothing_is_written() {
    let made = Made::empty();
    let mut log = made.open().unwrap();
    let mut big = told(2);
    big.2.fields.insert("x".to_owned(), json!("y".repeat(entry::LINE_BYTES_MAX)));
    assert!(log.append(vec![told(1), big], 1).is_err());
    assert_eq!(log.records(), 0);
    log.append(vec![told(1)], 1).unwrap();
    log.checkpoint(3).unwrap();
    assert!(made.verify().is_intact());
}

// J8: without an anchor a log is not begun: nobody would miss it later.
#[test]
fn a_log_whose_anchor_cannot_be_written_is_not_opened() {
    let mut made = Made::empty();
    fs::create_dir(made.folder.path().join("anchor.jsonl")).unwrap();
    assert!(made.open().is_err());
    made.place.anchor = made.folder.path().join("elsewhere/anchor.jsonl");
    made.open().unwrap();
    assert!(made.verify().is_intact());
}

#[test]
fn replay_shows_every_record_after_a_number_once_and_in_order() {
    let made = Made::with(8);
    for after in 0..=9 {
        let mut seen = Vec::new();
        segment::replay(&made.place.dir, after, &mut |e| seen.push(e.n)).unwrap();
        assert_eq!(seen, (after + 1..=8).collect::<Vec<_>>(), "after {after}");
    }
    assert!(made.folder.path().exists());
}
