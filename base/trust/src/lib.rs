//! The words that every other crate speaks: who (`SpiffeId`), on whose behalf (`Authority`), what was answered (`Decision`), and
//! what must not be printed (`Secret`).
//!
//! Nothing here opens a socket, reads a file or knows a policy. A type that needs one of these belongs one storey up.

pub mod authority;
pub mod clock;
pub mod decision;
pub mod digest;
pub mod fault;
pub mod limits;
pub mod network;
pub mod reach;
pub mod record;
pub mod seal;
pub mod secret;
pub mod spiffe;
pub mod trace;

pub use authority::{Authority, Job, ObjectRef};
pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use decision::{Decision, DenyReason, Shadow};
pub use digest::Digest;
pub use fault::{Fault, FaultKind, Origin, Retry};
pub use network::{Network, NetworkError};
pub use reach::{Reach, Unreachable, may_connect};
pub use record::{AuditRecord, Span};
pub use seal::{KeySealer, SealError};
pub use secret::Secret;
pub use spiffe::{SpiffeId, TrustDomain, Workload};
pub use trace::TraceContext;
