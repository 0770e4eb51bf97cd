//! Listening: public TLS connections, each with HTTP/1.1 or HTTP/2 on it.
//!
//! There is no plain-text port.
//!
//! Spec:       RFC 8446, RFC 9325 sections 3.1.1 and 4.2 (TLS 1.3, floor 1.2, AEAD and forward secrecy alone), RFC 7301 (ALPN),
//!             RFC 5077 and RFC 8446 section 4.6.1 (tickets).
//! Guarantees: A1; A13 time-outs and counts of connections before a request is read; C14 X25519MLKEM768 is preferred.
//! Not here:   HTTP itself (`serve::connection`), mutual TLS (`tls`), which certificate is shown (`certificates`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::Body;
use http::Request;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use trust::{Clock, DenyReason};

use super::certificates::{Certificates, Looked};
use super::client_certificate::{ClientAuthorities, ClientCertificate};
use super::proxied::Balancers;
use super::{Edge, POINT, admission};
use crate::passage::Passage;
use crate::serve::afterwards::Afterwards;
use crate::serve::half_open::HalfOpen;
use crate::serve::{accepting, connection, refuse, refused_messages};
use crate::{limits, tls};

/// A connection without a request under way for so long is closed.
const CONNECTION_IDLE: Duration = Duration::from_secs(120);
/// How often it is looked at whether one is.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// How often the certificates' files are looked at.
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(5);
/// How often those who have not asked for a while are forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

/// How the public comes in.
#[derive(Debug)]
pub struct Entrance {
    /// What it is shown.
    pub certificates: Arc<Certificates>,
    /// Who is believed about whom a connection is made for.
    pub balancers: Balancers,
    /// Whether an authority may ask for proofs (tls-alpn-01).
    pub acme: bool,
}

/// What the certificate of a connection was shown for. Where there are several certificates, a request for a host of another one came
/// to the wrong place (RFC 9110 section 7.4).
#[derive(Debug, Clone)]
pub(super) struct Door {
    certificates: Arc<Certificates>,
    host: Arc<str>,
}

impl Door {
    fn of(certificates: &Arc<Certificates>, asked_for: Option<&str>) -> Option<Self> {
        let host = asked_for.map_or_else(|| certificates.unnamed_host().unwrap_or_default(), str::to_owned);
        certificates.are_several().then(|| Self { certificates: Arc::clone(certificates), host: host.into() })
    }

    /// Whether a request for that host may come by it.
    pub(super) fn leads_to(&self, host: &str) -> bool {
        *self.host == *host || self.certificates.same(&self.host, host)
    }
}

/// The public side of TLS.
fn server_config(entrance: &Entrance, clients: &ClientAuthorities) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(clients.verifier())
        .with_cert_resolver(Arc::clone(&entrance.certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![tls::H2.to_vec(), tls::HTTP1.to_vec()];
    if entrance.acme {
        config.alpn_protocols.push(tls::ACME.to_vec());
    }
    // Tickets under keys that live in memory alone and are replaced every six hours; nothing is kept for who does not come back.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // No 0-RTT: a request that can be replayed by whoever recorded it is not one person's request.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The request, with the certificate that its connection has shown.
fn showing(mut request: Request<Body>, shown: Option<&Arc<ClientCertificate>>) -> Request<Body> {
    if let Some(shown) = shown {
        request.extensions_mut().insert(Arc::clone(shown));
    }
    request
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

/// Version of TLS, for the access log.
fn version(stream: &TlsStream<TcpStream>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    }
}

/// A request that came by that door.
fn through(door: &Option<Door>, mut request: Request<Body>) -> Request<Body> {
    if let Some(door) = door {
        request.extensions_mut().insert(door.clone());
    }
    request
}

impl Edge {
    /// Serves the public on `listener` until `stop`; then what is in flight ends, and this returns.
    ///
    /// # Errors
    /// When the listener cannot be used, or TLS cannot be set up (a defect of the build).
    pub async fn run(self: Arc<Self>, listener: std::net::TcpListener, entrance: Entrance, stop: CancellationToken) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(server_config(&entrance, &self.clients).map_err(std::io::Error::other)?);
        let connections = Arc::new(Connections::default());
        let begun = HalfOpen::new(limits::HANDSHAKES_MAX, limits::HANDSHAKES_PER_ADDRESS_MAX);
        let balancers = Arc::new(entrance.balancers);
        let certificates = Arc::clone(&entrance.certificates);
        let upkeep = tokio::spawn(Arc::clone(&self).keep_up(entrance.certificates, stop.clone()));
        let serve = |(mut tcp, peer): (TcpStream, SocketAddr)| {
            let (edge, acceptor, stop, begun) = (Arc::clone(&self), acceptor.clone(), stop.clone(), Arc::clone(&begun));
            let (connections, max) = (Arc::clone(&connections), edge.limits.address_connections_max);
            let (balancers, certificates) = (Arc::clone(&balancers), Arc::clone(&certificates));
            async move {
                let refused = |from: IpAddr, reason| refuse(&edge.recorder, POINT, from.to_string(), reason);
                let from = match balancers.caller(&mut tcp, peer.ip()).await {
                    Ok(from) => from,
                    Err(reason) => return refused(peer.ip(), reason),
                };
                // Looked at before, so that a handshake is not made in vain; taken after, so that silence takes nobody's place.
                if connections.full(from, max) {
                    return refused(from, DenyReason::ConcurrencyExceeded);
                }
                let Some(stream) = edge.shake(tcp, from, &acceptor, &begun).await else { return };
                let Some(place) = connections.one_more(from, max) else { return refused(from, DenyReason::ConcurrencyExceeded) };
                let door = Door::of(&certificates, stream.get_ref().1.server_name());
                Arc::clone(&edge).connection(stream, from, door, &stop).await;
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
        if stream.get_ref().1.alpn_protocol() == Some(tls::ACME) {
            // The handshake was the whole answer (RFC 8737 section 3).
            self.recorder.metrics().act("edge.challenge.answered");
            return None;
        }
        Some(stream)
    }

    /// One connection: requests until it ends.
    async fn connection(self: Arc<Self>, stream: TlsStream<TcpStream>, from: IpAddr, door: Option<Door>, stop: &CancellationToken) {
        let shown = ClientCertificate::of(stream.get_ref().1.peer_certificates());
        if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
            return self.http2(stream, shown, from, door, stop).await;
        }
        let (refused, tls) = (refused_messages(&self.recorder, POINT, from.to_string()), version(&stream));
        let handler = |request: Request<Body>| self.serve(from, tls, through(&door, showing(request, shown.as_ref())));
        connection::http1(stream, handler, stop, refused).await;
    }

    /// HTTP/2 has no time-out of its own for a connection without requests; HTTP/1.1's is that for the next head.
    async fn http2(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        shown: Option<Arc<ClientCertificate>>,
        from: IpAddr,
        door: Option<Door>,
        stop: &CancellationToken,
    ) {
        let (activity, quiet, tls) = (Activity::new(&self.clock), stop.child_token(), version(&stream));
        let handler = {
            let (edge, activity) = (Arc::clone(&self), Arc::clone(&activity));
            move |request: Request<Body>| {
                let (edge, under_way) = (Arc::clone(&edge), activity.begin());
                let request = through(&door, showing(request, shown.as_ref()));
                async move {
                    let mut answer = edge.serve(from, tls, request).await;
                    match Afterwards::hold(&mut answer, under_way) {
                        Some(under_way) => answer.map(|body| Passage::new(body).at_end(move |_| drop(under_way)).into_body()),
                        None => answer,
                    }
                }
            }
        };
        let idle = async {
            while activity.idle() < CONNECTION_IDLE {
                tokio::time::sleep(IDLE_LOOK).await;
            }
            quiet.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = connection::http2(stream, handler, &quiet) => {}
            () = idle => {}
        }
    }

    /// Looks at the certificates' files.
    fn look(&self, certificates: &Certificates) {
        for looked in certificates.look() {
            // It is shown, or not, whether or not the record is kept; what cannot be kept stops requests soon enough.
            let _recorded = match looked {
                Looked::Taken(event) => self.recorder.record(None, &event),
                Looked::Refused(event) => self.recorder.record(None, &event),
            };
        }
        for (host, not_after_s) in certificates.ends() {
            self.recorder.metrics().certificate_ends(&host, not_after_s);
        }
    }

    /// Looks after the certificates and the counts.
    async fn keep_up(self: Arc<Self>, certificates: Arc<Certificates>, stop: CancellationToken) {
        let (mut look, mut sweep) = (tokio::time::interval(CERTIFICATE_PAUSE), tokio::time::interval(SWEEP_PAUSE));
        loop {
            let asked = self.clock.monotonic();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => self.look(&certificates),
                _ = sweep.tick() => {
                    self.admission.sweep();
                    self.passes.sweep(self.clock.monotonic());
                }
                () = tokio::time::sleep(admission::LOOK_PAUSE) => {
                    let now = self.clock.monotonic();
                    let late = now.saturating_sub(asked).saturating_sub(admission::LOOK_PAUSE);
                    if self.admission.observe(late) {
                        self.recorder.metrics().act("edge.shedding");
                    }
                }
            }
        }
    }
}
