//! Containing a service and releasing it: what an operator asks, and what is in force then.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A service to contain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contain {
    /// Its name.
    pub service: String,
    /// Why, for the audit log; empty where nobody said.
    #[serde(default)]
    pub reason: String,
}

/// A service to release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its name.
    pub service: String,
}

/// What was contained or released, and since when that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contained {
    /// The epoch that says so.
    pub epoch: u64,
    /// Since when the service is contained, in seconds since the epoch of UNIX; absent once it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
    /// Guards of the service, one for each replica.
    pub replicas: u32,
    /// Services that are contained now.
    pub contained: BTreeSet<String>,
}
