//! Calling: how requests reach peers. `mesh` transports verify that the peer is exactly who it should be; UNIX transports lead to this
//! machine's own processes; the collector's leads to a collector of traces on loopback; `outside` to declared destinations.
//!
//! Nothing is sent twice: a request is repeated only when its connection was gone before a byte of it was written, or, within a budget,
//! when it only reads.
//!
//! Guarantees: D1; D9 in part (time-outs everywhere, least requests, leaving out, retries; `balance`); A18 both bodies stream, with back-pressure.

mod balance;
mod collector;
mod connect;
mod mesh;
pub(crate) mod outside;
mod plain;
pub(crate) mod streams;
mod unix;

pub use collector::{CollectorTransport, CollectorUrl, CollectorUrlError};
pub use connect::{CallFailed, fault_of};
pub use mesh::{Address, MeshTransport, Patience};
pub use outside::{Line as OutsideLine, MachineResolver, OutsideFailed, ProofError, Resolve};
pub use unix::{IdentityTransport, PairTransport, UnixTransport};
