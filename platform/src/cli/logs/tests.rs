//! What is asked for is shown, from every file, once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;

use clap::Parser;
use serde_json::json;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    logs: Logs,
}

fn wanted(arguments: &[&str], line: &Value) -> bool {
    Line::parse_from([&["logs"], arguments].concat()).logs.wants(line)
}

// J1: each filter lets through what it names, and several mean all of them.
#[test]
fn filters_let_through_what_they_name() {
    let line = json!({ "service": "api", "person": "u1", "status": 503, "trace": "ab", "path": "/api/videos/7", "decision": "deny" });
    for yes in [
        &[][..],
        &["--service", "api"],
        &["--status", "503"],
        &["--status", "404", "--status", "5xx"],
        &["--person", "u1", "--trace", "ab", "--path", "/api/", "--denied"],
    ] {
        assert!(wanted(yes, &line), "{yes:?}");
    }
    for no in [
        &["--service", "web"][..],
        &["--status", "4xx"],
        &["--status", "500"],
        &["--person", "u2", "--service", "api"],
        &["--trace", "a"],
        &["--path", "/auth"],
    ] {
        assert!(!wanted(no, &line), "{no:?}");
    }
    assert!(!wanted(&["--denied"], &json!({ "decision": "allow" })));
    for bad in ["6xx", "99", "600", "abc", "xx", ""] {
        assert!(Status::parse(bad).is_err(), "{bad}");
    }
}

// J1: followed across files: each whole line once, in order, those of another door never, a torn one when it is whole.
#[test]
fn each_line_is_read_once_in_order_across_files() {
    let folder = tempfile::tempdir().unwrap();
    let add = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    add("edge-20261122T080156.123Z.jsonl", "{\"n\":1}\nnonsense\n{\"n\":2}\n");
    add("edge-20261122T090000.000Z.jsonl", "{\"n\":3}\n{\"n\":");
    add("edge-other-20261122T090000.000Z.jsonl", "{\"n\":100}\n");
    add("guard-api-20261122T090000.000Z.jsonl", "{\"n\":100}\n");
    let mut reader = Reader { folder: folder.path().to_owned(), door: "edge".to_owned(), file: None, done: None };
    let mut next = || {
        let mut seen = Vec::new();
        reader.each(|line| seen.push(line["n"].as_u64().unwrap())).unwrap();
        seen
    };
    assert_eq!(next(), [1, 2, 3]);
    assert!(next().is_empty());
    add("edge-20261122T090000.000Z.jsonl", "4}\n");
    assert_eq!(next(), [4]);
    add("edge-20261122T090000.000Z.jsonl", "{\"n\":5}\n");
    add("edge-20261122T100000.000Z.jsonl", "{\"n\":6}\n");
    assert_eq!(next(), [5, 6]);
    assert!(next().is_empty());
}
