//! What the operator told of the last breach, kept in a file of its own beside the index.
//!
//! Guarantees: L8: the console shows the latest report. The file is whole or not there: it is written apart and renamed.
//! Not here:   who may tell it (the route), what it means (`console`).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use contract::console::BreachTold;
use trust::Fault;

/// Where it is, beside the index.
pub(crate) fn beside(database: &Path) -> PathBuf {
    database.with_file_name("breach.json")
}

/// Keeps what was told, in place of what was before.
///
/// # Errors
/// `Internal` when the disk does not take it.
pub(crate) async fn keep(file: &Path, told: &BreachTold) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(told).map_err(Fault::internal)?;
    let next = file.with_extension("next");
    tokio::fs::write(&next, bytes).await.map_err(Fault::internal)?;
    tokio::fs::rename(&next, file).await.map_err(Fault::internal)
}

/// What was told last; nothing, if nothing was.
///
/// # Errors
/// `Internal` when it is there and cannot be read.
pub(crate) async fn kept(file: &Path) -> Result<Option<BreachTold>, Fault> {
    match tokio::fs::read(file).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(Fault::internal),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::internal(error)),
    }
}
