//! Serving a room: over the mesh (mutual TLS), over UNIX sockets, over the supervisor's socket pair.
//!
//! Every function returns once `stop` is cancelled and what was in flight has ended, or `DRAIN_MS` later.
//!
//! Guarantees: D1 mutual TLS, strict; C7 on the joining socket the server shows its SVID first.
//! Not here:   what a request must fulfil (`enforce`).

pub(crate) mod accepting;
pub(crate) mod afterwards;
pub(crate) mod begun;
pub(crate) mod broken_off;
pub mod connection;
mod flood;
pub(crate) mod flows;
pub(crate) mod half_open;
pub(crate) mod screen;
mod stall;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use contract::LocalPeer;
use rustls::ServerConfig;
use telemetry::Recorder;
use telemetry::event::ConnectionRefused;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use trust::DenyReason;

use crate::bundle::{PeerSvid, TrustBundle};
use crate::enforce::{Enforcement, Proof};
use crate::limits;
use crate::svid::WorkloadIdentity;
use crate::tls::{self, CallerSvid};

use half_open::HalfOpen;

/// Asks the kernel for a handle on the process at the other end (`SO_PEERPIDFD`); nothing on kernels without it. It is `sandbox`'s,
/// since this crate has no `unsafe`.
pub type PeerPidfd = fn(BorrowedFd<'_>) -> Option<OwnedFd>;

/// Serves the mesh: TLS 1.3, both ends with their SVID, HTTP/2 or 1.1 by ALPN.
///
/// # Errors
/// When the listener or the TLS configuration cannot be used at all.
pub async fn mesh(
    room: Arc<Enforcement>,
    identity: &Arc<WorkloadIdentity>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let recorder = room.recorder().clone();
    let point = room.point();
    mesh_with(identity, listener, stop, recorder, point, move |svid, request| {
        let room = Arc::clone(&room);
        async move { room.answer(&Proof::Svid(svid), request).await }
    })
    .await
}

/// The same for any handler of requests from verified workloads: the guards' way in.
///
/// # Errors
/// As `mesh`.
pub async fn mesh_with<H, F>(
    identity: &Arc<WorkloadIdentity>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
    recorder: Recorder,
    point: &'static str,
    handler: H,
) -> io::Result<()>
where
    H: Fn(PeerSvid, http::Request<contract::Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<contract::Body>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let config = tls::server(identity, CallerSvid::Required).map_err(io::Error::other)?;
    let bundle = Arc::clone(identity.bundle());
    let begun = HalfOpen::new(limits::HANDSHAKES_MAX, limits::HANDSHAKES_PER_ADDRESS_MAX);
    let each = |(stream, from): (TcpStream, SocketAddr)| {
        let (config, bundle, recorder, handler, stop) =
            (Arc::clone(&config), Arc::clone(&bundle), recorder.clone(), handler.clone(), stop.clone());
        let begun = Arc::clone(&begun);
        async move {
            // Small answers must not wait for an acknowledgement; without the option they are only slower.
            let _nodelay = stream.set_nodelay(true);
            let shaking = begun.run(from.ip(), handshake(stream, config, &recorder, point));
            let Some(stream) = shaking.await.flatten() else { return };
            let Some(svid) = peer_of(&stream, &bundle) else { return };
            let refused = refused_messages(&recorder, point, svid.id.to_string());
            by_alpn(stream, move |request| handler(svid.clone(), request), &stop, refused).await;
        }
    };
    accepting::run(listener, each, &stop).await;
    Ok(())
}

/// Serves `identity`'s socket: TLS over UNIX, the server's SVID always, the caller's if it has one; without one it may only join, and
/// the kernel's word on its process goes to the room.
///
/// # Errors
/// As `mesh`.
pub async fn joining(
    room: Arc<Enforcement>,
    identity: &Arc<WorkloadIdentity>,
    listener: std::os::unix::net::UnixListener,
    pidfd_of: PeerPidfd,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let config = tls::server(identity, CallerSvid::Optional).map_err(io::Error::other)?;
    let bundle = Arc::clone(identity.bundle());
    let begun = HalfOpen::new(limits::HANDSHAKES_MAX, limits::HANDSHAKES_PER_ADDRESS_MAX);
    let each = |stream: UnixStream| {
        let (config, bundle, room, stop) = (Arc::clone(&config), Arc::clone(&bundle), Arc::clone(&room), stop.clone());
        let begun = Arc::clone(&begun);
        async move {
            let Some(local) = local_peer(&stream, pidfd_of) else { return };
            // Here a user is what an address is elsewhere.
            let user = IpAddr::from(std::net::Ipv6Addr::from(u128::from(local.uid)));
            let shaking = begun.run(user, handshake(stream, config, room.recorder(), room.point()));
            let Some(stream) = shaking.await.flatten() else { return };
            let proof = match peer_of(&stream, &bundle) {
                Some(svid) => Proof::Svid(svid),
                None => Proof::Local(local),
            };
            let refused = refused_messages(room.recorder(), room.point(), String::new());
            let handler = move |request| {
                let (room, proof) = (Arc::clone(&room), proof.clone());
                async move { room.answer(&proof, request).await }
            };
            by_alpn(stream, handler, &stop, refused).await;
        }
    };
    accepting::run(listener, each, &stop).await;
    Ok(())
}

/// Serves the operator's socket: plain HTTP/1.1 over UNIX, for processes of our own user and root, by the kernel's word.
///
/// # Errors
/// When the listener cannot be used at all, or our own user is not known.
pub async fn operator(
    room: Arc<Enforcement>,
    listener: std::os::unix::net::UnixListener,
    pidfd_of: PeerPidfd,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let own_uid = UnixStream::pair()?.0.peer_cred()?.uid();
    let listener = UnixListener::from_std(listener)?;
    let each = |stream: UnixStream| {
        let (room, stop) = (Arc::clone(&room), stop.clone());
        async move {
            let Some(local) = local_peer(&stream, pidfd_of) else { return };
            if local.uid != own_uid && local.uid != 0 {
                refuse(room.recorder(), room.point(), format!("uid {}", local.uid), DenyReason::CallerNotAdmitted);
                return;
            }
            plain(Some(Duration::from_millis(limits::HEAD_READ_MS)), room, stream, Proof::Operator(local), stop).await;
        }
    };
    accepting::run(listener, each, &stop).await;
    Ok(())
}

/// Serves the supervisor over its end of a socket pair: plain HTTP/1.1.
///
/// # Errors
/// When the stream cannot be used at all.
pub async fn supervisor(room: Arc<Enforcement>, stream: std::os::unix::net::UnixStream, stop: CancellationToken) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    plain(None, room, UnixStream::from_std(stream)?, Proof::Supervisor, stop).await;
    Ok(())
}

async fn plain(idle: Option<Duration>, room: Arc<Enforcement>, stream: UnixStream, proof: Proof, stop: CancellationToken) {
    let refused = refused_messages(room.recorder(), room.point(), String::new());
    let handler = move |request| {
        let (room, proof) = (Arc::clone(&room), proof.clone());
        async move { room.answer(&proof, request).await }
    };
    connection::http1_idle(idle, stream, handler, &stop, refused).await;
}

async fn by_alpn<S, H, F, R>(stream: TlsStream<S>, handler: H, stop: &CancellationToken, refused: R)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(http::Request<contract::Body>) -> F + Send + Sync,
    F: Future<Output = http::Response<contract::Body>> + Send + 'static,
    R: Fn(&'static str) + Unpin + Send + 'static,
{
    if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
        connection::http2(stream, handler, stop).await;
    } else {
        connection::http1(stream, handler, stop, refused).await;
    }
}

/// The TLS handshake; a refusal is recorded with its own reason. Connections that break without one are not: nobody claimed anything.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
    recorder: &Recorder,
    point: &'static str,
) -> Option<TlsStream<S>> {
    let accepting = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(Duration::from_millis(limits::HANDSHAKE_MS), accepting).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            if let Some(refusal) = tls::refusal_of(&error) {
                refuse(recorder, point, refusal.peer, refusal.reason);
            }
            None
        }
        Err(_late) => None,
    }
}

/// The caller's SVID as the handshake verified it.
fn peer_of<S>(stream: &TlsStream<S>, bundle: &TrustBundle) -> Option<PeerSvid> {
    let (leaf, rest) = stream.get_ref().1.peer_certificates()?.split_first()?;
    let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(bundle.clock().unix_ms()));
    bundle.verify(leaf, rest, crate::bundle::Usage::Client, now).ok()
}

fn local_peer(stream: &UnixStream, pidfd_of: PeerPidfd) -> Option<LocalPeer> {
    let cred = stream.peer_cred().ok()?;
    Some(LocalPeer { uid: cred.uid(), pid: cred.pid()?, pidfd: pidfd_of(stream.as_fd()).map(Arc::new) })
}

pub(crate) fn refuse(recorder: &Recorder, point: &'static str, peer: String, reason: DenyReason) {
    // The connection is refused whether or not the record is kept.
    let _recorded = recorder.record(None, &ConnectionRefused { point, peer, reason });
}

pub(crate) fn refused_messages(recorder: &Recorder, point: &'static str, peer: String) -> impl Fn(&'static str) + Unpin + Send + 'static {
    let recorder = recorder.clone();
    move |_why| refuse(&recorder, point, peer.clone(), DenyReason::RequestAmbiguous)
}
