//! A guard's door: HTTP as at every other door of the mesh, and raw flows beside it, told apart by ALPN (RFC 7301) inside of the same
//! mutual TLS. Who offers neither gets no connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use telemetry::Recorder;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{accepting, by_alpn, handshake, peer_of, refused_messages};
use crate::bundle::PeerSvid;
use crate::svid::WorkloadIdentity;
use crate::tls::{self, CallerSvid};

/// As `mesh_with`; `carry` takes raw flows until they end.
///
/// # Errors
/// When the listener or the TLS configuration cannot be used at all.
pub async fn mesh_and_flows<H, F, C, CF>(
    identity: &Arc<WorkloadIdentity>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
    (recorder, point): (Recorder, &'static str),
    handler: H,
    carry: C,
) -> io::Result<()>
where
    H: Fn(Arc<PeerSvid>, http::Request<contract::Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<contract::Body>> + Send + 'static,
    C: Fn(PeerSvid, TlsStream<TcpStream>, CancellationToken) -> CF + Clone + Send + Sync + 'static,
    CF: Future<Output = ()> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut config = (*tls::server(identity, CallerSvid::Required).map_err(io::Error::other)?).clone();
    config.alpn_protocols.push(tls::TCP.to_vec());
    let (config, bundle) = (Arc::new(config), Arc::clone(identity.bundle()));
    let each = |(stream, _): (TcpStream, SocketAddr)| {
        let (config, bundle, recorder) = (Arc::clone(&config), Arc::clone(&bundle), recorder.clone());
        let (handler, carry, stop) = (handler.clone(), carry.clone(), stop.clone());
        async move {
            // Small answers must not wait for an acknowledgement; without the option they are only slower.
            let _nodelay = stream.set_nodelay(true);
            let Some(stream) = handshake(stream, config, &recorder, point).await else { return };
            let Some(svid) = peer_of(&stream, &bundle) else { return };
            if stream.get_ref().1.alpn_protocol() == Some(tls::TCP) {
                return carry(svid, stream, stop).await;
            }
            let refused = refused_messages(&recorder, point, svid.id.to_string());
            let svid = Arc::new(svid);
            by_alpn(stream, move |request| handler(Arc::clone(&svid), request), &stop, refused).await;
        }
    };
    accepting::run(listener, each, &stop).await;
    Ok(())
}
