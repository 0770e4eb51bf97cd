//! Making a connection: TCP or UNIX, then TLS with exactly one acceptable peer, each step within its time.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::{DenyReason, Fault, Retry};

use crate::{limits, tls};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    /// Nobody answered there; nothing was sent.
    #[error("nobody answers at the peer's address")]
    Unreachable(#[source] io::Error),
    /// Somebody else answered, or somebody whose SVID is not good.
    #[error("the peer is not who it should be: {0}")]
    WrongPeer(DenyReason),
    /// The peer does not accept who we are.
    #[error("the peer refused our identity")]
    Refused,
    /// The connection ended before an answer.
    #[error("the connection ended before an answer")]
    Broken(#[source] hyper::Error),
    /// The answer began and did not end, or is larger than an answer may be.
    #[error("the answer did not come whole")]
    Unfinished(#[source] Fault),
    /// Too many requests to this peer are under way already.
    #[error("{0} requests to this peer are under way, no more are let through")]
    Full(usize),
    /// The service behind the peer was found to be out while it had the request.
    #[error("the service behind this guard does not answer as it should")]
    ReplicaOut,
    /// An operator has contained the service.
    #[error("the service is contained: an operator has cut it off")]
    Contained,
    /// No answer within the time.
    #[error("no answer within {0} ms")]
    Late(u64),
    /// The view names no such peer.
    #[error("no flow to this peer is declared")]
    Undeclared,
    /// TLS could not be configured.
    #[error("TLS could not be configured")]
    Tls(#[source] rustls::Error),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
}

/// The fault that stands for a failed call at a service's border.
#[must_use]
pub fn fault_of(failed: CallFailed) -> Fault {
    match failed {
        CallFailed::Unreachable(_) => Fault { retry: Retry::Fresh, ..Fault::unavailable("a peer cannot be reached").because(failed) },
        CallFailed::Broken(_) => Fault { retry: Retry::Fresh, ..Fault::broken("a peer broke off before it answered").because(failed) },
        CallFailed::ReplicaOut => Fault::unavailable("the service does not answer as it should").because(failed),
        CallFailed::Contained => Fault::unavailable("the service is not available").because(failed),
        CallFailed::Full(_) => Fault::unavailable("too many requests to a peer are under way").because(failed),
        CallFailed::WrongPeer(_) | CallFailed::Refused | CallFailed::Undeclared => Fault::refused(failed.to_string()).because(failed),
        CallFailed::Late(_) => Fault::timed_out("a peer took too long").because(failed),
        CallFailed::Tls(_) | CallFailed::Unfinished(_) => Fault::internal(failed),
        CallFailed::Request(_) => Fault::bad_request("not a request").because(failed),
    }
}

/// A TCP connection; tried again a little later when refused or reset, since a role may be starting.
pub(super) async fn tcp(address: SocketAddr) -> Result<TcpStream, CallFailed> {
    let mut pauses = limits::CONNECT_RETRY_PAUSES_MS.iter();
    loop {
        let failed = match tcp_once(address).await {
            Ok(stream) => return Ok(stream),
            Err(failed) => failed,
        };
        let Some(pause) = pauses.next() else { return Err(failed) };
        tokio::time::sleep(Duration::from_millis(*pause)).await;
    }
}

/// The same, tried once.
pub(super) async fn tcp_once(address: SocketAddr) -> Result<TcpStream, CallFailed> {
    let stream = within(limits::CONNECT_MS, TcpStream::connect(address)).await.map_err(CallFailed::Unreachable)?;
    // Without it small requests are slower, nothing else.
    let _nodelay = stream.set_nodelay(true);
    Ok(stream)
}

/// A UNIX connection.
pub(super) async fn unix(path: &Path) -> Result<UnixStream, CallFailed> {
    within(limits::CONNECT_MS, UnixStream::connect(path)).await.map_err(CallFailed::Unreachable)
}

/// TLS over it, with the one peer that `config` accepts.
pub(super) async fn tls<S: AsyncRead + AsyncWrite + Unpin>(stream: S, config: Arc<ClientConfig>) -> Result<TlsStream<S>, CallFailed> {
    // Names are SPIFFE IDs, checked by the verifier; TLS wants a DNS name all the same, and it is not sent.
    let name = ServerName::try_from("mesh.invalid").map_err(|error| CallFailed::Unreachable(io::Error::other(error)))?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    within(limits::HANDSHAKE_MS, connecting).await.map_err(|error| match tls::refusal_of(&error) {
        Some(refusal) => CallFailed::WrongPeer(refusal.reason),
        None if tls::refused_by_peer(&error) => CallFailed::Refused,
        None => CallFailed::Unreachable(error),
    })
}

async fn within<T>(ms: u64, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(Duration::from_millis(ms), doing).await {
        Ok(done) => done,
        Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
    }
}
