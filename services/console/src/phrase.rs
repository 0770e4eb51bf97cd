//! Numbers, times and names as people read them.

use contract::control::Node;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::macros::format_description;

/// `1 234 567`, with thin spaces.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

/// `740 µs`, `12.4 ms`, `3.20 s`, `2 min 5 s`.
pub(crate) fn duration(ns: u64) -> String {
    let tenth = |unit: u64| format!("{}.{}", ns / unit, ns % unit / (unit / 10));
    match ns {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..100_000_000 => format!("{} ms", tenth(1_000_000)),
        100_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..100_000_000_000 => format!("{} s", tenth(1_000_000_000)),
        _ => format!("{} min {} s", ns / 60_000_000_000, ns / 1_000_000_000 % 60),
    }
}

/// `now`, `12 s ago`, `3 min ago`, `2 h ago`, `4 d ago`.
pub(crate) fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        _ if then_ms == 0 => "never".to_owned(),
        0..2 => "now".to_owned(),
        s @ 2..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s @ 7200..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}

/// `2026-11-21 23:05:07.120`, UTC.
pub(crate) fn instant(ms: u64) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    moment(ms).and_then(|at| at.format(form).ok()).unwrap_or_default()
}

/// `23:05:07`, UTC.
pub(crate) fn clock(ms: u64) -> String {
    moment(ms).and_then(|at| at.format(format_description!("[hour]:[minute]:[second]")).ok()).unwrap_or_default()
}

/// `23:00`, UTC.
pub(crate) fn hour(ms: u64) -> String {
    moment(ms).and_then(|at| at.format(format_description!("[hour]:[minute]")).ok()).unwrap_or_default()
}

fn moment(ms: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms).saturating_mul(1_000_000)).ok()
}

/// The last segment of a node id or SPIFFE ID: `api`.
pub(crate) fn name(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// A SPIFFE ID without its trust domain: `service/api`.
pub(crate) fn node(id: &str) -> &str {
    id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(id, |(_, path)| path)
}

/// `service`, `bucket`, `queue`, `role`, `internet`…
pub(crate) fn kind(id: &str) -> &str {
    id.split_once('/').map_or(id, |(kind, _)| kind)
}

/// Words for a sensitivity.
pub(crate) fn sensitivity(node: &Node) -> &'static str {
    match node.sensitivity {
        1 => "public",
        2 => "personal",
        3 => "secret",
        _ => "unclassified",
    }
}

/// A text field of an event, or empty.
pub(crate) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A stable colour of twelve for a workload. (Multiplier and start were chosen so that Palisade's own roles differ.)
pub(crate) fn hue(workload: &str) -> u32 {
    (workload.bytes().fold(7_u32, |sum, b| sum.wrapping_mul(37).wrapping_add(u32::from(b))) >> 8) % 12
}

/// A reason's code in words: `policy denied`.
pub(crate) fn reason(code: &str) -> String {
    code.replace('_', " ")
}

/// At most `max` characters, with an ellipsis if there were more.
pub(crate) fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let head: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{head}…")
}
