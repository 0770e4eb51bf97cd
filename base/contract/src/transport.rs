//! How a client reaches a peer: an interface that `proxy` implements with mTLS and tests implement in the process.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trust::{Fault, TraceContext};

use crate::body::{self, Body};

/// Carries requests to one peer, whose identity it verifies.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Sends `request` (its URI has a path only) and gives the head of the answer with its streamed body.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut` when the peer cannot be reached; `Refused` when it is not who it should be.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault>;
}

/// What goes along with a call.
#[derive(Debug, Clone, Default)]
pub struct Call<'a> {
    /// The transaction token on whose authority the call is made.
    pub token: Option<&'a str>,
    /// The span that makes the call.
    pub trace: Option<TraceContext>,
}

/// A peer, with JSON in and out. The clients of the contracts are thin skins over it.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

impl Client {
    /// A client over `transport`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Sends any request, with the call's headers added; the answer as it comes.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn send(&self, call: &Call<'_>, mut request: Request<Body>) -> Result<Response<Body>, Fault> {
        let headers = request.headers_mut();
        if let Some(token) = call.token {
            let value = token.parse().map_err(|_| Fault::bad_request("the transaction token is not a header value"))?;
            headers.insert(crate::txn_token::HEADER, value);
        }
        if let Some(Ok(value)) = call.trace.map(|trace| trace.to_string().parse()) {
            headers.insert("traceparent", value);
        }
        self.transport.send(request).await
    }

    /// Sends JSON and parses a JSON answer.
    ///
    /// # Errors
    /// Those of the transport; for any status but 2xx the fault of that status.
    pub async fn json<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        method: Method,
        path: &str,
        question: &Q,
    ) -> Result<A, Fault> {
        let bytes = self.bytes(call, method, path, Some(question)).await?;
        serde_json::from_slice(&bytes).map_err(|error| Fault::unavailable("a peer answered something else than agreed").because(error))
    }

    /// Sends a text that is JSON already, and parses a JSON answer.
    ///
    /// # Errors
    /// As `json`.
    pub async fn written<A: DeserializeOwned>(&self, call: &Call<'_>, method: Method, path: &str, json: Vec<u8>) -> Result<A, Fault> {
        let bytes = self.exchange(call, method, path, Some(Bytes::from(json))).await?;
        serde_json::from_slice(&bytes).map_err(|error| Fault::unavailable("a peer answered something else than agreed").because(error))
    }

    /// Asks without a body and parses a JSON answer.
    ///
    /// # Errors
    /// As `json`.
    pub async fn get<A: DeserializeOwned>(&self, call: &Call<'_>, path: &str) -> Result<A, Fault> {
        let bytes = self.bytes::<()>(call, Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).map_err(|error| Fault::unavailable("a peer answered something else than agreed").because(error))
    }

    /// Sends JSON, or nothing, and gives the raw answer of a 2xx.
    ///
    /// # Errors
    /// As `json`.
    pub async fn bytes<Q: Serialize>(&self, call: &Call<'_>, method: Method, path: &str, question: Option<&Q>) -> Result<Bytes, Fault> {
        let written = question.map(serde_json::to_vec).transpose().map_err(Fault::internal)?;
        self.exchange(call, method, path, written.map(Bytes::from)).await
    }

    async fn exchange(&self, call: &Call<'_>, method: Method, path: &str, json: Option<Bytes>) -> Result<Bytes, Fault> {
        let builder = Request::builder().method(method).uri(path);
        let request = match json {
            Some(bytes) => builder.header(header::CONTENT_TYPE, "application/json").body(body::full(bytes)),
            None => builder.body(body::empty()),
        }
        .map_err(|error| Fault::bad_request("not a request").because(error))?;
        let response = self.send(call, request).await?;
        let status = response.status();
        let bytes = body::collect(response.into_body(), ANSWER_BYTES_MAX).await?;
        if status.is_success() { Ok(bytes) } else { Err(fault_of(status, &bytes)) }
    }
}

/// Longest JSON answer: a whole view of a large system fits.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

fn fault_of(status: http::StatusCode, bytes: &[u8]) -> Fault {
    let said = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let field = |name: &str| said.as_ref().and_then(|v| v.get(name)).and_then(|v| v.as_str()).map(str::to_owned);
    let public = match (field("error"), field("reason")) {
        (Some(error), Some(reason)) => format!("{error}: {reason}"),
        (Some(error), None) => error,
        _ => format!("the peer answered {status}"),
    };
    match status.as_u16() {
        400 => Fault::bad_request(public),
        401 | 403 => Fault::refused(public),
        404 => Fault::not_found(public),
        409 => Fault::conflict(public),
        413 => Fault::too_large(public),
        502 => Fault::broken(public),
        504 => Fault::timed_out(public),
        _ => Fault::unavailable(public),
    }
}
