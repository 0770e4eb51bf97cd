//! The way into the sandbox of a service that speaks HTTP/2 (gRPC): prior knowledge over plain TCP, one connection for all its calls.
//!
//! Spec:       RFC 9113 section 3.3 (prior knowledge).
//! Guarantees: D8 trailers and both directions of a stream pass while both are open.

use std::sync::Arc;
use std::time::Duration;

use contract::Body;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version, header};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;

use super::service::Service;
use crate::client::{CallFailed, streams::broken};
use crate::limits;
use crate::passage::Passage;

/// The connection, made when it is first needed and again when it has ended.
#[derive(Clone, Default)]
pub(super) struct H2c(Arc<Mutex<Option<http2::SendRequest<Body>>>>);

impl H2c {
    /// Sends a request; it is repeated once, and only when nothing of it was written.
    pub(super) async fn send(&self, request: Request<Body>, service: &Service) -> Result<Response<Body>, CallFailed> {
        let mut request = with_authority(request)?;
        let mut again = true;
        loop {
            let mut sender = self.sender(service).await?;
            sender.ready().await.map_err(broken)?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| Passage::new(body).into_body())),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if again => {
                        request = unsent;
                        again = false;
                    }
                    _ => return Err(broken(error.into_error())),
                },
            }
        }
    }

    async fn sender(&self, service: &Service) -> Result<http2::SendRequest<Body>, CallFailed> {
        let mut kept = self.0.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = service.stream().await?;
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
            .map_err(broken)?;
        // Ends when the service closes it, or when the last sender is dropped.
        tokio::spawn(connection);
        *kept = Some(sender.clone());
        Ok(sender)
    }
}

/// HTTP/2 has `:scheme` and `:authority` in place of `Host`.
fn with_authority(mut request: Request<Body>) -> Result<Request<Body>, CallFailed> {
    let host = request.headers_mut().remove(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host.unwrap_or_else(|| Authority::from_static("localhost")));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| CallFailed::Request(error.into()))?;
    *request.version_mut() = Version::HTTP_2;
    Ok(request)
}
