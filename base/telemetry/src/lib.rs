//! Typed events: the struct alone decides its log line, its metric, its span and its audit record.
//!
//! Audit: loss means stop, so `Recorder::record` can fail and the caller must then refuse the act. Metrics: loss is counted.
//! Spans: best effort.
//!
//! Not here: shipping (the assembly's spool gives a `Sink`), storing (`evidence`).

pub mod access;
pub mod certificate;
pub mod event;
pub mod flows;
pub mod gather;
mod ids;
pub mod metrics;
pub mod recorder;

pub use access::{Access, AccessSink, Asked, Shown};
pub use event::{Event, Level};
pub use metrics::Metrics;
pub use recorder::{AuditLost, MemorySink, NewRecord, NewSpan, Recorder, Sink, SpanStart};
