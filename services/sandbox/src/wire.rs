//! The wire between guard and init: whole messages, with file descriptors beside them.
//!
//! A `SOCK_SEQPACKET` pair keeps message borders, sends each message whole, and tells either side when the other died.
//!
//! Spec:       `unix(7)`, `SCM_RIGHTS`.
//! Not here:   what is done with a message (`running` at the guard, `supervise` in init).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::sys::socket::{AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artefact::ArtefactMismatch;
use crate::profile::Profile;
use crate::report::{LayerName, Report};
use crate::running::Exit;
use crate::seen::Seen;
use crate::sys;

/// Guard to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message.
    Start(Box<Profile>),
    /// Open one connection to the service's port.
    Connect { id: u64 },
    /// SIGTERM to the service.
    Terminate,
    /// The end for everything in the sandbox.
    Kill,
}

/// Init to guard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// One listening socket for each flow, in this order.
    Listeners { names: Vec<String> },
    /// The program is running.
    Started { report: Report, pid: i32 },
    /// Nothing was started.
    Refused(Refusal),
    /// One connected socket.
    Connected { id: u64 },
    /// No connection.
    NotConnected { id: u64, why: String },
    /// What the service tried.
    Seen(Seen),
    /// The service ended; everything in the sandbox is dead or dying.
    Exited(Exit),
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Profile(String),
    Mismatch(ArtefactMismatch),
    Layer { layer: LayerName, why: String },
    Setup { step: String, why: String },
}

/// The child that is about to execute the program, to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ChildNote {
    /// The seccomp listener is beside this message.
    Listener,
    /// The last words.
    Refused(Refusal),
}

/// Longest message, bytes. The kernel's default send buffer holds it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 * 1024;
const FDS_MAX: usize = crate::profile::FLOWS_MAX;

/// One end.
#[derive(Debug)]
pub(crate) struct Wire {
    fd: OwnedFd,
    /// Kept between messages; one thread receives.
    buffer: Mutex<Vec<u8>>,
}

impl From<OwnedFd> for Wire {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, buffer: Mutex::default() }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Wire> for OwnedFd {
    fn from(wire: Wire) -> Self {
        wire.fd
    }
}

impl Wire {
    /// Two connected ends, both close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((one.into(), other.into()))
    }

    /// Sends one message whole.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other(format!("message of {} bytes; {MESSAGE_BYTES_MAX} at most", bytes.len())));
        }
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        loop {
            match sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Waits for one message; `None` when the other side is gone.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.get(MsgFlags::empty())
    }

    /// The next message, which is still there afterwards.
    pub(crate) fn peek<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        Ok(self.get(MsgFlags::MSG_PEEK)?.map(|(message, _)| message))
    }

    /// A message that is there already; an error if none is.
    pub(crate) fn receive_at_once<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        Ok(self.get(MsgFlags::MSG_DONTWAIT)?.map(|(message, _)| message))
    }

    fn get<T: DeserializeOwned>(&self, flags: MsgFlags) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(MESSAGE_BYTES_MAX, 0);
        let mut space = cmsg_space!([i32; FDS_MAX]);
        loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let got = match recvmsg::<()>(self.fd.as_raw_fd(), &mut slices, Some(&mut space), flags | MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(got) => got,
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::ECONNRESET) => return Ok(None),
                Err(cause) => return Err(cause.into()),
            };
            let mut fds = Vec::new();
            for control in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    fds.extend(raw.into_iter().map(sys::own_fd));
                }
            }
            if got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
                return Err(io::Error::other("message cut short"));
            }
            let count = got.bytes;
            if count == 0 {
                return Ok(None);
            }
            let message = serde_json::from_slice(bytes.get(..count).unwrap_or_default())?;
            return Ok(Some((message, fds)));
        }
    }
}
