//! Artefacts: what runs is what was measured.
//!
//! A file is opened once; that descriptor is hashed, mounted (or executed), and looked at again after the start. A file
//! replaced by another is another inode and never reached; a file changed in place has another ctime and stops the start.
//!
//! Guarantees: C6, I15.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::profile::Artefact;

/// A file that is not the one that was locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{path} is not the locked file: expected sha256 {expected}, found {found}; if the change is wanted, lock it again", path = path.display())]
pub struct ArtefactMismatch {
    /// The file.
    pub path: PathBuf,
    /// The digest of the profile.
    pub expected: String,
    /// What was found: a digest, or what changed while it started.
    pub found: String,
}

/// An artefact that was opened and found to be the locked one.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) artefact: Artefact,
    /// The path with every symbolic link resolved.
    pub(crate) real: PathBuf,
    pub(crate) file: File,
    before: Metadata,
}

/// Why an artefact was not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{path}: {cause}", path = .0.display(), cause = .1)]
    Open(PathBuf, io::Error),
    #[error(transparent)]
    Mismatch(#[from] ArtefactMismatch),
}

/// SHA-256 of a file from its present position, lower-case hexadecimal.
pub(crate) fn digest(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 17];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(buffer.get(..count).unwrap_or_default());
    }
}

impl Bound {
    /// Opens, measures and compares.
    pub(crate) fn open(artefact: &Artefact) -> Result<Self, BindError> {
        let path = &artefact.path;
        let failed = |cause| BindError::Open(path.clone(), cause);
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let file = File::open(&real).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if !before.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        let found = digest(&file).map_err(failed)?;
        let bound = Self { artefact: artefact.clone(), real, file, before };
        if found.eq_ignore_ascii_case(&artefact.sha256) { Ok(bound) } else { Err(bound.mismatch(found).into()) }
    }

    /// Compares once more, after the program was executed: has the content been written to since it was measured?
    /// With `by_path` (where the service opens the path itself, not a mount of this descriptor): is it still this file?
    pub(crate) fn recheck(&self, by_path: bool) -> Result<(), BindError> {
        let failed = |cause| BindError::Open(self.artefact.path.clone(), cause);
        let after = self.file.metadata().map_err(failed)?;
        let print = |it: &Metadata| (it.size(), it.mtime(), it.mtime_nsec(), it.ino(), it.dev());
        // A link count change alters ctime without altering content, so ctime alone would refuse an innocent file.
        let touched = print(&after) != print(&self.before)
            || ((after.ctime(), after.ctime_nsec()) != (self.before.ctime(), self.before.ctime_nsec())
                && after.nlink() == self.before.nlink());
        let swapped = by_path && print(&std::fs::metadata(&self.real).map_err(failed)?) != print(&after);
        if touched || swapped { Err(self.mismatch("changed while it was being started".to_owned()).into()) } else { Ok(()) }
    }

    fn mismatch(&self, found: String) -> ArtefactMismatch {
        ArtefactMismatch { path: self.artefact.path.clone(), expected: self.artefact.sha256.clone(), found }
    }
}
