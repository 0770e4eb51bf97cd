//! Policies: what a manifest permits, in Cedar, and the one function that answers every enforcement point.
//!
//! `Bundle::build` turns a manifest (and policies written by hand) into a schema, default-deny policies for exactly the declared
//! flows, cross-cutting forbids, the manifest's facts as policies, and an example of every flow. `slice_for` cuts from it what one
//! workload needs, partially evaluated. `Engine::load` checks a slice before it trusts it, and `Engine::decide` answers.
//!
//! Guarantees: E1 strict validation before load; E2 deny by default, forbid overrides, order does not matter; E4 one decision
//! function; A17 whatever cannot be evaluated is denied.
//! Not here:   who asks (`proxy`, `objects`, `queue`), how a slice travels (`control`), proofs (`assurance`).

mod bundle;
mod cedar;
mod dangerous;
mod engine;
mod example;
mod generate;
mod loader;
mod question;
mod schema;
mod slice;
mod world;

pub use bundle::{Bundle, BundleError, Rule};
pub use engine::{Answer, DANGEROUS_OPEN, Engine, LoadError};
pub use example::Example;
pub use loader::Loader;
pub use question::{Action, ObjectFacts, Question, Resource, caller_name};
pub use slice::{Cell, PolicySlice, Slicer, slice_for};

/// Planes: what administrative acts are about.
pub const PLANES: &[&str] = &["manifest", "services", "keys", "data", "audit"];
/// The role of a person who may administer.
pub const ADMIN_ROLE: &str = "admin";

#[cfg(test)]
mod tests;
