//! A small HTTP/1.1 client with limits on everything.
//!
//! Spec:       RFC 9110, RFC 9112.
//! Guarantees: every call has a time limit; an answer is read up to a stated size; files go out in pieces.
//! Not here:   TLS (a service speaks to loopback only), redirects, retries.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio_util::io::ReaderStream;

use crate::{context::Context, fault::Fault};

/// Bytes of a file sent at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Bytes of a refusal's body that are kept for the log.
const DETAIL_BYTES: usize = 4096;

/// What goes out with a request.
pub enum Payload {
    /// Nothing.
    Empty,
    /// Bytes in hand.
    Bytes(Bytes),
    /// A file of this many bytes, sent in pieces.
    File(tokio::fs::File, u64),
}

/// One outgoing request.
pub struct Call {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: String,
    /// Headers beside the passed-along ones.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// How long the head of the answer may take.
    pub limit: Duration,
}

impl Call {
    /// A call without body and with ten seconds to answer.
    #[must_use]
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: HeaderMap::new(), payload: Payload::Empty, limit: Duration::from_secs(10) }
    }

    /// The same call with one header more.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same call with a JSON body.
    #[must_use]
    pub fn json(mut self, value: &serde_json::Value) -> Self {
        self.payload = Payload::Bytes(Bytes::from(value.to_string()));
        self.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }
}

/// The client; clones share its connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, BoxBody<Bytes, std::io::Error>>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client with no connections yet.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(4)
            .build(connector);
        Self { pool }
    }

    /// Sends a call and gives back the answer's head, whatever its status; the body is still to be read.
    ///
    /// # Errors
    /// [`Fault::Unreachable`], [`Fault::TimedOut`], or [`Fault::Garbled`] for an address that is none.
    pub async fn send(&self, context: &Context, call: Call) -> Result<Response<Incoming>, Fault> {
        let peer = peer_of(&call.url);
        let mut request = Request::new(match call.payload {
            Payload::Empty => Empty::new().map_err(|never| match never {}).boxed(),
            Payload::Bytes(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed(),
            Payload::File(file, _) => BodyExt::boxed(StreamBody::new(ReaderStream::with_capacity(file, PIECE_BYTES).map_ok(Frame::data))),
        });
        *request.method_mut() = call.method;
        *request.uri_mut() =
            call.url.parse().map_err(|error: http::uri::InvalidUri| Fault::Garbled { peer: peer.clone(), problem: error.to_string() })?;
        *request.headers_mut() = call.headers;
        context.apply(request.headers_mut());
        match tokio::time::timeout(call.limit, self.pool.request(request)).await {
            Err(_) => Err(Fault::TimedOut { peer, limit_s: call.limit.as_secs() }),
            Ok(Err(error)) => Err(Fault::Unreachable { peer, cause: chain(&error) }),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Sends a call, insists on success, and gives back the whole body up to `body_bytes_max`.
    ///
    /// # Errors
    /// As [`Client::send`]; [`Fault::Refused`] for a status outside 200 to 299; [`Fault::Garbled`] for a larger body.
    pub async fn fetch(&self, context: &Context, call: Call, body_bytes_max: usize) -> Result<Response<Bytes>, Fault> {
        let (peer, limit) = (peer_of(&call.url), call.limit);
        let response = succeeded(&peer, self.send(context, call).await?).await?;
        let (head, body) = response.into_parts();
        let reading = tokio::time::timeout(limit, Limited::new(body, body_bytes_max).collect());
        match reading.await {
            Err(_) => Err(Fault::TimedOut { peer, limit_s: limit.as_secs() }),
            Ok(Err(error)) => Err(Fault::Garbled { peer, problem: error.to_string() }),
            Ok(Ok(body)) => Ok(Response::from_parts(head, body.to_bytes())),
        }
    }
}

/// Turns an answer that is no success into a [`Fault::Refused`] with the beginning of its body.
///
/// # Errors
/// [`Fault::Refused`] for a status outside 200 to 299.
pub async fn succeeded(peer: &str, response: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    let status: StatusCode = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let reading = Limited::new(response.into_body(), DETAIL_BYTES).collect();
    let detail = match tokio::time::timeout(Duration::from_secs(2), reading).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).chars().take(300).collect(),
        _ => String::from("(no detail)"),
    };
    Err(Fault::Refused { peer: peer.to_owned(), status, detail })
}

/// The neighbour's part of an address, for messages: no query, which may hold a grant.
pub(crate) fn peer_of(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// An error with its causes: the pool's own message says only "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
