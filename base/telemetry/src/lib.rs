//! Typed events: the struct alone decides its log line, its metric, its span and its audit record.
//!
//! Audit: loss means stop, so `Recorder::record` can fail and the caller must then refuse the act. Metrics: loss is counted.
//! Spans: best effort.
//!
//! Not here: shipping (the assembly's spool gives a `Sink`), storing (`evidence`).

pub mod access;
pub mod certificate;
mod decided;
pub mod event;
pub mod flows;
pub mod gather;
mod ids;
pub mod json;
mod memo;
pub mod metrics;
pub mod recorder;
mod sink;

pub use access::{Access, AccessSink, Asked, Shown};
pub use decided::Decided;
pub use event::{Event, Level};
pub use metrics::Metrics;
pub use recorder::{MemorySink, Recorder, SpanStart};
pub use sink::{AuditLost, NewRecord, NewSpan, Sink};
