//! The map's live flows come out of decisions.
#![allow(clippy::unwrap_used, reason = "tests")]

use contract::control::{Flow, Node};
use serde_json::{Map, json};
use trust::{AuditRecord, Digest};

use super::*;

fn entry(at: &str, at_ms: u64, principal: &str, resource: &str, reason: Option<&str>) -> Entry {
    let decision =
        reason.map_or(json!({"allow": {"policies": [], "epoch": 1}}), |r| json!({"deny": {"reason": r, "policies": [], "epoch": 1}}));
    let fields: Map<_, _> = [("principal", json!(principal)), ("resource", json!(resource)), ("decision", decision)]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    let record = AuditRecord { seq: 1, at_ms, event: "CallDecided".into(), trace: String::new(), span: String::new(), fields };
    Entry { n: 1, taken_ms: at_ms, workload: format!("spiffe://v/{at}").parse().unwrap(), process: "p".into(), record }
}

fn described() -> Live {
    let node = |id: &str| Node { id: id.to_owned(), owner: String::new(), class: String::new(), sensitivity: 0, untrusted_input: false };
    let flow = |from: &str, to: &str| Flow { from: from.to_owned(), to: to.to_owned(), actions: Vec::new() };
    let mut live = Live::default();
    live.describe(&System {
        name: "v".into(),
        manifest: Digest::of(b""),
        epoch: 1,
        nodes: ["bucket/originals", "queue/uploaded", "service/validator"].map(node).to_vec(),
        flows: vec![flow("bucket/originals", "queue/uploaded"), flow("queue/uploaded", "service/validator")],
    });
    live
}

// J10
#[test]
fn calls_are_counted_from_node_to_node_within_the_window() {
    let mut live = described();
    for (at, principal, resource, reason) in [
        ("role/edge", "internet", "GET /api/videos", None),
        ("service/api", "spiffe://v/role/edge", "GET /api/videos", None),
        ("role/objects", "spiffe://v/service/validator", "originals/018f/original", None),
        ("role/objects", "spiffe://v/service/transcoder", "bucket/originals/018f/original", Some("object_quarantined")),
        ("role/queue", "spiffe://v/role/objects", "queue/uploaded", None),
        ("service/validator", "spiffe://v/role/queue", "POST /events", None),
        ("service/validator", "", "", Some("svid_expired")),
    ] {
        live.decided(&entry(at, 100_000, principal, resource, reason));
    }
    let flows = live.flows(100_500);
    let pairs: Vec<(&str, &str, u64, u64)> = flows.iter().map(|f| (f.from.as_str(), f.to.as_str(), f.allowed, f.denied)).collect();
    assert_eq!(
        pairs,
        [
            ("bucket/originals", "queue/uploaded", 1, 0),
            ("internet", "role/edge", 1, 0),
            ("queue/uploaded", "service/validator", 1, 0),
            ("role/edge", "service/api", 1, 0),
            ("service/transcoder", "bucket/originals", 0, 1),
            ("service/validator", "bucket/originals", 1, 0),
            ("unauthenticated", "service/validator", 0, 1),
        ]
    );
    assert_eq!(flows[4].reasons.get("object_quarantined"), Some(&1));
    assert!(live.flows(100_500 + WINDOW_S * 1000).is_empty(), "past the window");
}

// J10: what proxy and rooms tell of one call is one call.
#[test]
fn a_call_that_is_decided_at_several_places_counts_once_and_refusals_count_where_they_lead() {
    let mut live = described();
    let out = |resource: &str, reason| {
        let mut told = entry("service/validator", 100_000, "spiffe://v/service/validator", resource, reason);
        told.record.fields.insert("point".into(), json!("guard.out"));
        told
    };
    live.decided(&out("spiffe://v/role/objects GET /originals/x/original", None));
    live.decided(&entry("role/objects", 100_000, "spiffe://v/service/validator", "GET /originals/x/original", None));
    live.decided(&entry("role/objects", 100_000, "spiffe://v/service/validator", "originals/x/original", None));
    live.decided(&out("spiffe://v/role/objects PUT /originals/x/original", Some("authority_not_in_flight")));
    let flows = live.flows(100_000);
    let flows: Vec<_> = flows.iter().map(|f| (f.from.as_str(), f.to.as_str(), f.allowed, f.denied)).collect();
    assert_eq!(flows, [("service/validator", "bucket/originals", 1, 1)]);
}

#[test]
fn late_records_count_in_their_own_second_and_very_late_ones_not_at_all() {
    let mut live = described();
    live.decided(&entry("service/api", 100_000, "spiffe://v/role/edge", "", None));
    live.decided(&entry("service/api", 130_000, "spiffe://v/role/edge", "", None));
    live.decided(&entry("service/api", 110_000, "spiffe://v/role/edge", "", None));
    live.decided(&entry("service/api", 1_000, "spiffe://v/role/edge", "", None));
    assert_eq!(live.flows(130_000)[0].allowed, 3);
}

#[test]
fn failures_are_counted_from_spans_and_processes_are_remembered() {
    let mut live = described();
    let api: SpiffeId = "spiffe://v/service/api".parse().unwrap();
    let mut span = Span {
        trace: String::new(),
        span: String::new(),
        parent: String::new(),
        name: "accept".into(),
        kind: "server".into(),
        start_ns: 99_000_000_000,
        end_ns: 100_000_000_000,
        status: 502,
        attributes: Map::new(),
    };
    span.attributes.insert("peer".into(), json!("spiffe://v/role/edge"));
    live.ended(&api, &span);
    span.status = 404;
    live.ended(&api, &span);
    let flows = live.flows(100_000);
    assert_eq!((flows.len(), flows[0].failed, flows[0].from.as_str()), (1, 1, "role/edge"));
    for n in 0..600 {
        live.heard(&api, &format!("p{n}"), 100_000 + n, n);
    }
    assert_eq!(live.processes(100_600).len(), 512);
    assert!(live.processes(100_600).iter().all(|p| p.heard_ms > 100_000), "the oldest went first");
}
