//! This machine's own processes over UNIX sockets: the operator's socket and the supervisor's pair (plain HTTP/1.1, the kernel says who
//! is who), and `identity`'s joining socket (TLS, its SVID first: C7).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Body, Transport};
use http::{HeaderValue, Request, Response, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use trust::{Fault, SpiffeId};

use super::connect::{self, CallFailed};
use super::streams::broken;
use crate::bundle::TrustBundle;
use crate::limits;
use crate::passage::Passage;
use crate::svid::WorkloadIdentity;
use crate::tls;

/// Plain HTTP/1.1 over a UNIX socket, one connection for each request.
#[derive(Debug, Clone)]
pub struct UnixTransport {
    path: PathBuf,
}

/// Plain HTTP/1.1 over one end of a socket pair; one request at a time.
pub struct PairTransport {
    sender: tokio::sync::Mutex<http1::SendRequest<Body>>,
}

/// TLS over `identity`'s UNIX socket, one connection for each request.
pub struct IdentityTransport {
    path: PathBuf,
    config: Arc<rustls::ClientConfig>,
}

impl UnixTransport {
    /// To the socket at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path })
    }
}

impl PairTransport {
    /// Over our end of a pair; call it inside a runtime.
    ///
    /// # Errors
    /// `Unavailable` when the stream is unusable.
    pub async fn new(stream: std::os::unix::net::UnixStream) -> Result<Arc<Self>, Fault> {
        let unusable = |error: std::io::Error| Fault::unavailable("the socket pair is unusable").because(error);
        stream.set_nonblocking(true).map_err(unusable)?;
        let stream = UnixStream::from_std(stream).map_err(unusable)?;
        let sender = begin(stream).await.map_err(connect::fault_of)?;
        Ok(Arc::new(Self { sender: tokio::sync::Mutex::new(sender) }))
    }
}

impl IdentityTransport {
    /// To `identity`'s socket at `path`, whose server must be `role/identity` under `bundle`. `own` is absent while joining.
    ///
    /// # Errors
    /// `Internal` when TLS cannot be configured.
    pub fn new(path: PathBuf, bundle: &Arc<TrustBundle>, own: Option<&Arc<WorkloadIdentity>>) -> Result<Arc<Self>, Fault> {
        let peer: SpiffeId = bundle.domain().role("identity");
        let config = tls::client(own, bundle, &peer, &[tls::HTTP1]).map_err(Fault::internal)?;
        Ok(Arc::new(Self { path, config }))
    }
}

pub(super) async fn begin<S>(stream: S) -> Result<http1::SendRequest<Body>, CallFailed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the connection, or when the sender is dropped and the last answer read.
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) async fn send(sender: &mut http1::SendRequest<Body>, mut request: Request<Body>) -> Result<Response<Body>, CallFailed> {
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    }
    sender.ready().await.map_err(broken)?;
    let response = tokio::time::timeout(Duration::from_millis(limits::ANSWER_HEAD_MS), sender.send_request(request))
        .await
        .map_err(|_| CallFailed::Late(limits::ANSWER_HEAD_MS))?
        .map_err(broken)?;
    Ok(response.map(|body| Passage::new(body).into_body()))
}

#[async_trait]
impl Transport for UnixTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let call = async {
            let mut sender = begin(connect::unix(&self.path).await?).await?;
            send(&mut sender, request).await
        };
        call.await.map_err(connect::fault_of)
    }
}

#[async_trait]
impl Transport for PairTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let mut sender = self.sender.lock().await;
        send(&mut sender, request).await.map_err(connect::fault_of)
    }
}

#[async_trait]
impl Transport for IdentityTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let call = async {
            let stream = connect::tls(connect::unix(&self.path).await?, Arc::clone(&self.config)).await?;
            let mut sender = begin(stream).await?;
            send(&mut sender, request).await
        };
        call.await.map_err(connect::fault_of)
    }
}

impl fmt::Debug for PairTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairTransport")
    }
}

impl fmt::Debug for IdentityTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityTransport").field("path", &self.path).finish_non_exhaustive()
    }
}
