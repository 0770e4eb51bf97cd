//! Listening: what the supervisor binds once, and children take over as descriptors, so that a restarted role keeps its address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A listener on a free port of loopback.
///
/// # Errors
/// Those of binding.
pub fn loopback() -> io::Result<TcpListener> {
    at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// A listener at `address`.
///
/// # Errors
/// Those of binding.
pub fn at(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listener at a path, for its owner alone (mode 0600). A socket that an earlier run left there is replaced; anything else is not.
/// The folder must be its owner's alone (0700): between binding and setting the mode, the folder is the protection.
///
/// # Errors
/// `AlreadyExists` when there is something else, or somebody still listens; those of binding.
pub fn unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is taken", path.display())));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
