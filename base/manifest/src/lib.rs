//! The system as data: one TOML file that names the services, their data, and every flow between them.
//!
//! `Manifest::parse` reads text to a value that is valid as a whole or not at all: whatever is not declared does not exist, names
//! are checked against what they refer to, and every problem found is reported with file, line, column and, where a name is near
//! another, a suggestion. The value's `digest` is the same for every layout of the same system.
//!
//! Guarantees: M1 one file; M2 strict, an unknown key is an error with a place and a suggestion.
//! Not here:   what the flows permit (`policy`), how a service is boxed in (`sandbox`).

mod canonical;
mod check;
mod document;
mod flow;
pub mod lock;
mod model;
mod problem;
mod quantity;
mod schema;
mod written;

pub use canonical::canonical_json;
pub use flow::{BucketOperation, Flow, SecretOperation};
pub use lock::{Lock, LockError, Search, Tampering};
pub use model::{
    AccessLog, Acme, Backend, Backoff, Bucket, Certificate, Client, Destination, Edge, EdgeLimits, Fault, FaultAct, Fresh, Health,
    Isolation, Limits, Manifest, Pep, Protocol, PublicAt, Queue, Rate, Replicas, Route, Secret, Service, Verdict,
};
pub use problem::{ManifestError, Problem};
pub use schema::json_schema;

/// Longest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;
/// Names that no service may have: they are Palisade's own workloads, or the world outside.
pub const ROLE_NAMES: &[&str] =
    &["edge", "control", "identity", "login", "objects", "queue", "evidence", "console", "secrets", "internet", "supervisor", "operator"];
/// First path segments that the edge keeps for Palisade's own rooms: no public route and no bucket may begin with one.
pub const RESERVED_SEGMENTS: &[&str] = &[".well-known", "auth", "oidc", "login", "logout", "session", "console", "palisade", "presigned"];
/// Purpose of administrative acts; always there, declared or not.
pub const PURPOSE_OPERATE: &str = "operate";

#[cfg(test)]
mod tests;
