//! Applied manifests on disk: one sealed file for each epoch, the highest is in force.
//!
//! A file is written beside, flushed, renamed, and its folder flushed, before anybody hears of the epoch. Its content is sealed under
//! `control`'s key-encryption key and bound to its name: an edited byte, or one epoch's file under another's name, does not open, and
//! then nothing starts (issue point 9). Taking the newest file away is seen by the guards: they refuse a lower epoch.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use contract::control::Apply;
use serde::{Deserialize, Serialize};
use trust::{Digest, KeySealer, SealError};

/// Epochs that are kept.
const KEPT_MAX: usize = 32;
/// Longest record: sealing doubles what an `Apply` can hold.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error("{path}")]
    Io {
        /// Which file or folder.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A record that does not open: edited, swapped, or sealed under another key.
    #[error("the applied manifest {path} was tampered with: {why}")]
    Tampered {
        /// Which file.
        path: String,
        /// How it was seen.
        why: String,
    },
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What is in force under an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) epoch: u64,
    pub(crate) at_ms: u64,
    /// `apply`, `revoke`, `contain` or `release`.
    pub(crate) cause: String,
    /// Digest of what the process was started with when this came into force: a restart with the same does not undo a later `apply`.
    pub(crate) started_with: Digest,
    pub(crate) apply: Apply,
    /// Contained services, and since when in seconds since the epoch.
    #[serde(default)]
    pub(crate) contained: BTreeMap<String, u64>,
}

/// The folder of records.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    sealer: KeySealer,
}

impl Store {
    pub(crate) fn open(folder: &Path, sealer: KeySealer) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_at(folder))?;
        Ok(Self { folder: folder.to_owned(), sealer })
    }

    /// The newest record, verified; nothing if none was ever written.
    pub(crate) fn newest(&self) -> Result<Option<Record>, StoreError> {
        let Some(epoch) = self.epochs()?.last().copied() else { return Ok(None) };
        let (name, path) = self.file(epoch);
        let tampered = |why: String| StoreError::Tampered { path: path.display().to_string(), why };
        let mut sealed = String::new();
        let file = File::open(&path).map_err(io_at(&path))?;
        file.take(RECORD_BYTES_MAX).read_to_string(&mut sealed).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => tampered("it is not text".into()),
            _ => StoreError::Io { path: path.display().to_string(), source: e },
        })?;
        let plain = self.sealer.open(&name, 1, &sealed).map_err(|e| tampered(e.to_string()))?;
        let record: Record = serde_json::from_slice(plain.expose()).map_err(|e| tampered(e.to_string()))?;
        if record.epoch == epoch { Ok(Some(record)) } else { Err(tampered("it is another epoch's".into())) }
    }

    /// Keeps a record; once this returns, it survives the loss of power.
    pub(crate) fn keep(&self, record: &Record) -> Result<(), StoreError> {
        let (name, path) = self.file(record.epoch);
        let plain = serde_json::to_vec(record).map_err(|e| StoreError::Io { path: name.clone(), source: e.into() })?;
        let sealed = self.sealer.seal(&name, 1, &plain)?;
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&beside).map_err(io_at(&beside))?;
        file.write_all(sealed.as_bytes()).and_then(|()| file.sync_all()).map_err(io_at(&beside))?;
        fs::rename(&beside, &path).map_err(io_at(&path))?;
        File::open(&self.folder).and_then(|d| d.sync_all()).map_err(io_at(&self.folder))?;
        let epochs = self.epochs()?;
        for old in epochs.iter().take(epochs.len().saturating_sub(KEPT_MAX)) {
            let (_, path) = self.file(*old);
            fs::remove_file(&path).map_err(io_at(&path))?;
        }
        Ok(())
    }

    fn file(&self, epoch: u64) -> (String, PathBuf) {
        let name = format!("epoch-{epoch:020}");
        let path = self.folder.join(&name);
        (name, path)
    }

    fn epochs(&self) -> Result<Vec<u64>, StoreError> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io_at(&self.folder))? {
            let name = entry.map_err(io_at(&self.folder))?.file_name();
            let digits = name.to_str().and_then(|n| n.strip_prefix("epoch-")).filter(|d| d.len() == 20);
            epochs.extend(digits.and_then(|d| d.parse::<u64>().ok()));
        }
        epochs.sort_unstable();
        Ok(epochs)
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::Io { path, source }
}
