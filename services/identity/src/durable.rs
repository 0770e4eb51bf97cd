//! Small files that are either wholly the old one or wholly the new one, whatever happens in between.
//!
//! Written beside, flushed, renamed over, and the folder flushed; readable by their owner alone. A folder has one owner at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder that this process owns until it drops this.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// INVARIANT: locked exclusively; the kernel releases it when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none (mode 0700) and takes it.
    ///
    /// # Errors
    /// Those of the file system; `ResourceBusy` when another process has it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has this folder open")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The whole of a file, or nothing if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file; once this returns, it survives the loss of power.
    ///
    /// # Errors
    /// Those of the file system; the old file is then still there, whole.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let beside = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}
