//! `cargo xtask up`: from nothing to a running platform.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::artefacts::{self, Artefacts};
use crate::{Outcome, packages, tree};

/// Installs, builds, locks what was built, and becomes `palisade up`.
///
/// # Errors
/// When a step fails.
pub fn run(listen: &str, dir: &Path) -> Outcome {
    packages::ensure(packages::RUN)?;
    println!("building (the first time takes some minutes)");
    let built = Artefacts::build()?;
    let manifest = artefacts::text(&artefacts::manifest());
    let dir = artefacts::text(&tree::root().join(dir));
    // What was just built from this tree is what is meant to run: pin it.
    tree::run(Command::new(built.palisade()).args(["lock", "--manifest", &manifest, "--dir", &dir]))?;
    let failure = Command::new(built.palisade())
        .args(["up", "--manifest", &manifest, "--dir", &dir, "--listen", listen])
        .current_dir(tree::root())
        .exec();
    Err(format!("cannot run {}: {failure}", built.palisade().display()).into())
}
