//! The way into the sandbox: plain HTTP/1.1 over connections that the assembly makes inside it, kept while they are idle.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::Body;
use contract::control::Protocol;
use http::{Request, Response, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::h2c::H2c;
use crate::client::{CallFailed, streams::broken};
use crate::limits;
use crate::passage::{Ended, Passage};

/// Connects into the service's sandbox, starting the service first where it is not running.
#[async_trait]
pub trait Connector: Send + Sync + std::fmt::Debug + 'static {
    /// A connection to the service's port.
    ///
    /// # Errors
    /// When the service could not be started or does not listen in time.
    async fn connect(&self) -> std::io::Result<std::net::TcpStream>;
}

type Sender = http1::SendRequest<Body>;

/// Connections to the service.
pub(super) struct Service {
    connector: Arc<dyn Connector>,
    idle: Arc<Mutex<Vec<(Sender, Instant)>>>,
    h2c: H2c,
}

impl Service {
    pub(super) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, idle: Arc::default(), h2c: H2c::default() }
    }

    /// Sends a request in origin form; it is repeated only when an idle connection turned out to be closed before it was written.
    pub(super) async fn send(&self, mut request: Request<Body>, protocol: Protocol) -> Result<Response<Body>, CallFailed> {
        if protocol == Protocol::Grpc {
            return self.h2c.send(request, self).await;
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
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(self.keep_after(sender, response))
    }

    async fn connect(&self) -> Result<Sender, CallFailed> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(trust::limits::HEADERS_MAX)
            .max_buf_size(limits::HTTP1_BUFFER_BYTES)
            .handshake(TokioIo::new(self.stream().await?))
            .await
            .map_err(broken)?;
        // Ends when the service closes it, or when the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A connection for one request that changes the protocol.
    pub(super) async fn connect_to_upgrade(&self) -> Result<Sender, CallFailed> {
        let (sender, connection) = http1::Builder::new()
            .max_headers(trust::limits::HEADERS_MAX)
            .max_buf_size(limits::HTTP1_BUFFER_BYTES)
            .handshake(TokioIo::new(self.stream().await?))
            .await
            .map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// A connection into the sandbox.
    pub(super) async fn stream(&self) -> Result<TcpStream, CallFailed> {
        let stream = self.connector.connect().await.map_err(CallFailed::Unreachable)?;
        stream.set_nonblocking(true).map_err(CallFailed::Unreachable)?;
        let stream = TcpStream::from_std(stream).map_err(CallFailed::Unreachable)?;
        // Without it small requests are slower, nothing else.
        let _nodelay = stream.set_nodelay(true);
        Ok(stream)
    }

    fn take_idle(&self) -> Option<Sender> {
        let fresh = |since: Instant| since.elapsed() < Duration::from_millis(limits::SERVICE_IDLE_MS);
        let mut idle = self.idle.lock().ok()?;
        idle.retain(|(sender, since)| !sender.is_closed() && fresh(*since));
        let ready = idle.iter().rposition(|(sender, _)| sender.is_ready())?;
        Some(idle.swap_remove(ready).0)
    }

    /// Keeps the connection once the answer's last byte is there.
    fn keep_after(&self, sender: Sender, response: Response<hyper::body::Incoming>) -> Response<Body> {
        let idle = Arc::clone(&self.idle);
        let keep = move |ended| {
            let Ok(mut idle) = idle.lock() else { return };
            if ended == Ended::Whole && idle.len() < limits::SERVICE_IDLE_CONNECTIONS_MAX {
                idle.push((sender, Instant::now()));
            }
        };
        response.map(|body| Passage::new(body).at_end(keep).into_body())
    }
}
