//! `control`: the applied manifest, and each enforcement point's signed view of it.
//!
//! A manifest is put into force whole or not at all: parsed, checked against its lock and the files, generated into policies, every
//! workload's slice loaded and self-tested, kept on disk, and only then seen by anybody, as one new epoch. A caller gets its own view
//! and no other's, by pull or on a stream that is re-issued long before it would grow stale.
//!
//! Guarantees: M5 atomic epochs; E16 signed, versioned, push and pull; E17 views state their maximum age; a kept manifest that was
//!             edited is found when it is loaded.
//! Not here:   who signs (`Signer`, given by the assembly), what a view's owner does with it (`proxy::view`), keys and revocations
//!             themselves (`identity`).
//!
//! | part | what |
//! |---|---|
//! | `store` | applied manifests on disk, sealed, one file for each epoch |
//! | `force` | a manifest being checked and put into force |
//! | `profile` | what a role or guard needs to know besides policies: its callers, peers, limits |
//! | `map` | the system as the console draws it |
//! | `room` | the contract's routes, the streams, following `identity` |

mod force;
mod map;
mod profile;
mod room;
mod store;

pub use force::ApplyRefused;
pub use room::{Control, ControlConfig, ControlError, Parts, Signer};
pub use store::StoreError;

#[cfg(test)]
mod tests;
