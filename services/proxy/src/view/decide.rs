//! The seam to the policy engine: what a guard asks, and what it must be told. `policy::Engine` is behind it.

use contract::control::View;
use trust::{Authority, Decision, SpiffeId};

/// What a guard asks before a request reaches its service.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// At the edge: may the internet enter this public route of `service` (`METHOD /path/{template}`) on this authority?
    Enter {
        /// The service's name.
        service: &'a str,
        /// The route, as the manifest writes it.
        route: &'a str,
        /// The person's authority.
        authority: Option<&'a Authority>,
    },
    /// May `caller` call this route of `service` (`METHOD /path/{template}`) on this authority?
    Call {
        /// The calling workload, as its connection proved.
        caller: &'a SpiffeId,
        /// The called service's name.
        service: &'a str,
        /// The route, as the manifest writes it.
        route: &'a str,
        /// The person's authority.
        authority: Option<&'a Authority>,
    },
    /// May `service` take what is delivered from this queue on this authority?
    Consume {
        /// The consuming service.
        service: &'a SpiffeId,
        /// The queue.
        queue: &'a str,
        /// The job's authority.
        authority: Option<&'a Authority>,
    },
}

/// Answers questions under one view's policies. Any failure to evaluate is a Deny.
pub trait Decide: Send + Sync + std::fmt::Debug + 'static {
    /// The answer, with the policies that gave it and the view's epoch.
    fn decide(&self, question: &Question<'_>) -> Decision;
}

/// Loads a view's policies: checks them against the schema and the manifest's facts.
pub type LoadEngine = fn(&View) -> Result<Box<dyn Decide>, String>;
