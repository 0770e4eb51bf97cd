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
