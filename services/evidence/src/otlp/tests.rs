//! OTLP as exporters send it.
#![allow(clippy::unwrap_used, reason = "tests")]

use http::HeaderValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;
use prost::Message;

use super::*;

fn workload() -> SpiffeId {
    "spiffe://video.example/service/api".parse().unwrap()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn request() -> ExportTraceServiceRequest {
    let span = wire::Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        parent_span_id: vec![0xef; 8],
        name: "SELECT videos".to_owned(),
        kind: 3,
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        attributes: vec![
            attribute("db.system", "sqlite"),
            attribute("palisade.workload", "spiffe://video.example/role/edge"),
            attribute("resource.palisade.workload", "spiffe://video.example/role/edge"),
            attribute("palisade.decision", "allow"),
        ],
        status: Some(wire::Status { message: "busy".to_owned(), code: 2 }),
        ..wire::Span::default()
    };
    let resource =
        Resource { attributes: vec![attribute("service.name", "edge"), attribute("palisade.workload", "x")], ..Resource::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![wire::ScopeSpans { spans: vec![span], ..wire::ScopeSpans::default() }],
            ..wire::ResourceSpans::default()
        }],
    }
}

// J2: both encodings say the same, and a service cannot claim another's name.
#[test]
fn spans_in_protobuf_and_json_are_the_same_and_keep_their_senders_name() {
    let protobuf = spans(Encoding::Protobuf, &request().encode_to_vec().into(), &workload()).unwrap();
    let json = spans(Encoding::Json, &serde_json::to_vec(&request()).unwrap().into(), &workload()).unwrap();
    assert_eq!(protobuf, json);
    let span = &protobuf[0];
    assert_eq!((span.trace.as_str(), span.span.as_str(), span.parent.as_str()), (&*"ab".repeat(16), &*"cd".repeat(8), &*"ef".repeat(8)));
    assert_eq!((span.kind.as_str(), span.status, span.start_ns, span.end_ns), ("client", 500, 5, 9));
    assert_eq!(span.attributes["palisade.workload"], "spiffe://video.example/service/api");
    assert_eq!(span.attributes["resource.palisade.workload"], "spiffe://video.example/service/api", "nor by way of its resource");
    assert!(!span.attributes.contains_key("palisade.decision"), "what is called ours is ours");
    assert_eq!(span.attributes["resource.service.name"], "edge");
}

// J2: JSON as the specification's own example has it (hexadecimal ids, 64-bit numbers as text).
#[test]
fn the_specifications_json_example_is_read() {
    let text = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
      "scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0"},"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C",
      "spanId":"EEE19B7EC3C1B174","parentSpanId":"EEE19B7EC3C1B173","name":"I'm a server span","startTimeUnixNano":"1544712660000000000",
      "endTimeUnixNano":"1544712661000000000","kind":2,"attributes":[{"key":"my.span.attr","value":{"stringValue":"some value"}}]}]}]}]}"#;
    let spans = spans(Encoding::Json, &Bytes::from(text), &workload()).unwrap();
    assert_eq!((spans[0].trace.as_str(), spans[0].kind.as_str()), ("5b8efff798038103d269b633813fc60c", "server"));
    assert_eq!(spans[0].end_ns - spans[0].start_ns, 1_000_000_000);
}

#[test]
fn what_is_not_otlp_or_compressed_is_refused_with_what_to_do() {
    assert!(spans(Encoding::Protobuf, &Bytes::from_static(b"\xff\xff"), &workload()).is_err());
    assert!(spans(Encoding::Json, &Bytes::from_static(b"[]x"), &workload()).is_err());
    let mut headers = HeaderMap::new();
    assert!(encoding(&headers).is_err());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    assert_eq!(encoding(&headers).unwrap(), Encoding::Json);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert_eq!(encoding(&headers).unwrap_err().status(), 415);
}

// J1, J2: metrics of a service become families of its own.
#[test]
fn metrics_become_labelled_families_under_service() {
    let text = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
      {"name":"videos.started","description":"Videos begun","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"asInt":"3","attributes":[{"key":"codec","value":{"stringValue":"h\"264"}}]}]}},
      {"name":"queue.depth","gauge":{"dataPoints":[{"asDouble":1.5}]}},
      {"name":"work.seconds","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}}]}]}]}"#;
    let rendered = metrics(Encoding::Json, &Bytes::from(text)).unwrap();
    let told = exposition::Told { workload: "service/api", process: "otlp", text: &rendered };
    let (merged, refused) = exposition::merge(&[told], exposition::Style::Prometheus, &std::collections::BTreeSet::new());
    assert_eq!(refused, 0, "{rendered}");
    for line in [
        "# TYPE service_videos_started_total counter",
        "service_videos_started_total{workload=\"service/api\",process=\"otlp\",codec=\"h\\\"264\"} 3",
        "service_queue_depth{workload=\"service/api\",process=\"otlp\"} 1.5",
        "service_work_seconds_bucket{workload=\"service/api\",process=\"otlp\",le=\"+Inf\"} 3",
        "service_work_seconds_count{workload=\"service/api\",process=\"otlp\"} 3",
    ] {
        assert!(merged.lines().any(|l| l == line), "{line} not in\n{merged}");
    }
}
