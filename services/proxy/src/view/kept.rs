//! The last view, kept in a file so that a restarted process can decide before `control` answers (until the view's age ends it).

use std::io::{self, Write};
use std::path::Path;

use contract::control::SignedView;

/// Reads it; nothing when there is no file.
///
/// # Errors
/// Those of the file; `InvalidData` when it is not a signed view.
pub(super) fn load(path: &Path) -> io::Result<Option<SignedView>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes it whole or not at all: a neighbour file, synced, then renamed over.
///
/// # Errors
/// Those of the file.
pub(super) fn store(path: &Path, signed: &SignedView) -> io::Result<()> {
    let bytes = serde_json::to_vec(signed)?;
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    std::fs::rename(&beside, path)
}
