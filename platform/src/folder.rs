//! The system's folder: whoever can write in it is the system, so it is its owner's alone, or nothing starts.
//!
//! A folder that somebody else made first (a name in `/tmp` that can be guessed) would hand that person the sealing keys, the sockets
//! and the lock.
//!
//! Guarantees: C7 and F8 at rest: keys, sockets and data are the owner's alone, whatever the umask.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::system::SystemError;

/// Write bits of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// All bits of group and others.
const OTHERS: u32 = 0o077;

/// Makes the system's folder if it is missing, and gives its path. From here on, what this process and its children make is theirs alone.
///
/// # Errors
/// `NotOurs` when it is another user's or others may write in it; `Io`.
pub fn claim(path: &Path) -> Result<PathBuf, SystemError> {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("cannot make the folder", path))?;
    let path = path.canonicalize().map_err(io("cannot find", path))?;
    let found = fs::metadata(&path).map_err(io("cannot look at", &path))?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
        return Err(SystemError::NotOurs(path.display().to_string()));
    }
    Ok(path)
}

/// Makes a folder that only its owner may enter; one that is there becomes so.
///
/// # Errors
/// `NotOurs` when what is there is another user's, or no folder; `Io`.
pub fn private(path: &Path) -> Result<(), SystemError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("cannot make the folder", path))?;
    let found = fs::symlink_metadata(path).map_err(io("cannot look at", path))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(SystemError::NotOurs(path.display().to_string()));
    }
    if found.mode() & OTHERS != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("cannot close to others", path))?;
    }
    Ok(())
}

/// Makes a folder that others may pass through to what is theirs in it, and neither list nor change; one that is there becomes so.
///
/// # Errors
/// As `private`.
pub fn passable(path: &Path) -> Result<(), SystemError> {
    private(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(io("cannot open to passers-by", path))
}

fn io<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> SystemError + 'p {
    move |source| SystemError::Io { what, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_in_which_others_may_write_is_not_used() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("system");
        assert_eq!(claim(&path).unwrap(), path.canonicalize().unwrap());
        assert_eq!(mode(&path), 0o700, "whatever the umask was");
        for open in [0o777, 0o770, 0o702] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            assert!(matches!(claim(&path), Err(SystemError::NotOurs(_))), "{open:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        claim(&path).unwrap();
    }

    #[test]
    fn a_folder_of_another_user_is_not_used() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can make one.
        }
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("keys");
        private(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(private(&path), Err(SystemError::NotOurs(_))));
        assert!(matches!(claim(&path), Err(SystemError::NotOurs(_))));
    }

    #[test]
    fn a_private_folder_is_closed_and_never_a_link() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        private(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let link = at.path().join("data");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(private(&link), Err(SystemError::NotOurs(_))));
    }
}
