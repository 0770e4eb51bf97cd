#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex as StdMutex;

use async_trait::async_trait;
use contract::evidence::Appended;
use contract::{Body, Client, Transport, body};
use http::{Request, Response, StatusCode};
use trust::{Fault, SystemEntropy};

use super::*;

#[derive(Debug, Default)]
struct FakeEvidence {
    taken: StdMutex<Vec<(String, u64)>>,
}

#[async_trait]
impl Transport for FakeEvidence {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let batch: Batch = body::parse_json(request.into_body()).await?;
        let seq = batch.audit.last().map_or(0, |r| r.seq);
        self.taken.lock().unwrap().extend(batch.audit.iter().map(|r| (batch.process.clone(), r.seq)));
        Ok(body::json(StatusCode::OK, &Appended { seq }))
    }
}

fn record() -> NewRecord<'static> {
    NewRecord {
        at_ms: 1,
        event: "ActDone",
        trace: None,
        fields: &|out| {
            out.extend_from_slice(b"{}");
            Ok(())
        },
    }
}

// J7: what a killed process had recorded is shipped by the next run, under the name of the run that wrote it, once.
#[tokio::test]
async fn records_survive_the_death_of_their_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    for _ in 0..3 {
        first.audit(record()).unwrap();
    }
    let killed = first.process.clone();
    let second = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    let evidence = Arc::new(FakeEvidence::default());
    let client = EvidenceClient(Client::new(evidence.clone()));
    let leftover = second.leftovers.first().unwrap();
    // M9: while it lives its records are its own.
    assert!(!second.ship_leftover(leftover, &client).await);
    assert!(evidence.taken.lock().unwrap().is_empty() && leftover.exists());
    drop(first);
    assert!(second.ship_leftover(leftover, &client).await);
    second.audit(record()).unwrap();
    second.flush(&client, Duration::from_secs(5)).await;
    let taken = evidence.taken.lock().unwrap().clone();
    assert_eq!(taken, vec![(killed.clone(), 1), (killed.clone(), 2), (killed, 3), (second.process.clone(), 1)]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

// A13, J7: the file takes exactly what it may; one record more is refused, so that the act is, and nothing of it is written.
#[test]
fn a_full_spool_refuses_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    let mut written = Vec::new();
    record().write(1, &mut written).unwrap();
    let line = u64::try_from(written.len() + 1).unwrap();
    spool.lock().kept.bytes = SPOOL_BYTES_MAX - line;
    spool.audit(record()).unwrap();
    assert!(spool.audit(record()).is_err());
    let inner = spool.lock();
    assert_eq!((inner.unshipped.len(), inner.next_seq), (1, 2));
    assert_eq!(std::fs::metadata(&inner.kept.path).unwrap().len(), line);
}

// J7: a busy process always has something that waits, and its file is bounded all the same; what waits survives its death.
#[tokio::test]
async fn a_file_of_which_little_waits_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    let length = |spool: &Spool| std::fs::metadata(&spool.lock().kept.path).unwrap().len();
    (0..9).for_each(|_| spool.audit(record()).unwrap());
    let line = length(&spool) / 9;
    // As if it had grown so large; a hole is as good as lines that are shipped.
    let grow = |bytes: u64| {
        let mut inner = spool.lock();
        inner.kept.file.set_len(bytes).unwrap();
        inner.kept.bytes = bytes;
    };
    grow(SPOOL_BYTES_OLD - 1);
    spool.shipped(1, 0);
    assert_eq!(length(&spool), SPOOL_BYTES_OLD - 1, "just below it only grows");
    grow(SPOOL_BYTES_OLD);
    spool.shipped(6, 0);
    assert_eq!((length(&spool), spool.lock().kept.bytes), (3 * line, 3 * line));
    spool.audit(record()).unwrap();
    assert_eq!(length(&spool), 4 * line + 1, "it goes on in the new one, with a number of one digit more");

    let next = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    let evidence = Arc::new(FakeEvidence::default());
    let client = EvidenceClient(Client::new(evidence.clone()));
    let leftover = next.leftovers.first().unwrap();
    assert!(!next.ship_leftover(leftover, &client).await, "the new one is its own as well");
    let dead = spool.process.clone();
    drop(spool);
    assert!(next.ship_leftover(leftover, &client).await);
    assert_eq!(*evidence.taken.lock().unwrap(), (7..=10).map(|seq| (dead.clone(), seq)).collect::<Vec<_>>());
}

// J7: most of a file still waits: writing it anew would be work for nothing. And one that cannot be written anew goes on as it was.
#[test]
fn a_file_is_written_anew_only_for_a_reason_and_never_by_halves() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    let long = "x".repeat(1024 * 1024);
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(long.as_bytes());
        Ok(())
    };
    let record = NewRecord { fields: &write, ..record() };
    (0..10).for_each(|_| spool.audit(record).unwrap());
    let length = |spool: &Spool| std::fs::metadata(&spool.lock().kept.path).unwrap().len();
    let all = length(&spool);
    spool.shipped(4, 0);
    assert_eq!(length(&spool), all, "six of ten wait");
    let in_the_way = spool.lock().kept.path.with_extension(UNFINISHED);
    std::fs::create_dir(&in_the_way).unwrap();
    spool.shipped(6, 0);
    assert_eq!(length(&spool), all, "it could not be");
    spool.audit(record).unwrap();
    std::fs::remove_dir(&in_the_way).unwrap();
    spool.shipped(7, 0);
    assert!(length(&spool) < all / 2);
    // What a run left that died over it is swept by the next.
    std::fs::write(&in_the_way, "half").unwrap();
    let _next = Spool::open(dir.path(), &SystemEntropy, Arc::new(Metrics::new())).unwrap();
    assert!(!in_the_way.exists());
}

// A13: spans wait up to their limit; one more is dropped and counted.
#[test]
fn spans_past_their_limit_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let spool = Spool::open(dir.path(), &SystemEntropy, metrics.clone()).unwrap();
    let context = trust::TraceContext { trace_id: 1, span_id: 1, sampled: true };
    let span = NewSpan {
        context,
        parent: None,
        name: &["n"],
        kind: "server",
        start_ns: 1,
        end_ns: 2,
        status: 200,
        attributes: &|out| {
            out.extend_from_slice(b"{}");
            Ok(())
        },
    };
    (0..SPANS_MAX).for_each(|_| spool.span(span));
    assert!(metrics.render().contains("palisade_spans_dropped_total 0\n"));
    spool.span(span);
    assert!(metrics.render().contains("palisade_spans_dropped_total 1\n"));
    assert_eq!(spool.lock().spans.len(), SPANS_MAX);
}

// J7: half a line that a full disk left would spoil the next one, which counts as kept.
#[test]
fn what_a_failed_write_left_is_cut_off_before_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.spool");
    let options = OpenOptions::new().create(true).append(true).clone();
    let mut kept = Kept { file: options.open(&path).unwrap(), path: path.clone(), bytes: 0, torn: false };
    kept.append(b"1\n").unwrap();
    kept.file = File::open(&path).unwrap();
    assert_eq!(kept.append(b"22\n"), Err(AuditLost));
    kept.file = options.open(&path).unwrap();
    kept.file.write_all(b"2").unwrap();
    kept.append(b"333\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n333\n");
    kept.bytes = SPOOL_BYTES_MAX - 3;
    assert_eq!(kept.append(b"333\n"), Err(AuditLost));
    assert_eq!(kept.append(b"22\n"), Ok(()));
}
