//! Metrics of all processes as one text: each process's OpenMetrics is parsed, given labels `workload` and `process`, and written in
//! Prometheus' text format, or as OpenMetrics where that is asked for: then with exemplars, of traces that are kept.
//!
//! Spec:       OpenMetrics 1.0 (in and out), Prometheus text exposition format 0.0.4 (out: what `promtool check metrics` reads); RFC 9110
//!             section 12.5.1 (`Accept`).
//! Guarantees: J1. A process cannot speak for another: labels of those names that it wrote itself become `exported_…`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Longest text of one process, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
const FAMILIES_MAX: usize = 2_000;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Prometheus' text format, which has no exemplars.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Style {
    /// The one that a request asks for: OpenMetrics where it is named and not liked less than plain text.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let ranges =
                accept.split(',').filter(|range| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(wanted)));
            let said = |range: &str, name: &str| {
                range.split(';').filter_map(|p| p.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.trim().to_owned())
            };
            let known = |range: &&str| said(range, "version").is_none_or(|version| matches!(version.as_str(), "1.0.0" | "0.0.1" | "0.0.4"));
            ranges.filter(known).map(|range| said(range, "q").map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0))).fold(0.0, f64::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Content type of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What one process told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Node id of its workload.
    pub workload: &'a str,
    /// Which run.
    pub process: &'a str,
    /// OpenMetrics text.
    pub text: &'a str,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

/// The traces that exemplars of a text name.
pub fn traces(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| Exemplar::parse(line.split_once(" # ")?.1)).map(|exemplar| exemplar.trace)
}

/// The merged text, without an end, and how many lines were no OpenMetrics. Exemplars are those of traces that are `kept`.
#[must_use]
pub fn merge(all: &[Told<'_>], style: Style, kept: &BTreeSet<String>) -> (String, u64) {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut refused = 0_u64;
    for told in all {
        let mut declared: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for line in told.text.lines().filter(|l| !l.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                if let (Some(keyword), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) {
                    let slot = declared.entry(name).or_insert(("unknown", ""));
                    match keyword {
                        "TYPE" => slot.0 = rest,
                        "HELP" => slot.1 = rest,
                        _ => {}
                    }
                }
                continue;
            }
            match place(line, &declared, told, kept) {
                Some(Placed { name, kind, help, sample }) => {
                    if families.len() >= FAMILIES_MAX && !families.contains_key(&name) {
                        refused = refused.saturating_add(1);
                        continue;
                    }
                    let family = families.entry(name).or_insert_with(|| Family { kind: kind.to_owned(), help, samples: Vec::new() });
                    // Two processes that disagree about a name's type would make the text unreadable: the first is right.
                    if family.kind == kind {
                        family.samples.extend(sample);
                    } else {
                        refused = refused.saturating_add(1);
                    }
                }
                None => refused = refused.saturating_add(1),
            }
        }
    }
    (written(&families, style), refused)
}

fn written(families: &BTreeMap<String, Family>, style: Style) -> String {
    let mut out = String::new();
    for (name, family) in families.iter().filter(|(_, f)| !f.samples.is_empty()) {
        let help = if family.help.is_empty() { "No description." } else { &family.help };
        let (name, kind) = match (style, family.kind.as_str()) {
            // A family of counters has the name that its samples' names begin with.
            (Style::OpenMetrics, "counter") => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            (Style::OpenMetrics, "untyped") => (name.as_str(), "unknown"),
            (_, kind) => (name.as_str(), kind),
        };
        // Writing into a String does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sample in &family.samples {
            out.push_str(&sample.text);
            if let (Style::OpenMetrics, Some(exemplar)) = (style, &sample.exemplar) {
                out.push_str(exemplar);
            }
            out.push('\n');
        }
    }
    out
}

#[derive(Debug)]
struct Sample {
    text: String,
    /// As it is written behind the sample.
    exemplar: Option<String>,
}

/// What stands behind ` # `, in the one form that Palisade's own processes write.
#[derive(Debug, Clone, Copy)]
struct Exemplar<'t> {
    trace: &'t str,
    value: &'t str,
    at: &'t str,
}

impl<'t> Exemplar<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (trace, rest) = text.strip_prefix("{trace_id=\"")?.split_once("\"} ")?;
        let (value, at) = rest.split_once(' ')?;
        let is_trace = trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.parse::<f64>().is_ok();
        (is_trace && is_number(value) && is_number(at)).then_some(Self { trace, value, at })
    }
}

struct Placed {
    name: String,
    kind: &'static str,
    help: String,
    sample: Option<Sample>,
}

fn place(line: &str, declared: &BTreeMap<&str, (&str, &str)>, told: &Told<'_>, kept: &BTreeSet<String>) -> Option<Placed> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(name_end)?;
    if !is_metric_name(name) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => take_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.split(' ').next()?;
    value.parse::<f64>().ok()?;
    let (base, kind, help) = family_of(name, declared);
    let (family, kind) = match kind {
        "counter" => (format!("{base}_total"), "counter"),
        "histogram" => (base.to_owned(), "histogram"),
        "summary" => (base.to_owned(), "summary"),
        "gauge" => (base.to_owned(), "gauge"),
        "info" => (format!("{base}_info"), "gauge"),
        _ => (name.to_owned(), "untyped"),
    };
    let sample = (!(name.ends_with("_created") && matches!(kind, "counter" | "histogram" | "summary"))).then(|| {
        let mut text = format!("{name}{{workload=\"{}\",process=\"{}\"", escaped(told.workload), escaped(told.process));
        for (label, value) in labels {
            let prefix = if matches!(label, "workload" | "process") { "exported_" } else { "" };
            let _ = write!(text, ",{prefix}{label}=\"{value}\"");
        }
        let _ = write!(text, "}} {value}");
        let exemplar = rest.split_once(" # ").filter(|_| name.ends_with("_bucket")).and_then(|(_, told)| Exemplar::parse(told));
        let exemplar = exemplar.filter(|told| kept.contains(told.trace));
        Sample { text, exemplar: exemplar.map(|told| format!(" # {{trace_id=\"{}\"}} {} {}", told.trace, told.value, told.at)) }
    });
    Some(Placed { name: family, kind, help: help.to_owned(), sample })
}

/// The family that a sample belongs to, by the suffixes of its type (OpenMetrics, section "Suffixes").
fn family_of<'n, 'd>(name: &'n str, declared: &BTreeMap<&'d str, (&'d str, &'d str)>) -> (&'n str, &'d str, &'d str) {
    const SUFFIXES: [(&str, &[&str]); 8] = [
        ("", &["gauge", "unknown", "histogram", "summary", "counter"]),
        ("_total", &["counter"]),
        ("_created", &["counter", "histogram", "summary"]),
        ("_bucket", &["histogram"]),
        ("_sum", &["histogram", "summary"]),
        ("_count", &["histogram", "summary"]),
        ("_info", &["info"]),
        ("_state", &["stateset"]),
    ];
    for (suffix, kinds) in SUFFIXES {
        let Some(base) = name.strip_suffix(suffix) else { continue };
        if let Some((kind, help)) = declared.get(base).filter(|(kind, _)| kinds.contains(kind)) {
            return (base, kind, help);
        }
    }
    (name, "unknown", "")
}

/// Labels up to the closing brace, values still escaped; and what follows.
fn take_labels(mut rest: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        if !is_label_name(name) || labels.iter().any(|(other, _)| *other == name) {
            return None;
        }
        let end = value_end(after)?;
        let (value, after) = after.split_at_checked(end)?;
        labels.push((name, value));
        let after = after.strip_prefix('"')?;
        rest = after.strip_prefix(',').unwrap_or(after);
        if after.starts_with(',') && rest.starts_with('}') {
            return None;
        }
    }
}

fn value_end(text: &str) -> Option<usize> {
    let mut escaping = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaping && !matches!(c, '\\' | '"' | 'n') => return None,
            _ if escaping => escaping = false,
            '\\' => escaping = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_metric_name(name: &str) -> bool {
    name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

/// A label's value as it is written between quotes.
#[must_use]
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
