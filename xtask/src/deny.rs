//! `cargo xtask deny`: licences, bans and sources of all dependencies, offline, as `deny.toml` says.

use crate::{Outcome, packages, tree};

/// Version of cargo-deny that is installed when there is none.
const CARGO_DENY: &str = "0.20.2";

/// Runs cargo-deny, installing it if need be.
///
/// # Errors
/// When a dependency is refused.
pub fn run() -> Outcome {
    packages::ensure_cargo_tool("cargo-deny", CARGO_DENY)?;
    // The check itself is offline; it reads the sources that cargo has fetched, for every target.
    tree::run(tree::cargo().args(["fetch", "--quiet", "--locked"]))?;
    tree::run(tree::cargo().args(["deny", "--offline", "--log-level", "error", "check", "licenses", "bans", "sources"]))
}
