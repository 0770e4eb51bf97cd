//! A key file: 32 random bytes that a service keeps beside its database, so that the database alone signs and reveals nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use trust::{Entropy, Secret};

use crate::store::StateError;

/// Bytes in a key file.
pub const KEY_BYTES: usize = 32;

/// Opens the key at `path`; makes it, with mode 0600 and on the disk before this returns, when there is none.
///
/// # Errors
/// `File` when it cannot be read or made; `KeyDamaged` when it does not have 32 bytes.
pub fn open_key(path: &Path, entropy: &dyn Entropy) -> Result<Secret<Vec<u8>>, StateError> {
    let file = |source: io::Error| StateError::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(bytes) if bytes.len() == KEY_BYTES => return Ok(Secret::new(bytes)),
        Ok(_) => return Err(StateError::KeyDamaged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let mut bytes = vec![0; KEY_BYTES];
    entropy.fill(&mut bytes);
    write_whole(path, &bytes).map_err(file)?;
    Ok(Secret::new(bytes))
}

/// Under another name first: a key cut short by a crash is never taken for one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}
