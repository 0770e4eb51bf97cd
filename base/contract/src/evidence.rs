//! The contract of `evidence`: everyone may append, few may read.

use http::Method;
use serde::{Deserialize, Serialize};
use trust::{AuditRecord, Fault, Span, SpiffeId};

use crate::route::{Route, Who};
use crate::transport::{Call, Client};

const ADMIN: Who = Who::Person("admin");

/// Largest batch: 512 records and as many spans, or the metrics of one process.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Longest report of a breach.
pub const BREACH_BYTES_MAX: usize = 256 * 1024;

/// Every route. The edge serves those for a person under `/console`.
pub const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/records", action: "evidence.append", who: Who::Policy },
    Route { method: "POST", path: "/v1/traces", action: "evidence.otlp.traces", who: Who::Policy },
    Route { method: "POST", path: "/v1/logs", action: "evidence.otlp.logs", who: Who::Policy },
    Route { method: "POST", path: "/v1/metrics", action: "evidence.otlp.metrics", who: Who::Policy },
    Route { method: "GET", path: "/metrics", action: "evidence.metrics.read", who: Who::Operator },
    Route { method: "GET", path: "/checkpoint", action: "evidence.checkpoint.read", who: Who::Operator },
    Route { method: "GET", path: "/traces/{trace}", action: "evidence.trace.read", who: Who::Operator },
    Route { method: "PUT", path: "/breach", action: "evidence.breach.tell", who: Who::Operator },
    Route { method: "GET", path: "/console", action: "console.map", who: ADMIN },
    Route { method: "GET", path: "/console/{*page}", action: "console.page", who: ADMIN },
];

/// A batch of what one process has to tell. Appending is idempotent: (`process`, `seq`) of a record is taken once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Names one run of one process: random.
    pub process: String,
    /// Audit records, in order.
    #[serde(default)]
    pub audit: Vec<AuditRecord>,
    /// Spans.
    #[serde(default)]
    pub spans: Vec<Span>,
    /// Counters and histograms as this process has them now: text exposition format.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metrics: String,
}

/// How far `evidence` has durably taken this process's audit records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// All up to this one.
    pub seq: u64,
}

/// Client of `evidence`.
#[derive(Debug, Clone)]
pub struct EvidenceClient(pub Client);

/// A batch whose records and spans are written already, each as the JSON of its type.
#[derive(Debug, Clone, Default)]
pub struct WrittenBatch {
    text: Vec<u8>,
    audit: usize,
    spans: usize,
}

impl WrittenBatch {
    /// A batch of that process. Records and spans are JSON already, with commas between them, beside their number: what `append` takes
    /// is `Batch`.
    #[must_use]
    pub fn new(process: &str, audit: (&[u8], usize), spans: (&[u8], usize), metrics: &str) -> Self {
        let room = audit.0.len().saturating_add(spans.0.len()).saturating_add(metrics.len().saturating_mul(2)).saturating_add(256);
        let mut text = Vec::with_capacity(room);
        text.extend_from_slice(br#"{"process":"#);
        text.extend_from_slice(serde_json::Value::from(process).to_string().as_bytes());
        text.extend_from_slice(br#","audit":["#);
        text.extend_from_slice(audit.0);
        text.extend_from_slice(br#"],"spans":["#);
        text.extend_from_slice(spans.0);
        text.push(b']');
        if !metrics.is_empty() {
            text.extend_from_slice(br#","metrics":"#);
            text.extend_from_slice(serde_json::Value::from(metrics).to_string().as_bytes());
        }
        text.push(b'}');
        Self { text, audit: audit.1, spans: spans.1 }
    }

    /// How many records it has.
    #[must_use]
    pub fn audit(&self) -> usize {
        self.audit
    }

    /// How many spans it has.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.spans
    }
}

impl EvidenceClient {
    /// Appends what is written already; what the answer names is durable.
    /// # Errors
    /// Those of the transport.
    pub async fn append_written(&self, batch: WrittenBatch) -> Result<Appended, Fault> {
        self.0.written(&Call::default(), Method::POST, "/records", batch.text).await
    }

    /// Appends; what the answer names is durable.
    /// # Errors
    /// Those of the transport.
    pub async fn append(&self, batch: &Batch) -> Result<Appended, Fault> {
        self.0.json(&Call::default(), Method::POST, "/records", batch).await
    }
}

/// Who a record or span came from, as the connection proved; stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The workload.
    pub workload: SpiffeId,
    /// Its process.
    pub process: String,
}
