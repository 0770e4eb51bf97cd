//! Traces and audit copies are found again, and bounded.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use contract::console::{AuditFilter, TraceFilter};
use serde_json::{Map, json};
use trust::AuditRecord;

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn api() -> SpiffeId {
    "spiffe://v/service/api".parse().unwrap()
}

fn span(trace: &str, id: u64, parent: &str, start_ms: u64, attributes: &[(&str, &str)]) -> Span {
    let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    Span {
        trace: trace.to_owned(),
        span: format!("{id:016x}"),
        parent: parent.to_owned(),
        name: format!("span {id}"),
        kind: "server".into(),
        start_ns: start_ms * 1_000_000,
        end_ns: (start_ms + 5) * 1_000_000,
        status: 200,
        attributes,
    }
}

fn entry(n: u64, at_ms: u64, reason: &str, trace: &str) -> Entry {
    let decision = if reason.is_empty() { json!({"allow": {"policies": ["p"], "epoch": 1}}) } else { json!({"deny": {"reason": reason}}) };
    let fields: Map<_, _> =
        [("decision".to_owned(), decision), ("principal".to_owned(), json!("spiffe://v/service/web"))].into_iter().collect();
    let record = AuditRecord { seq: n, at_ms, event: "CallDecided".into(), trace: trace.into(), span: String::new(), fields };
    Entry { n, taken_ms: at_ms, workload: api(), process: "p1".into(), record }
}

async fn index() -> (tempfile::TempDir, Index) {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(&folder.path().join("e.db")).await.unwrap();
    (folder, index)
}

fn all() -> TraceFilter {
    TraceFilter { limit: 50, ..TraceFilter::default() }
}

// J3, J12: from the browser to the rendition, found by the video.
#[tokio::test]
async fn a_trace_is_found_by_its_video_and_has_root_person_and_workloads() {
    let (_folder, index) = index().await;
    let edge: SpiffeId = "spiffe://v/role/edge".parse().unwrap();
    let child = span(TRACE, 2, "0000000000000001", 110, &[("object", "originals/018f-video-id/original")]);
    index.spans(&api(), "p1", std::slice::from_ref(&child)).await.unwrap();
    index.spans(&edge, "p2", &[span(TRACE, 1, "", 100, &[("user", "ada")])]).await.unwrap();
    assert_eq!(index.spans(&api(), "p1", &[child]).await.unwrap(), 0, "told twice, kept once");
    let other = "1".repeat(32);
    index.spans(&api(), "p1", &[span(&other, 3, "", 300, &[("user", "bob")])]).await.unwrap();

    let traces = index.traces(&all()).await.unwrap();
    assert_eq!(traces.iter().map(|t| t.trace.as_str()).collect::<Vec<_>>(), [other.as_str(), TRACE]);
    let found = index.traces(&TraceFilter { video: "018f-video-id".into(), ..all() }).await.unwrap();
    assert_eq!(found.len(), 1);
    let t = &found[0];
    assert_eq!((t.name.as_str(), t.user.as_str(), t.workload.as_str(), t.spans), ("span 1", "ada", "role/edge", 2));
    assert_eq!(t.workloads, ["role/edge", "service/api"]);
    assert_eq!(t.end_ns - t.start_ns, 15_000_000);
    assert_eq!(index.traces(&TraceFilter { user: "bob".into(), ..all() }).await.unwrap().len(), 1);
    assert!(index.traces(&TraceFilter { troubled: true, ..all() }).await.unwrap().is_empty());
    let look = Span { name: "GET /console/traces".into(), ..span(&"3".repeat(32), 1, "", 400, &[("user", "eve")]) };
    index.spans(&edge, "p2", &[look]).await.unwrap();
    assert_eq!(index.traces(&all()).await.unwrap().len(), 2, "looking is not listed among work");
    assert_eq!(index.traces(&TraceFilter { user: "eve".into(), ..all() }).await.unwrap().len(), 1);
}

// J3: what comes in one piece or in several, in whatever order, is the same trace.
#[tokio::test]
async fn a_trace_is_the_same_however_its_spans_arrive() {
    let root = || Span { status: 503, ..span(TRACE, 1, "", 100, &[("user", "ada")]) };
    // A clock that is a little behind must not take the name away.
    let early = || span(TRACE, 2, "0000000000000001", 90, &[("folder", "video-000")]);
    let late = || span(TRACE, 3, "0000000000000001", 120, &[("user", "bob"), ("folder", "video-000")]);
    let orders: [&[Vec<Span>]; 4] = [
        &[vec![root(), early(), late()]],
        &[vec![late(), early()], vec![root(), early()]],
        &[vec![root()], vec![early()], vec![late()]],
        &[vec![early()], vec![early(), root(), root()], vec![late(), root()]],
    ];
    for order in orders {
        let (_folder, index) = index().await;
        let mut new = 0;
        for piece in order {
            new += index.spans(&api(), "p1", piece).await.unwrap();
        }
        assert_eq!(new, 3, "each is kept once");
        let t = &index.traces(&all()).await.unwrap()[0];
        assert_eq!((t.name.as_str(), t.status, t.spans, t.failed), ("span 1", 503, 3, 1));
        assert_eq!((t.start_ns, t.end_ns), (90_000_000, 125_000_000));
        assert!(["ada", "bob"].contains(&t.user.as_str()));
        assert_eq!(index.traces(&TraceFilter { video: "video-000".into(), ..all() }).await.unwrap().len(), 1);
    }
}

// J3: also when they are more than one statement takes.
#[tokio::test]
async fn many_rows_at_once_are_all_kept() {
    let (_folder, index) = index().await;
    let spans: Vec<_> = (1..=333).map(|id| span(&format!("{:032x}", id % 100 + 1), id, "", id, &[("folder", "video-000")])).collect();
    assert_eq!(index.spans(&api(), "p1", &spans).await.unwrap(), 333);
    assert_eq!(index.spans(&api(), "p1", &spans).await.unwrap(), 0);
    let edge: SpiffeId = "spiffe://v/role/edge".parse().unwrap();
    assert_eq!(index.spans(&edge, "p1", &spans).await.unwrap(), 333, "another workload's spans are others, whatever their ids");
    let many = TraceFilter { limit: 200, video: "video-000".into(), ..all() };
    let traces = index.traces(&many).await.unwrap();
    assert_eq!((traces.len(), traces.iter().map(|t| t.spans).sum::<u64>()), (100, 666));
    index.copy(&(1..=333).map(|n| entry(n, n, "policy_denied", TRACE)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!((index.copied().await.unwrap(), index.taken().await.unwrap()), (333, vec![(api(), "p1".to_owned(), 333, 333)]));
    index.forget(&Retention { age_s: 1_000, spans: 0, records: 1_000 }, 10_000).await.unwrap();
    assert!(index.traces(&many).await.unwrap().is_empty());
}

/// What indexing costs: `cargo test --release -p evidence what_indexing -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_indexing_costs() {
    let (_folder, index) = index().await;
    let clock = trust::SystemClock::shared();
    for round in 0..5_u64 {
        let began = clock.monotonic();
        for batch in 0..100_u64 {
            let at = |n: u64| (round * 100 + batch) * 100 + n;
            // Ids of traces begin with their second, of 700 requests, and are random after that.
            let trace = |n: u64| format!("{:08x}{:016x}00000000", 0x6900_0000 + at(n) / 700, at(n).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let path = ("url.path", "/api/videos/018f3c2e-1111-2222-3333-444455556666");
            let spans: Vec<_> =
                (0..100).flat_map(|n| (0..3).map(move |id| span(&trace(n), id, "", at(n), &[path, ("user", "ada")]))).collect();
            index.spans(&api(), "p1", &spans).await.unwrap();
            let entries: Vec<_> = (0..200).map(|n| entry(at(0) * 2 + n + 1, at(n), "", &trace(n / 2))).collect();
            index.copy(&entries).await.unwrap();
        }
        let took = clock.monotonic().saturating_sub(began);
        println!("{:.1} us a request of 3 spans and 2 records", took.as_secs_f64() * 1e6 / 10_000.0);
    }
}

// J4: the decision at each hop is with the trace.
#[tokio::test]
async fn a_trace_has_the_decisions_made_in_it_in_whatever_order_they_arrive() {
    let (_folder, index) = index().await;
    index.copy(&[entry(1, 100, "", TRACE), entry(2, 101, "policy_denied", TRACE)]).await.unwrap();
    index.spans(&api(), "p1", &[span(TRACE, 1, "", 100, &[])]).await.unwrap();
    index.copy(&[entry(3, 102, "lease_ended", TRACE)]).await.unwrap();
    let detail = index.trace(TRACE).await.unwrap().unwrap();
    assert_eq!((detail.spans.len(), detail.records.len()), (1, 3));
    assert_eq!(detail.records[0].record.fields["decision"]["allow"]["policies"][0], "p");
    assert_eq!(index.traces(&TraceFilter { troubled: true, ..all() }).await.unwrap()[0].denied, 2);
    assert!(index.trace(&"2".repeat(32)).await.unwrap().is_none());
}

// J9
#[tokio::test]
async fn refusals_are_counted_by_hour_and_reason() {
    let (_folder, index) = index().await;
    let hour = 3_600_000;
    let entries = [
        (hour, "policy_denied"),
        (hour + 5, "policy_denied"),
        (hour + 6, "svid_expired"),
        (2 * hour, "policy_denied"),
        (2 * hour, ""),
        (2 * hour, "made_up"),
    ];
    let entries: Vec<_> = (1..).zip(entries).map(|(n, (at, reason))| entry(n, at, reason, "")).collect();
    index.copy(&entries).await.unwrap();
    let counts = index.refusals(hour).await.unwrap();
    let counts: Vec<_> = counts.iter().map(|c| (c.hour_ms / hour, c.reason.as_str(), c.count)).collect();
    assert_eq!(counts, [(1, "policy_denied", 2), (1, "svid_expired", 1), (2, "policy_denied", 1)]);
    let filter = AuditFilter { reason: "policy_denied".into(), limit: 2, ..AuditFilter::default() };
    assert_eq!(index.audit(&filter).await.unwrap().iter().map(|r| r.n).collect::<Vec<_>>(), [4, 2]);
    let older = AuditFilter { before: Some(4), refused: true, limit: 10, ..AuditFilter::default() };
    assert_eq!(index.audit(&older).await.unwrap().iter().map(|r| r.n).collect::<Vec<_>>(), [3, 2, 1]);
    let nobody = AuditFilter { who: "%".into(), limit: 10, ..AuditFilter::default() };
    assert!(index.audit(&nobody).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_kept_is_bounded_by_age_and_number_and_whole_traces_go() {
    let (_folder, index) = index().await;
    for t in 0..10_u64 {
        let trace = format!("{:032x}", t + 1);
        index
            .spans(&api(), "p1", &[span(&trace, 1, "", t * 1000, &[("folder", "video-000")]), span(&trace, 2, "", t * 1000, &[])])
            .await
            .unwrap();
    }
    index.copy(&(1..=10).map(|n| entry(n, n * 1000, "policy_denied", "")).collect::<Vec<_>>()).await.unwrap();
    index.forget(&Retention { age_s: 7, spans: 8, records: 5 }, 10_000).await.unwrap();
    assert_eq!(index.traces(&all()).await.unwrap().len(), 4);
    assert_eq!(index.traces(&TraceFilter { video: "video-000".into(), ..all() }).await.unwrap().len(), 4);
    assert_eq!(index.audit(&AuditFilter { limit: 50, ..AuditFilter::default() }).await.unwrap().len(), 5);
    assert_eq!(index.copied().await.unwrap(), 10);
    assert_eq!(index.taken().await.unwrap(), [(api(), "p1".to_owned(), 10, 10)]);
    index.forget(&Retention { age_s: 0, spans: 8, records: 5 }, 100_000).await.unwrap();
    assert_eq!(index.copied().await.unwrap(), 10, "also when every copy is gone");
}

// A13: however much came in, as much goes: step by step until nothing is over the limit.
#[tokio::test]
async fn what_is_over_the_limit_goes_in_steps_until_none_is() {
    let (_folder, index) = index().await;
    for from in (0..12_000).step_by(2_000) {
        index.copy(&(from + 1..=from + 2_000).map(|n| entry(n, n, "", "")).collect::<Vec<_>>()).await.unwrap();
    }
    let retention = Retention { age_s: 1_000, spans: 8, records: 1_000 };
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.push(index.forget(&retention, 20_000).await.unwrap());
    }
    assert_eq!(steps, [true, true, false]);
    let kept = index.audit(&AuditFilter { limit: 5_000, ..AuditFilter::default() }).await.unwrap();
    assert_eq!((kept.len(), kept.last().unwrap().n), (1_000, 11_001));
}

// J6: what is called a secret is not kept, and texts are cut at a character.
#[tokio::test]
async fn secrets_by_name_are_redacted_and_texts_are_cut() {
    let (_folder, index) = index().await;
    let long = "é".repeat(2_000);
    index
        .spans(
            &api(),
            OTLP_PROCESS,
            &[span(TRACE, 1, "", 1, &[("http.request.header.Authorization", "Bearer x"), ("long", &long), ("user", "mallory")])],
        )
        .await
        .unwrap();
    let detail = index.trace(TRACE).await.unwrap().unwrap();
    let attributes = &detail.spans[0].span.attributes;
    assert_eq!(attributes["http.request.header.Authorization"], "redacted");
    assert_eq!(attributes["long"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    assert_eq!(index.traces(&all()).await.unwrap()[0].user, "", "a service names no person");
}
