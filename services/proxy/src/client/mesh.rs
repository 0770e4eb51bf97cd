//! A peer of the mesh: mutual TLS to one SPIFFE ID, HTTP/2, and HTTP/1.1 beside it for plain requests while there are many (`plain`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::guard::REPLICA_OUT_HEADER;
use contract::{Body, Transport, body};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body::Body as _;
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use trust::{Fault, SpiffeId};

use super::balance::{Among, Balance, Endpoint};
use super::connect::{self, CallFailed};
use super::plain::{self, Connection, Making};
use super::streams::{self, Place, Shared};
use crate::bundle::{PeerSvid, Usage};
use crate::passage::{Passage, Progress};
use crate::svid::WorkloadIdentity;
use crate::view::ViewHolder;
use crate::{headers, limits, tls};

/// Where a peer is.
#[derive(Debug, Clone)]
pub enum Address {
    /// Where the view says at the moment of the call, one address for each replica. Without a fresh view, or when it names no such peer, the call is refused.
    Viewed(Arc<ViewHolder>),
    /// There: only for `control`, `identity` and `evidence`, which views come from or which must be reached without one.
    Fixed(SocketAddr),
}

/// How long the head of an answer may take after the request's last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// `limits::ANSWER_HEAD_MS`.
    Call,
    /// `limits::DELIVERY_HEAD_MS`: the answer comes when the work is done.
    Delivery,
}

/// A transport to one peer. Cheap to share; make one for each peer and keep it.
pub struct MeshTransport {
    identity: Arc<WorkloadIdentity>,
    peer: SpiffeId,
    address: Address,
    patience: Patience,
    config: Arc<rustls::ClientConfig>,
    config_plain: Arc<rustls::ClientConfig>,
    balance: Balance,
}

impl MeshTransport {
    /// A transport to `peer` in the name of `identity`.
    ///
    /// # Errors
    /// `Internal` when TLS cannot be configured, which is a defect of the build.
    pub fn new(identity: &Arc<WorkloadIdentity>, peer: SpiffeId, address: Address, patience: Patience) -> Result<Arc<Self>, Fault> {
        let config = tls::client(Some(identity), identity.bundle(), &peer, &[tls::H2]).map_err(Fault::internal)?;
        let mut config_plain = rustls::ClientConfig::clone(&config);
        config_plain.alpn_protocols = vec![tls::HTTP1.to_vec()];
        let (config_plain, balance) = (Arc::new(config_plain), Balance::new(limits::REQUESTS_PER_REPLICA_MAX));
        Ok(Arc::new(Self { identity: Arc::clone(identity), peer, address, patience, config, config_plain, balance }))
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &SpiffeId {
        &self.peer
    }

    /// How many HTTP/1.1 connections there are to its replicas.
    #[cfg(test)]
    pub(crate) fn plain_connections(&self) -> usize {
        self.replicas().map(|replicas| replicas.iter().map(|one| one.plain.count()).sum()).unwrap_or_default()
    }

    /// The peer's replicas.
    fn replicas(&self) -> Result<Arc<[Arc<Endpoint>]>, CallFailed> {
        match &self.address {
            Address::Fixed(address) => Ok(self.balance.at(&[address.to_string()])),
            Address::Viewed(holder) => {
                let loaded = holder.fresh().map_err(|_| CallFailed::Undeclared)?;
                match loaded.view.peers.get(&self.peer) {
                    None => Err(CallFailed::Undeclared),
                    Some(nowhere) if nowhere.is_empty() => Err(CallFailed::Contained),
                    Some(addresses) => Ok(self.balance.at(addresses)),
                }
            }
        }
    }

    /// A connection to this replica that has room for one more request.
    fn free(&self, endpoint: &Endpoint) -> Option<(Shared, Place)> {
        let made_for = (endpoint.address, self.identity.generation());
        endpoint.streams.free(made_for, |shared| self.identity.bundle().still_good(&shared.peer).is_ok())
    }

    /// A new connection to this replica, or one made while we waited; made with little patience when there are `others`.
    async fn connection(&self, endpoint: &Endpoint, others: bool) -> Result<(Shared, Place), CallFailed> {
        let made_for = (endpoint.address, self.identity.generation());
        let asked = Instant::now();
        let mut failed_at = endpoint.streams.making.lock().await;
        if let Some(found) = self.free(endpoint) {
            return Ok(found);
        }
        if failed_at.is_some_and(|failed_at| failed_at > asked) {
            // Somebody tried while we waited: their failure is ours, or a queue of callers would each wait for its own.
            return Err(CallFailed::Unreachable(io::Error::from(io::ErrorKind::NotConnected)));
        }
        let made = if others {
            let quickly = Duration::from_millis(limits::REPLICA_CONNECT_MS);
            let made = tokio::time::timeout(quickly, async { self.begin(connect::tcp_once(made_for.0).await?, made_for).await }).await;
            made.unwrap_or_else(|late| Err(CallFailed::Unreachable(io::Error::new(io::ErrorKind::TimedOut, late))))
        } else {
            async { self.begin(connect::tcp(made_for.0).await?, made_for).await }.await
        };
        *failed_at = made.is_err().then(Instant::now);
        let shared = made?;
        endpoint.streams.add(&shared);
        Ok(shared.enter())
    }

    async fn begin(&self, stream: TcpStream, made_for: (SocketAddr, u64)) -> Result<Shared, CallFailed> {
        let (stream, peer) = verified(&self.identity, Arc::clone(&self.config), stream).await?;
        Shared::begin(stream, made_for, peer).await
    }

    /// Makes an HTTP/1.1 connection to this replica, beside the requests.
    fn make_plain(&self, endpoint: &Arc<Endpoint>, making: Making) {
        let made_for = (endpoint.address, self.identity.generation());
        let (identity, config, endpoint) = (Arc::clone(&self.identity), Arc::clone(&self.config_plain), Arc::clone(endpoint));
        let make = async move {
            let (stream, peer) = verified(&identity, config, connect::tcp_once(made_for.0).await?).await?;
            Connection::begin(stream, made_for, peer, making).await
        };
        tokio::spawn(async move {
            // If it fails, HTTP/2's will, too, and says so to its request.
            if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(limits::REPLICA_CONNECT_MS), make).await {
                endpoint.plain.keep(connection);
            }
        });
    }

    /// A free HTTP/1.1 connection, if this request may take one.
    fn free_plain(&self, endpoint: &Arc<Endpoint>, request: &Request<Body>) -> Option<Connection> {
        // Many together are cheaper over HTTP/2: several are written and read at once.
        let are_many = endpoint.load() > limits::PLAIN_CONNECTIONS_MAX;
        if are_many || self.patience == Patience::Delivery || !plain::may_take(request) {
            return None;
        }
        let made_for = (endpoint.address, self.identity.generation());
        let found = endpoint.plain.take(made_for, |peer| self.identity.bundle().still_good(peer).is_ok());
        if found.is_none()
            && let Some(making) = endpoint.plain.missed()
        {
            self.make_plain(endpoint, making);
        }
        found
    }

    /// Sends a request; the answer's body streams. A GET or HEAD without a body whose connection broke before an answer is asked once
    /// more, of another replica if there is one, and one whose replica says that it is out is asked of each other, as long as the budget
    /// lasts (RFC 9110, section 9.2.2); anything else only when nothing of it was written.
    ///
    /// # Errors
    /// See `CallFailed`.
    pub async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, CallFailed> {
        headers::strip_hop_by_hop(request.headers_mut());
        let safe = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
        let (parts, sent) = request.into_parts();
        let again = safe.then(|| parts.clone());
        let mut tried = Vec::new();
        self.balance.asked();
        let mut answered = self.call_once(Request::from_parts(parts, sent), &mut tried).await;
        let mut broke = false;
        while let Some(parts) = &again {
            let elsewhere = match &answered {
                Err(CallFailed::Broken(_)) => !std::mem::replace(&mut broke, true),
                Ok(answer) if is_out(answer) => self.replicas()?.iter().any(|one| !tried.contains(&one.address)),
                _ => false,
            };
            if !elsewhere || !self.balance.may_retry() {
                break;
            }
            answered = self.call_once(Request::from_parts(parts.clone(), body::empty()), &mut tried).await;
        }
        answered.map(|mut answer| {
            answer.headers_mut().remove(REPLICA_OUT_HEADER);
            answer
        })
    }

    /// One request to one replica; while nothing of it was written, the next one is tried when one cannot be reached.
    async fn call_once(&self, mut request: Request<Body>, tried: &mut Vec<SocketAddr>) -> Result<Response<Body>, CallFailed> {
        let replicas = self.replicas()?;
        let among = if self.patience == Patience::Delivery { Among::First } else { Among::InTurn };
        let progress = Progress::default();
        if !request.body().is_end_stream() {
            request = request.map(|body| Passage::new(body).counted(&progress).into_body());
        }
        let mut fresh = false;
        loop {
            let (mut load, others) = self.balance.choose(&replicas, tried, among, Instant::now())?;
            let endpoint = Arc::clone(load.endpoint());
            if let Some(connection) = self.free_plain(&endpoint, &request) {
                match connection.send(request, &self.peer, Arc::clone(&endpoint.plain), load).await {
                    Ok(response) => {
                        note(&endpoint, &response, tried);
                        return Ok(response);
                    }
                    // It had been closed; over HTTP/2 then.
                    Err(Ok(unsent)) => (request, load) = unsent,
                    Err(Err(failed)) => {
                        if matches!(failed, CallFailed::Broken(_) | CallFailed::Refused) {
                            endpoint.failed(Instant::now());
                            tried.push(endpoint.address);
                        }
                        return Err(failed);
                    }
                }
            }
            request = self.as_http2(request)?;
            // Mostly there is one; making one is a large future.
            let found = self.free(&endpoint);
            let found = if let Some(found) = found { Ok(found) } else { Box::pin(self.connection(&endpoint, others)).await };
            let (mut shared, place) = match found {
                Ok(found) => found,
                Err(failed) => {
                    endpoint.failed(Instant::now());
                    tried.push(endpoint.address);
                    if others && matches!(failed, CallFailed::Unreachable(_)) {
                        continue;
                    }
                    return Err(failed);
                }
            };
            if let Err(error) = shared.sender.ready().await {
                endpoint.streams.forget(&shared);
                if fresh {
                    return Err(streams::broken(error));
                }
                fresh = true;
                continue;
            }
            match wait(shared.sender.try_send_request(request), &progress, self.patience).await? {
                Ok(response) => {
                    note(&endpoint, &response, tried);
                    return Ok(response.map(|body| Passage::new(body).at_end(move |_| drop((place, load))).into_body()));
                }
                Err(mut error) => {
                    endpoint.streams.forget(&shared);
                    match error.take_message() {
                        Some(unsent) if !fresh => {
                            request = unsent;
                            fresh = true;
                        }
                        _ => {
                            endpoint.failed(Instant::now());
                            tried.push(endpoint.address);
                            return Err(streams::broken(error.into_error()));
                        }
                    }
                }
            }
        }
    }

    /// A connection of its own for a raw flow; nothing else goes over it.
    ///
    /// # Errors
    /// See `CallFailed`.
    pub async fn raw(&self) -> Result<TlsStream<TcpStream>, CallFailed> {
        let config = tls::client(Some(&self.identity), self.identity.bundle(), &self.peer, &[tls::TCP]).map_err(CallFailed::Tls)?;
        let stream = connect::tls(self.reach().await?, config).await?;
        if stream.get_ref().1.alpn_protocol() == Some(tls::TCP) {
            return Ok(stream);
        }
        Err(CallFailed::Unreachable(io::Error::other("the peer takes no raw flows")))
    }

    /// A TCP connection to the first replica that takes one.
    async fn reach(&self) -> Result<TcpStream, CallFailed> {
        let replicas = self.replicas()?;
        let mut tried = Vec::new();
        loop {
            let (load, others) = self.balance.choose(&replicas, &tried, Among::InTurn, Instant::now())?;
            let endpoint = load.endpoint();
            let made = if others { connect::tcp_once(endpoint.address).await } else { connect::tcp(endpoint.address).await };
            match made {
                Err(CallFailed::Unreachable(_)) if others => {
                    endpoint.failed(Instant::now());
                    tried.push(endpoint.address);
                }
                made => return made,
            }
        }
    }

    /// The peer's name stands in `:authority`, unless the caller says otherwise in `Host` (the edge passes the browser's on).
    fn as_http2(&self, mut request: Request<Body>) -> Result<Request<Body>, CallFailed> {
        if request.uri().authority().is_some() {
            return Ok(request);
        }
        let said = take_host(request.headers_mut());
        let authority = said.map_or_else(|| Authority::try_from(self.peer.workload.name()).map_err(http::Error::from), Ok);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority.map_err(CallFailed::Request)?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| CallFailed::Request(error.into()))?;
        *request.version_mut() = http::Version::HTTP_2;
        Ok(request)
    }
}

/// Whether a guard says that its service is out, so that nothing was done with the request, or nothing that a reader would miss.
fn is_out<B>(answer: &Response<B>) -> bool {
    answer.status() == http::StatusCode::SERVICE_UNAVAILABLE && answer.headers().contains_key(REPLICA_OUT_HEADER)
}

/// Notes how a replica answered.
fn note<B>(endpoint: &Endpoint, answer: &Response<B>, tried: &mut Vec<SocketAddr>) {
    if is_out(answer) {
        endpoint.failed(Instant::now());
        tried.push(endpoint.address);
    } else {
        endpoint.answered(answer.status(), Instant::now());
    }
}

/// TLS with the one peer that `config` accepts, and its SVID.
async fn verified(
    identity: &WorkloadIdentity,
    config: Arc<rustls::ClientConfig>,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Arc<PeerSvid>), CallFailed> {
    let stream = connect::tls(stream, config).await?;
    let malformed = CallFailed::WrongPeer(trust::DenyReason::SvidMalformed);
    let (leaf, rest) = stream.get_ref().1.peer_certificates().and_then(<[_]>::split_first).ok_or(malformed)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(identity.bundle().clock().unix_ms()));
    let peer = identity.bundle().verify(leaf, rest, Usage::Server, now).map_err(|refusal| CallFailed::WrongPeer(refusal.reason))?;
    Ok((stream, Arc::new(peer)))
}

/// Waits for the head of an answer, `patience` after the last progress of the request's body.
async fn wait<T>(answer: impl Future<Output = T>, progress: &Progress, patience: Patience) -> Result<T, CallFailed> {
    let ms = match patience {
        Patience::Call => limits::ANSWER_HEAD_MS,
        Patience::Delivery => limits::DELIVERY_HEAD_MS,
    };
    let mut answer = std::pin::pin!(answer);
    let mut seen = progress.seen();
    loop {
        if let Ok(answered) = tokio::time::timeout(Duration::from_millis(ms), answer.as_mut()).await {
            return Ok(answered);
        }
        let now = progress.seen();
        if now == seen {
            return Err(CallFailed::Late(ms));
        }
        seen = now;
    }
}

fn take_host(headers: &mut HeaderMap) -> Option<Authority> {
    headers.remove(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok())
}

#[async_trait]
impl Transport for MeshTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        self.call(request).await.map_err(connect::fault_of)
    }
}

impl fmt::Debug for MeshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTransport").field("peer", &self.peer.to_string()).field("patience", &self.patience).finish_non_exhaustive()
    }
}
