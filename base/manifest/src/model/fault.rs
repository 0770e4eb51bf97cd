//! Faults on purpose, valid.

use serde::{Deserialize, Serialize};

/// A fault on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The service whose guard does it.
    pub service: String,
    /// The route, as `METHOD /path`; absent: everything.
    pub route: Option<String>,
    /// The workload whose requests it happens to; absent: everybody's.
    pub from: Option<String>,
    /// The field that such a request has; absent: every request.
    pub header: Option<String>,
    /// So many of a hundred.
    pub percent: u8,
    /// What happens.
    pub act: FaultAct,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultAct {
    /// It waits so many milliseconds.
    DelayMs(u64),
    /// It is answered with this status.
    Abort(u16),
    /// It is broken off.
    Reset,
}
