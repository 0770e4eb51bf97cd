//! Everything that `palisade` is, as a library: the binary calls `main`, the benchmark rig puts the same parts behind its own ports.

pub mod access_log;
mod boot;
mod breach;
mod cli;
#[cfg(test)]
mod coverage;
mod dangerous;
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
    if let Some(code) = as_part_of_a_breach() {
        return code;
    }
    cli::run()
}

/// The processes of `palisade breach`: what is started in the place of services, and what everything happens in.
fn as_part_of_a_breach() -> Option<ExitCode> {
    use ::breach::attacker;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, rest) = arguments.split_first()?;
    let path = |at: usize| std::path::Path::new(rest.get(at).map_or("", String::as_str));
    let text = |at: usize| rest.get(at).map_or("", String::as_str);
    let is_attacker = [attacker::SERVE, attacker::ALONE].contains(&first.as_str());
    // Every sandbox sets this before it starts a program, and nothing can take it back. What the attacker tries is meant for the inside
    // of one: a machine that it was started on by hand would be attacked for real. Only a filter can deny the question itself, and then
    // this is a sandbox, too. Root is no user of any.
    let is_inside = nix::sys::prctl::get_no_new_privs().unwrap_or(true) && !nix::unistd::geteuid().is_root();
    if is_attacker && !is_inside {
        crate::cli::complain(format_args!(
            "the attacker runs in a sandbox of `palisade breach` only, and this is none: it would attack this machine"
        ));
        return Some(ExitCode::from(breach::EXIT_UNAVAILABLE));
    }
    match first.as_str() {
        attacker::SERVE => Some(ExitCode::from(attacker::serve(path(0), text(1)))),
        attacker::ANOTHER => {
            cli::say(attacker::another(path(0)));
            Some(ExitCode::SUCCESS)
        }
        attacker::ALONE => Some(ExitCode::from(attacker::alone(path(0), text(1), [text(2), text(3), text(4)], sandbox::attack::fates))),
        breach::INSIDE => Some(breach::run_inside(rest)),
        breach::SYSTEM => Some(breach::run_system(rest)),
        _ => None,
    }
}
