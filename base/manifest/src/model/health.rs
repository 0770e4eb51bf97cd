//! How a service is found to be well, valid.

use serde::Serialize;

/// How a service is found to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Where it is asked.
    pub path: String,
    /// Pause between two questions, ms.
    pub interval_ms: u64,
    /// An answer after this is none, ms.
    pub timeout_ms: u64,
    /// Bad answers in a row after which it is out.
    pub unhealthy: u32,
    /// Good answers in a row after which it is back.
    pub healthy: u32,
}
