//! `palisade`: one binary, several roles. What it does is decided by its first argument.

mod boot;
mod cli;
#[cfg(test)]
mod coverage;
mod folder;
mod guard;
mod process;
mod roles;
mod spool;
mod supervisor;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the init of a sandbox is single-threaded and parses nothing of ours.
    if std::env::args_os().nth(1).is_some_and(|first| first == "sandbox-init") {
        sandbox::init_main();
    }
    cli::run()
}
