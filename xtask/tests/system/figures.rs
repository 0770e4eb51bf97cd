//! J1, J2, J9: what the running system tells of itself: metrics that promtool approves of, alert rules over them, and spans for a collector.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::demo::Scratch;
use xtask::running::Setting;

use crate::{READY, Stage};

/// Every process of the reference system but the supervisor.
const PROCESSES: &[&str] = &[
    "role/control",
    "role/edge",
    "role/evidence",
    "role/identity",
    "role/login",
    "role/objects",
    "role/queue",
    "service/api",
    "service/transcoder",
    "service/validator",
    "service/web",
];
/// Processes tell their metrics at least every 15 s.
const TOLD: Duration = Duration::from_secs(45);

/// A request as it came to the collector.
struct Exported {
    head: String,
    body: Vec<u8>,
}

/// An OTLP/HTTP collector that keeps what it gets.
fn collector() -> (String, Arc<Mutex<Vec<Exported>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let exported = taken(&stream.unwrap());
            keep.lock().unwrap().extend(exported);
        }
    });
    (url, kept)
}

fn taken(stream: &TcpStream) -> Option<Exported> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    Some(Exported { head, body })
}

fn promtool(arguments: &[&str], stdin: &str) -> Result<(), String> {
    let docs = xtask::tree::root().join("docs");
    let mut process = Command::new("promtool")
        .args(arguments)
        .current_dir(docs)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs (Debian package prometheus)");
    process.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn metrics(stage: &Stage) -> String {
    let answer: Value = serde_json::from_str(&stage.running.cli(&["metrics"]).unwrap()).unwrap();
    answer["metrics"].as_str().unwrap().to_owned()
}

const STRICT_PARSER: &str = "import sys\n\
    sys.path.append('/usr/lib/python3/dist-packages')\n\
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
    for family in parse(sys.stdin.read()):\n\
    \x20   for sample in family.samples:\n\
    \x20       if sample.exemplar: print(sample.labels['workload'], sample.exemplar.labels['trace_id'])\n";

/// J1: another project's reader of OpenMetrics, which is strict, reads all of it; what an exemplar names can be looked at.
fn exemplars_lead_to_traces(stage: &Stage) {
    let answer: Value = serde_json::from_str(&stage.running.cli(&["metrics", "--openmetrics"]).unwrap()).unwrap();
    let text = answer["metrics"].as_str().unwrap();
    let mut python = Command::new("/usr/bin/python3");
    let mut python =
        python.args(["-c", STRICT_PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    let of = |workload: &str| read.lines().find_map(|line| line.strip_prefix(workload)?.strip_prefix(' '));
    for workload in ["role/edge", "service/api"] {
        let trace = of(workload).unwrap_or_else(|| panic!("no exemplar of {workload}: {read}\n{text}"));
        let spans = stage.running.cli(&["trace", trace]).unwrap();
        assert!(spans.contains(trace), "{spans}");
    }
}

/// Processes that lack one of rate, errors and duration (a status is a label of the rate).
fn lacking(text: &str) -> Vec<String> {
    let told = |family: &str, process: &str, label: &str| {
        let start = format!("{family}{{workload=\"{process}\",");
        text.lines().any(|line| line.starts_with(&start) && line.contains(label) && !line.ends_with(" 0"))
    };
    let mut lacking = Vec::new();
    for process in PROCESSES {
        for (family, label) in [
            ("palisade_requests_total", "status=\"2"),
            ("palisade_request_duration_seconds_count", "point="),
            ("palisade_request_duration_seconds_bucket", "le=\"+Inf\""),
            ("palisade_decisions_total", "outcome=\"allow\""),
        ] {
            if !told(family, process, label) {
                lacking.push(format!("{process}: {family}"));
            }
        }
    }
    lacking
}

// J1, J2 (out), J9 (the metric that the rules are about).
#[test]
fn every_process_tells_rate_errors_and_duration_and_a_collector_gets_the_spans() {
    let scratch = Scratch::new().unwrap();
    let (url, exported) = collector();
    let mut setting = Setting::reference(&scratch.0.join("system")).unwrap();
    setting.more = vec!["--otlp".to_owned(), url];
    let stage = Stage::set_with(scratch, setting);
    stage.ada.curl.page("/").unwrap();
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    assert!(stage.ada.api("GET", "/api/no-such-route", None, 200).is_err());

    let start = Instant::now();
    let text = loop {
        let text = metrics(&stage);
        let (lacking, refused) = (lacking(&text), text.contains("outcome=\"route_unknown\""));
        if lacking.is_empty() && refused {
            break text;
        }
        assert!(start.elapsed() < TOLD, "not told: {lacking:?}, refusal told: {refused}\n{text}");
        std::thread::sleep(Duration::from_millis(500));
    };
    promtool(&["check", "metrics"], &text).unwrap();
    // D11: each hop by who called, and by which route.
    for flow in [
        r#"palisade_requests_total{workload="role/edge",process="*",point="edge",caller="internet",route="api:POST /api/videos",outcome="answered",status="201"}"#,
        r#"palisade_requests_total{workload="service/api",process="*",point="guard",caller="role/edge",route="POST /api/videos",outcome="answered",status="201"}"#,
        r#"palisade_request_duration_seconds_count{workload="service/api",process="*",point="guard.out",caller="service/api",route="to objects"}"#,
        r#"palisade_requests_total{workload="service/validator",process="*",point="guard",caller="role/queue",route="deliver uploaded","#,
    ] {
        let (start, end) = flow.split_once('*').unwrap();
        assert!(text.lines().any(|line| line.starts_with(start) && line.contains(end)), "{flow}: {text}");
    }
    exemplars_lead_to_traces(&stage);
    assert!(text.contains("\npalisade_metrics_lines_refused 0\n"), "a process told something that is no metric: {text}");
    for family in
        ["palisade_audit_records_waiting", "palisade_audit_spool_bytes", "palisade_audit_log_records", "palisade_audit_log_broken"]
    {
        assert!(text.contains(&format!("\n{family}{{workload=")), "{family} is missing: {text}");
    }
    // Nothing from a request's bytes is in a label.
    assert!(!text.contains("no-such-route") && !text.contains(&uploaded.id), "{text}");

    let exported = exported.lock().unwrap();
    assert!(exported.iter().all(|one| one.head.starts_with("post /v1/traces http/1.1\r\n")));
    assert!(exported.iter().all(|one| one.head.contains("content-type: application/x-protobuf\r\n")));
    let trace: Vec<u8> = (0..16).map(|i| u8::from_str_radix(&uploaded.trace[2 * i..2 * i + 2], 16).unwrap()).collect();
    let has = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|window| window == part);
    for workload in ["role/edge", "role/objects", "role/queue", "service/validator", "service/transcoder", "service/api"] {
        let sent = exported.iter().any(|one| has(&one.body, &trace) && has(&one.body, format!("/{workload}").as_bytes()));
        assert!(sent, "the collector got nothing of {workload} in the upload's trace, in {} requests", exported.len());
    }
}

// J9: the rules that are shipped are rules, and each fires for what it is for and for nothing else.
#[test]
fn shipped_alert_rules_fire_for_what_they_are_for() {
    promtool(&["check", "rules", "alerts.yml"], "").unwrap();
    promtool(&["test", "rules", "alerts-test.yml"], "").unwrap();
    // Each rule is in a test, by name.
    let read = |name: &str| std::fs::read_to_string(xtask::tree::root().join("docs").join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts-test.yml"));
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is in no test");
    }
    // And promtool does find what is wrong.
    assert!(promtool(&["check", "metrics"], "# HELP wrong_total x\n# TYPE wrong_total gauge\nwrong_total 1\n").is_err());
}

// J1: nobody but this machine's operator reads them.
#[test]
fn metrics_are_not_served_at_the_edge() {
    let stage = Stage::set();
    for path in ["/metrics", "/console/metrics", "/.palisade/metrics"] {
        let answer = stage.ada.curl.page(path).unwrap();
        assert!(!answer.text().contains("palisade_requests_total"), "{path}: {}", answer.text());
    }
}
