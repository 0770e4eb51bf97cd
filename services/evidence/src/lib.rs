//! Evidence: everyone may append, few may read. Audit log, traces, metrics; and the facts behind the console's pages.
//!
//! Guarantees: J1 (`exposition`), J2 (`otlp` in, `forward` out), J3 and J4 (`index`), J7 and J8 (`log`, `intake`), J9 (`index`), J10 in part (`live`).
//! Not here:   pages (`console`, by way of `contract::console`), listeners, alert rules.

pub mod copying;
mod exposition;
pub mod forward;
pub mod index;
pub mod intake;
pub mod live;
pub mod log;
pub mod note;
pub mod otlp;
pub mod room;
mod told;

pub use index::Retention;
pub use log::{Place, Report, verify};
pub use note::{NoteSigner, VerifierKey};
pub use room::{Evidence, OpenError, Parts};
