//! The audit log's newest records, and refusals.

use askama::Template;
use contract::console::{AuditFilter, AuditState, MapFacts, StoredRecord};
use serde_json::Value;
use trust::DenyReason;

use crate::map::{self, Chart};
use crate::page::Page;
use crate::phrase;
use crate::trace;

const EVENTS: [&str; 5] = ["CallDecided", "ConnectionRefused", "SyscallDenied", "ActDone", "TamperingFound"];

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage<'a> {
    filter: &'a AuditFilter,
    filtered: bool,
    events: &'static [&'static str],
    reasons: Vec<&'static str>,
    rows: Vec<Row>,
    older: Option<u64>,
    state: &'a AuditState,
    head: String,
    records: String,
    checkpointed: String,
    signed_at: String,
}

#[derive(Template)]
#[template(path = "decisions.html")]
struct RefusalsPage {
    chart: Chart,
    reason: String,
    reasons: Vec<(String, String, u64)>,
    rows: Vec<Row>,
}

struct Row {
    n: u64,
    at: String,
    day: String,
    event: String,
    source: String,
    hue: u32,
    tone: &'static str,
    headline: String,
    facts: Vec<(String, String)>,
    trace: String,
}

pub(crate) fn page(filter: &AuditFilter, records: &[StoredRecord], state: &AuditState) -> Page {
    let full = u32::try_from(records.len()).is_ok_and(|n| n >= filter.limit);
    let template = AuditPage {
        filter,
        filtered: !filter.event.is_empty() || !filter.reason.is_empty() || !filter.who.is_empty() || filter.refused,
        events: &EVENTS,
        reasons: DenyReason::ALL.iter().map(|r| r.code()).collect(),
        rows: records.iter().map(row).collect(),
        older: records.last().map(|r| r.n).filter(|_| full),
        head: phrase::short(&state.head, 17),
        records: phrase::number(state.records),
        checkpointed: phrase::number(state.checkpointed),
        signed_at: phrase::instant(state.checkpoint_ms),
        state,
    };
    Page::of("Audit log", "audit", filter.before.is_none(), &template)
}

pub(crate) fn refusals_page(filter: &AuditFilter, records: &[StoredRecord], facts: &MapFacts) -> Page {
    let template = RefusalsPage {
        chart: map::chart(facts),
        reason: filter.reason.clone(),
        reasons: map::reasons(facts),
        rows: records.iter().map(row).collect(),
    };
    Page::of("Refusals", "decisions", true, &template)
}

fn row(stored: &StoredRecord) -> Row {
    let record = &stored.record;
    let field = |name: &str| phrase::field(&record.fields, name);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let workload = stored.source.workload.to_string();
    let workload = phrase::node(&workload);
    let (tone, headline, facts) = match (record.event.as_str(), trace::decision(stored)) {
        (_, Some(decision)) => {
            let tone = if decision.allowed { "good" } else { "bad" };
            (tone, decision.headline, decision.facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
        }
        ("ConnectionRefused", None) => {
            let peer = if field("peer").is_empty() { "nobody it could name" } else { phrase::node(field("peer")) };
            let facts = vec![("peer".to_owned(), peer.to_owned()), ("at".to_owned(), field("point").to_owned())];
            ("bad", format!("connection refused: {}", phrase::reason(field("reason"))), facts)
        }
        ("ActDone", None) => {
            let facts = [("by", phrase::node(field("by"))), ("to", field("to")), ("detail", field("detail"))];
            (
                "act",
                field("act").to_owned(),
                facts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            )
        }
        ("TamperingFound", None) => {
            let facts = vec![("which".to_owned(), field("which").to_owned()), ("how".to_owned(), field("detail").to_owned())];
            ("bad", format!("tampering found: {}", field("what")), facts)
        }
        ("SyscallDenied", None) => {
            let ended = if record.fields.get("killed").and_then(Value::as_bool) == Some(true) { ", and its process was ended" } else { "" };
            let facts = ["service", "count"].map(|name| (name.to_owned(), record.fields.get(name).map(text).unwrap_or_default()));
            ("bad", format!("not to be done in a sandbox: {}{ended}", field("call")), facts.into())
        }
        (_, None) => ("", String::new(), record.fields.iter().map(|(k, v)| (k.clone(), text(v))).collect()),
    };
    Row {
        n: stored.n,
        at: phrase::clock(record.at_ms),
        day: phrase::instant(record.at_ms),
        event: record.event.clone(),
        source: phrase::name(workload).to_owned(),
        hue: phrase::hue(workload),
        tone,
        headline,
        facts,
        trace: record.trace.clone(),
    }
}
