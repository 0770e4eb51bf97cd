//! Everything that `palisade` is, as a library: the binary calls `main`, the benchmark rig puts the same parts behind its own ports.

pub mod access_log;
mod boot;
mod cli;
#[cfg(test)]
mod coverage;
mod folder;
mod guard;
mod memory;
mod pdp;
mod process;
mod roles;
#[cfg(test)]
mod running;
pub mod spool;
mod supervisor;
mod system;
mod users;

use std::process::ExitCode;

/// What the binary does: decided by its first argument.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything else: the init of a sandbox is single-threaded and parses nothing of ours.
    if std::env::args_os().nth(1).is_some_and(|first| first == "sandbox-init") {
        sandbox::init_main();
    }
    cli::run()
}
