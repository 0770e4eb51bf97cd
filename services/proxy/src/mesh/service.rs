//! The way into the sandbox: plain HTTP/1.1 over connections that the assembly makes inside it, kept while they are idle.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::Body;
use contract::control::Protocol;
use http::{Request, Response, Version};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::h2c::H2c;
use super::job::{self, Job};
use crate::client::{CallFailed, streams::broken};
use crate::limits;
use crate::passage::{AtEnd, Both, Ended, Nothing, Passage};

/// Connects into the service's sandbox, starting the service first where it is not running.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug + 'static {
    /// A connection to the service's port.
    ///
    /// # Errors
    /// When the service could not be started or does not listen in time.
    async fn connect(&self) -> std::io::Result<std::net::TcpStream>;

    /// A sandbox of the service that was never used, for one job.
    ///
    /// # Errors
    /// When the service could not be started.
    async fn fresh(&self) -> std::io::Result<Box<dyn Job>>;
}

type Sender = http1::SendRequest<Body>;

/// Connections that wait, with when that began.
type Idle = Arc<Mutex<VecDeque<(Sender, Instant)>>>;

/// An answer's body: of a connection that is kept behind it, or any.
pub(super) type Given = Either<Passage<Incoming, Both<Nothing, Keep>>, Body>;

/// Keeps a connection once an answer's last byte is there.
pub(super) struct Keep {
    idle: Idle,
    sender: Sender,
}

impl AtEnd for Keep {
    fn act(self, how: Ended, _bytes: u64) {
        let Ok(mut idle) = self.idle.lock() else { return };
        if how == Ended::Whole && idle.len() < limits::SERVICE_IDLE_CONNECTIONS_MAX {
            idle.push_back((self.sender, Instant::now()));
        }
    }
}

/// A connection that the assembly made, for this runtime.
pub(super) fn adopt(stream: std::net::TcpStream) -> Result<TcpStream, CallFailed> {
    stream.set_nonblocking(true).map_err(CallFailed::Unreachable)?;
    let stream = TcpStream::from_std(stream).map_err(CallFailed::Unreachable)?;
    // Without it small requests are slower, nothing else.
    let _nodelay = stream.set_nodelay(true);
    Ok(stream)
}

/// Speaks HTTP/1.1 on a connection into the sandbox.
pub(super) async fn begin(stream: TcpStream) -> Result<Sender, CallFailed> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(limits::HTTP1_BUFFER_BYTES).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends when the service closes it, or when the sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}

/// Connections to the service.
pub(super) struct Service {
    connector: Arc<dyn Connector>,
    /// Those that have waited longest first.
    idle: Idle,
    h2c: H2c,
}

impl Service {
    pub(super) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, idle: Arc::default(), h2c: H2c::default() }
    }

    /// Sends a request in origin form; it is repeated only when an idle connection turned out to be closed before it was written.
    pub(super) async fn send(&self, mut request: Request<Body>, protocol: Protocol) -> Result<Response<Given>, CallFailed> {
        if protocol == Protocol::Grpc {
            return Ok(Box::pin(self.h2c.send(request, self)).await?.map(Given::Right));
        }
        *request.version_mut() = Version::HTTP_11;
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keep_after(sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.into_error())),
                },
            }
        }
        let mut sender = Box::pin(self.connect()).await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(self.keep_after(sender, response))
    }

    /// Sends a request to a sandbox of its own, which has ended when the answer is given (I8).
    pub(super) async fn send_alone(&self, mut request: Request<Body>) -> Result<Response<Body>, CallFailed> {
        *request.version_mut() = Version::HTTP_11;
        job::send(&*self.connector, request).await
    }

    async fn connect(&self) -> Result<Sender, CallFailed> {
        begin(self.stream().await?).await
    }

    /// A connection for one request that changes the protocol.
    pub(super) async fn connect_to_upgrade(&self) -> Result<Sender, CallFailed> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HTTP1_BUFFER_BYTES)
            .handshake(TokioIo::new(self.stream().await?))
            .await
            .map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// A connection into the sandbox.
    pub(super) async fn stream(&self) -> Result<TcpStream, CallFailed> {
        adopt(self.connector.connect().await.map_err(CallFailed::Unreachable)?)
    }

    /// The one that was used last, so that those not needed end.
    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().ok()?;
        let oldest = Instant::now().checked_sub(Duration::from_millis(limits::SERVICE_IDLE_MS));
        let over = |(sender, since): &(Sender, Instant)| sender.is_closed() || oldest.is_some_and(|oldest| *since <= oldest);
        while idle.front().is_some_and(over) {
            idle.pop_front();
        }
        // One whose answer has only just ended may not be ready for the next request yet.
        let ready = idle.iter().rposition(|(sender, _)| sender.is_ready())?;
        idle.remove(ready).map(|(sender, _)| sender)
    }

    fn keep_after(&self, sender: Sender, response: Response<Incoming>) -> Response<Given> {
        let keep = Keep { idle: Arc::clone(&self.idle), sender };
        response.map(|body| Given::Left(Passage::new(body).at_end(keep)))
    }
}
