//! Enforcement points as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

/// An enforcement point of somebody else's making: a proxy such as Envoy, run by whoever runs it. It is a workload with an identity of
/// its own (spiffe://DOMAIN/pep/NAME), and asks over a UNIX socket whether each request may go on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pep {
    /// The team that answers for it.
    pub(crate) owner: Option<String>,
    /// Number of the user that it runs as: nobody else may connect. Default: the user that runs Palisade. Another one needs Palisade to be
    /// run by root.
    pub(crate) uid: Option<u32>,
    /// What it offers to signed-in people: public routes, as "service.NAME:METHOD /path", or "service.NAME" for all that a service has.
    pub(crate) offers: Vec<String>,
}
