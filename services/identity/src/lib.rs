//! `identity`: who a process is. A certificate authority that issues X.509-SVIDs to processes that it has attested.
//!
//! Spec:       SPIFFE X509-SVID; RFC 5280; RFC 2986 (requests).
//! Guarantees: C1 SVIDs and bundle; C5 the joining process is the one that was started; C6 it runs the locked artefacts; C7 a join
//!             token works once; C9 renewal at any time, an SVID lives one hour at most.
//! Not here:   sockets and TLS (`proxy`), starting processes (the assembly), who may call whom (`control`).
//!
//! | part | what |
//! |---|---|
//! | `ca` | root, intermediate, issuing |
//! | `request` | what is believed of a certificate signing request: its public key |
//! | `attest` | which program a process runs |
//! | `tokens` | join tokens |
//! | `ledger` | what must survive: revocations, keys that sign authority, the bundle's sequence |
//! | `room` | the contract's routes |
//! | `public` | the separate authority for the edge's HTTPS certificate on this machine |

pub mod attest;
pub mod ca;
mod certificate;
mod durable;
mod ledger;
pub mod public;
mod request;
pub mod room;
mod tokens;

pub use ca::{Ca, CaConfig, CaError};
pub use public::{PublicCa, PublicCertificate};
pub use room::Identity;

#[cfg(test)]
mod tests;
