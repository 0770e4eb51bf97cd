//! The recorder: what every room and every enforcement point is given in order to say what happened.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use trust::{AuditRecord, Clock, Entropy, Span, TraceContext};

use crate::event::{Event, Level};
use crate::metrics::Metrics;

/// The audit record could not be kept; the act must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit record could not be kept")]
pub struct AuditLost;

/// Where records go. `seq` is the sink's to number.
pub trait Sink: Send + Sync + fmt::Debug + 'static {
    /// Keeps a record so that it survives the death of this process, before this returns.
    ///
    /// # Errors
    /// `AuditLost` when it could not.
    fn audit(&self, record: AuditRecord) -> Result<(), AuditLost>;
    /// Takes a span, or drops it (and counts that) when too many wait.
    fn span(&self, span: Span);
}

/// Says what happened.
#[derive(Debug, Clone)]
pub struct Recorder {
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
}

/// A span under way.
#[derive(Debug, Clone)]
pub struct SpanStart {
    /// Its own context: parent of whatever it causes.
    pub context: TraceContext,
    parent: Option<u64>,
    start_ns: u64,
}

impl Recorder {
    /// A recorder that writes to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, metrics: Arc<Metrics>) -> Self {
        Self { sink, clock, entropy, metrics }
    }

    /// Records an event: log line, metric and, where its type says so, audit record.
    ///
    /// # Errors
    /// `AuditLost` for an audited event that could not be kept: the caller refuses the act (`DenyReason::AuditUnavailable`).
    pub fn record<E: Event>(&self, trace: Option<TraceContext>, event: &E) -> Result<(), AuditLost> {
        let fields = match serde_json::to_value(event) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let line = serde_json::Value::Object(fields.clone());
        match event.level() {
            Level::Debug => tracing::debug!(event = E::NAME, fields = %line),
            Level::Info => tracing::info!(event = E::NAME, fields = %line),
            Level::Warn => tracing::warn!(event = E::NAME, fields = %line),
            Level::Error => tracing::error!(event = E::NAME, fields = %line),
        }
        event.count(&self.metrics);
        if !E::AUDITED {
            return Ok(());
        }
        self.sink.audit(AuditRecord {
            seq: 0,
            at_ms: self.clock.unix_ms(),
            event: E::NAME.to_owned(),
            trace: trace.map(|t| t.trace_hex()).unwrap_or_default(),
            span: trace.map(|t| t.span_hex()).unwrap_or_default(),
            fields,
        })
    }

    /// Starts a span under `parent`, or a new trace.
    #[must_use]
    pub fn start(&self, parent: Option<TraceContext>) -> SpanStart {
        let context = parent.map_or_else(|| TraceContext::root(&*self.entropy), |p| p.child(&*self.entropy));
        SpanStart { context, parent: parent.map(|p| p.span_id), start_ns: self.clock.unix_ns() }
    }

    /// Ends a span and hands it on.
    pub fn end(&self, start: &SpanStart, name: &str, kind: &str, status: u16, attributes: Map<String, Value>) {
        self.sink.span(Span {
            trace: start.context.trace_hex(),
            span: start.context.span_hex(),
            parent: start.parent.map(|p| format!("{p:016x}")).unwrap_or_default(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            start_ns: start.start_ns,
            end_ns: self.clock.unix_ns(),
            status,
            attributes,
        });
    }

    /// The process's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// A sink that keeps everything in memory, for tests of rooms.
#[derive(Debug, Default)]
pub struct MemorySink {
    /// Audit records, in order.
    pub audit: std::sync::Mutex<Vec<AuditRecord>>,
    /// Spans, in order.
    pub spans: std::sync::Mutex<Vec<Span>>,
}

impl Sink for MemorySink {
    fn audit(&self, mut record: AuditRecord) -> Result<(), AuditLost> {
        let mut kept = self.audit.lock().map_err(|_| AuditLost)?;
        record.seq = u64::try_from(kept.len()).map_err(|_| AuditLost)?.saturating_add(1);
        kept.push(record);
        Ok(())
    }
    fn span(&self, span: Span) {
        if let Ok(mut kept) = self.spans.lock() {
            kept.push(span);
        }
    }
}
