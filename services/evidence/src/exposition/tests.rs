//! Merged metrics are what a scraper and a linter expect.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use telemetry::Metrics;
use telemetry::flows::{Ended, Outcome};
use trust::{DenyReason, TraceContext};

use super::*;

fn merge(all: &[Told<'_>]) -> (String, u64) {
    super::merge(all, Style::Prometheus, &BTreeSet::new())
}

fn request(metrics: &Metrics, trace_id: u128) {
    metrics.request(&Ended {
        point: "guard",
        caller: "spiffe://video.example/service/web",
        route: "GET /api/videos",
        status: 200,
        outcome: Outcome::Answered,
        took_ns: 10_000_000,
        trace: Some((TraceContext { trace_id, span_id: 1, sampled: true }, 1_700_000_000_000_000_000)),
    });
}

fn told<'a>(workload: &'a str, text: &'a str) -> Told<'a> {
    Told { workload, process: "p1", text }
}

/// The rules of promtool's `check metrics` that apply to names, help and types.
fn lint(text: &str) {
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "TYPE", name, kind] => {
                assert!(kinds.insert((*name).to_owned(), (*kind).to_owned()).is_none(), "{name} has two types");
                assert_eq!(*kind == "counter", name.ends_with("_total"), "{name} {kind}");
                assert!(!["_count", "_sum", "_bucket", "_ms", "_milliseconds"].iter().any(|s| name.ends_with(s)), "{name}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            }
            ["#", "HELP", _, help] => assert!(!help.is_empty()),
            ["#", ..] => panic!("{line}"),
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let known = ["", "_bucket", "_sum", "_count"].iter().any(|s| name.strip_suffix(s).is_some_and(|n| kinds.contains_key(n)));
                assert!(known, "{line}");
            }
        }
    }
}

// J1: what Palisade's own processes tell, merged.
#[test]
fn own_metrics_of_two_processes_merge_into_clean_families() {
    let metrics = Metrics::new();
    metrics.decision("guard", "call", None);
    metrics.decision("guard", "call", Some(DenyReason::PolicyDenied));
    request(&metrics, 7);
    let text = metrics.render();
    let (merged, refused) = merge(&[told("service/api", &text), told("role/edge", &text)]);
    assert_eq!(refused, 0, "{text}");
    lint(&merged);
    assert_eq!(merged.matches("# TYPE palisade_decisions_total counter").count(), 1);
    let line =
        "palisade_decisions_total{workload=\"role/edge\",process=\"p1\",point=\"guard\",action=\"call\",outcome=\"policy_denied\"} 1";
    assert!(merged.lines().any(|l| l == line), "{merged}");
    assert!(
        merged.contains("palisade_request_duration_seconds_bucket{workload=\"service/api\",process=\"p1\",point=\"guard\",caller=\"service/web\",route=\"GET /api/videos\",le=\"+Inf\"} 1\n"),
        "{merged}"
    );
    assert!(!merged.contains("# EOF") && !merged.contains("_created"));
}

// J1: a process cannot speak for another, nor break the others' lines.
#[test]
fn hostile_lines_are_refused_and_claimed_names_are_set_aside() {
    let text = "# TYPE x gauge\n# HELP x X\nx{workload=\"role/edge\",a=\"q\\\"}\\n,b=\\\"\"} 1\nx 2 123 # {t=\"1\"} 1\n";
    let (merged, refused) = merge(&[told("service/a\"b", text)]);
    assert_eq!(refused, 0);
    assert!(
        merged.contains("x{workload=\"service/a\\\"b\",process=\"p1\",exported_workload=\"role/edge\",a=\"q\\\"}\\n,b=\\\"\"} 1\n"),
        "{merged}"
    );
    assert!(merged.contains("x{workload=\"service/a\\\"b\",process=\"p1\"} 2\n"), "{merged}");
    for bad in
        ["x{a=\"1\"", "x{a=1} 1", "x{a=\"1\",} 1", "x{a=\"1\",a=\"2\"} 1", "x{a=\"\\q\"} 1", "x one", "9x 1", "x", "x{a=\"1\"}1", "é 1"]
    {
        let (merged, refused) = merge(&[told("service/a", bad)]);
        assert_eq!((merged.as_str(), refused), ("", 1), "{bad}");
    }
}

#[test]
fn a_name_with_two_types_keeps_the_first() {
    let (merged, refused) = merge(&[told("a", "# TYPE x gauge\nx 1\n"), told("b", "# TYPE x histogram\nx_bucket{le=\"1\"} 1\n")]);
    assert_eq!(refused, 1);
    assert_eq!(merged, "# HELP x No description.\n# TYPE x gauge\nx{workload=\"a\",process=\"p1\"} 1\n");
}

// J1: OpenMetrics: names, end, and exemplars of the traces that are kept and of no other.
#[test]
fn exemplars_are_of_traces_that_are_kept_and_in_openmetrics_alone() {
    let (metrics, other) = (Metrics::new(), Metrics::new());
    request(&metrics, 0xabc);
    request(&other, 0xdef);
    metrics.act("a");
    let texts = [metrics.render(), other.render()];
    let all = [told("service/api", &texts[0]), told("service/web", &texts[1])];
    let (kept, lost) = (format!("{:032x}", 0xabc), format!("{:032x}", 0xdef));
    assert_eq!(texts.iter().flat_map(|text| traces(text)).collect::<Vec<_>>(), [kept.as_str(), lost.as_str()]);
    let (text, refused) = super::merge(&all, Style::OpenMetrics, &BTreeSet::from([kept.clone()]));
    assert_eq!(refused, 0);
    let line = format!(
        "palisade_request_duration_seconds_bucket{{workload=\"service/api\",process=\"p1\",point=\"guard\",caller=\"service/web\",\
         route=\"GET /api/videos\",le=\"0.01\"}} 1 # {{trace_id=\"{kept}\"}} 0.010000000 1700000000.010"
    );
    assert!(text.lines().any(|l| l == line), "{text}");
    assert!(!text.contains(&lost), "{text}");
    assert!(text.contains("# TYPE palisade_acts counter\n") && text.contains("\npalisade_acts_total{"), "{text}");
    let (plain, _) = super::merge(&all, Style::Prometheus, &BTreeSet::from([kept]));
    assert!(!plain.contains(" # {") && plain.contains("# TYPE palisade_acts_total counter\n"), "{plain}");
    lint(&plain);
}

// J1: what stands behind a sample passes only in the form that our own processes write.
#[test]
fn what_is_no_exemplar_is_left_out() {
    let trace = "a".repeat(32);
    let good = format!("{{trace_id=\"{trace}\"}} 1.5 2.5");
    assert!(Exemplar::parse(&good).is_some());
    for bad in [
        format!("{{trace_id=\"{trace}\",user=\"ada\"}} 1.5 2.5"),
        format!("{{trace_id=\"{}\"}} 1.5 2.5", &trace[1..]),
        format!("{{trace_id=\"{}\"}} 1.5 2.5", "Z".repeat(32)),
        format!("{{trace_id=\"{trace}\"}} 1.5"),
        format!("{{trace_id=\"{trace}\"}} NaN 2.5"),
        format!("{{trace_id=\"{trace}\"}} 1.5 2.5\r"),
        "{} 1 2".to_owned(),
    ] {
        assert!(Exemplar::parse(&bad).is_none(), "{bad}");
    }
}

// J1: what a scraper says that it reads decides.
#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
                      text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, style) in [
        ("", Style::Prometheus),
        ("*/*", Style::Prometheus),
        ("text/plain", Style::Prometheus),
        ("application/openmetrics-text; version=1.0.0", Style::OpenMetrics),
        ("application/openmetrics-text", Style::OpenMetrics),
        (prometheus, Style::OpenMetrics),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", Style::Prometheus),
        ("application/openmetrics-text;q=0", Style::Prometheus),
        ("application/openmetrics-text;version=2.0.0", Style::Prometheus),
    ] {
        assert_eq!(Style::of(accept), style, "{accept}");
    }
}
