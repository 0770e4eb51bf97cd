//! The recorder: what every room and every enforcement point is given in order to say what happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use trust::{AuditRecord, Clock, Entropy, Span, TraceContext};

use crate::access::{Access, AccessSink};
use crate::event::{Event, Level};
use crate::gather::Gather;
use crate::ids::Store;
use crate::metrics::Metrics;
use crate::sink::{AuditLost, NewRecord, NewSpan, Sink};

/// Says what happened, and tells the access log what was asked at doors that have one. Cheap to share.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Parts>, Option<Arc<dyn AccessSink>>);

#[derive(Debug)]
struct Parts {
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    ids: Store,
    metrics: Arc<Metrics>,
    gather: Mutex<Gather>,
    /// Whether anything is gathered and not yet told.
    waits: AtomicBool,
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
        let (gather, waits) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Parts { sink, clock, ids: Store::new(entropy), metrics, gather, waits }), None)
    }

    /// The same, with an access log.
    #[must_use]
    pub fn with_access_log(self, sink: Arc<dyn AccessSink>) -> Self {
        Self(self.0, Some(sink))
    }

    /// Whether there is an access log.
    #[must_use]
    pub fn has_access_log(&self) -> bool {
        self.1.is_some()
    }

    /// Tells the access log, if there is one.
    pub fn access(&self, access: &Access<'_>) {
        if let Some(sink) = &self.1 {
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
        event.count(&self.0.metrics);
        if let Some((point, principal)) = event.refusal()
            && !self.gather().singly(point, principal, E::NAME, self.now_ms())
        {
            self.0.waits.store(true, Ordering::Release);
            return Ok(());
        }
        self.keep(trace, event)
    }

    /// Records the counts of refusals that have waited long enough, or all of them: for a process that ends. A count that cannot be kept
    /// waits for the next time. The assembly calls it from time to time, so that a flood's last count is told when nothing else happens.
    pub fn tell_gathered(&self, all: bool) {
        if !self.0.waits.load(Ordering::Acquire) {
            return;
        }
        let mut gather = self.gather();
        for event in gather.due(self.now_ms(), all) {
            if self.keep(None, &event).is_ok() {
                event.count(&self.0.metrics);
                gather.told(&event);
            }
        }
        self.0.waits.store(gather.waits(), Ordering::Release);
    }

    fn gather(&self) -> MutexGuard<'_, Gather> {
        self.0.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn keep<E: Event>(&self, trace: Option<TraceContext>, event: &E) -> Result<(), AuditLost> {
        log(event)?;
        if !E::AUDITED {
            return Ok(());
        }
        self.0.sink.audit(NewRecord { at_ms: self.0.clock.unix_ms(), event: E::NAME, trace, fields: &|out| event.write(out) })
    }

    /// Starts a span under `parent`, or a new trace.
    #[must_use]
    pub fn start(&self, parent: Option<TraceContext>) -> SpanStart {
        let context = parent.map_or_else(|| TraceContext::root(self.0.clock.unix_s(), &self.0.ids), |p| p.child(&self.0.ids));
        SpanStart { context, parent: parent.map(|p| p.span_id), start_ns: self.0.clock.unix_ns() }
    }

    /// Ends a span and hands it on. `attributes` is written as a JSON object.
    pub fn end<A: Serialize>(&self, start: &SpanStart, name: &str, kind: &str, status: u16, attributes: &A) {
        let attributes = |out: &mut Vec<u8>| serde_json::to_writer(out, attributes).map_err(|_| AuditLost);
        self.end_written(start, &[name], kind, status, &attributes);
    }

    /// The same for a name in pieces, and attributes that write themselves.
    pub fn end_written(
        &self,
        start: &SpanStart,
        name: &[&str],
        kind: &str,
        status: u16,
        attributes: &dyn Fn(&mut Vec<u8>) -> Result<(), AuditLost>,
    ) {
        self.0.sink.span(NewSpan {
            context: start.context,
            parent: start.parent,
            name,
            kind,
            start_ns: start.start_ns,
            end_ns: self.0.clock.unix_ns(),
            status,
            attributes,
        });
    }

    /// The process's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }
}

/// The event's line in the log, if anybody listens.
fn log<E: Event>(event: &E) -> Result<(), AuditLost> {
    let level = event.level();
    let listened = match level {
        Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(tracing::Level::INFO),
        Level::Warn => tracing::enabled!(tracing::Level::WARN),
        Level::Error => tracing::enabled!(tracing::Level::ERROR),
    };
    if !listened {
        return Ok(());
    }
    let mut fields = Vec::new();
    event.write(&mut fields)?;
    let fields = String::from_utf8_lossy(&fields);
    let fields = &*fields;
    match level {
        Level::Debug => tracing::debug!(event = E::NAME, fields),
        Level::Info => tracing::info!(event = E::NAME, fields),
        Level::Warn => tracing::warn!(event = E::NAME, fields),
        Level::Error => tracing::error!(event = E::NAME, fields),
    }
    Ok(())
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
        let mut line = Vec::new();
        record.write(seq, &mut line)?;
        kept.push(serde_json::from_slice(&line).map_err(|_| AuditLost)?);
        Ok(())
    }
    fn span(&self, span: NewSpan<'_>) {
        let mut line = Vec::new();
        span.write(&mut line);
        if let (Ok(mut kept), Ok(span)) = (self.spans.lock(), serde_json::from_slice(&line)) {
            kept.push(span);
        }
    }
}
