//! Bodies: streams of bytes that nobody needs to hold whole.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trust::Fault;

/// Any error of a body's source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A streamed body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No bytes.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The whole body, when it is at most `limit` bytes.
///
/// # Errors
/// `TooLarge` past the limit; `BadRequest` when the sender broke off.
pub async fn collect(body: Body, limit: usize) -> Result<Bytes, Fault> {
    // Boxed, so that the future's type does not name `Limited` and stays `Send` in the eyes of the compiler.
    let limited: Body = Limited::new(body, limit).boxed_unsync();
    match limited.collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Fault::too_large(format!("the body is larger than {limit} bytes")))
        }
        Err(error) => Err(Fault::bad_request("the body ended early").because(error)),
    }
}

/// Parses a JSON body of at most `trust::limits::JSON_BODY_BYTES_MAX`.
///
/// # Errors
/// As `collect`; `BadRequest` with line and column when it is not the JSON that the route takes.
pub async fn parse_json<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    parse_json_within(body, trust::limits::JSON_BODY_BYTES_MAX).await
}

/// The same of a body of at most `limit` bytes.
///
/// # Errors
/// As `parse_json`.
pub async fn parse_json_within<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Fault> {
    let bytes = collect(body, limit).await?;
    serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the body is not the JSON expected here: {error}")))
}

/// A JSON answer.
#[must_use]
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(status, "application/json", bytes),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// An answer of that media type.
#[must_use]
pub fn with_type(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
}

/// An answer without a body.
#[must_use]
pub fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// Marks an answer as an enforcement point's or a room's own, as against one that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// It was refused.
    Refusal(trust::DenyReason),
    /// It was allowed and could not be done.
    Failure,
}

/// The answer for a fault: its status, and its public half as `{"error": …}`.
#[must_use]
pub fn fault(fault: &Fault) -> Response<Body> {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, &serde_json::json!({ "error": fault.public }));
    answer.extensions_mut().insert(Own::Failure);
    answer
}

/// The answer for a refusal: the reason's status and its code, nothing more.
#[must_use]
pub fn denied(reason: trust::DenyReason) -> Response<Body> {
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::FORBIDDEN);
    let mut answer = json(status, &serde_json::json!({ "error": "refused", "reason": reason.code() }));
    answer.extensions_mut().insert(Own::Refusal(reason));
    answer
}
