//! One trace: a waterfall of its spans, with the decision at each hop.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use contract::console::{StoredRecord, StoredSpan, TraceDetail};
use serde_json::Value;

use crate::page::Page;
use crate::phrase;

/// Deepest level shown; deeper spans stand on it.
const DEPTH_MAX: u32 = 8;
const OTLP: &str = "otlp";

#[derive(Template)]
#[template(path = "trace.html")]
struct TracePage {
    trace: String,
    title: String,
    at: String,
    took: String,
    user: String,
    purpose: String,
    stops: Vec<(String, u32)>,
    allowed: usize,
    refused: usize,
    ticks: Vec<(String, String)>,
    rows: Vec<Row>,
    loose: Vec<(String, Decision)>,
    logs: Vec<(String, String, String, u32)>,
}

struct Row {
    depth: u32,
    name: String,
    workload: String,
    who: String,
    hue: u32,
    kind: String,
    own: bool,
    start: String,
    took: String,
    x: String,
    w: String,
    label_x: String,
    label_end: bool,
    status: u16,
    tone: &'static str,
    decisions: Vec<Decision>,
    attributes: Vec<(String, String)>,
}

/// A decision as the page tells it.
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// A policy said so, and not only a route's contract.
    pub(crate) by_policy: bool,
    pub(crate) n: u64,
    pub(crate) headline: String,
    pub(crate) facts: Vec<(&'static str, String)>,
}

pub(crate) fn page(detail: &TraceDetail) -> Page {
    let start = detail.spans.iter().map(|s| s.span.start_ns).min().unwrap_or(0);
    let end = detail.spans.iter().map(|s| s.span.end_ns).max().unwrap_or(start);
    let whole = end.saturating_sub(start).max(1);
    let mut by_span: BTreeMap<&str, Vec<&StoredRecord>> = BTreeMap::new();
    for record in &detail.records {
        by_span.entry(&record.record.span).or_default().push(record);
    }
    let rows: Vec<Row> = ordered(&detail.spans)
        .into_iter()
        .map(|(span, depth)| row(span, depth, start, whole, by_span.remove(span.span.span.as_str()).unwrap_or_default()))
        .collect();
    let loose: Vec<(String, Decision)> = by_span
        .into_values()
        .flatten()
        .filter_map(|r| Some((phrase::name(&r.source.workload.to_string()).to_owned(), decision(r)?)))
        .collect();
    let all = || rows.iter().flat_map(|r| &r.decisions).chain(loose.iter().map(|(_, d)| d));
    let root = detail.spans.iter().find(|s| s.span.parent.is_empty()).or(detail.spans.first());
    let title = root.map_or_else(|| "Trace".to_owned(), |s| s.span.name.clone());
    let first = |name: &str| {
        let in_records = detail.records.iter().map(|r| phrase::field(&r.record.fields, name));
        let in_spans = detail.spans.iter().filter(|s| s.source.process != OTLP).map(|s| phrase::field(&s.span.attributes, name));
        in_records.chain(in_spans).find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    let mut seen = BTreeSet::new();
    let stops = detail.spans.iter().map(|s| phrase::node(&s.source.workload.to_string()).to_owned()).filter(|w| seen.insert(w.clone()));
    let line = |l: &contract::console::StoredLog| {
        (
            phrase::clock(l.at_ns / 1_000_000),
            l.severity.clone(),
            format!("{}: {}", phrase::name(&l.workload), l.body),
            phrase::hue(&l.workload),
        )
    };
    let template = TracePage {
        trace: detail.trace.clone(),
        at: phrase::instant(start / 1_000_000),
        took: phrase::duration(end.saturating_sub(start)),
        user: first("user"),
        purpose: first("purpose"),
        stops: stops.map(|w| (phrase::name(&w).to_owned(), phrase::hue(&w))).collect(),
        allowed: all().filter(|d| d.allowed).count(),
        refused: all().filter(|d| !d.allowed).count(),
        ticks: (0..=4_u64)
            .map(|quarter| ((quarter.saturating_mul(25)).to_string(), phrase::duration(whole.saturating_mul(quarter) / 4)))
            .collect(),
        loose,
        logs: detail.logs.iter().map(line).collect(),
        rows,
        title: title.clone(),
    };
    Page::of(title, "traces", false, &template)
}

/// Spans as a tree, children under their parents by start; each with its depth. A span whose parent is not known stands at the top.
fn ordered(spans: &[StoredSpan]) -> Vec<(&StoredSpan, u32)> {
    let known: BTreeSet<&str> = spans.iter().map(|s| s.span.span.as_str()).collect();
    let mut children: BTreeMap<&str, Vec<&StoredSpan>> = BTreeMap::new();
    let mut open: Vec<(&StoredSpan, u32)> = Vec::new();
    for span in spans {
        if known.contains(span.span.parent.as_str()) && span.span.parent != span.span.span {
            children.entry(&span.span.parent).or_default().push(span);
        } else {
            open.push((span, 0));
        }
    }
    open.reverse();
    let (mut out, mut done) = (Vec::with_capacity(spans.len()), BTreeSet::new());
    while let Some((span, depth)) = open.pop() {
        // The same id told by two workloads has its children once.
        out.push((span, depth.min(DEPTH_MAX)));
        if done.insert(span.span.span.as_str()) {
            let below = children.remove(span.span.span.as_str()).unwrap_or_default();
            open.extend(below.into_iter().rev().map(|child| (child, depth.saturating_add(1))));
        }
    }
    // Spans that are each other's parents hang on nothing: show them all the same.
    out.extend(children.into_values().flatten().map(|span| (span, 0)));
    out
}

fn row(stored: &StoredSpan, depth: u32, start: u64, whole: u64, records: Vec<&StoredRecord>) -> Row {
    let span = &stored.span;
    let workload = stored.source.workload.to_string();
    let workload = phrase::node(&workload);
    let own = stored.source.process != OTLP;
    let percent =
        |ns: u64| u32::try_from(u128::from(ns).saturating_mul(100_000) / u128::from(whole)).map_or(100.0, |p| f64::from(p) / 1000.0);
    let (x, w) = (percent(span.start_ns.saturating_sub(start)), percent(span.end_ns.saturating_sub(span.start_ns)));
    let label_end = x + w > 84.0;
    let mut decisions: Vec<Decision> = records.into_iter().filter_map(decision).collect();
    // Where a policy answered, that the route's contract had let the request in goes without saying.
    let answered = decisions.iter().any(|d| !d.allowed || d.by_policy);
    decisions.retain(|d| !d.allowed || d.by_policy || !answered);
    if decisions.is_empty() && own {
        decisions.extend(told(span));
    }
    let refused = decisions.iter().any(|d| !d.allowed);
    let tone = match span.status {
        _ if refused => "bad",
        500.. => "warn",
        400.. => "note",
        _ => "",
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Row {
        depth,
        name: span.name.clone(),
        who: phrase::name(workload).to_owned(),
        hue: phrase::hue(workload),
        workload: workload.to_owned(),
        kind: span.kind.clone(),
        own,
        start: format!("+{}", phrase::duration(span.start_ns.saturating_sub(start))),
        took: phrase::duration(span.end_ns.saturating_sub(span.start_ns)),
        x: format!("{x:.2}"),
        w: format!("{:.2}", w.max(0.25)),
        label_x: format!("{:.2}", if label_end { x - 0.6 } else { x + w.max(0.25) + 0.6 }),
        label_end,
        status: span.status,
        tone,
        decisions,
        attributes: span.attributes.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
    }
}

/// The decision that an audit record tells of; nothing for other events.
pub(crate) fn decision(stored: &StoredRecord) -> Option<Decision> {
    let fields = &stored.record.fields;
    let (allowed, answer) = match fields.get("decision")? {
        Value::Object(d) if d.contains_key("allow") => (true, d.get("allow")?),
        Value::Object(d) => (false, d.get("deny")?),
        _ => return None,
    };
    let policies: Vec<&str> =
        answer.get("policies").and_then(Value::as_array).map(|p| p.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    let reason = answer.get("reason").and_then(Value::as_str).unwrap_or_default();
    let policies = policies.join(", ");
    let headline = match (allowed, policies.is_empty()) {
        (true, false) => format!("allowed by {policies}"),
        (true, true) if phrase::field(fields, "point") == "guard.out" => "sent on by its guard".to_owned(),
        (true, true) => "admitted by the route's contract".to_owned(),
        (false, false) => format!("refused: {}, by {policies}", phrase::reason(reason)),
        (false, true) => format!("refused: {}", phrase::reason(reason)),
    };
    let epoch = answer.get("epoch").and_then(Value::as_u64).filter(|e| *e > 0).map(|e| e.to_string()).unwrap_or_default();
    let shadow = match answer.get("shadow").and_then(|shadow| shadow.get("allow")).and_then(Value::as_bool) {
        Some(true) => "would be allowed".to_owned(),
        Some(false) => "would be refused".to_owned(),
        None => String::new(),
    };
    let field = |name: &str| phrase::field(fields, name).to_owned();
    let facts = vec![
        ("caller", phrase::node(&field("principal")).to_owned()),
        ("did", field("action")),
        ("to", field("resource")),
        ("for", field("user")),
        ("purpose", field("purpose")),
        ("job", phrase::short(&field("job"), 20)),
        ("in shadow", shadow),
        ("epoch", epoch),
    ];
    Some(Decision {
        allowed,
        by_policy: !policies.is_empty(),
        n: stored.n,
        headline,
        facts: facts.into_iter().filter(|(_, text)| !text.is_empty()).collect(),
    })
}

/// What a span of one of Palisade's processes says of a decision, where no audit record is at hand (it is past its retention).
fn told(span: &trust::Span) -> Option<Decision> {
    let text = |name: &str| match span.attributes.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let allowed = match text("decision").as_str() {
        "allow" => true,
        "deny" => false,
        _ => return None,
    };
    let (policy, reason) = (text("policy"), text("reason"));
    let headline = if allowed { format!("allowed by {policy}") } else { format!("refused: {}", phrase::reason(&reason)) };
    let names = [("caller", "peer"), ("to", "object"), ("for", "user"), ("purpose", "purpose"), ("job", "job"), ("epoch", "epoch")];
    let facts = names.into_iter().map(|(label, name)| (label, phrase::node(&text(name)).to_owned())).filter(|(_, t)| !t.is_empty());
    Some(Decision { allowed, by_policy: !policy.is_empty(), n: 0, headline, facts: facts.collect() })
}
