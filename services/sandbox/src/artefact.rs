//! Artefacts: what runs is what was measured.
//!
//! A file is opened once; that descriptor is hashed (by the outer init, while PID 1 builds the root), mounted (or executed), and looked at
//! again after the start. A file replaced by another is another inode and never reached; a file changed in place has another ctime and stops
//! the start, and later the service (`drift`). No digest is kept from one start to the next: who may write a file can also change what it
//! has mapped, and then neither size nor times tell.
//!
//! Guarantees: C6, I15.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::OwnedFd;
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
    /// What it and its path were when its content was measured last.
    measured: RefCell<[Print; 2]>,
}

/// What the kernel says of a file; when its content changes, this does, and nobody can hide it (`ctime`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    size: u64,
    file: (u64, u64),
    changed: (i64, i64),
}

impl Print {
    fn of(it: &Metadata) -> Self {
        Self { size: it.size(), file: (it.dev(), it.ino()), changed: (it.ctime(), it.ctime_nsec()) }
    }
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

/// Measures every file and tells the digests to who holds the other end, a line for each. An error there is one here.
pub(crate) fn tell_digests(all: &[Bound], to: OwnedFd) -> io::Result<()> {
    let mut to = File::from(to);
    all.iter().try_for_each(|bound| writeln!(to, "{}", digest(&bound.file)?))
}

/// Takes what [`tell_digests`] tells, and compares.
pub(crate) fn hear_digests(all: Vec<Bound>, from: OwnedFd) -> Result<Vec<Bound>, BindError> {
    let mut told = io::BufReader::new(File::from(from)).lines();
    let mut next = || told.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    all.into_iter().map(|bound| next().map_err(|cause| bound.failed(cause)).and_then(|found| bound.found(found))).collect()
}

impl Bound {
    /// Opens, measures and compares.
    pub(crate) fn bind(artefact: &Artefact) -> Result<Self, BindError> {
        let bound = Self::open(artefact)?;
        let found = digest(&bound.file).map_err(|cause| bound.failed(cause))?;
        bound.found(found)
    }

    /// Opens; what it is has still to be measured.
    pub(crate) fn open(artefact: &Artefact) -> Result<Self, BindError> {
        let path = &artefact.path;
        let failed = |cause| BindError::Open(path.clone(), cause);
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let file = File::open(&real).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if !before.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        let measured = RefCell::new([Print::of(&before); 2]);
        Ok(Self { artefact: artefact.clone(), real, file, before, measured })
    }

    fn found(self, found: String) -> Result<Self, BindError> {
        if found.eq_ignore_ascii_case(&self.artefact.sha256) { Ok(self) } else { Err(self.mismatch(found).into()) }
    }

    fn failed(&self, cause: io::Error) -> BindError {
        BindError::Open(self.artefact.path.clone(), cause)
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

    /// Looks at a file of a running service: is its content still what was measured? It is read again only if the kernel says that
    /// something was done to it. With `by_path`, as for [`Bound::recheck`].
    pub(crate) fn drift(&self, by_path: bool) -> Result<(), ArtefactMismatch> {
        let gone = |cause: io::Error| self.mismatch(cause.to_string());
        let itself = Print::of(&self.file.metadata().map_err(gone)?);
        let named = if by_path { Print::of(&std::fs::metadata(&self.real).map_err(gone)?) } else { itself };
        if *self.measured.borrow() == [itself, named] {
            return Ok(());
        }
        let mut file = &self.file;
        file.rewind().map_err(gone)?;
        let mut found = digest(file).map_err(gone)?;
        if found.eq_ignore_ascii_case(&self.artefact.sha256) && named != itself {
            found = File::open(&self.real).and_then(|file| digest(&file)).map_err(gone)?;
        }
        if !found.eq_ignore_ascii_case(&self.artefact.sha256) {
            return Err(self.mismatch(found));
        }
        // A change of mode, owner or links. A write while it was read is seen in the next turn.
        self.measured.replace([itself, named]);
        Ok(())
    }

    fn mismatch(&self, found: String) -> ArtefactMismatch {
        ArtefactMismatch { path: self.artefact.path.clone(), expected: self.artefact.sha256.clone(), found }
    }
}
