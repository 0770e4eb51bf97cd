//! `objects`: bytes that are visible only once they are whole and on the disk, readable only by whom the policy lets, and found out
//! when they are changed.
//!
//! A room over `contract::objects::ROUTES`: an S3 API for services (their guards vouch for them), presigned URLs for browsers (the
//! edge brings them), and verdicts. A background task tells queues of created objects.
//!
//! Spec:       Amazon S3 REST API (path style; the operations in `s3`); AWS Signature Version 4, query parameters.
//! Guarantees: G1, G2 (docs/s3.md has the list), G3, G5, G6, G8 (single use; a changed policy ends a URL at once), G9, G10, G11, G12 in part, G15; H5 at the
//!             store: a job's authority ends with its lease.
//! Not here:   sockets, the policy itself (`policy`), encryption at rest (G13), versioning (G14), tags.

mod blob;
mod chunked;
mod copy;
mod created;
mod gate;
mod grant;
mod ledger;
mod parts;
mod read;
mod redeem;
mod refusal;
mod room;
mod rules;
mod s3;
mod seal;
mod sigv4;
mod verdict;
mod write;

pub use blob::FREE_BYTES_MIN;
pub use created::Messenger;
pub use room::{Objects, OpenError, Parts};
pub use rules::{Decide, Rulebook, Rules};

#[cfg(test)]
mod tests;
