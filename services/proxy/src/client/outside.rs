//! A destination outside the system: its name resolved, every address checked, TLS with exactly that name, and HTTP over it.
//!
//! The order is what keeps a name's owner from leading a guard elsewhere: the addresses that a resolver gives are checked, all of them,
//! and then a connection is made to one of these very addresses; nothing is resolved twice. One bad address among them is a refusal of
//! all: somebody plays with the name. A connection is used for a few minutes at most, then the name is resolved anew.
//!
//! Spec:       RFC 9110 section 4.3 (https), RFC 9525 (names), RFC 7301 (ALPN).
//! Guarantees: D10 only declared destinations, at addresses that may be connected to; D9 each step within its time.
//! Not here:   who may call what (`mesh::outbound::egress`), what leaves of a request's fields (there, too).

mod bounded;
mod pool;
mod proof;
mod resolve;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::Body;
use contract::control::Outside;
use http::{Request, Response, StatusCode, header};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::{Clock, DenyReason, Fault, Unreachable};

pub(crate) use self::bounded::{Over, bounded};
use self::pool::{Connection, Pool};
use self::proof::Credentials;
pub use self::proof::ProofError;
pub use self::resolve::{MachineResolver, Resolve};
use crate::{limits, tls};

/// Why a call outside failed.
#[derive(Debug, thiserror::Error)]
pub enum OutsideFailed {
    /// The name could not be resolved.
    #[error("the name {0} cannot be resolved")]
    Unresolved(String, #[source] io::Error),
    /// The name has no address, or more than anybody means.
    #[error("the name {0} has {1} addresses; 1 to {max} are taken", max = limits::OUTSIDE_ADDRESSES_MAX)]
    Addresses(String, usize),
    /// One of its addresses must not be connected to.
    #[error("the name leads to an address that is not connected to; declare its network in 'networks' if it is meant")]
    Forbidden(#[from] Unreachable),
    /// Nobody answers there.
    #[error("nobody answers at {0}")]
    Silent(SocketAddr, #[source] io::Error),
    /// Who answers has no good certificate for the name.
    #[error("who answers at {0} does not prove to be the declared host")]
    Untrusted(SocketAddr, #[source] io::Error),
    /// Our certificate or credential cannot be used.
    #[error("the certificate or credential for it cannot be used")]
    Proof(#[from] ProofError),
    /// The connection ended before an answer.
    #[error("the connection ended before an answer")]
    Broken(#[source] hyper::Error),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
    /// The answer changes the protocol, which nobody asked for.
    #[error("the answer changes the protocol")]
    Upgraded,
    /// The answer says to be larger than declared.
    #[error("the answer is larger than {0} bytes; raise 'max_answer' if it is meant")]
    AnswerTooLarge(u64),
}

impl OutsideFailed {
    /// The refusal that this is, if it is one and no mere failure.
    #[must_use]
    pub fn refusal(&self) -> Option<DenyReason> {
        match self {
            Self::Forbidden(_) => Some(DenyReason::AddressForbidden),
            Self::Untrusted(..) => Some(DenyReason::DestinationUntrusted),
            Self::Proof(_) => Some(DenyReason::CredentialUnavailable),
            _ => None,
        }
    }

    /// The fault that stands for it.
    #[must_use]
    pub fn fault(self) -> Fault {
        let public = match &self {
            Self::Unresolved(..) | Self::Addresses(..) => "the destination's name cannot be resolved",
            Self::Silent(..) | Self::Proof(_) => "the destination cannot be reached",
            Self::Forbidden(_) | Self::Untrusted(..) => "the destination is not connected to",
            Self::Broken(_) | Self::Upgraded => "the destination broke off before it answered",
            Self::AnswerTooLarge(_) => "the destination's answer is larger than declared",
            Self::Request(_) => "not a request",
        };
        match &self {
            Self::Broken(_) | Self::Upgraded | Self::AnswerTooLarge(_) => Fault::broken(public).because(self),
            Self::Request(_) => Fault::bad_request(public).because(self),
            _ => Fault::unavailable(public).because(self),
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy)]
pub struct CameFrom(pub SocketAddr);

/// The way to one destination. Keep one for each.
pub struct Line {
    resolver: Arc<dyn Resolve>,
    clock: Arc<dyn Clock>,
    credentials: Credentials,
    pool: Arc<Pool>,
    /// Connections being made at the same time: a burst shares the first that speak HTTP/2.
    making: Semaphore,
}

impl Line {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>, clock: Arc<dyn Clock>) -> Self {
        let making = Semaphore::new(limits::OUTSIDE_MAKING_MAX);
        Self { resolver, clock, credentials: Credentials::default(), pool: Arc::default(), making }
    }

    /// The credential that goes along, as its file has it now.
    ///
    /// # Errors
    /// `Proof`.
    pub async fn credential(&self, to: &Arc<Outside>) -> Result<Option<(http::HeaderName, http::HeaderValue)>, OutsideFailed> {
        Ok(self.credentials.of(to).await?)
    }

    /// Sends a request in origin form and gives the answer, whose body streams. Nothing is sent twice: a request is repeated only when
    /// its connection was gone before a byte of it was written.
    ///
    /// # Errors
    /// See `OutsideFailed`.
    pub async fn call(&self, to: &Arc<Outside>, mut request: Request<Body>) -> Result<Response<Body>, OutsideFailed> {
        while let Some(connection) = self.pool.take(to) {
            match connection.send(request, to, &self.pool).await {
                Ok(answer) => return checked(answer, to),
                Err(Ok(unsent)) => request = unsent,
                Err(Err(failed)) => return Err(failed),
            }
        }
        let connection = Box::pin(self.make(to)).await?;
        match connection.send(request, to, &self.pool).await {
            Ok(answer) => checked(answer, to),
            Err(Err(failed)) => Err(failed),
            Err(Ok(_unsent)) => Err(OutsideFailed::Silent(
                SocketAddr::from(([0, 0, 0, 0], to.port)),
                io::Error::new(io::ErrorKind::ConnectionReset, "it closed each connection at once"),
            )),
        }
    }

    /// A new connection, or one that was made while we waited.
    async fn make(&self, to: &Arc<Outside>) -> Result<Connection, OutsideFailed> {
        // The semaphore is never closed.
        let _making = self.making.acquire().await;
        if let Some(found) = self.pool.take(to) {
            return Ok(found);
        }
        let config = proof::config(to, &self.clock).await?;
        let addresses = resolve::checked(&*self.resolver, &to.host, &to.networks).await?;
        let mut last = None;
        for ip in addresses.into_iter().take(limits::OUTSIDE_TRIES_MAX) {
            let address = SocketAddr::from((ip, to.port));
            match begin(to, address, Arc::clone(&config)).await {
                Err(failed @ OutsideFailed::Silent(..)) => last = Some(failed),
                Ok(stream) => return self.speak(to, address, stream).await,
                Err(failed) => return Err(failed),
            }
        }
        Err(last.unwrap_or_else(|| OutsideFailed::Addresses(to.host.clone(), 0)))
    }

    async fn speak(&self, to: &Arc<Outside>, address: SocketAddr, stream: TlsStream<TcpStream>) -> Result<Connection, OutsideFailed> {
        if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
                .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(limits::SEND_BUFFER_BYTES)
                .max_header_list_size(u32::try_from(trust::limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
                .keep_alive_interval(Duration::from_millis(limits::PING_EVERY_MS))
                .keep_alive_timeout(Duration::from_millis(limits::PING_ANSWER_MS))
                .handshake(TokioIo::new(stream))
                .await
                .map_err(OutsideFailed::Broken)?;
            // Ends when the other side closes it, or when the last sender is dropped and the last stream has ended.
            tokio::spawn(connection);
            return Ok(self.pool.share(sender, to, address));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HTTP1_BUFFER_BYTES)
            .max_headers(limits::OUTSIDE_HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(OutsideFailed::Broken)?;
        // Ends when the other side closes it, or when the sender is dropped.
        tokio::spawn(connection);
        Ok(Connection::one(sender, to, address))
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}

/// TCP to this very address, and TLS with the declared host.
async fn begin(to: &Outside, address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>, OutsideFailed> {
    let silent = |error| OutsideFailed::Silent(address, error);
    let late = |late| io::Error::new(io::ErrorKind::TimedOut, late);
    let connecting = tokio::time::timeout(Duration::from_millis(limits::CONNECT_MS), TcpStream::connect(address)).await;
    let stream = connecting.map_err(late).and_then(|connected| connected).map_err(silent)?;
    // Without it small requests are slower, nothing else.
    let _nodelay = stream.set_nodelay(true);
    let name = ServerName::try_from(to.host.clone()).map_err(|error| OutsideFailed::Untrusted(address, io::Error::other(error)))?;
    let shaking = tokio::time::timeout(Duration::from_millis(limits::HANDSHAKE_MS), TlsConnector::from(config).connect(name, stream)).await;
    shaking
        .map_err(late)
        .and_then(|shaken| shaken)
        .map_err(|error| if is_distrust(&error) { OutsideFailed::Untrusted(address, error) } else { silent(error) })
}

/// Whether it was we who broke the handshake off, for what the other side showed.
fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented | rustls::Error::UnsupportedNameType)
    )
}

/// An answer within what is declared.
fn checked(answer: Response<Body>, to: &Outside) -> Result<Response<Body>, OutsideFailed> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(OutsideFailed::Upgraded);
    }
    let said = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // To HEAD it is the length of what is not sent.
    if said.is_some_and(|length| length > to.answer_bytes_max) && !http_body::Body::is_end_stream(answer.body()) {
        return Err(OutsideFailed::AnswerTooLarge(to.answer_bytes_max));
    }
    Ok(answer.map(|body| bounded(body, to.answer_bytes_max, true, &Over::default())))
}
