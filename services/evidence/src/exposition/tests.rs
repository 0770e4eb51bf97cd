//! Merged metrics are what a scraper and a linter expect.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use telemetry::Metrics;
use trust::DenyReason;

use super::*;

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
    metrics.request("guard", "/api/videos", 200, 0.01);
    let text = metrics.render();
    let (merged, refused) = merge(&[told("service/api", &text), told("role/edge", &text)]);
    assert_eq!(refused, 0, "{text}");
    lint(&merged);
    assert_eq!(merged.matches("# TYPE palisade_decisions_total counter").count(), 1);
    let line =
        "palisade_decisions_total{workload=\"role/edge\",process=\"p1\",point=\"guard\",action=\"call\",outcome=\"policy_denied\"} 1";
    assert!(merged.lines().any(|l| l == line), "{merged}");
    assert!(
        merged.contains("palisade_request_duration_seconds_bucket{workload=\"service/api\",process=\"p1\",le=\"+Inf\",point=\"guard\"} 1"),
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
