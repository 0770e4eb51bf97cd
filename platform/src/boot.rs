//! Boot: how a process of Palisade learns who it is to be.
//!
//! Its standard input is one end of a socket pair. Over it come, first, one message with the listeners' file descriptors
//! (`SCM_RIGHTS`) and a JSON description; nothing of that is ever in argv, the environment or a file. The pair stays open: a line from
//! the supervisor asks for a drain, a line to it says "ready", and its end means that the supervisor is gone and this process must be
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use contract::identity::Artefact;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use trust::{SpiffeId, TrustDomain};

/// Most descriptors that one process is handed.
const FDS_MAX: usize = 16;
/// Longest description, in bytes.
const BOOT_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// What a process is told at its start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Who it will be.
    pub spiffe_id: SpiffeId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its own folder.
    pub dir: PathBuf,
    /// Where `identity` listens for processes without an identity.
    pub identity_socket: PathBuf,
    /// The single-use join token; empty for `identity` itself.
    pub token: String,
    /// Root certificates (DER, base64); empty for `identity` itself.
    pub roots: Vec<String>,
    /// Addresses that are needed before there is a view: `control` and `evidence`.
    pub addresses: BTreeMap<SpiffeId, String>,
    /// Names of the descriptors, in their order.
    pub listeners: Vec<String>,
    /// Files whose digests it measures and claims when it joins.
    pub artefacts: Vec<String>,
    /// 32 bytes, hexadecimal: seals this role's keys at rest. Empty for guards, which keep none.
    pub sealing_key: String,
    /// Controls that it goes without, in a throw-away copy of a system alone; see `dangerous`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub dangerous_without: BTreeSet<breach::Control>,
    /// What this role alone needs.
    pub settings: serde_json::Value,
}

/// What went wrong while booting.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The socket pair broke.
    #[error("standard input is not the supervisor's socket; Palisade's roles are started by `palisade up`")]
    Channel(#[from] std::io::Error),
    /// The description is not one.
    #[error("the supervisor's description could not be read")]
    Description(#[from] serde_json::Error),
    /// Fewer or other descriptors than announced.
    #[error("expected the listener {0:?}, which the supervisor did not pass")]
    ListenerMissing(String),
}

/// The descriptors that came along, by name.
#[derive(Debug)]
pub struct Listeners(BTreeMap<String, OwnedFd>);

impl Listeners {
    /// Takes the TCP listener of that name.
    ///
    /// # Errors
    /// `ListenerMissing`.
    pub fn tcp(&mut self, name: &str) -> Result<std::net::TcpListener, BootError> {
        self.take(name).map(Into::into)
    }
    /// Takes the UNIX listener of that name.
    ///
    /// # Errors
    /// `ListenerMissing`.
    pub fn unix(&mut self, name: &str) -> Result<std::os::unix::net::UnixListener, BootError> {
        self.take(name).map(Into::into)
    }
    /// Takes the connected UNIX stream of that name.
    ///
    /// # Errors
    /// `ListenerMissing`.
    pub fn stream(&mut self, name: &str) -> Result<UnixStream, BootError> {
        self.take(name).map(Into::into)
    }
    fn take(&mut self, name: &str) -> Result<OwnedFd, BootError> {
        self.0.remove(name).ok_or_else(|| BootError::ListenerMissing(name.to_owned()))
    }
}

/// Sends a description and its descriptors.
///
/// # Errors
/// `Channel` when the child is gone.
pub fn send(channel: &mut UnixStream, boot: &Boot, fds: &[BorrowedFd<'_>]) -> Result<(), BootError> {
    let text = serde_json::to_vec(boot)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(std::io::Error::other("too many descriptors for one process").into());
    }
    let sent = rustix::net::sendmsg(channel.as_fd(), &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(std::io::Error::from)?;
    if sent != length.len() {
        return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
    }
    channel.write_all(&text)?;
    Ok(())
}

/// Receives what `send` sent, from standard input, and gives the channel back for what follows.
///
/// # Errors
/// All of `BootError`.
pub fn receive() -> Result<(Boot, Listeners, UnixStream), BootError> {
    let mut channel = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(channel.as_fd(), &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(std::io::Error::from)?;
    if received.bytes != length.len() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let length = u32::from_be_bytes(length);
    if length > BOOT_BYTES_MAX {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into());
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    channel.read_exact(&mut text)?;
    let boot: Boot = serde_json::from_slice(&text)?;
    let mut listeners = BTreeMap::new();
    for (name, fd) in boot.listeners.iter().zip(fds) {
        listeners.insert(name.clone(), fd);
    }
    for name in &boot.listeners {
        if !listeners.contains_key(name) {
            return Err(BootError::ListenerMissing(name.clone()));
        }
    }
    Ok((boot, Listeners(listeners), channel))
}

/// A line on the channel after the description.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// Child to supervisor: serving.
    Ready {
        /// What people should be told; today `login`'s one-time link.
        notice: Option<String>,
    },
    /// Child to supervisor: it cannot start, and trying again will not help.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// Guard to supervisor: what is in force for its service is no longer what it was started with.
    Outdated {
        /// What its service should run. The lock decides about that; this only has to agree.
        artefacts: Vec<Artefact>,
    },
    /// Supervisor to child: the run that was to take its place did not get ready, so this one stays.
    Kept {
        /// Why.
        why: String,
    },
    /// Supervisor to child: finish what is under way, then end.
    Drain,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_boot_without_its_descriptors_is_refused() {
        let listeners = &mut Listeners(BTreeMap::new());
        assert!(matches!(listeners.tcp("mesh"), Err(BootError::ListenerMissing(name)) if name == "mesh"));
    }
}
