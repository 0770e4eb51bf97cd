//! Another revision of a manifest, with the policies beside it: from git, or from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifest::Manifest;

use crate::cli::{Failure, Problems};
use crate::system::Applied;

/// A manifest and its policies.
pub(super) struct Revision {
    /// The manifest.
    pub(super) manifest: Manifest,
    /// Policies by file name.
    pub(super) policies: BTreeMap<String, String>,
}

/// Opens `reference`: a file if there is one of that name, else a revision of the git repository that `manifest` is in.
pub(super) fn open(manifest: &Path, reference: &str) -> Result<Revision, Failure> {
    let file = PathBuf::from(reference);
    if file.is_file() {
        let applied = Applied::open(&file)?;
        return Ok(Revision { manifest: applied.manifest, policies: applied.policies });
    }
    // A revision that looks like an option would be taken for one.
    if reference.starts_with('-') || reference.is_empty() {
        return Err(Failure::of(64, format_args!("'{reference}' is neither a file nor a revision of git")));
    }
    let folder = manifest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = manifest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = git(folder, &["show", &format!("{reference}:./{name}")])?;
    let shown = format!("{reference}:{name}");
    let parsed = Manifest::parse(&shown, &text).map_err(|error| Failure::usage(Problems(error)))?;
    let mut policies = BTreeMap::new();
    for path in git(folder, &["ls-tree", "--name-only", reference, "policies/"])?.lines().filter(|path| path.ends_with(".cedar")) {
        let file = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        policies.insert(file, git(folder, &["show", &format!("{reference}:./{path}")])?);
    }
    Ok(Revision { manifest: parsed, policies })
}

/// What git says to a question about the repository that `folder` is in.
fn git(folder: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let said = Command::new("git").arg("-C").arg(folder).args(arguments).output();
    let said = said.map_err(|error| Failure::of(64, format_args!("git cannot be run ({error}); name a manifest's file instead")))?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(Failure::of(64, format_args!("git has no such revision of the manifest: {why}")));
    }
    String::from_utf8(said.stdout).map_err(|_| Failure::of(64, "the revision's file is not UTF-8"))
}
