//! OTLP over HTTP, in: what services tell about themselves, in protobuf or JSON.
//!
//! A service speaks through its guard, so who it is was proved by the connection: every attribute `palisade.…` that it claims, of a
//! span or of its resource, is dropped, and a span is kept under the workload that sent it, whatever it calls itself.
//!
//! Spec:       OTLP 1.9, "OTLP/HTTP": `application/x-protobuf` and `application/json`, the answer in the same encoding.
//! Guarantees: J2 (in), J5 in part. Not here: gzip (refused with 415: exporters do not compress unless told to), OTLP out (`forward`).

use std::fmt::Write;

use bytes::Bytes;
use contract::body::{self, Body};
use http::{HeaderMap, Response, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric, number_data_point};
use serde_json::{Map, Value};
use trust::{Fault, Span, SpiffeId};

use crate::exposition;
use crate::index::{ATTRIBUTES_MAX, LogLine};

/// Largest request, in bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
const ITEMS_MAX: usize = 10_000;
const DEPTH_MAX: u32 = 4;
const PROTOBUF: &str = "application/x-protobuf";

/// How a request is encoded, and its answer will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// The encoding that the headers name.
///
/// # Errors
/// The answer to give: 415 for a compressed body or another media type.
pub fn encoding(headers: &HeaderMap) -> Result<Encoding, Box<Response<Body>>> {
    let refuse = |text: &str| {
        let error = serde_json::json!({ "error": text });
        Err(Box::new(body::json(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error)))
    };
    let compressed = headers.get(header::CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if compressed {
        return refuse("send it uncompressed: OTEL_EXPORTER_OTLP_COMPRESSION=none");
    }
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).and_then(|v| v.split(';').next()).map(str::trim);
    match media {
        Some(PROTOBUF) => Ok(Encoding::Protobuf),
        Some("application/json") => Ok(Encoding::Json),
        _ => refuse("send application/x-protobuf or application/json: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf or http/json"),
    }
}

fn decoded<T: prost::Message + Default + serde::de::DeserializeOwned>(encoding: Encoding, bytes: &Bytes) -> Result<T, Fault> {
    match encoding {
        Encoding::Protobuf => T::decode(bytes.clone()).map_err(|e| Fault::bad_request(format!("the body is not OTLP: {e}"))),
        Encoding::Json => serde_json::from_slice(bytes).map_err(|e| Fault::bad_request(format!("the body is not OTLP: {e}"))),
    }
}

fn answer<T: prost::Message>(encoding: Encoding, message: &T) -> Response<Body> {
    match encoding {
        Encoding::Protobuf => body::with_type(StatusCode::OK, PROTOBUF, message.encode_to_vec()),
        // All was taken, and then `partial_success` must be left unset: an empty message.
        Encoding::Json => body::json(StatusCode::OK, &serde_json::json!({})),
    }
}

/// The answer to traces taken.
#[must_use]
pub fn traces_taken(encoding: Encoding) -> Response<Body> {
    answer(encoding, &ExportTraceServiceResponse { partial_success: None })
}

/// The answer to logs taken.
#[must_use]
pub fn logs_taken(encoding: Encoding) -> Response<Body> {
    answer(encoding, &ExportLogsServiceResponse { partial_success: None })
}

/// The answer to metrics taken.
#[must_use]
pub fn metrics_taken(encoding: Encoding) -> Response<Body> {
    answer(encoding, &ExportMetricsServiceResponse { partial_success: None })
}

/// The spans of a request of `workload`, and the name of its instance.
///
/// # Errors
/// `BadRequest` when it is not OTLP.
pub fn spans(encoding: Encoding, bytes: &Bytes, workload: &SpiffeId) -> Result<Vec<Span>, Fault> {
    let request: ExportTraceServiceRequest = decoded(encoding, bytes)?;
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.map(|r| r.attributes).unwrap_or_default();
        for span in resource_spans.scope_spans.into_iter().flat_map(|s| s.spans).take(ITEMS_MAX) {
            let mut attributes = flat(&span.attributes);
            let status = status_of(&attributes, span.status.as_ref().map(|s| s.code));
            for (name, value) in flat(&resource) {
                attributes.entry(format!("resource.{name}")).or_insert(value);
            }
            // Names of ours mean what we put there, whatever the service claims.
            attributes.retain(|name, _| !name.starts_with("palisade.") && !name.starts_with("resource.palisade."));
            for name in ["palisade.workload", "resource.palisade.workload"] {
                attributes.insert(name.to_owned(), Value::from(workload.to_string()));
            }
            if let Some(message) = span.status.map(|s| s.message).filter(|m| !m.is_empty()) {
                attributes.insert("status.message".to_owned(), Value::from(message));
            }
            spans.push(Span {
                trace: hex::encode(&span.trace_id),
                span: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                name: span.name,
                kind: kind_of(span.kind).to_owned(),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano.max(span.start_time_unix_nano),
                status,
                attributes,
            });
        }
    }
    Ok(spans)
}

/// The log lines of a request.
///
/// # Errors
/// `BadRequest` when it is not OTLP.
pub fn lines(encoding: Encoding, bytes: &Bytes) -> Result<Vec<LogLine>, Fault> {
    let request: ExportLogsServiceRequest = decoded(encoding, bytes)?;
    let records = request.resource_logs.into_iter().flat_map(|r| r.scope_logs).flat_map(|s| s.log_records).take(ITEMS_MAX);
    let line = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| {
        let body = record.body.as_ref().map_or(Value::Null, |b| value_of(b, 0));
        LogLine {
            trace: hex::encode(&record.trace_id),
            at_ns: if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano },
            severity: record.severity_text,
            body: body.as_str().map_or_else(|| body.to_string(), str::to_owned),
        }
    };
    Ok(records.map(line).collect())
}

/// The metrics of a request as OpenMetrics text; names become `service_…`, so that none can pass for one of Palisade's.
///
/// # Errors
/// `BadRequest` when it is not OTLP.
pub fn metrics(encoding: Encoding, bytes: &Bytes) -> Result<String, Fault> {
    let request: ExportMetricsServiceRequest = decoded(encoding, bytes)?;
    let all = request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics).take(ITEMS_MAX);
    let mut text = String::new();
    for metric in all {
        render(&metric, &mut text);
    }
    Ok(text)
}

fn render(metric: &Metric, out: &mut String) {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let name = format!("service_{}", metric.name.chars().map(legal).collect::<String>().trim_end_matches("_total"));
    let help = metric.description.lines().next().unwrap_or_default();
    let mut head = |kind: &str| {
        // Writing into a String does not fail.
        let _ = writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {help}");
    };
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => {
            head("gauge");
            numbers(&name, &gauge.data_points, out);
        }
        Some(metric::Data::Sum(sum)) if sum.is_monotonic => {
            head("counter");
            numbers(&format!("{name}_total"), &sum.data_points, out);
        }
        Some(metric::Data::Sum(sum)) => {
            head("gauge");
            numbers(&name, &sum.data_points, out);
        }
        Some(metric::Data::Histogram(histogram)) => {
            head("histogram");
            for point in &histogram.data_points {
                let labels = labels_of(&point.attributes);
                let comma = if labels.is_empty() { "" } else { "," };
                let mut below = 0_u64;
                for (at, count) in point.bucket_counts.iter().enumerate() {
                    below = below.saturating_add(*count);
                    let bound = point.explicit_bounds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
                }
                let _ = writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}", point.sum.unwrap_or_default(), point.count);
            }
        }
        // Exponential histograms and summaries have no form in the text format, or an outdated one.
        _ => {}
    }
}

fn numbers(name: &str, points: &[NumberDataPoint], out: &mut String) {
    for point in points {
        let labels = labels_of(&point.attributes);
        // Writing into a String does not fail.
        let _ = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => writeln!(out, "{name}{{{labels}}} {value}"),
            Some(number_data_point::Value::AsInt(value)) => writeln!(out, "{name}{{{labels}}} {value}"),
            None => Ok(()),
        };
    }
}

fn labels_of(attributes: &[KeyValue]) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let mut labels = Vec::new();
    for (name, value) in flat(attributes).into_iter().take(16) {
        let name = name.chars().map(legal).collect::<String>();
        let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        labels.push(format!("{name}=\"{}\"", exposition::escaped(&value)));
    }
    labels.join(",")
}

fn flat(attributes: &[KeyValue]) -> Map<String, Value> {
    let value = |kv: &KeyValue| kv.value.as_ref().map_or(Value::Null, |v| value_of(v, 0));
    attributes.iter().take(ATTRIBUTES_MAX).map(|kv| (kv.key.clone(), value(kv))).collect()
}

fn value_of(value: &AnyValue, depth: u32) -> Value {
    let deeper = depth.saturating_add(1);
    match &value.value {
        _ if depth > DEPTH_MAX => Value::Null,
        Some(any_value::Value::StringValue(text)) => Value::from(text.as_str()),
        Some(any_value::Value::BoolValue(flag)) => Value::from(*flag),
        Some(any_value::Value::IntValue(number)) => Value::from(*number),
        Some(any_value::Value::DoubleValue(number)) => Value::from(*number),
        Some(any_value::Value::ArrayValue(all)) => all.values.iter().map(|v| value_of(v, deeper)).collect(),
        Some(any_value::Value::KvlistValue(all)) => {
            all.values.iter().map(|kv| (kv.key.clone(), kv.value.as_ref().map_or(Value::Null, |v| value_of(v, deeper)))).collect()
        }
        Some(any_value::Value::BytesValue(bytes)) => Value::from(format!("{} bytes", bytes.len())),
        Some(any_value::Value::StringValueStrindex(_)) | None => Value::Null,
    }
}

fn kind_of(kind: i32) -> &'static str {
    match kind {
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "internal",
    }
}

fn status_of(attributes: &Map<String, Value>, code: Option<i32>) -> u16 {
    const ERROR: i32 = 2;
    let http = ["http.response.status_code", "http.status_code"].iter().find_map(|name| attributes.get(*name)).and_then(Value::as_u64);
    match http.and_then(|status| u16::try_from(status).ok()) {
        Some(status) => status,
        None if code == Some(ERROR) => 500,
        None => 0,
    }
}

#[cfg(test)]
mod tests;
