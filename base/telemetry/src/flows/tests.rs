//! What is told of flows, and what it costs to be somebody new.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

const MS: u64 = 1_000_000;

fn ended<'a>(caller: &'a str, route: &'a str, took_ns: u64, trace_id: u128) -> Ended<'a> {
    let trace = Some((TraceContext { trace_id, span_id: 1, sampled: true }, 1_700_000_000_000 * MS));
    Ended { point: "guard", caller, route, status: 200, outcome: Outcome::Answered, took_ns, trace }
}

fn told(flows: &Flows) -> String {
    let mut text = String::new();
    flows.write(&mut text);
    text
}

fn line<'t>(text: &'t str, start: &str) -> &'t str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_default()
}

// D11, J1: rate, errors and duration of each flow, told apart by who called and by route.
#[test]
fn each_flow_has_its_rate_its_errors_and_its_duration() {
    let flows = Flows::default();
    flows.count(&ended("spiffe://video.example/service/web", "GET /api/videos", 2 * MS, 7));
    flows.count(&Ended {
        status: 502,
        outcome: Outcome::Failed,
        ..ended("spiffe://video.example/service/web", "GET /api/videos", 3 * MS, 8)
    });
    flows.count(&Ended { status: 403, outcome: Outcome::Refused, ..ended("spiffe://video.example/role/edge", "GET /api/videos", MS, 9) });
    flows.count(&Ended { status: 499, outcome: Outcome::Gone, ..ended("internet", "a\"b", 90_000 * MS, 10) });
    let text = told(&flows);
    for expected in [
        r#"palisade_requests_total{point="guard",caller="service/web",route="GET /api/videos",outcome="answered",status="200"} 1"#,
        r#"palisade_requests_total{point="guard",caller="service/web",route="GET /api/videos",outcome="failed",status="502"} 1"#,
        r#"palisade_requests_total{point="guard",caller="role/edge",route="GET /api/videos",outcome="refused",status="403"} 1"#,
        r#"palisade_requests_total{point="guard",caller="internet",route="a\"b",outcome="gone",status="499"} 1"#,
        r#"palisade_request_duration_seconds_sum{point="guard",caller="service/web",route="GET /api/videos"} 0.005000000"#,
        r#"palisade_request_duration_seconds_count{point="guard",caller="service/web",route="GET /api/videos"} 2"#,
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
    let bucket = |le: &str| {
        let start =
            format!(r#"palisade_request_duration_seconds_bucket{{point="guard",caller="service/web",route="GET /api/videos",le="{le}"}} "#);
        line(&text, &start)[start.len()..].chars().next().unwrap()
    };
    assert_eq!((bucket("0.001"), bucket("0.0025"), bucket("0.005"), bucket("+Inf")), ('0', '1', '2', '2'));
}

// J1: the exemplar of a bucket is a request that fell into it; it stays until a newer one is told, and a trace that is not sampled is none.
#[test]
fn a_bucket_shows_the_trace_of_a_request_that_fell_into_it() {
    let flows = Flows::default();
    let start = r#"palisade_request_duration_seconds_bucket{point="guard",caller="internet",route="r",le="0.0025"}"#;
    let mut unsampled = ended("internet", "r", 2 * MS, 1);
    unsampled.trace = unsampled.trace.map(|(trace, at)| (TraceContext { sampled: false, ..trace }, at));
    flows.count(&unsampled);
    flows.count(&Ended { trace: None, ..unsampled });
    assert_eq!(line(&told(&flows), start), format!("{start} 2"));
    flows.count(&ended("internet", "r", 2 * MS, 0xabc));
    flows.count(&ended("internet", "r", 2 * MS, 0xdef));
    let first = format!(r##"{start} 4 # {{trace_id="{:032x}"}} 0.002000000 1700000000.002"##, 0xabc);
    assert_eq!(line(&told(&flows), start), first);
    assert_eq!(line(&told(&flows), start), first, "it stays while there is none newer");
    flows.count(&ended("internet", "r", 2 * MS, 0x123));
    let text = told(&flows);
    assert!(line(&text, start).contains(&format!("{:032x}", 0x123)), "{text}");
    assert_eq!(text.matches("trace_id").count(), 1, "other buckets have none");
}

// J1: callers and routes cannot make more series than there is room for, just below and past it.
#[test]
fn flows_past_the_most_are_counted_as_others() {
    let flows = Flows::default();
    for n in 0..FLOWS_MAX {
        flows.count(&ended("internet", &format!("route {n}"), MS, 1));
    }
    assert!(!told(&flows).contains(OTHERS));
    for n in 0..1_000 {
        flows.count(&ended(&format!("spiffe://x/service/{n}"), "one more", MS, 1));
        flows.count(&ended("internet", "route 0", MS, 1));
    }
    let text = told(&flows);
    assert!(text.contains(r#"caller="(others)",route="(others)",outcome="answered",status="200"} 1000"#), "{text}");
    assert!(text.contains(r#"caller="internet",route="route 0",outcome="answered",status="200"} 1001"#), "{text}");
    assert_eq!(text.matches("palisade_requests_total{").count(), FLOWS_MAX + 1);
}

// J1: nor can a service by answering with every status that there is.
#[test]
fn statuses_past_the_most_are_counted_by_their_class() {
    let flows = Flows::default();
    let most = u16::try_from(STATUSES_MAX).unwrap();
    for status in 200..200 + most {
        flows.count(&Ended { status, ..ended("internet", "r", MS, 1) });
    }
    assert!(!told(&flows).contains("xx\""));
    for status in 300..600 {
        flows.count(&Ended { status, ..ended("internet", "r", MS, 1) });
    }
    let text = told(&flows);
    for class in ["3xx", "4xx", "5xx"] {
        assert!(text.contains(&format!(r#"status="{class}"}} 100"#)), "{text}");
    }
    assert_eq!(text.matches("palisade_requests_total{").count(), STATUSES_MAX + 3);
}

// J1: many at once lose no count, and what is shown is one request and not a mixture.
#[test]
fn many_at_once_are_all_counted_and_exemplars_are_whole() {
    let flows = Flows::default();
    std::thread::scope(|scope| {
        for thread in 1..=4_u128 {
            let flows = &flows;
            scope.spawn(move || {
                let trace_id = thread << 64 | thread;
                for _ in 0..5_000 {
                    flows.count(&ended("internet", "r", 2 * MS, trace_id));
                }
            });
        }
        for _ in 0..200 {
            let text = told(&flows);
            for shown in text.split("trace_id=\"").skip(1) {
                assert_eq!(shown[..16], shown[16..32], "{text}");
            }
        }
    });
    assert!(told(&flows).contains(r#"status="200"} 20000"#));
}
