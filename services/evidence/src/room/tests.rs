//! The room, whole: with a real log and a real database, and peers in the process.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use contract::Transport;
use contract::evidence::Batch;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Map, Value, json};
use telemetry::{MemorySink, Metrics};
use trust::{AuditRecord, Span, SystemClock, SystemEntropy, TraceContext};

use super::*;

#[derive(Debug)]
struct Down;

#[async_trait]
impl Transport for Down {
    async fn send(&self, _: Request<Body>) -> Result<Response<Body>, Fault> {
        Err(Fault::unavailable("down"))
    }
}

#[derive(Debug)]
struct Plain;

#[async_trait]
impl Pages for Plain {
    async fn page(&self, reader: &dyn Reader, _: &Caller, path: &str, query: &str) -> Response<Body> {
        let facts = reader.map().await.unwrap();
        body::with_type(StatusCode::OK, "text/html", format!("{path}?{query} {}", facts.audit.records))
    }
}

/// A collector of OTLP that keeps what it gets.
#[derive(Debug, Default)]
struct Collector(Mutex<Vec<(String, bytes::Bytes)>>);

#[async_trait]
impl Transport for Collector {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let path = request.uri().path().to_owned();
        let sent = body::collect(request.into_body(), otlp::BODY_BYTES_MAX).await?;
        self.0.lock().unwrap().push((path, sent));
        Ok(body::plain(StatusCode::OK))
    }
}

struct World {
    folder: tempfile::TempDir,
    sink: Arc<MemorySink>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { folder, sink: Arc::default() }
    }

    fn parts(&self) -> Parts {
        let clock = SystemClock::shared();
        let recorder = Recorder::new(Arc::clone(&self.sink) as _, Arc::clone(&clock), SystemEntropy::shared(), Arc::new(Metrics::new()));
        let path = self.folder.path();
        Parts {
            own: id("role/evidence"),
            place: log::Place { dir: path.join("log"), anchor: path.join("anchor.jsonl"), segment_bytes: 4_000, free_bytes_min: 0 },
            signer: NoteSigner::from_seed("v/audit", &[7; 32]).unwrap(),
            database: path.join("e.db"),
            retention: Retention { age_s: 86_400, spans: 1_000, records: 1_000 },
            clock,
            recorder,
            control: Client::new(Arc::new(Down)),
            queue: QueueClient(Client::new(Arc::new(Down))),
            pages: Arc::new(Plain),
        }
    }

    async fn open(&self) -> Arc<Evidence> {
        // The thread of a former one lets go of the lock a moment after its last handle is gone.
        for _ in 0..200 {
            match Evidence::open(self.parts()).await {
                Err(OpenError::Log(LogError::Locked)) => tokio::time::sleep(Duration::from_millis(10)).await,
                other => return other.unwrap(),
            }
        }
        panic!("the log stays locked");
    }

    fn verify(&self, evidence: &Evidence) -> log::Report {
        log::verify(&self.folder.path().join("log"), evidence.verifier_key(), Some(&self.folder.path().join("anchor.jsonl"))).unwrap()
    }
}

fn id(path: &str) -> SpiffeId {
    format!("spiffe://v/{path}").parse().unwrap()
}

fn record(seq: u64) -> AuditRecord {
    let fields: Map<String, Value> = [("act".to_owned(), json!(format!("n{seq}")))].into_iter().collect();
    AuditRecord { seq, at_ms: 1_000, event: "ActDone".into(), trace: String::new(), span: String::new(), fields }
}

fn batch(process: &str, seqs: std::ops::RangeInclusive<u64>) -> Batch {
    Batch { process: process.to_owned(), audit: seqs.map(record).collect(), spans: Vec::new(), metrics: String::new() }
}

fn caller(peer: Peer) -> Caller {
    Caller { peer, authority: None, trace: TraceContext { trace_id: 1, span_id: 1, sampled: true } }
}

fn operator() -> Caller {
    caller(Peer::Operator(contract::LocalPeer { uid: 0, pid: 1, pidfd: None }))
}

async fn ask(evidence: &Evidence, caller: Caller, method: &str, path: &str, sent: Vec<u8>, media: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", media).body(body::full(sent)).unwrap();
    let answer = evidence.call(caller, request).await;
    let status = answer.status().as_u16();
    (status, String::from_utf8(body::collect(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
}

async fn post(evidence: &Evidence, workload: &str, batch: &Batch) -> (u16, String) {
    let sent = serde_json::to_vec(batch).unwrap();
    ask(evidence, caller(Peer::Workload(id(workload))), "POST", "/records", sent, "application/json").await
}

fn spans_of(trace: u128, count: usize) -> Vec<Span> {
    let one = |n: usize| Span {
        trace: format!("{trace:032x}"),
        span: format!("{:016x}", n + 1),
        parent: String::new(),
        name: "edge GET /".into(),
        kind: "server".into(),
        start_ns: 5,
        end_ns: 9,
        status: 200,
        attributes: Map::new(),
    };
    (0..count).map(one).collect()
}

// J7: while nothing can be written to the index, the log goes on; afterwards the copy is whole, in order, without a gap.
#[tokio::test]
async fn the_log_waits_for_no_index_and_the_index_catches_up() {
    let world = World::new();
    let evidence = world.open().await;
    let held = evidence.index.hold().await;
    const BATCHES: u64 = 300;
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    for n in 0..BATCHES {
        let appended = evidence.append(&id("role/edge"), batch("p1", n * 2 + 1..=n * 2 + 2)).await.unwrap();
        assert_eq!(appended.seq, n * 2 + 2);
    }
    assert!(clock.monotonic().saturating_sub(began) < Duration::from_secs(25), "it waited for the index, which is held for 30 s at most");
    assert_eq!(evidence.index.copied().await.unwrap(), 0);
    drop(held);
    let all = 2 * BATCHES;
    for _ in 0..1_000 {
        if evidence.index.copied().await.unwrap() == all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let filter = AuditFilter { limit: 10_000, ..AuditFilter::default() };
    let numbers: Vec<u64> = evidence.index.audit(&filter).await.unwrap().iter().map(|record| record.n).collect();
    assert_eq!(numbers, (1..=all).rev().collect::<Vec<_>>());
    assert!(world.verify(&evidence).is_intact());
}

// A13, J7: spans wait in a place of bounded size; what does not fit is dropped and counted, and the records that came with it are kept.
#[tokio::test]
async fn spans_that_cannot_be_indexed_in_time_are_dropped_and_counted() {
    let world = World::new();
    let evidence = world.open().await;
    let held = evidence.index.hold().await;
    let most = copying::SPANS_WAITING_MAX;
    let send = |seq: u64, spans: Vec<Span>| {
        let evidence = Arc::clone(&evidence);
        async move { evidence.append(&id("role/edge"), Batch { spans, ..batch("p1", seq..=seq) }).await.unwrap().seq }
    };
    assert_eq!(send(1, spans_of(1, most)).await, 1);
    let dropped = || evidence.recorder.metrics().render().contains("palisade_spans_dropped_total 0\n");
    assert!(dropped(), "just as many as may wait");
    assert_eq!(send(2, spans_of(2, 1)).await, 2, "the record is kept");
    assert!(evidence.recorder.metrics().render().contains("palisade_spans_dropped_total 1\n"));
    drop(held);
    for _ in 0..1_000 {
        if evidence.index.traces(&TraceFilter { limit: 10, ..TraceFilter::default() }).await.unwrap().len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(send(3, spans_of(3, 1)).await, 3);
    let found = evidence.index.traces(&TraceFilter { limit: 10, ..TraceFilter::default() }).await.unwrap();
    assert_eq!(found.iter().map(|one| one.spans).sum::<u64>(), u64::try_from(most).unwrap() + 1, "those that waited, and the one after");
}

// J2: spans of Palisade's own processes and of services' exporters leave by OTLP/HTTP, each under the workload that mTLS verified; audit
// records do not leave.
#[tokio::test]
async fn a_collector_gets_every_span_under_its_verified_workload_and_no_audit_record() {
    let (world, collector) = (World::new(), Arc::new(Collector::default()));
    let evidence = Evidence::open_forwarding(world.parts(), Some(Client::new(Arc::clone(&collector) as _))).await.unwrap();
    let span = Span {
        trace: "0af7651916cd43dd8448eb211c80319c".into(),
        span: "b7ad6b7169203331".into(),
        parent: String::new(),
        name: "guard GET /api".into(),
        kind: "server".into(),
        start_ns: 5,
        end_ns: 9,
        status: 200,
        attributes: [("palisade.workload".to_owned(), json!("spiffe://v/role/edge"))].into_iter().collect(),
    };
    let sent = Batch { spans: vec![span], ..batch("p1", 1..=2) };
    assert_eq!(post(&evidence, "service/api", &sent).await.0, 200);
    assert_eq!(post(&evidence, "service/api", &batch("p1", 3..=4)).await.0, 200, "no span, nothing to send");
    let exported = collector_request();
    let web = || caller(Peer::Workload(id("service/web")));
    assert_eq!(ask(&evidence, web(), "POST", "/v1/traces", exported, "application/json").await.0, 200);
    for _ in 0..400 {
        if collector.0.lock().unwrap().len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let got = collector.0.lock().unwrap().clone();
    let mut told: Vec<(String, String)> = Vec::new();
    for (path, bytes) in &got {
        assert_eq!(path, "/v1/traces");
        assert!(!String::from_utf8_lossy(bytes).contains("ActDone"));
        for sent in ExportTraceServiceRequest::decode(bytes.clone()).unwrap().resource_spans {
            let resource = sent.resource.unwrap().attributes;
            let workloads: Vec<_> =
                resource.iter().filter(|pair| pair.key == "palisade.workload").map(|pair| format!("{:?}", pair.value)).collect();
            assert_eq!(workloads.len(), 1, "{resource:?}");
            told.extend(sent.scope_spans.iter().flat_map(|scope| &scope.spans).map(|span| (span.name.clone(), workloads[0].clone())));
        }
    }
    let expect = [("guard GET /api", "spiffe://v/service/api"), ("SELECT", "spiffe://v/service/web")];
    assert_eq!(told.len(), expect.len(), "{told:?}");
    for ((name, workload), expect) in told.iter().zip(expect) {
        assert!(name == expect.0 && workload.contains(&format!("{:?}", expect.1)), "{name} {workload}, not {expect:?}");
    }
}

/// What an exporter in a service sends, which claims to be the edge.
fn collector_request() -> Vec<u8> {
    let span = json!({ "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "SELECT", "kind": 3,
        "startTimeUnixNano": "5", "endTimeUnixNano": "9" });
    let claimed = json!([{ "key": "palisade.workload", "value": { "stringValue": "spiffe://v/role/edge" } }]);
    let request = json!({ "resourceSpans": [{ "resource": { "attributes": claimed }, "scopeSpans": [{ "spans": [span] }] }] });
    serde_json::to_vec(&request).unwrap()
}

// J7: taken once, in order, and nothing lost unnoticed.
#[tokio::test]
async fn appending_is_idempotent_and_a_gap_is_refused_with_what_is_expected() {
    let world = World::new();
    let evidence = world.open().await;
    assert_eq!(post(&evidence, "service/api", &batch("p1", 1..=3)).await, (200, "{\"seq\":3}".to_owned()));
    assert_eq!(post(&evidence, "service/api", &batch("p1", 1..=3)).await, (200, "{\"seq\":3}".to_owned()), "again");
    assert_eq!(post(&evidence, "service/api", &batch("p1", 2..=5)).await, (200, "{\"seq\":5}".to_owned()), "overlapping");
    let (status, text) = post(&evidence, "service/api", &batch("p1", 8..=9)).await;
    assert!(status == 409 && text.contains("number 6 is expected next, 8 was sent"), "{status} {text}");
    assert_eq!(post(&evidence, "service/api", &batch("p2", 2..=2)).await.0, 409, "another run begins at 1");
    assert_eq!(post(&evidence, "role/edge", &batch("p1", 1..=1)).await.0, 200, "another workload's run of the same name is another");
    let mut torn = batch("p3", 1..=2);
    torn.audit.push(record(4));
    assert_eq!(post(&evidence, "service/api", &torn).await.0, 409, "a batch with a gap within is refused whole");
    assert_eq!(evidence.intake.state().records, 6);
    let report = world.verify(&evidence);
    assert!(report.is_intact() && report.records == 6, "{report}");
}

// J7: many at once, and what was answered for is in the log after a start, with the numbers where they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_for_survives_and_is_still_taken_once() {
    let world = World::new();
    let evidence = world.open().await;
    let mut tasks = Vec::new();
    for p in 0..20 {
        let evidence = Arc::clone(&evidence);
        tasks.push(tokio::spawn(async move {
            for first in [1, 6, 11] {
                let answer = evidence.append(&id("service/api"), batch(&format!("p{p}"), first..=first + 4)).await.unwrap();
                assert_eq!(answer.seq, first + 4);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let evidence = {
        drop(evidence);
        // As if the index had lost everything: it is made up for from the log.
        for name in ["e.db", "e.db-wal", "e.db-shm"] {
            let _ = std::fs::remove_file(world.folder.path().join(name));
        }
        world.open().await
    };
    assert_eq!(evidence.intake.state().records, 300);
    assert_eq!(post(&evidence, "service/api", &batch("p7", 11..=15)).await, (200, "{\"seq\":15}".to_owned()));
    assert_eq!(post(&evidence, "service/api", &batch("p7", 17..=17)).await.0, 409);
    assert_eq!(evidence.intake.state().records, 300);
    let found = evidence.audit(&AuditFilter { limit: 500, ..AuditFilter::default() }).await.unwrap();
    assert_eq!(found.len(), 300, "the copy is whole again");
    let report = world.verify(&evidence);
    assert!(report.is_intact() && report.anchored == 300, "{report}");
}

// J8: fail closed.
// J7: evidence says why it takes nothing, and the figures say how near it is.
#[tokio::test]
async fn a_full_disk_is_a_clear_refusal() {
    let world = World::new();
    let mut parts = world.parts();
    parts.place.free_bytes_min = u64::MAX;
    let evidence = Evidence::open(parts).await.unwrap();
    let fault = evidence.append(&id("service/api"), batch("run1", 1..=2)).await.unwrap_err();
    assert_eq!(fault.kind, trust::FaultKind::Unavailable);
    assert!(fault.public.contains("make room"), "{fault}");
    let (_, figures) = ask(&evidence, operator(), "GET", "/metrics", Vec::new(), "").await;
    assert!(figures.contains("palisade_audit_disk_free_bytes") && figures.contains("palisade_audit_disk_floor_bytes"), "{figures}");
}

#[tokio::test]
async fn a_broken_log_is_reported_and_nothing_is_appended_to_it() {
    let world = World::new();
    let evidence = world.open().await;
    post(&evidence, "service/api", &batch("p1", 1..=3)).await;
    drop(evidence);
    drop(world.open().await);
    let path = world.folder.path().join("log/audit-00000000000000000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"n2\"", "\"n9\"")).unwrap();
    let before = std::fs::read(&path).unwrap();
    let evidence = world.open().await;
    let why = evidence.broken().unwrap();
    assert!(why.contains("record 2 was changed") && why.contains("move both away"), "{why}");
    let (status, text) = post(&evidence, "service/api", &batch("p1", 4..=4)).await;
    assert!(status == 503 && text.contains("broken"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(ask(&evidence, operator(), "GET", "/checkpoint", Vec::new(), "").await.0, 503);
    let told = world.sink.audit.lock().unwrap();
    assert_eq!((told[0].event.as_str(), told[0].fields["what"].as_str()), ("TamperingFound", Some("audit")));
}

// J1, J7, J8, J12: the other routes, and who may not.
#[tokio::test]
async fn operators_read_metrics_checkpoint_and_traces_and_workloads_do_not() {
    let world = World::new();
    let evidence = world.open().await;
    let metrics = Metrics::new();
    metrics.act("control.apply");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let span = Span {
        trace: trace.into(),
        span: "b7ad6b7169203331".into(),
        parent: String::new(),
        name: "accept".into(),
        kind: "server".into(),
        start_ns: 1,
        end_ns: 2,
        status: 200,
        attributes: Map::new(),
    };
    let told = Batch { process: "p1".into(), audit: vec![record(1)], spans: vec![span], metrics: metrics.render() };
    assert_eq!(post(&evidence, "role/control", &told).await.0, 200);
    let (status, text) = ask(&evidence, operator(), "GET", "/metrics", Vec::new(), "").await;
    assert_eq!(status, 200);
    assert!(text.contains("palisade_acts_total{workload=\"role/control\",process=\"p1\",act=\"control.apply\"} 1"), "{text}");
    assert!(text.contains("palisade_audit_log_records{workload=\"role/evidence\",process=\"self\"} 1"), "{text}");
    let (_, text) = ask(&evidence, operator(), "GET", &format!("/traces/{trace}"), Vec::new(), "").await;
    assert!(text.contains("\"name\":\"accept\"") && text.contains("spiffe://v/role/control"), "{text}");
    assert_eq!(ask(&evidence, operator(), "GET", "/traces/none", Vec::new(), "").await.0, 404);
    let (_, note) = ask(&evidence, operator(), "GET", "/checkpoint", Vec::new(), "").await;
    assert!(log::Checkpoint::open(&note, evidence.verifier_key()).is_ok(), "{note}");
    let (_, page) = ask(&evidence, caller(Peer::Workload(id("role/edge"))), "GET", "/console/traces?video=x", Vec::new(), "").await;
    assert_eq!(page, "/console/traces?video=x 1");
    for path in ["/metrics", "/checkpoint", &format!("/traces/{trace}")] {
        assert_eq!(ask(&evidence, caller(Peer::Workload(id("service/api"))), "GET", path, Vec::new(), "").await.0, 403, "{path}");
    }
    for path in ["/records", "/v1/traces"] {
        assert_eq!(ask(&evidence, operator(), "POST", path, Vec::new(), "application/json").await.0, 403, "{path}");
    }
}

// J1: a scraper that reads OpenMetrics gets exemplars whose traces are there to be looked at; others get what they always got.
#[tokio::test]
async fn a_scraper_that_asks_for_openmetrics_gets_exemplars_of_kept_traces() {
    let world = World::new();
    let evidence = world.open().await;
    let (metrics, kept, lost) = (Metrics::new(), 0xabc_u128, 0xdef_u128);
    for (took_ns, trace_id) in [(2_000_000, kept), (20_000_000, lost)] {
        metrics.request(&telemetry::flows::Ended {
            point: "edge",
            caller: "internet",
            route: "web:GET /",
            status: 200,
            outcome: telemetry::flows::Outcome::Answered,
            took_ns,
            trace: Some((TraceContext { trace_id, span_id: 1, sampled: true }, 1_000_000_000)),
        });
    }
    let span = Span {
        trace: format!("{kept:032x}"),
        span: "b7ad6b7169203331".into(),
        parent: String::new(),
        name: "edge".into(),
        kind: "server".into(),
        start_ns: 1,
        end_ns: 2,
        status: 200,
        attributes: Map::new(),
    };
    let told = Batch { process: "p1".into(), audit: Vec::new(), spans: vec![span], metrics: metrics.render() };
    assert_eq!(post(&evidence, "role/edge", &told).await.0, 200);
    for (accept, media, exemplars, end) in [
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8", 1, true),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", 0, false),
    ] {
        let request = Request::get("/metrics").header("accept", accept).body(body::empty()).unwrap();
        let answer = evidence.call(operator(), request).await;
        assert_eq!(answer.headers()["content-type"], media);
        let text = String::from_utf8(body::collect(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
        assert_eq!((text.matches("trace_id").count(), text.ends_with("# EOF\n")), (exemplars, end), "{text}");
        assert_eq!(text.contains(&format!("# {{trace_id=\"{kept:032x}\"}} 0.002000000")), end, "{text}");
    }
}

// J2: a service's own span lands in the trace under its proven name.
#[tokio::test]
async fn otlp_spans_and_lines_join_the_trace_under_the_senders_name() {
    let world = World::new();
    let evidence = world.open().await;
    let trace = "5b8efff798038103d269b633813fc60c";
    let attribute = json!([{"key": "service.name", "value": {"stringValue": "edge"}}]);
    let span = json!({"traceId": trace, "spanId": "eee19b7ec3c1b174", "name": "query", "kind": 1, "startTimeUnixNano": "5", "endTimeUnixNano": "6"});
    let sent = json!({"resourceSpans": [{"resource": {"attributes": attribute}, "scopeSpans": [{"spans": [span]}]}]});
    let api = || caller(Peer::Workload(id("service/api")));
    let (status, text) = ask(&evidence, api(), "POST", "/v1/traces", sent.to_string().into_bytes(), "application/json").await;
    assert_eq!((status, text.as_str()), (200, "{}"), "{text}");
    let line = json!({"timeUnixNano": "5", "severityText": "INFO", "traceId": trace, "body": {"stringValue": "hello"}});
    let sent = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [line]}]}]});
    assert_eq!(ask(&evidence, api(), "POST", "/v1/logs", sent.to_string().into_bytes(), "application/json").await.0, 200);
    assert_eq!(ask(&evidence, api(), "POST", "/v1/metrics", b"{\"resourceMetrics\":[]}".to_vec(), "application/json").await.0, 200);
    let detail = evidence.trace(trace).await.unwrap().unwrap();
    assert_eq!(detail.spans[0].source.workload, id("service/api"));
    assert_eq!(detail.logs[0].body, "hello");
    assert_eq!(ask(&evidence, api(), "POST", "/v1/traces", vec![0; otlp::BODY_BYTES_MAX + 1], "application/x-protobuf").await.0, 413);
    assert_eq!(ask(&evidence, api(), "POST", "/v1/traces", Vec::new(), "text/plain").await.0, 415);
}

// L8: what the operator tells of a breach is there after a restart, in place of what was; nobody else may tell it.
#[tokio::test]
async fn a_breach_is_told_by_the_operator_alone_and_outlives_a_restart() {
    let world = World::new();
    let evidence = world.open().await;
    let told = |services: &[&str]| {
        json!({"measured": false, "manifest": trust::Digest::of(b"m"), "attackers": [], "services": services, "matrix": [[0]], "differences": []})
            .to_string()
            .into_bytes()
    };
    assert_eq!(evidence.breach().await.unwrap(), None);
    assert_eq!(ask(&evidence, operator(), "PUT", "/breach", told(&["api"]), "application/json").await.0, 204);
    assert_eq!(ask(&evidence, operator(), "PUT", "/breach", told(&["web"]), "application/json").await.0, 204);
    let api = caller(Peer::Workload(id("service/api")));
    assert_eq!(ask(&evidence, api, "PUT", "/breach", told(&["mine"]), "application/json").await.0, 403);
    let mut long = told(&["x"]);
    long.resize(BREACH_BYTES_MAX, b' ');
    assert_eq!(ask(&evidence, operator(), "PUT", "/breach", [long.as_slice(), b" "].concat(), "application/json").await.0, 413);
    assert_eq!(ask(&evidence, operator(), "PUT", "/breach", b"{}".to_vec(), "application/json").await.0, 400);
    let kept = evidence.breach().await.unwrap().unwrap();
    assert!(kept.services == ["web"] && kept.at_ms > 0, "{kept:?}");
    drop(evidence);
    assert_eq!(world.open().await.breach().await.unwrap(), Some(kept));
    let evidence = world.open().await;
    assert_eq!(ask(&evidence, operator(), "PUT", "/breach", long, "application/json").await.0, 204);
}

#[tokio::test]
async fn processes_without_a_proper_name_and_foreign_domains_are_refused() {
    let world = World::new();
    let evidence = world.open().await;
    for bad in ["", "otlp", "a b", "<script>", &"x".repeat(65)] {
        assert_eq!(post(&evidence, "service/api", &batch(bad, 1..=1)).await.0, 400, "{bad}");
    }
    let foreign = "spiffe://other/service/api".parse().unwrap();
    assert!(evidence.append(&foreign, batch("p1", 1..=1)).await.is_err());
    assert_eq!(evidence.intake.state().records, 0);
}
