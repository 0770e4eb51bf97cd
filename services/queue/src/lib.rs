//! `queue`: messages that survive, with the authority of whoever caused them, narrowed to the job in hand.
//!
//! A room over `contract::queue::ROUTES` and a dispatcher that pushes messages to their consumers' guards. A message is on the disk
//! before its publisher hears 202, and forgotten only once its end is on the disk. Delivery is at least once; what a publisher repeats
//! is taken once. Messages about the same object are delivered one after the other, in the order of their publishing.
//!
//! Spec:       CloudEvents 1.0, HTTP protocol binding 1.0 (binary content mode).
//! Guarantees: H1 durable, retried, dead-lettered; H2 rights per queue by SVID; H3 the publisher is verified; H4 authority is bound to
//!             the payload's hash; H5 authority ends with the lease; H6 in part (repeats have no effect); H8 one trace per job;
//!             H9 in part (a full queue refuses); G10 order per object.
//! Not here:   sockets and tokens' verification (`proxy`), the policy itself (`policy`), payload encryption (H7).

mod authority;
mod backoff;
mod binding;
mod dispatch;
mod hand;
mod log;
mod room;
mod rules;

pub use dispatch::Dispatcher;
pub use log::{DeadLetter, OpenError};
pub use room::{Parts, Queue};
pub use rules::{Ask, Decide, Minting, QueueAction, Rulebook, Rules};

#[cfg(test)]
mod tests;
