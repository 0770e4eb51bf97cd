//! `palisade`: one binary, several roles. What it does is decided by its first argument.

fn main() -> std::process::ExitCode {
    platform::main()
}
