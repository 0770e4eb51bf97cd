//! Spans of a trace: how long a step of the work took, for whoever collects traces.
//!
//! Spec:       OTLP 1.x over HTTP with JSON encoding, `POST /v1/traces`.
//! Guarantees: J1 best effort only: a collector that is absent, slow or broken never delays or fails the work.
//! Not here:   sampling, batching, metrics.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    client::{Call, Client},
    context::Context,
};

/// Sends spans to `OTEL_EXPORTER_OTLP_ENDPOINT`, if it is set.
#[derive(Clone)]
pub struct Tracer {
    client: Client,
    endpoint: Option<String>,
    service: &'static str,
}

/// A step that is under way.
pub struct Span {
    context: Context,
    name: &'static str,
    id: String,
    start_ns: i128,
    attributes: Vec<Value>,
}

impl Span {
    /// Notes something about the step.
    pub fn note(&mut self, key: &str, value: impl Into<String>) {
        self.attributes.push(json!({ "key": key, "value": { "stringValue": value.into() } }));
    }
}

impl Tracer {
    /// A tracer for one service; without an endpoint it sends nothing.
    #[must_use]
    pub fn new(client: Client, endpoint: Option<String>, service: &'static str) -> Self {
        Self { client, endpoint, service }
    }

    /// Begins a step of the request that `context` came from.
    #[must_use]
    pub fn begin(&self, context: &Context, name: &'static str) -> Span {
        let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(16).collect();
        Span { context: context.clone(), name, id, start_ns: now_ns(), attributes: Vec::new() }
    }

    /// Ends a step, `error` saying how it failed if it did, and sends it in the background.
    pub fn end(&self, span: Span, error: Option<&str>) {
        let (Some(endpoint), Some((trace, parent))) = (&self.endpoint, span.context.trace()) else { return };
        let body = export(self.service, &span, (&trace, &parent), now_ns(), error);
        let mut call = Call::new(Method::POST, format!("{endpoint}/v1/traces")).json(&body);
        call.limit = Duration::from_secs(2);
        let client = self.client.clone();
        tokio::spawn(async move {
            // Best effort: an unsent span is not worth a word.
            let _unsent = client.fetch(&span.context, call, 64 * 1024).await;
        });
    }
}

/// One `ExportTraceServiceRequest` with one span.
fn export(service: &str, span: &Span, (trace, parent): (&str, &str), end_ns: i128, error: Option<&str>) -> Value {
    let status = match error {
        None => json!({ "code": 1, "message": "" }),
        Some(message) => json!({ "code": 2, "message": message }),
    };
    json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
        "scopeSpans": [{
            "scope": { "name": service, "version": env!("CARGO_PKG_VERSION") },
            "spans": [{
                "traceId": trace, "spanId": span.id, "parentSpanId": parent, "traceState": "",
                "name": span.name, "kind": 1,
                "startTimeUnixNano": span.start_ns.to_string(), "endTimeUnixNano": end_ns.to_string(),
                "attributes": span.attributes, "status": status,
            }],
        }],
    }] })
}

fn now_ns() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos()
}
