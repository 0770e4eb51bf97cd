//! Faults on purpose, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::quantity::Lasting;

/// A fault on purpose, for tests: the guard of a service delays, refuses or breaks off requests that it would have let in. It says what
/// happens in exactly one of 'delay', 'abort' and 'reset', and is honoured only in a system with `faults = true`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// The service whose guard does it.
    pub(crate) service: String,
    /// The route, as "GET /things/{id}"; default: every route and delivery.
    pub(crate) route: Option<String>,
    /// The workload whose requests it happens to: a service, "edge" or "queue"; default: everybody's.
    pub(crate) from: Option<String>,
    /// Only requests that have this field, in lower case; default: every request.
    pub(crate) header: Option<String>,
    /// To so many of a hundred of these requests, evenly; default 100.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) percent: Option<u8>,
    /// The service gets the request later by this; within the service's wall limit.
    pub(crate) delay: Option<Lasting>,
    /// The request is answered with this status, and the service does not get it.
    #[schemars(range(min = 400, max = 599))]
    pub(crate) abort: Option<u16>,
    /// The request is not answered at all: its connection or stream is broken off.
    #[serde(default)]
    pub(crate) reset: bool,
}
