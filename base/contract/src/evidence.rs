//! The contract of `evidence`: everyone may append, few may read.

use http::Method;
use serde::{Deserialize, Serialize};
use trust::{AuditRecord, Fault, Span, SpiffeId};

use crate::route::{Route, Who};
use crate::transport::{Call, Client};

const ADMIN: Who = Who::Person("admin");

/// Every route. The edge serves those for a person under `/console`.
pub const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/records", action: "evidence.append", who: Who::Policy },
    Route { method: "POST", path: "/v1/traces", action: "evidence.otlp.traces", who: Who::Policy },
    Route { method: "POST", path: "/v1/logs", action: "evidence.otlp.logs", who: Who::Policy },
    Route { method: "POST", path: "/v1/metrics", action: "evidence.otlp.metrics", who: Who::Policy },
    Route { method: "GET", path: "/metrics", action: "evidence.metrics.read", who: Who::Operator },
    Route { method: "GET", path: "/checkpoint", action: "evidence.checkpoint.read", who: Who::Operator },
    Route { method: "GET", path: "/traces/{trace}", action: "evidence.trace.read", who: Who::Operator },
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

impl EvidenceClient {
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
