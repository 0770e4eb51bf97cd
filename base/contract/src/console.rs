//! The seam between `evidence`, which has the facts, and `console`, which makes pages of them: neither imports the other.
//!
//! `evidence` implements `Reader` and is given a `Pages` by the assembly; `console` implements `Pages`.

mod breach;

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::Response;
use serde::Serialize;
use trust::{AuditRecord, Fault, Span};

pub use breach::{BreachLine, BreachTold};

use crate::body::Body;
use crate::control::System;
use crate::evidence::Source;
use crate::queue::QueueStats;
use crate::room::Caller;

/// What the pages show.
#[async_trait]
pub trait Reader: Send + Sync + std::fmt::Debug {
    /// The system and what happens in it now.
    /// # Errors
    /// `Internal` when the store cannot be read.
    async fn map(&self) -> Result<MapFacts, Fault>;
    /// Traces, newest first.
    /// # Errors
    /// As `map`.
    async fn traces(&self, filter: &TraceFilter) -> Result<Vec<TraceSummary>, Fault>;
    /// One trace with all that is known of it, or nothing.
    /// # Errors
    /// As `map`.
    async fn trace(&self, trace: &str) -> Result<Option<TraceDetail>, Fault>;
    /// Audit records, newest first.
    /// # Errors
    /// As `map`.
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<StoredRecord>, Fault>;
    /// What was told of the last breach, or nothing.
    /// # Errors
    /// As `map`.
    async fn breach(&self) -> Result<Option<BreachTold>, Fault>;
    /// The audit log's state.
    fn audit_state(&self) -> AuditState;
}

/// Makes a page.
#[async_trait]
pub trait Pages: Send + Sync + std::fmt::Debug {
    /// The page at `path` (it begins with `/console`) with that query, for a caller that may see it.
    async fn page(&self, reader: &dyn Reader, caller: &Caller, path: &str, query: &str) -> Response<Body>;
}

/// The system, and the last `window_s` seconds of it.
#[derive(Debug, Clone, Default)]
pub struct MapFacts {
    /// When these facts were gathered, milliseconds since the epoch.
    pub now_ms: u64,
    /// The system as `control` last described it.
    pub system: Option<System>,
    /// How long ago `control` described it, in milliseconds.
    pub system_age_ms: u64,
    /// Length of the window, in seconds.
    pub window_s: u64,
    /// Calls seen in the window.
    pub flows: Vec<LiveFlow>,
    /// Queues, as `queue` last said.
    pub queues: Vec<QueueStats>,
    /// Processes heard of.
    pub processes: Vec<ProcessHealth>,
    /// Refusals of the last 24 hours.
    pub refusals: Vec<RefusalCount>,
    /// The audit log.
    pub audit: AuditState,
}

/// Calls from one node of the map to another. Node ids as in `control::Node`, and `internet`, `operator`, `unauthenticated`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LiveFlow {
    /// Who called.
    pub from: String,
    /// What was called.
    pub to: String,
    /// Calls allowed.
    pub allowed: u64,
    /// Calls refused.
    pub denied: u64,
    /// Spans that ended with a status of 500 or more.
    pub failed: u64,
    /// Refusals by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Last one, milliseconds since the epoch.
    pub last_ms: u64,
}

/// When a process was last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessHealth {
    /// Node id of its workload: `service/api`, `role/queue`.
    pub workload: String,
    /// One run of it.
    pub process: String,
    /// Milliseconds since the epoch.
    pub heard_ms: u64,
    /// Audit records taken of it.
    pub records: u64,
}

/// Invalid access requests in one hour, by reason (J9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalCount {
    /// Start of the hour, milliseconds since the epoch.
    pub hour_ms: u64,
    /// Code of the reason.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// State of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditState {
    /// Records in it.
    pub records: u64,
    /// Hash of the last, 64 hexadecimal digits.
    pub head: String,
    /// Records under the newest signed checkpoint.
    pub checkpointed: u64,
    /// When that checkpoint was made, milliseconds since the epoch; 0 if there is none.
    pub checkpoint_ms: u64,
    /// Why nothing is appended any more: the first thing found wrong.
    pub broken: Option<String>,
}

/// Which traces.
#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    /// Only those that touched an object, job or path with this segment; empty: all.
    pub video: String,
    /// Only those of this person; empty: all.
    pub user: String,
    /// Only those with a refusal or a failure.
    pub troubled: bool,
    /// At most so many.
    pub limit: u32,
}

/// A trace in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TraceSummary {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// Name of its first span.
    pub name: String,
    /// Node id of the workload that began it.
    pub workload: String,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// The person, or empty.
    pub user: String,
    /// Status of its first span.
    pub status: u16,
    /// Number of spans.
    pub spans: u64,
    /// Spans that ended with a status of 500 or more.
    pub failed: u64,
    /// Refusals in it.
    pub denied: u64,
    /// Workloads that took part, in order of appearance.
    pub workloads: Vec<String>,
}

/// A span and who told of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredSpan {
    /// Who, as the connection proved.
    pub source: Source,
    /// The span.
    pub span: Span,
}

/// A log line of a service, told by OTLP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredLog {
    /// Node id of the workload.
    pub workload: String,
    /// Nanoseconds since the epoch.
    pub at_ns: u64,
    /// `INFO`, `ERROR`…
    pub severity: String,
    /// The line.
    pub body: String,
}

/// One trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TraceDetail {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// Its spans, by start.
    pub spans: Vec<StoredSpan>,
    /// Audit records of it, oldest first: the decision at each hop.
    pub records: Vec<StoredRecord>,
    /// Log lines of services within it, oldest first.
    pub logs: Vec<StoredLog>,
}

/// An audit record with its place in the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredRecord {
    /// Number in the log, from 1.
    pub n: u64,
    /// Who told it, as the connection proved.
    pub source: Source,
    /// What.
    pub record: AuditRecord,
}

/// Which audit records.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only this event; empty: all.
    pub event: String,
    /// Only with this reason of refusal; empty: all.
    pub reason: String,
    /// Only whose principal, person or actor has this in it; empty: all.
    pub who: String,
    /// Only refusals.
    pub refused: bool,
    /// Only those numbered below.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}
