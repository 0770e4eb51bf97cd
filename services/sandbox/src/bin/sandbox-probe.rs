//! The attacker as a program of its own: put it where a service's program or tool is, and read what it reached.
//!
//! Not here: the attempts themselves ([`sandbox::attack`]).

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "sandbox-init") {
        sandbox::init_main();
    }
    sandbox::attack::main(&arguments).into()
}
