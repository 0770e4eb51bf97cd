//! A collector of traces outside of the system, at a fixed URL on this machine.
//!
//! What leaves the system leaves it unencrypted, so only as far as loopback: a collector there sends on over TLS with the certificates and
//! credentials that its operator gave it. Palisade trusts no certificate authorities but its own.
//!
//! Spec:       OTLP 1.9, "OTLP/HTTP Request": the URL is a base, and paths of signals are appended.
//! Guarantees: J2 (the way out).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use contract::{Body, Transport};
use http::{HeaderValue, Request, Response, header};
use trust::Fault;
use url::{Host, Url};

use super::{connect, unix};

/// Where a collector is: `http://ADDRESS:PORT`, with an address of loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    address: SocketAddr,
    host: String,
    base: String,
}

/// Why a URL is not one of a collector that traces are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CollectorUrlError {
    /// It cannot be read.
    #[error("not a URL; write it as http://127.0.0.1:4318")]
    Malformed,
    /// Another scheme than `http`.
    #[error("only http:// to this machine is spoken; run an OpenTelemetry Collector here and let it send on over TLS")]
    SchemeUnsupported,
    /// Somewhere else.
    #[error(
        "only addresses of this machine (127.0.0.0/8, [::1], localhost): what is sent is not encrypted; run an OpenTelemetry Collector here and let it send on over TLS"
    )]
    NotLoopback,
    /// User, query or fragment.
    #[error("a collector's URL has no user, query or fragment")]
    TooMuch,
}

impl FromStr for CollectorUrl {
    type Err = CollectorUrlError;

    /// `localhost` is 127.0.0.1, whatever a resolver would say.
    fn from_str(text: &str) -> Result<Self, CollectorUrlError> {
        let url = Url::parse(text).map_err(|_| CollectorUrlError::Malformed)?;
        if url.scheme() != "http" {
            return Err(CollectorUrlError::SchemeUnsupported);
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(CollectorUrlError::TooMuch);
        }
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => return Err(CollectorUrlError::NotLoopback),
        };
        let port = url.port_or_known_default().ok_or(CollectorUrlError::Malformed)?;
        if !ip.is_loopback() {
            return Err(CollectorUrlError::NotLoopback);
        }
        let address = SocketAddr::new(ip, port);
        let host = url
            .port()
            .map_or_else(|| url.host_str().unwrap_or_default().to_owned(), |port| format!("{}:{port}", url.host_str().unwrap_or_default()));
        Ok(Self { address, host, base: url.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.base)
    }
}

/// Plain HTTP/1.1 to a collector, one connection for each request.
#[derive(Debug, Clone)]
pub struct CollectorTransport {
    url: CollectorUrl,
}

impl CollectorTransport {
    /// To the collector at `url`.
    #[must_use]
    pub fn new(url: CollectorUrl) -> Arc<Self> {
        Arc::new(Self { url })
    }
}

#[async_trait]
impl Transport for CollectorTransport {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Fault> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let target = format!("{}{path}", self.url.base);
        *request.uri_mut() = target.parse().map_err(Fault::internal)?;
        let host = HeaderValue::from_str(&self.url.host).map_err(Fault::internal)?;
        request.headers_mut().insert(header::HOST, host);
        let call = async {
            let mut sender = unix::begin(connect::tcp(self.url.address).await?).await?;
            unix::send(&mut sender, request).await
        };
        call.await.map_err(connect::fault_of)
    }
}
