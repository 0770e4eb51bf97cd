//! The programs: building them, and where they are.

use std::path::{Path, PathBuf};

use crate::{Outcome, tree};

/// Programs that make up the reference system, by package.
pub const PACKAGES: &[&str] = &["palisade", "video-api", "video-validator", "video-transcoder"];

/// Where the programs of a build are.
#[derive(Debug, Clone)]
pub struct Artefacts {
    /// The folder with the binaries.
    pub bin: PathBuf,
}

impl Artefacts {
    /// Builds all programs and tells where they are.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build() -> Outcome<Self> {
        built(&[])?;
        Self::beside_us()
    }

    /// Builds all programs as they ship and tells where they are.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build_for_release() -> Outcome<Self> {
        built(&["--release"])?;
        let ours = Self::beside_us()?.bin;
        let profiles = ours.parent().ok_or("no target folder")?;
        Ok(Self { bin: profiles.join("release") })
    }

    /// Those that were built with us.
    ///
    /// # Errors
    /// When there are none; says how to build them.
    pub fn beside_us() -> Outcome<Self> {
        let ours = std::env::current_exe()?;
        // Tools are in target/PROFILE, tests in target/PROFILE/deps.
        let bin = ours.ancestors().skip(1).take(2).find(|folder| folder.join("palisade").is_file());
        let bin = bin.ok_or("the programs are not built; run `cargo build --workspace --bins` first")?;
        Ok(Self { bin: bin.to_path_buf() })
    }

    /// The `palisade` binary.
    #[must_use]
    pub fn palisade(&self) -> PathBuf {
        self.bin.join("palisade")
    }

    /// The same application as one process.
    #[must_use]
    pub fn monolith(&self) -> PathBuf {
        self.bin.join("video-monolith")
    }
}

fn built(more: &[&str]) -> Outcome {
    let mut command = tree::cargo();
    command.args(["build", "--quiet", "--package", "video-monolith"]).args(more);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    tree::run(&mut command)
}

/// The reference system's manifest.
#[must_use]
pub fn manifest() -> PathBuf {
    tree::root().join("apps/video/palisade.toml")
}

/// A path as text.
#[must_use]
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
