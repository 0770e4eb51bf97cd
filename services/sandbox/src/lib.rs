//! The sandbox: a service sees its declared files, its declared flows on loopback, and nothing else.
//!
//! The guard calls [`Launcher::spawn`]; that re-executes its own binary with the subcommand `sandbox-init`, whose only
//! line is [`init_main`]. The init builds the namespaces, the root and the limits, starts the service, and hands
//! sockets in and out of the empty network namespace. Nothing secret is ever in its arguments or environment.
//!
//! ```text
//! guard ──(socketpair, fd 3: profile, requests; listeners, streams, report)── init (outer) ── PID 1 ── service
//! ```
//!
//! Spec:       `namespaces(7)`, `landlock(7)`, `seccomp(2)`, `capabilities(7)`, `pid_namespaces(7)`.
//! Guarantees: I1 no root needed · I2 files are an allow-list · I3 destinations, not only ports · I4 other ways out are
//!             closed · I5 no unconfined start · I6 system calls are an allow-list, and what is denied is told · I7 limits ·
//!             I8 every start is fresh · I11 the control plane cannot be reached · I12 init is not dumpable, keys stay in
//!             memory · I15 and C6 what runs is what was measured, as long as it runs.
//! Not here:   the protocols on the local sockets (`proxy`), what a profile holds (derived from the manifest by the
//!             platform), identity.

mod artefact;
pub mod attack;
mod bwrap;
mod calls;
mod cgroup;
mod fill;
mod frozen;
mod init;
mod landlock;
mod launch;
mod limits;
mod lines;
pub mod memory;
mod namespaces;
mod net;
mod notify;
mod probe;
mod profile;
mod report;
mod root;
mod running;
mod seccomp;
mod seen;
mod service;
mod supervise;
mod sys;
mod wire;

pub use artefact::ArtefactMismatch;
pub use calls::Calls;
pub use frozen::{Evidence, EvidenceLimits};
pub use init::init_main;
pub use launch::{Ahead, Launcher, SandboxError, spawn};
pub use limits::forbid_dumps;
pub use lines::{Line, Stream};
pub use probe::probe;
pub use profile::{Artefact, Backend, DangerousWithout, Flow, Level, Limits, Profile, Simulate};
pub use report::{Layer, LayerName, Report};
pub use running::{Exit, ExitCause, Running};
pub use seen::{Denial, Seen};

#[cfg(test)]
mod tests;
