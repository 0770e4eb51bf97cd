//! Destinations outside the system, valid, with every default filled in.

use std::collections::BTreeSet;

use serde::Serialize;
use trust::Network;

/// A destination outside the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Its host name, or one address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Class of the data that may go there.
    pub data: String,
    /// Why services that handle more sensitive data may call it.
    pub declassified: Option<String>,
    /// PEM file of its roots; absent: this machine's.
    pub root: Option<String>,
    /// Networks that its addresses are in; empty: public addresses.
    pub networks: BTreeSet<Network>,
    /// PEM files of the chain and the key that guards show there.
    pub certificate: Option<(String, String)>,
    /// The field that guards add, and the file that has its value.
    pub credential: Option<(String, String)>,
    /// Largest body of a request, bytes.
    pub body_bytes_max: u64,
    /// Largest body of an answer, bytes.
    pub answer_bytes_max: u64,
    /// Longest time for one call, ms.
    pub wall_ms: u64,
    /// Calls at the same time from one guard.
    pub concurrency: u32,
    /// Whether it is told traces.
    pub trace: bool,
}
