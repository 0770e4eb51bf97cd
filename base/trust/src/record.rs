//! Records: the form in which what happened travels to `evidence`. `telemetry` makes them out of typed events.

use serde::{Deserialize, Serialize};

/// One thing that happened, for the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// Counts up by one within a process, from 1.
    pub seq: u64,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// Noun and past verb: `CallDecided`, `SvidIssued`.
    pub event: String,
    /// Trace, 32 hexadecimal digits, or empty.
    pub trace: String,
    /// Span, 16 hexadecimal digits, or empty.
    pub span: String,
    /// What else the event says; flat, redacted by its type.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// A span of one of Palisade's own processes (OTLP's model, thinned).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub span: String,
    /// Parent span, or empty.
    pub parent: String,
    /// `accept`, `call api`, `deliver validated`…
    pub name: String,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: String,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// HTTP status, 0 if none.
    pub status: u16,
    /// Attributes: `decision`, `policy`, `epoch`, `reason`, `peer`, `user`, `purpose`, `object`…
    pub attributes: serde_json::Map<String, serde_json::Value>,
}
