//! `cargo xtask test`: every test there is.

use std::process::Command;

use crate::{Outcome, artefacts::Artefacts, deny, packages, tree};

/// Version of nextest that is installed when there is none.
const NEXTEST: &str = "0.9.143";

/// Installs what is missing, builds, and runs everything.
///
/// # Errors
/// With the first step that failed.
pub fn run() -> Outcome {
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::DEMO)?;
    packages::ensure(packages::TEST)?;
    packages::ensure_cargo_tool("cargo-nextest", NEXTEST)?;
    step("formatting");
    tree::run(tree::cargo().args(["fmt", "--all", "--check"]))?;
    step("licences, bans, sources");
    deny::run()?;
    step("lints");
    tree::run(tree::cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step("fuzz targets");
    // A workspace of their own. Only checked here; CONTRIBUTING.md says how they run.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree::root().join("target"), Into::into);
    tree::run(tree::cargo().args(["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"]).env("CARGO_TARGET_DIR", target))?;
    step("building");
    Artefacts::build()?;
    step("the web service's own tests");
    tree::run(Command::new("/usr/bin/python3").args(["-B", "-m", "unittest", "discover", "-s", "apps/video/web"]))?;
    step("tests");
    tree::run(tree::cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))
}

fn step(what: &str) {
    println!("== {what}");
}
