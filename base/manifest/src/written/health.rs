//! How a service is found to be well, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::quantity::Lasting;

/// How a replica of a service is found to be well: its guard asks it, and lets nothing in while it is not. A replica that has not yet
/// been well gets nothing either.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    /// Where it is asked, with GET; an answer 200 to 299 means that it is well. No route: nobody else reaches it by this.
    pub(crate) path: String,
    /// Pause between two questions; default "5s", at least "100ms".
    pub(crate) interval: Option<Lasting>,
    /// An answer after this is none; default "1s".
    pub(crate) timeout: Option<Lasting>,
    /// Bad answers in a row after which it gets no requests; default 3.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) unhealthy: Option<u32>,
    /// Good answers in a row after which it gets requests again; default 2. At its start one is enough.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) healthy: Option<u32>,
}
