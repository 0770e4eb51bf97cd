//! Listening: public TLS connections, each with HTTP/1.1 or HTTP/2 on it.
//!
//! The certificate comes from two PEM files and is read again when they change, without a connection lost; a pair that does not fit
//! together is not taken. There is no plain-text port.
//!
//! Spec:       RFC 8446, RFC 9325 sections 3.1.1 and 4.2 (TLS 1.3, floor 1.2, AEAD and forward secrecy alone), RFC 7301 (ALPN).
//! Guarantees: A1; A13 time-outs and counts of connections before a request is read.
//! Not here:   HTTP itself (`serve::connection`), mutual TLS (`tls`).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use contract::Body;
use http::Request;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use trust::{Clock, DenyReason, Digest};

use super::{Edge, POINT, admission};
use crate::passage::Passage;
use crate::serve::afterwards::Afterwards;
use crate::serve::half_open::HalfOpen;
use crate::serve::{accepting, connection, refuse, refused_messages};
use crate::{limits, tls};

/// A connection without a request under way for so long is closed.
const CONNECTION_IDLE: Duration = Duration::from_secs(120);
/// How often the certificate's files are looked at.
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(5);
/// How often those who have not asked for a while are forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read.
    #[error("cannot read {path}; the certificate chain and its key must be PEM files that this process may read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not PEM of what it should hold.
    #[error("{path} does not hold a certificate chain or private key in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
    },
    /// Key and certificate do not belong together, or the key is of no supported kind.
    #[error("the private key does not fit the certificate, or is of no supported kind")]
    Mismatch(#[source] rustls::Error),
}

/// The certificate that the public sees; replaced while connections go on.
pub struct PublicCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<Held>,
}

struct Held {
    certified: Arc<CertifiedKey>,
    seen: Digest,
}

impl PublicCertificate {
    /// Loads chain (leaf first) and key (PKCS #8, SEC 1 or PKCS #1) from PEM files.
    ///
    /// # Errors
    /// See `CertificateError`.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let held = open(chain, key)?;
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), current: ArcSwap::from_pointee(held) }))
    }

    /// Reads the files again; whether there was something new.
    ///
    /// # Errors
    /// See `CertificateError`; the present certificate stays.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let held = open(&self.chain, &self.key)?;
        let new = held.seen != self.current.load().seen;
        if new {
            self.current.store(Arc::new(held));
        }
        Ok(new)
    }
}

impl ResolvesServerCert for PublicCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl fmt::Debug for PublicCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicCertificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

fn open(chain: &Path, key: &Path) -> Result<Held, CertificateError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| CertificateError::File { path: path.to_owned(), source });
    let pem = |path: &Path| CertificateError::Pem { path: path.to_owned() };
    let (chain_pem, key_pem) = (read(chain)?, zeroize::Zeroizing::new(read(key)?));
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<_, _>>().map_err(|_| pem(chain))?;
    if certificates.is_empty() {
        return Err(pem(chain));
    }
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| pem(key))?;
    // `from_der` checks that the key is the certificate's.
    let certified = CertifiedKey::from_der(certificates, private, &tls::provider()).map_err(CertificateError::Mismatch)?;
    let seen = Digest::of(&[Digest::of(&chain_pem).as_bytes().as_slice(), Digest::of(&key_pem).as_bytes()].concat());
    Ok(Held { certified: Arc::new(certified), seen })
}

/// The public side of TLS.
fn server_config(certificate: Arc<PublicCertificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![tls::H2.to_vec(), tls::HTTP1.to_vec()];
    // No 0-RTT: a request that can be replayed by whoever recorded it is not one person's request.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Connections of each address.
#[derive(Debug, Default)]
struct Connections(Mutex<HashMap<IpAddr, usize>>);

struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    fn full(&self, address: IpAddr, max: usize) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&admission::network(address)).is_some_and(|count| *count >= max)
    }

    fn one_more(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let address = admission::network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place { connections: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => {
                counts.remove(&self.address);
            }
        }
    }
}

/// Requests of one connection.
struct Activity {
    clock: Arc<dyn Clock>,
    // Requests under way, and when the last one began or ended.
    state: Mutex<(usize, Duration)>,
}

struct UnderWay(Arc<Activity>);

impl Activity {
    fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock: Arc::clone(clock), state: Mutex::new((0, clock.monotonic())) })
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.change(|under_way| under_way.saturating_add(1));
        UnderWay(Arc::clone(self))
    }

    fn change(&self, count: impl Fn(usize) -> usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (count(state.0), self.clock.monotonic());
    }

    /// For how long there has been nothing.
    fn idle(&self) -> Duration {
        let (under_way, since) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way == 0 { self.clock.monotonic().saturating_sub(since) } else { Duration::ZERO }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|under_way| under_way.saturating_sub(1));
    }
}

impl Edge {
    /// Serves the public on `listener` until `stop`; then what is in flight ends, and this returns.
    ///
    /// # Errors
    /// When the listener cannot be used, or TLS cannot be set up (a defect of the build).
    pub async fn run(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        certificate: Arc<PublicCertificate>,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(server_config(Arc::clone(&certificate)).map_err(std::io::Error::other)?);
        let connections = Arc::new(Connections::default());
        let begun = HalfOpen::new(limits::HANDSHAKES_MAX, limits::HANDSHAKES_PER_ADDRESS_MAX);
        let upkeep = tokio::spawn(Arc::clone(&self).keep_up(certificate, stop.clone()));
        let serve = |(tcp, from): (TcpStream, SocketAddr)| {
            let (edge, acceptor, stop, begun) = (Arc::clone(&self), acceptor.clone(), stop.clone(), Arc::clone(&begun));
            let (connections, max) = (Arc::clone(&connections), edge.limits.address_connections_max);
            async move {
                let refused = || refuse(&edge.recorder, POINT, from.ip().to_string(), DenyReason::ConcurrencyExceeded);
                // Looked at before, so that a handshake is not made in vain; taken after, so that silence takes nobody's place.
                if connections.full(from.ip(), max) {
                    return refused();
                }
                let Some(stream) = edge.shake(tcp, from.ip(), &acceptor, &begun).await else { return };
                let Some(place) = connections.one_more(from.ip(), max) else { return refused() };
                Arc::clone(&edge).connection(stream, from.ip(), &stop).await;
                drop(place);
            }
        };
        accepting::run(listener, serve, &stop).await;
        upkeep.abort();
        Ok(())
    }

    /// The handshake; nothing when it failed, took too long, or gave way to later ones.
    async fn shake(&self, tcp: TcpStream, from: IpAddr, acceptor: &TlsAcceptor, begun: &HalfOpen) -> Option<TlsStream<TcpStream>> {
        // Small answers leave at once; without it they wait for acknowledgements, which costs time and nothing else.
        let _nodelay = tcp.set_nodelay(true);
        let handshake = tokio::time::timeout(Duration::from_millis(limits::HANDSHAKE_MS), acceptor.accept(tcp));
        let Some(Ok(Ok(stream))) = begun.run(admission::network(from), handshake).await else {
            self.recorder.metrics().act("edge.handshake.failed");
            return None;
        };
        Some(stream)
    }

    /// One connection: requests until it ends.
    async fn connection(self: Arc<Self>, stream: TlsStream<TcpStream>, from: IpAddr, stop: &CancellationToken) {
        if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
            return self.http2(stream, from, stop).await;
        }
        let refused = refused_messages(&self.recorder, POINT, from.to_string());
        let handler = |request: Request<Body>| self.serve(from, request);
        connection::http1(stream, handler, stop, refused).await;
    }

    /// HTTP/2 has no time-out of its own for a connection without requests; HTTP/1.1's is that for the next head.
    async fn http2(self: Arc<Self>, stream: TlsStream<TcpStream>, from: IpAddr, stop: &CancellationToken) {
        let (activity, quiet) = (Activity::new(&self.clock), stop.child_token());
        let handler = {
            let (edge, activity) = (Arc::clone(&self), Arc::clone(&activity));
            move |request: Request<Body>| {
                let (edge, under_way) = (Arc::clone(&edge), activity.begin());
                async move {
                    let mut answer = edge.serve(from, request).await;
                    match Afterwards::hold(&mut answer, under_way) {
                        Some(under_way) => answer.map(|body| Passage::new(body).at_end(move |_| drop(under_way)).into_body()),
                        None => answer,
                    }
                }
            }
        };
        let idle = async {
            while activity.idle() < CONNECTION_IDLE {
                tokio::time::sleep(CONNECTION_IDLE / 4).await;
            }
            quiet.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = connection::http2(stream, handler, &quiet) => {}
            () = idle => {}
        }
    }

    /// Looks after the certificate and the counts.
    async fn keep_up(self: Arc<Self>, certificate: Arc<PublicCertificate>, stop: CancellationToken) {
        let (mut look, mut sweep) = (tokio::time::interval(CERTIFICATE_PAUSE), tokio::time::interval(SWEEP_PAUSE));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {
                    // Half-written files are read again at the next look; the certificate in force stays.
                    if let Ok(true) = certificate.reload() {
                        self.recorder.metrics().act("edge.certificate.reloaded");
                    }
                }
                _ = sweep.tick() => {
                    self.admission.sweep();
                    self.passes.sweep(self.clock.monotonic());
                }
            }
        }
    }
}
