//! A video platform at work, as facts; and the same with a stranger's text wherever a stranger's text may be.

use std::collections::BTreeMap;

use async_trait::async_trait;
use contract::console::*;
use contract::control::{Flow, Node, System};
use contract::evidence::Source;
use contract::queue::QueueStats;
use serde_json::{Map, Value, json};
use trust::{AuditRecord, Digest, Fault, Span};

const NOW: u64 = 1_795_300_000_000;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) facts: MapFacts,
    pub(super) traces: Vec<TraceSummary>,
    pub(super) detail: Option<TraceDetail>,
    pub(super) records: Vec<StoredRecord>,
    pub(super) breach: Option<BreachTold>,
    pub(super) down: bool,
}

#[async_trait]
impl Reader for Sample {
    async fn map(&self) -> Result<MapFacts, Fault> {
        if self.down { Err(Fault::internal("disk")) } else { Ok(self.facts.clone()) }
    }
    async fn traces(&self, _: &TraceFilter) -> Result<Vec<TraceSummary>, Fault> {
        Ok(self.traces.clone())
    }
    async fn trace(&self, _: &str) -> Result<Option<TraceDetail>, Fault> {
        Ok(self.detail.clone())
    }
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<StoredRecord>, Fault> {
        let refused = |r: &&StoredRecord| !filter.refused || r.record.fields.get("decision").is_some_and(|d| d.get("deny").is_some());
        Ok(self.records.iter().filter(refused).cycle().take(if self.records.is_empty() { 0 } else { 100 }).cloned().collect())
    }
    async fn breach(&self) -> Result<Option<BreachTold>, Fault> {
        Ok(self.breach.clone())
    }
    fn audit_state(&self) -> AuditState {
        self.facts.audit.clone()
    }
}

fn source(node: &str) -> Source {
    Source { workload: format!("spiffe://video.example/{node}").parse().unwrap(), process: "p1".into() }
}

fn system() -> System {
    let node = |id: &str, owner: &str, class: &str, sensitivity, untrusted_input| Node {
        id: id.into(),
        owner: owner.into(),
        class: class.into(),
        sensitivity,
        untrusted_input,
    };
    let flow = |from: &str, to: &str, actions: &[&str]| Flow {
        from: from.into(),
        to: to.into(),
        actions: actions.iter().map(|a| (*a).to_owned()).collect(),
    };
    let mut nodes = vec![
        node("service/web", "web", "page", 1, false),
        node("service/api", "web", "video", 2, false),
        node("service/validator", "media", "", 0, true),
        node("service/transcoder", "media", "", 0, true),
        node("bucket/originals", "", "video", 2, false),
        node("bucket/renditions", "", "video", 2, false),
        node("queue/uploaded", "", "video", 2, false),
        node("queue/validated", "", "video", 2, false),
        node("queue/status", "", "video", 2, false),
    ];
    nodes.extend(
        ["edge", "control", "identity", "login", "objects", "queue", "evidence"].map(|r| node(&format!("role/{r}"), "", "", 0, false)),
    );
    System {
        name: "video".into(),
        manifest: Digest::of(b"video"),
        epoch: 42,
        nodes,
        flows: vec![
            flow("role/edge", "service/web", &["GET /"]),
            flow("role/edge", "service/api", &["GET /api/videos", "POST /api/videos"]),
            flow("role/edge", "bucket/originals", &["presigned PUT"]),
            flow("role/edge", "bucket/renditions", &["presigned GET"]),
            flow("service/web", "service/api", &["GET /api/videos"]),
            flow("service/api", "bucket/originals", &["presign-put", "delete"]),
            flow("service/api", "bucket/renditions", &["presign-get", "delete"]),
            flow("bucket/originals", "queue/uploaded", &["object created"]),
            flow("queue/uploaded", "service/validator", &["deliver"]),
            flow("service/validator", "bucket/originals", &["read", "verdict"]),
            flow("service/validator", "queue/validated", &["publish"]),
            flow("service/validator", "queue/status", &["publish"]),
            flow("queue/validated", "service/transcoder", &["deliver"]),
            flow("service/transcoder", "bucket/originals", &["read"]),
            flow("service/transcoder", "bucket/renditions", &["write"]),
            flow("service/transcoder", "queue/status", &["publish"]),
            flow("queue/status", "service/api", &["deliver"]),
        ],
    }
}

fn facts() -> MapFacts {
    let live = |from: &str, to: &str, allowed, denied| LiveFlow {
        from: from.into(),
        to: to.into(),
        allowed,
        denied,
        failed: 0,
        last_ms: NOW,
        reasons: if denied > 0 { BTreeMap::from([("object_quarantined".to_owned(), denied)]) } else { BTreeMap::new() },
    };
    let queue = |name: &str, waiting, in_flight, dead| QueueStats { queue: name.into(), waiting, in_flight, dead, oldest_ms: 900 };
    let process = |workload: &str, age| ProcessHealth { workload: workload.into(), process: "p".into(), heard_ms: NOW - age, records: 900 };
    let hour = 3_600_000;
    let refusal = |back: u64, reason: &str, count| RefusalCount { hour_ms: (NOW / hour - back) * hour, reason: reason.into(), count };
    MapFacts {
        now_ms: NOW,
        system: Some(system()),
        system_age_ms: 900,
        window_s: 60,
        flows: vec![
            live("internet", "role/edge", 41, 3),
            live("role/edge", "service/web", 12, 0),
            live("role/edge", "service/api", 18, 0),
            live("service/web", "service/api", 12, 0),
            live("role/edge", "bucket/originals", 4, 0),
            live("service/api", "bucket/originals", 4, 0),
            live("bucket/originals", "queue/uploaded", 4, 0),
            live("queue/uploaded", "service/validator", 4, 0),
            live("service/validator", "bucket/originals", 9, 0),
            live("service/validator", "queue/validated", 3, 0),
            live("service/validator", "queue/status", 4, 0),
            live("queue/validated", "service/transcoder", 1, 0),
            live("service/transcoder", "bucket/originals", 1, 2),
            live("queue/status", "service/api", 8, 0),
        ],
        queues: vec![queue("uploaded", 0, 1, 0), queue("validated", 3, 1, 0), queue("status", 0, 0, 0)],
        processes: vec![
            process("service/web", 900),
            process("service/api", 1_200),
            process("service/validator", 2_100),
            process("service/transcoder", 400),
            process("role/edge", 500),
            process("role/control", 1_500),
            process("role/identity", 2_000),
            process("role/login", 45_000),
            process("role/objects", 700),
            process("role/queue", 300),
            process("role/evidence", 100),
        ],
        refusals: vec![
            refusal(0, "object_quarantined", 6),
            refusal(0, "session_ended", 9),
            refusal(1, "session_ended", 4),
            refusal(3, "policy_denied", 2),
            refusal(6, "session_ended", 7),
            refusal(7, "rate_exceeded", 38),
            refusal(8, "rate_exceeded", 21),
            refusal(8, "sign_in_failed", 12),
            refusal(13, "grant_expired", 5),
            refusal(19, "svid_expired", 1),
        ],
        audit: AuditState { records: 9_214, head: "9f2b".repeat(16), checkpointed: 9_201, checkpoint_ms: NOW - 3_000, broken: None },
    }
}

/// The way of one video, in steps: node, parent step, name, kind, start ms, length ms, status, what was decided.
type Step = (&'static str, usize, &'static str, &'static str, u64, u64, u16, Option<(&'static str, &'static str)>);
const STEPS: &[Step] = &[
    ("role/edge", 0, "POST /api/videos", "server", 0, 41, 201, Some(("edge.public.api.upload", "POST /api/videos"))),
    ("service/api", 1, "POST /api/videos", "server", 6, 33, 201, Some(("flow.edge.api", "POST /api/videos"))),
    ("service/api", 2, "INSERT INTO video", "otlp", 9, 4, 0, None),
    (
        "role/objects",
        2,
        "presign PUT originals/018f3c2e-video/original",
        "server",
        15,
        17,
        200,
        Some(("flow.api.originals.presign-put", "originals/018f3c2e-video/original")),
    ),
    (
        "role/edge",
        1,
        "PUT /originals/018f3c2e-video/original",
        "server",
        320,
        2_140,
        200,
        Some(("edge.grant", "originals/018f3c2e-video/original")),
    ),
    (
        "role/objects",
        5,
        "store originals/018f3c2e-video/original",
        "server",
        326,
        2_128,
        200,
        Some(("grant.put", "originals/018f3c2e-video/original")),
    ),
    ("role/queue", 6, "publish uploaded", "producer", 2_440, 9, 202, Some(("flow.objects.uploaded", "uploaded"))),
    ("role/queue", 7, "deliver uploaded", "consumer", 2_452, 890, 200, None),
    ("service/validator", 8, "POST /events", "server", 2_456, 880, 200, Some(("flow.uploaded.validator", "uploaded"))),
    (
        "role/objects",
        9,
        "GET originals/018f3c2e-video/original",
        "server",
        2_470,
        612,
        200,
        Some(("flow.validator.originals.read", "originals/018f3c2e-video/original")),
    ),
    (
        "role/objects",
        9,
        "verdict originals/018f3c2e-video/original",
        "server",
        3_260,
        11,
        200,
        Some(("flow.validator.originals.verdict", "originals/018f3c2e-video/original")),
    ),
    ("role/queue", 9, "publish validated", "producer", 3_290, 10, 202, Some(("flow.validator.validated.publish", "validated"))),
    ("service/transcoder", 12, "POST /events", "server", 3_420, 9_480, 200, Some(("flow.validated.transcoder", "validated"))),
    (
        "role/objects",
        13,
        "GET originals/another-video/original",
        "server",
        3_440,
        2,
        403,
        Some(("!object_quarantined", "originals/another-video/original")),
    ),
    (
        "role/objects",
        13,
        "GET originals/018f3c2e-video/original",
        "server",
        3_460,
        590,
        200,
        Some(("flow.transcoder.originals.read", "originals/018f3c2e-video/original")),
    ),
    ("service/transcoder", 13, "ffmpeg 720p", "otlp", 4_080, 5_900, 0, None),
    ("service/transcoder", 13, "ffmpeg 360p", "otlp", 9_990, 2_410, 0, None),
    (
        "role/objects",
        13,
        "PUT renditions/018f3c2e-video/720p.mp4",
        "server",
        12_420,
        210,
        200,
        Some(("flow.transcoder.renditions.write", "renditions/018f3c2e-video/720p.mp4")),
    ),
    (
        "role/objects",
        13,
        "PUT renditions/018f3c2e-video/360p.mp4",
        "server",
        12_640,
        120,
        200,
        Some(("flow.transcoder.renditions.write", "renditions/018f3c2e-video/360p.mp4")),
    ),
    ("role/queue", 13, "publish status", "producer", 12_780, 8, 202, Some(("flow.transcoder.status.publish", "status"))),
    ("service/api", 20, "POST /events", "server", 12_800, 14, 200, Some(("flow.status.api", "status"))),
];

fn detail() -> TraceDetail {
    let id = |step: usize| if step == 0 { String::new() } else { format!("{step:016x}") };
    let (mut spans, mut records) = (Vec::new(), Vec::new());
    for (at, (node, parent, name, kind, start, length, status, decided)) in STEPS.iter().enumerate() {
        let start_ns = (NOW + start) * 1_000_000 + 370_000;
        let mut told = source(node);
        let mut attributes = Map::new();
        if *kind == "otlp" {
            told.process = "otlp".into();
            attributes.insert("resource.service.name".into(), json!("video"));
        } else {
            attributes.insert("http.response.status_code".into(), json!(status));
            attributes.insert("user".into(), json!("ada"));
        }
        let span = Span {
            trace: TRACE.into(),
            span: id(at + 1),
            parent: id(*parent),
            name: (*name).into(),
            kind: if *kind == "otlp" { "internal" } else { kind }.to_owned(),
            start_ns,
            end_ns: start_ns + length * 1_000_000,
            status: *status,
            attributes,
        };
        spans.push(StoredSpan { source: told, span });
        let Some((policy, resource)) = decided else { continue };
        let principal = if *parent == 0 || *node == "role/edge" {
            "internet".to_owned()
        } else {
            format!("spiffe://video.example/{}", STEPS[parent - 1].0)
        };
        let n = 9_000 + records.len() as u64;
        let decision = match policy.strip_prefix('!') {
            Some(reason) => json!({"deny": {"reason": reason, "policies": [], "epoch": 42}}),
            None => json!({"allow": {"policies": [policy], "epoch": 42}}),
        };
        let action = match name.split(' ').next().unwrap() {
            "GET" if *node == "role/objects" => "objectRead",
            "PUT" | "store" if *node == "role/objects" => "objectWrite",
            "presign" => "objectPresignPut",
            "verdict" => "objectVerdict",
            "publish" => "queue.publish",
            "POST" if *node == "role/edge" => "enter",
            "PUT" => "grant",
            _ if name.ends_with("/events") => "guard.deliver",
            _ => "call",
        };
        let job = if at > 7 { "01JQ8M2X4T7C" } else { "" };
        let purpose = if at > 7 { "process" } else { "upload" };
        let fields = json!({"point": node.split('/').next_back().unwrap(), "principal": principal, "action": action, "resource": resource, "user": "ada",
            "purpose": purpose, "txn": "7f1c09ab22", "job": job, "decision": decision});
        records.push(record(n, node, "CallDecided", &id(at + 1), fields));
    }
    records.push(record(9_013, "role/objects", "CallDecided", "00000000000000aa", json!({"point": "objects", "principal": "spiffe://video.example/service/transcoder",
        "action": "objectList", "resource": "originals", "decision": {"deny": {"reason": "policy_denied", "policies": ["never.list"], "epoch": 42}}})));
    let logs = vec![
        StoredLog {
            workload: "service/validator".into(),
            at_ns: (NOW + 3_200) * 1_000_000,
            severity: "INFO".into(),
            body: "MP4, 1 video track (h264 1920x1080), 1 audio track (aac), 61.4 s".into(),
        },
        StoredLog {
            workload: "service/transcoder".into(),
            at_ns: (NOW + 4_000) * 1_000_000,
            severity: "WARN".into(),
            body: "source has variable frame rate; using 30 fps".into(),
        },
    ];
    TraceDetail { trace: TRACE.into(), spans, records, logs }
}

fn record(n: u64, node: &str, event: &str, span: &str, fields: Value) -> StoredRecord {
    let Value::Object(fields) = fields else { panic!("fields") };
    let trace = if span.is_empty() { String::new() } else { TRACE.to_owned() };
    StoredRecord {
        n,
        source: source(node),
        record: AuditRecord { seq: n, at_ms: NOW + n, event: event.into(), trace, span: span.into(), fields },
    }
}

fn breach() -> BreachTold {
    let line = |who: &str, counts, sentence: &str| BreachLine { who: who.into(), counts, sentence: sentence.into() };
    BreachTold {
        at_ms: NOW,
        measured: true,
        manifest: Digest::of(b"video"),
        attackers: vec![
            line("external", [0, 0, 11, 0, 0, 0], "Whoever has no credential was seen to reach 0 secrets, 0 destinations outside."),
            line(
                "service.api",
                [5, 4, 4, 0, 0, 0],
                "Whoever takes over `api` was seen to reach everybody's data in state.api; it lasts until the service is started again.",
            ),
            line(
                "service.transcoder",
                [3, 1, 5, 0, 0, 0],
                "Whoever takes over `transcoder` was seen to reach 1 input object, 1 output folder, 0 secrets, 0 other services, 0 destinations outside; it ends with the job.",
            ),
        ],
        services: ["api", "transcoder", "validator", "web"].map(str::to_owned).to_vec(),
        matrix: vec![vec![0; 4], vec![0; 4], vec![0; 4], vec![1, 0, 0, 0]],
        differences: Vec::new(),
    }
}

impl Sample {
    pub(super) fn rich() -> Self {
        let detail = detail();
        let mut records = detail.records.clone();
        records.extend([
            record(9_100, "role/control", "ActDone", "", json!({"act": "control.apply", "by": "operator", "to": "video", "detail": "epoch 41 to 42, 3 policies changed"})),
            record(9_101, "service/transcoder", "ConnectionRefused", "", json!({"point": "guard", "peer": "spiffe://video.example/service/web", "reason": "peer_undeclared"})),
            record(9_102, "role/identity", "ActDone", "", json!({"act": "identity.issue", "by": "spiffe://video.example/service/api", "to": "spiffe://video.example/service/api", "detail": "renewed, 1 h"})),
            record(9_103, "role/objects", "TamperingFound", "", json!({"what": "object", "which": "renditions/x/720p.mp4", "detail": "SHA-256 differs from what was stored"})),
        ]);
        records.reverse();
        let trace = |n: u64, name: &str, user: &str, took, denied, failed, workloads: &[&str]| TraceSummary {
            trace: if n == 0 {
                TRACE.into()
            } else {
                format!("{:032x}", u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
            },
            name: name.into(),
            workload: "role/edge".into(),
            start_ns: (NOW - n * 7_300) * 1_000_000,
            end_ns: (NOW - n * 7_300) * 1_000_000 + took,
            user: user.into(),
            status: if failed > 0 { 502 } else { 200 },
            spans: took / 900_000_000 + 4,
            failed,
            denied,
            workloads: workloads.iter().map(|w| (*w).to_owned()).collect(),
        };
        let (page, list) = (&["role/edge", "service/web", "service/api"][..], &["role/edge", "service/api"][..]);
        let whole = &["role/edge", "service/api", "role/objects", "role/queue", "service/validator", "service/transcoder"][..];
        let ms = 1_000_000;
        let traces = vec![
            trace(0, "POST /api/videos", "ada", 12_814 * ms, 1, 0, whole),
            trace(1, "GET /api/videos", "ada", 11 * ms, 0, 0, list),
            trace(2, "GET /", "grace", 18 * ms, 0, 0, page),
            trace(3, "GET /api/videos/{id}/watch", "grace", 24 * ms, 0, 0, &["role/edge", "service/api", "role/objects"]),
            trace(4, "POST /api/videos", "grace", 9_120 * ms, 0, 0, whole),
            trace(5, "GET /api/videos/{id}", "mallory", 6 * ms, 1, 0, list),
            trace(6, "GET /api/videos", "ada", 31_000 * ms, 0, 2, list),
            trace(7, "GET /", "ada", 17 * ms, 0, 0, page),
            trace(8, "DELETE /api/videos/{id}", "ada", 38 * ms, 0, 0, &["role/edge", "service/api", "role/objects"]),
            trace(9, "POST /api/videos", "linus", 22_480 * ms, 0, 0, whole),
        ];
        Self { facts: facts(), traces, detail: Some(detail), records, breach: Some(breach()), down: false }
    }

    /// Everything that a stranger may have written is `text`.
    pub(super) fn hostile(text: &str) -> Self {
        let mut this = Self::rich();
        if let Some(told) = &mut this.breach {
            told.differences.push(text.to_owned());
            told.services.push(text.to_owned());
            told.attackers[0].sentence = text.to_owned();
            told.attackers[0].who = text.to_owned();
        }
        let spoil = |fields: &mut Map<String, Value>| {
            for value in fields.values_mut().filter(|v| v.is_string()) {
                *value = json!(text);
            }
            fields.insert(text.to_owned(), json!(text));
        };
        let detail = this.detail.as_mut().unwrap();
        for stored in &mut detail.spans {
            stored.span.name = text.into();
            stored.span.kind = text.into();
            spoil(&mut stored.span.attributes);
        }
        detail.logs.iter_mut().for_each(|l| (l.body, l.severity) = (text.into(), text.into()));
        for stored in detail.records.iter_mut().chain(&mut this.records) {
            spoil(&mut stored.record.fields);
        }
        let odd = AuditRecord { seq: 1, at_ms: 1, event: text.into(), trace: text.into(), span: text.into(), fields: Map::new() };
        this.records.push(StoredRecord { n: 1, source: source("role/edge"), record: odd });
        for trace in &mut this.traces {
            (trace.name, trace.user) = (text.into(), text.into());
            trace.workloads.push(text.into());
        }
        let system = this.facts.system.as_mut().unwrap();
        system.name = text.into();
        system.nodes.iter_mut().for_each(|n| n.owner = text.into());
        system.nodes.push(Node {
            id: format!("secret/{text}"),
            owner: text.into(),
            class: text.into(),
            sensitivity: 3,
            untrusted_input: true,
        });
        system.flows.push(Flow { from: "service/api".into(), to: format!("secret/{text}"), actions: vec![text.into()] });
        let mut flow = this.facts.flows[0].clone();
        (flow.from, flow.to) = (format!("secret/{text}"), "service/api".into());
        flow.reasons.insert(text.into(), 3);
        this.facts.flows.push(flow);
        this.facts.refusals.push(RefusalCount { hour_ms: NOW, reason: text.into(), count: 900 });
        this.facts.audit.broken = Some(text.into());
        this
    }
}
