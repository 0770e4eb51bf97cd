//! The list of traces.

use askama::Template;
use contract::console::{TraceFilter, TraceSummary};

use crate::page::Page;
use crate::phrase;

#[derive(Template)]
#[template(path = "traces.html")]
struct TracesPage<'a> {
    filter: &'a TraceFilter,
    filtered: bool,
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    trace: &'a str,
    short: String,
    name: &'a str,
    at: String,
    day: String,
    took: String,
    user: &'a str,
    status: u16,
    tone: &'static str,
    verdict: String,
    spans: u64,
    bar: String,
    stops: Vec<(String, u32)>,
}

pub(crate) fn page(filter: &TraceFilter, traces: &[TraceSummary]) -> Page {
    let longest = traces.iter().map(|t| t.end_ns.saturating_sub(t.start_ns)).max().unwrap_or(1).max(1);
    let rows = traces.iter().map(|t| row_of(t, longest)).collect();
    let filtered = !filter.video.is_empty() || !filter.user.is_empty() || filter.troubled;
    Page::of("Traces", "traces", true, &TracesPage { filter, filtered, rows })
}

fn row_of(t: &TraceSummary, longest: u64) -> Row<'_> {
    let took = t.end_ns.saturating_sub(t.start_ns);
    let (tone, verdict) = match (t.failed, t.denied) {
        (0, 0) => ("good", "clean".to_owned()),
        (0, denied) => ("bad", format!("{denied} refused")),
        (failed, 0) => ("warn", format!("{failed} failed")),
        (failed, denied) => ("bad", format!("{denied} refused · {failed} failed")),
    };
    let when = phrase::instant(t.start_ns / 1_000_000);
    Row {
        trace: &t.trace,
        short: t.trace.chars().take(8).collect(),
        name: &t.name,
        at: phrase::clock(t.start_ns / 1_000_000),
        day: when,
        took: phrase::duration(took),
        user: &t.user,
        status: t.status,
        tone,
        verdict,
        spans: t.spans,
        bar: (u128::from(took).saturating_mul(100) / u128::from(longest)).max(1).to_string(),
        stops: t.workloads.iter().map(|w| (phrase::name(w).to_owned(), phrase::hue(w))).collect(),
    }
}
