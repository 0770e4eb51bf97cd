//! OTLP out: every span goes on to a collector, if the assembly gives a way to one.
//!
//! Best effort: a bounded queue; what does not fit, or is not taken after a few tries, is dropped and counted. The collector never holds
//! up a request, and never gets audit records.
//!
//! Spec:       OTLP 1.9, "OTLP/HTTP" with protobuf; retried on 429, 502, 503, 504 and broken connections only.
//! Guarantees: J2 (out). Spans carry the workload that evidence verified, as `palisade.workload`.

use std::time::Duration;

use contract::{Call, Client, body};
use http::{Method, Request, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;
use prost::Message;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use trust::{Fault, Span, SpiffeId};

const BATCHES_MAX: usize = 256;
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Takes spans and sends them on.
#[derive(Debug, Clone)]
pub struct Forward {
    queue: mpsc::Sender<Vec<u8>>,
}

impl Forward {
    /// Starts to send to `collector`. `lost` hears of each batch that could not be sent.
    #[must_use]
    pub fn start(collector: Client, lost: impl Fn() + Send + 'static) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(BATCHES_MAX);
        tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                if !delivered(&collector, &message).await {
                    lost();
                }
            }
        });
        Self { queue }
    }

    /// Takes spans of `workload`; whether there was room.
    #[must_use]
    pub fn offer(&self, workload: &SpiffeId, spans: &[Span]) -> bool {
        spans.is_empty() || self.queue.try_send(request(workload, spans).encode_to_vec()).is_ok()
    }
}

async fn delivered(collector: &Client, message: &[u8]) -> bool {
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=TRIES {
        match tokio::time::timeout(TIMEOUT, sent(collector, message)).await {
            Ok(Ok(200..=299)) => return true,
            Ok(Ok(429 | 502 | 503 | 504) | Err(_)) | Err(_) if attempt < TRIES => tokio::time::sleep(pause).await,
            _ => return false,
        }
        pause = pause.saturating_mul(2);
    }
    false
}

async fn sent(collector: &Client, message: &[u8]) -> Result<u16, Fault> {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/traces")
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(body::full(message.to_vec()))
        .map_err(Fault::internal)?;
    let answer = collector.send(&Call::default(), request).await?;
    Ok(answer.status().as_u16())
}

fn request(workload: &SpiffeId, spans: &[Span]) -> ExportTraceServiceRequest {
    let name = workload.workload.name().to_owned();
    let resource = [("service.name", name), ("palisade.workload", workload.to_string())].map(|(k, v)| pair(k, &Value::from(v)));
    let scope = InstrumentationScope { name: "palisade".to_owned(), ..InstrumentationScope::default() };
    let spans = spans.iter().filter_map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(Resource { attributes: resource.to_vec(), ..Resource::default() }),
            scope_spans: vec![wire::ScopeSpans { scope: Some(scope), spans, ..wire::ScopeSpans::default() }],
            ..wire::ResourceSpans::default()
        }],
    }
}

/// The span on the wire; nothing for one whose ids are no ids, which a collector would refuse the whole request for.
fn span(span: &Span) -> Option<wire::Span> {
    let id = |text: &str, bytes: usize| hex::decode(text).ok().filter(|id| id.len() == bytes);
    let (failed, kind) = (span.status >= 500, kind_of(&span.kind));
    let mut attributes: Map<String, Value> = span.attributes.clone();
    if span.status > 0 {
        attributes.entry("http.response.status_code").or_insert_with(|| Value::from(span.status));
    }
    Some(wire::Span {
        trace_id: id(&span.trace, 16)?,
        span_id: id(&span.span, 8)?,
        parent_span_id: id(&span.parent, 8).unwrap_or_default(),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: attributes.iter().map(|(name, value)| pair(name, value)).collect(),
        status: failed.then(|| wire::Status { message: String::new(), code: wire::status::StatusCode::Error.into() }),
        ..wire::Span::default()
    })
}

fn kind_of(kind: &str) -> wire::span::SpanKind {
    match kind {
        "server" => wire::span::SpanKind::Server,
        "client" => wire::span::SpanKind::Client,
        "producer" => wire::span::SpanKind::Producer,
        "consumer" => wire::span::SpanKind::Consumer,
        _ => wire::span::SpanKind::Internal,
    }
}

fn pair(name: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Bool(flag) => any_value::Value::BoolValue(*flag),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| any_value::Value::DoubleValue(number.as_f64().unwrap_or_default()), any_value::Value::IntValue)
        }
        Value::String(text) => any_value::Value::StringValue(text.clone()),
        other => any_value::Value::StringValue(other.to_string()),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use contract::{Body, Transport};
    use http::{Response, StatusCode};
    use serde_json::json;

    use super::*;
    use crate::otlp::{self, Encoding};

    /// A collector that is busy the first `busy` times.
    #[derive(Debug, Default)]
    struct Collector {
        busy: Mutex<u32>,
        answer: u16,
        got: Mutex<Vec<bytes::Bytes>>,
    }

    #[async_trait]
    impl Transport for Collector {
        async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
            assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/traces"));
            assert_eq!(otlp::encoding(request.headers()).unwrap(), Encoding::Protobuf);
            let sent = body::collect(request.into_body(), otlp::BODY_BYTES_MAX).await?;
            let mut busy = self.busy.lock().unwrap();
            if *busy > 0 {
                *busy -= 1;
                return Ok(body::plain(StatusCode::SERVICE_UNAVAILABLE));
            }
            self.got.lock().unwrap().push(sent);
            Ok(body::plain(StatusCode::from_u16(self.answer).unwrap()))
        }
    }

    fn one() -> Span {
        let attributes =
            [("user", json!("ada")), ("epoch", json!(42)), ("cold", json!(true))].into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Span {
            trace: "0af7651916cd43dd8448eb211c80319c".into(),
            span: "b7ad6b7169203331".into(),
            parent: "00f067aa0ba902b7".into(),
            name: "accept".into(),
            kind: "consumer".into(),
            start_ns: 5,
            end_ns: 9,
            status: 502,
            attributes,
        }
    }

    async fn run(busy: u32, answer: u16) -> (Arc<Collector>, u32) {
        let collector = Arc::new(Collector { busy: Mutex::new(busy), answer, got: Mutex::default() });
        let lost = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&lost);
        let forward = Forward::start(Client::new(Arc::clone(&collector) as _), move || *counted.lock().unwrap() += 1);
        let broken = Span { trace: "x".into(), ..one() };
        assert!(forward.offer(&"spiffe://v/service/api".parse().unwrap(), &[one(), broken]));
        for _ in 0..400 {
            if !collector.got.lock().unwrap().is_empty() || *lost.lock().unwrap() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let lost = *lost.lock().unwrap();
        (collector, lost)
    }

    // J2: what goes out reads, by the rules of what comes in, as what it was.
    #[tokio::test]
    async fn a_collector_gets_the_span_as_it_was_also_when_busy_at_first() {
        let (collector, lost) = run(1, 200).await;
        let got = collector.got.lock().unwrap();
        let spans = otlp::spans(Encoding::Protobuf, &got[0], &"spiffe://v/service/api".parse().unwrap()).unwrap();
        assert_eq!((spans.len(), lost), (1, 0));
        let mut expect = one();
        for (name, value) in [
            ("http.response.status_code", json!(502)),
            ("palisade.workload", json!("spiffe://v/service/api")),
            ("resource.service.name", json!("api")),
            ("resource.palisade.workload", json!("spiffe://v/service/api")),
        ] {
            expect.attributes.insert(name.to_owned(), value);
        }
        assert_eq!(spans[0], expect);
    }

    #[tokio::test]
    async fn a_batch_that_the_collector_refuses_is_counted_as_lost_and_not_sent_again() {
        let (collector, lost) = run(0, 400).await;
        assert_eq!((collector.got.lock().unwrap().len(), lost), (1, 1));
    }
}
