//! The recorder: what every room and every enforcement point is given in order to say what happened.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use trust::{AuditRecord, Clock, Entropy, Span, TraceContext};

use crate::access::{Access, AccessSink};
use crate::event::{Event, Level};
use crate::gather::Gather;
use crate::ids::Store;
use crate::metrics::Metrics;

/// Most records' fields fit, and most spans' attributes: longer ones grow.
const FIELDS_BYTES: usize = 512;
const ATTRIBUTES_BYTES: usize = 768;

/// The audit record could not be kept; the act must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit record could not be kept")]
pub struct AuditLost;

/// A record on its way to the sink, which numbers it.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// Noun and past verb.
    pub event: &'a str,
    /// The span that it belongs to.
    pub trace: Option<TraceContext>,
    /// What else the event says: a JSON object.
    pub fields: &'a str,
}

/// A span on its way to the sink.
#[derive(Debug, Clone, Copy)]
pub struct NewSpan<'a> {
    /// Its own context.
    pub context: TraceContext,
    /// Parent span.
    pub parent: Option<u64>,
    /// `guard GET /api/videos`…
    pub name: &'a str,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'a str,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// HTTP status, 0 if none.
    pub status: u16,
    /// Attributes: a JSON object.
    pub attributes: &'a str,
}

/// Where records go. Both come with their variable part written as JSON already, so that it is written once.
pub trait Sink: Send + Sync + fmt::Debug + 'static {
    /// Keeps a record so that it survives the death of this process, before this returns.
    ///
    /// # Errors
    /// `AuditLost` when it could not.
    fn audit(&self, record: NewRecord<'_>) -> Result<(), AuditLost>;
    /// Takes a span, or drops it (and counts that) when too many wait.
    fn span(&self, span: NewSpan<'_>);
}

impl NewRecord<'_> {
    /// Its line in a spool: an `AuditRecord` with that number, as JSON.
    #[must_use]
    pub fn to_json(&self, seq: u64) -> String {
        let mut out = String::with_capacity(self.fields.len().saturating_add(192));
        // Event names are constants of ours and the hexadecimal digits need no escapes. Writing into a String does not fail.
        let _written = write!(out, r#"{{"seq":{seq},"at_ms":{},"event":"{}","trace":""#, self.at_ms, self.event);
        let _written = match self.trace {
            Some(trace) => write!(out, r#"{:032x}","span":"{:016x}"#, trace.trace_id, trace.span_id),
            None => out.write_str(r#"","span":""#),
        };
        out.push_str(r#"","fields":"#);
        out.push_str(self.fields);
        out.push('}');
        out
    }
}

impl NewSpan<'_> {
    /// A `Span` as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.attributes.len().saturating_add(self.name.len()).saturating_add(256));
        let (trace, span) = (self.context.trace_id, self.context.span_id);
        let _written = write!(out, r#"{{"trace":"{trace:032x}","span":"{span:016x}","parent":""#);
        if let Some(parent) = self.parent {
            let _written = write!(out, "{parent:016x}");
        }
        // Names hold routes of the manifest, which may need escapes.
        let name = serde_json::to_string(self.name).unwrap_or_else(|_| r#""""#.to_owned());
        let _written = write!(
            out,
            r#"","name":{name},"kind":"{}","start_ns":{},"end_ns":{},"status":{},"attributes":"#,
            self.kind, self.start_ns, self.end_ns, self.status
        );
        out.push_str(self.attributes);
        out.push('}');
        out
    }
}

/// As JSON, in a text that is long enough from the start.
fn written<T: Serialize>(value: &T, bytes: usize) -> Option<String> {
    let mut out = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut out, value).ok()?;
    String::from_utf8(out).ok()
}

/// Says what happened.
#[derive(Debug, Clone)]
pub struct Recorder {
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    ids: Arc<Store>,
    metrics: Arc<Metrics>,
    /// Where what was asked is told, at doors that have an access log.
    access: Option<Arc<dyn AccessSink>>,
    gather: Arc<Mutex<Gather>>,
    /// Whether anything is gathered and not yet told.
    waits: Arc<AtomicBool>,
}

/// A span under way.
#[derive(Debug, Clone)]
pub struct SpanStart {
    /// Its own context: parent of whatever it causes.
    pub context: TraceContext,
    parent: Option<u64>,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
}

impl Recorder {
    /// A recorder that writes to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, metrics: Arc<Metrics>) -> Self {
        Self { sink, clock, ids: Arc::new(Store::new(entropy)), metrics, access: None, gather: Arc::default(), waits: Arc::default() }
    }

    /// The same, with an access log.
    #[must_use]
    pub fn with_access_log(self, sink: Arc<dyn AccessSink>) -> Self {
        Self { access: Some(sink), ..self }
    }

    /// Whether there is an access log.
    #[must_use]
    pub fn has_access_log(&self) -> bool {
        self.access.is_some()
    }

    /// Tells the access log, if there is one.
    pub fn access(&self, access: Access) {
        if let Some(sink) = &self.access {
            sink.take(access);
        }
    }

    /// Records an event: log line, metric and, where its type says so, audit record. A refusal that is one of a flood is counted instead
    /// (`gather`).
    ///
    /// # Errors
    /// `AuditLost` for an audited event that could not be kept: the caller refuses the act (`DenyReason::AuditUnavailable`).
    pub fn record<E: Event>(&self, trace: Option<TraceContext>, event: &E) -> Result<(), AuditLost> {
        self.tell_gathered(false);
        event.count(&self.metrics);
        if let Some((point, principal)) = event.refusal()
            && !self.gather().singly(point, principal, E::NAME, self.now_ms())
        {
            self.waits.store(true, Ordering::Release);
            return Ok(());
        }
        self.keep(trace, event)
    }

    /// Records the counts of refusals that have waited long enough, or all of them: for a process that ends. A count that cannot be kept
    /// waits for the next time. The assembly calls it from time to time, so that a flood's last count is told when nothing else happens.
    pub fn tell_gathered(&self, all: bool) {
        if !self.waits.load(Ordering::Acquire) {
            return;
        }
        let mut gather = self.gather();
        for event in gather.due(self.now_ms(), all) {
            if self.keep(None, &event).is_ok() {
                event.count(&self.metrics);
                gather.told(&event);
            }
        }
        self.waits.store(gather.waits(), Ordering::Release);
    }

    fn gather(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn keep<E: Event>(&self, trace: Option<TraceContext>, event: &E) -> Result<(), AuditLost> {
        // Events are plain structures of ours; one that cannot be written could not be kept either.
        let fields = written(event, FIELDS_BYTES).ok_or(AuditLost)?;
        match event.level() {
            Level::Debug => tracing::debug!(event = E::NAME, fields),
            Level::Info => tracing::info!(event = E::NAME, fields),
            Level::Warn => tracing::warn!(event = E::NAME, fields),
            Level::Error => tracing::error!(event = E::NAME, fields),
        }
        if !E::AUDITED {
            return Ok(());
        }
        self.sink.audit(NewRecord { at_ms: self.clock.unix_ms(), event: E::NAME, trace, fields: &fields })
    }

    /// Starts a span under `parent`, or a new trace.
    #[must_use]
    pub fn start(&self, parent: Option<TraceContext>) -> SpanStart {
        let context = parent.map_or_else(|| TraceContext::root(&*self.ids), |p| p.child(&*self.ids));
        SpanStart { context, parent: parent.map(|p| p.span_id), start_ns: self.clock.unix_ns() }
    }

    /// Ends a span and hands it on. `attributes` is written as a JSON object.
    pub fn end<A: Serialize>(&self, start: &SpanStart, name: &str, kind: &str, status: u16, attributes: &A) {
        // Attributes are texts and numbers of ours; a span without them is better than none.
        let attributes = written(attributes, ATTRIBUTES_BYTES).unwrap_or_else(|| "{}".to_owned());
        self.sink.span(NewSpan {
            context: start.context,
            parent: start.parent,
            name,
            kind,
            start_ns: start.start_ns,
            end_ns: self.clock.unix_ns(),
            status,
            attributes: &attributes,
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
    fn audit(&self, record: NewRecord<'_>) -> Result<(), AuditLost> {
        let mut kept = self.audit.lock().map_err(|_| AuditLost)?;
        let seq = u64::try_from(kept.len()).map_err(|_| AuditLost)?.saturating_add(1);
        kept.push(serde_json::from_str(&record.to_json(seq)).map_err(|_| AuditLost)?);
        Ok(())
    }
    fn span(&self, span: NewSpan<'_>) {
        if let (Ok(mut kept), Ok(span)) = (self.spans.lock(), serde_json::from_str(&span.to_json())) {
            kept.push(span);
        }
    }
}
