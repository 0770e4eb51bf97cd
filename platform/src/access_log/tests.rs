//! The files: bounded in size, number and age, for their owner alone; what cannot be written is counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Method, Version};
use serde_json::Value;
use telemetry::{Asked, Decided, Shown};
use trust::{Decision, DenyReason, TraceContext};

use super::*;

/// 2026-11-22 08:01:56.123 UTC.
const NOW_MS: u64 = 1_795_334_516_123;

#[derive(Debug)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

struct World {
    folder: tempfile::TempDir,
    clock: Arc<HandClock>,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(HandClock(AtomicU64::new(NOW_MS))) }
    }

    fn settings(&self, bytes_max: u64) -> Settings {
        let folder = self.folder.path().join("access");
        Settings { folder, door: "edge".to_owned(), service: String::new(), bytes_max, age_ms_max: 14 * 86_400_000 }
    }

    fn files(&self, bytes_max: u64) -> Files {
        std::fs::create_dir_all(self.folder.path().join("access")).unwrap();
        Files { settings: self.settings(bytes_max), clock: self.clock.clone(), open: None, complained: false }
    }

    fn all(&self) -> Vec<PathBuf> {
        files_of(&self.folder.path().join("access"), "edge")
    }

    fn lines(&self) -> Vec<Value> {
        let text: String = self.all().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A request that is told to `take`: its number is the bytes that came.
fn told(n: u64, take: &mut dyn FnMut(&Access<'_>)) {
    let asked = Asked {
        method: Method::GET,
        target: format!("/api/{n}?secret=1").parse().unwrap(),
        host: None,
        agent: Some(HeaderValue::from_static("test")),
        version: Version::HTTP_2,
        tls: "1.3",
        from: None,
        shown: Shown::Nothing,
    };
    let decision = Decision::deny(DenyReason::RouteUnknown);
    let decided = Decided {
        point: "edge",
        principal: "internet",
        action: "",
        resource: "",
        user: "",
        purpose: "",
        txn: "",
        job: "",
        decision: &decision,
    };
    let trace = TraceContext { trace_id: 1, span_id: 1, sampled: true };
    take(&Access {
        asked: &asked,
        decided,
        route: "unknown",
        status: 404,
        bytes_in: n,
        bytes_out: 0,
        began_ns: NOW_MS * 1_000_000,
        took_ns: 2_000_000,
        trace,
    });
}

/// Lines of these, as they wait.
fn written(all: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for n in all {
        told(n, &mut |access| access.write("", "", &mut out));
        out.push(b'\n');
    }
    out
}

// J1: what was taken is written, in order, when the log ends at the latest; the file is for its owner alone.
#[test]
fn every_request_that_was_taken_is_a_line_in_a_file_of_its_owners() {
    let world = World::new();
    let metrics = Arc::new(Metrics::new());
    let log = AccessLog::start(world.settings(64 << 20), world.clock.clone(), metrics.clone()).unwrap();
    (0..500).for_each(|n| told(n, &mut |access| log.take(access)));
    log.finish();
    let lines = world.lines();
    assert_eq!(lines.iter().map(|line| line["bytes_in"].as_u64().unwrap()).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    assert_eq!(lines[7]["time"], "2026-11-22T08:01:56.125Z");
    assert_eq!((&lines[7]["path"], &lines[7]["reason"]), (&Value::from("/api/7"), &Value::from("route_unknown")));
    let [file] = &world.all()[..] else { panic!("one file: {:?}", world.all()) };
    assert!(file.ends_with("edge-20261122T080156.123Z.jsonl"), "{file:?}");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    // Afterwards nothing is written, and that is counted.
    told(1, &mut |access| log.take(access));
    assert!(metrics.render().contains("palisade_access_lines_dropped_total 1\n"), "{}", metrics.render());
}

// A13: exactly as many as may wait do; one more is dropped and counted.
#[test]
fn what_cannot_wait_is_dropped_and_counted() {
    let (metrics, shared) =
        (Arc::new(Metrics::new()), Shared { waiting: Mutex::default(), bell: Condvar::new(), metrics: Arc::new(Metrics::new()) });
    let log =
        AccessLog { shared: Arc::new(Shared { metrics: metrics.clone(), ..shared }), service: String::new(), thread: Mutex::new(None) };
    (0..WAITING_MAX).for_each(|_| told(1, &mut |access| log.take(access)));
    assert!(metrics.render().contains("palisade_access_lines_dropped_total 0\n"));
    told(1, &mut |access| log.take(access));
    assert!(metrics.render().contains("palisade_access_lines_dropped_total 1\n"));
}

// A13: many long paths fill the room before many lines do; what came before is kept.
#[test]
fn lines_wait_within_their_bytes() {
    let metrics = Arc::new(Metrics::new());
    let shared = Shared { waiting: Mutex::default(), bell: Condvar::new(), metrics: metrics.clone() };
    let log = AccessLog { shared: Arc::new(shared), service: String::new(), thread: Mutex::new(None) };
    log.shared.lock().text = vec![b'x'; WAITING_BYTES_MAX - 1];
    told(1, &mut |access| log.take(access));
    assert!(metrics.render().contains("palisade_access_lines_dropped_total 0\n"));
    told(2, &mut |access| log.take(access));
    assert!(metrics.render().contains("palisade_access_lines_dropped_total 1\n"));
}

// J1: pieces for a file end where a line does, whatever their size; a line that is longer than a piece is one by itself.
#[test]
fn lines_are_never_torn_between_two_files() {
    for (bytes_max, expected) in [(0, "aa\n"), (2, "aa\n"), (3, "aa\n"), (4, "aa\n"), (5, "aa\nb\n"), (99, "aa\nb\nccc\n")] {
        assert_eq!(lines_within(b"aa\nb\nccc\n", bytes_max), expected.as_bytes(), "{bytes_max}");
    }
}

// J1: the same moment as a clock would write it, also after a later and an earlier one.
#[test]
fn moments_are_written_as_the_calendar_has_them() {
    let mut moments = Moments::default();
    for unix_ms in [NOW_MS, NOW_MS + 1, NOW_MS + 876, NOW_MS + 877, NOW_MS, 0, 999, 951_782_400_000] {
        assert_eq!(moments.write(unix_ms), moment(unix_ms, IN_LINES));
    }
}

// A13: the size of all files stays under what the manifest says; the oldest lines go, the newest stay.
#[test]
fn all_files_together_stay_within_their_size_and_the_oldest_go() {
    const BYTES_MAX: u64 = 1 << 20;
    let world = World::new();
    let mut files = world.files(BYTES_MAX);
    let total = || world.all().iter().map(|path| std::fs::metadata(path).unwrap().len()).sum::<u64>();
    for batch in 0..60_u64 {
        world.clock.0.fetch_add(1, Ordering::SeqCst);
        assert_eq!(files.write(&written((0..100).map(|n| batch * 100 + n))), 0);
        assert!(total() <= BYTES_MAX, "{}", total());
    }
    assert!(world.all().len() > 4 && total() > BYTES_MAX / 2, "{} files, {} bytes", world.all().len(), total());
    let lines = world.lines();
    assert_eq!(lines.last().unwrap()["bytes_in"], 5_999);
    let first = lines[0]["bytes_in"].as_u64().unwrap();
    assert!(first > 0 && lines.len() == usize::try_from(6_000 - first).unwrap(), "whole from {first} on: {}", lines.len());
}

// J1: a file is not written for longer than a day, and goes when its newest line is too old.
#[test]
fn lines_past_their_age_go() {
    let world = World::new();
    let mut files = world.files(1 << 20);
    files.write(&written([1]));
    world.clock.0.fetch_add(FILE_AGE_MS - 1, Ordering::SeqCst);
    files.write(&written([2]));
    assert_eq!(world.all().len(), 1);
    world.clock.0.fetch_add(1, Ordering::SeqCst);
    files.write(&written([3]));
    assert_eq!(world.all().len(), 2);
    let old = world.all().remove(0);
    let age = |ms: u64| {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(world.clock.unix_ms() - ms);
        File::options().write(true).open(&old).unwrap().set_modified(at).unwrap();
    };
    // The newest is of the machine's time, which is not this clock's.
    let newest = world.all().remove(1);
    File::options()
        .write(true)
        .open(newest)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_millis(world.clock.unix_ms()))
        .unwrap();
    age(files.settings.age_ms_max);
    files.prune();
    assert_eq!(world.all().len(), 2, "just below");
    age(files.settings.age_ms_max + 1);
    files.prune();
    assert_eq!(world.lines().iter().map(|line| line["bytes_in"].as_u64().unwrap()).collect::<Vec<_>>(), [3]);
}

// J1: a disk that takes nothing stops no request: lines are lost and counted, and it goes on when there is room.
#[test]
fn lines_that_cannot_be_written_are_counted_and_it_goes_on() {
    let world = World::new();
    let mut files = world.files(1 << 20);
    assert_eq!(files.write(&written([1])), 0);
    // What a full disk answers: ENOSPC.
    files.open = Some(Open { file: OpenOptions::new().append(true).open("/dev/full").unwrap(), bytes: 0, since_ms: NOW_MS });
    assert_eq!(files.write(&written([2, 3])), 2);
    assert_eq!(files.write(&written([4])), 0);
    assert_eq!(world.lines().iter().map(|line| line["bytes_in"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 4]);
}
