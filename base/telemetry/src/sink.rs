//! Where records and spans go: the process's spool, or a memory in tests.
//!
//! What they say writes itself straight into the sink's own buffer, so nothing is put together twice.
//!
//! Not here: what is said (`event`), who says it (`recorder`).

use std::fmt;

use trust::TraceContext;

use crate::json;

/// The audit record could not be kept; the act must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit record could not be kept")]
pub struct AuditLost;

/// A record on its way to the sink, which numbers it.
#[derive(Clone, Copy)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// Noun and past verb.
    pub event: &'static str,
    /// The span that it belongs to.
    pub trace: Option<TraceContext>,
    /// Writes what else the event says: a JSON object.
    pub fields: &'a dyn Fn(&mut Vec<u8>) -> Result<(), AuditLost>,
}

/// A span on its way to the sink.
#[derive(Clone, Copy)]
pub struct NewSpan<'a> {
    /// Its own context.
    pub context: TraceContext,
    /// Parent span.
    pub parent: Option<u64>,
    /// `guard GET /api/videos`, in pieces.
    pub name: &'a [&'a str],
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'a str,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// HTTP status, 0 if none.
    pub status: u16,
    /// Writes its attributes: a JSON object.
    pub attributes: &'a dyn Fn(&mut Vec<u8>) -> Result<(), AuditLost>,
}

/// Where records go.
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
    /// Writes it at the end of `out`: an `AuditRecord` with that number, as JSON in one line.
    ///
    /// # Errors
    /// `AuditLost` when it cannot be written; what is after the old end of `out` is nothing then.
    pub fn write(&self, seq: u64, out: &mut Vec<u8>) -> Result<(), AuditLost> {
        let mut record = json::Object::begin(out);
        record.number("seq", seq);
        record.number("at_ms", self.at_ms);
        record.text("event", self.event);
        ids(&mut record, self.trace);
        (self.fields)(record.member("fields"))?;
        record.end();
        Ok(())
    }
}

impl NewSpan<'_> {
    /// Writes it at the end of `out`: a `Span` as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut span = json::Object::begin(out);
        ids(&mut span, Some(self.context));
        let parent = span.member("parent");
        parent.push(b'"');
        if let Some(id) = self.parent {
            json::hex(parent, id.to_be_bytes());
        }
        parent.push(b'"');
        // Names hold routes of the manifest, which may need escapes.
        json::text(span.member("name"), self.name);
        span.text("kind", self.kind);
        span.number("start_ns", self.start_ns);
        span.number("end_ns", self.end_ns);
        span.number("status", self.status.into());
        let attributes = span.member("attributes");
        let begin = attributes.len();
        // Attributes are texts and numbers of ours; a span without them is better than none.
        if (self.attributes)(attributes).is_err() {
            attributes.truncate(begin);
            attributes.extend_from_slice(b"{}");
        }
        span.end();
    }
}

fn ids(object: &mut json::Object<'_>, context: Option<TraceContext>) {
    let trace = object.member("trace");
    trace.push(b'"');
    if let Some(context) = context {
        json::hex(trace, context.trace_id.to_be_bytes());
    }
    trace.push(b'"');
    let span = object.member("span");
    span.push(b'"');
    if let Some(context) = context {
        json::hex(span, context.span_id.to_be_bytes());
    }
    span.push(b'"');
}

impl fmt::Debug for NewRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRecord").field("event", &self.event).field("trace", &self.trace).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewSpan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSpan").field("name", &self.name).field("context", &self.context).finish_non_exhaustive()
    }
}
