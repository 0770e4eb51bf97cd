//! gRPC: what is different about it at an enforcement point. It travels as any HTTP/2; but its callers look for `grpc-status` and not at
//! HTTP's, and say in the request how long they will wait.
//!
//! Spec:       gRPC over HTTP/2 (`PROTOCOL-HTTP2.md`): Trailers-Only, `grpc-timeout`, "HTTP to gRPC status code mapping".
//! Guarantees: D8; a refusal of ours is a Trailers-Only answer; a call ends when its caller's deadline is over.
//! Not here:   HTTP/2 into a sandbox (`mesh::h2c`), routes (a method is `POST /package.Service/Method` like any other).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::body::Own;
use contract::{Body, BoxError, body};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;

use crate::passage::Stalled;

/// Media type of every message; a suffix names the codec.
const MEDIA_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");

/// Whether a request is gRPC (and not gRPC-Web, which any HTTP carries as it is).
#[must_use]
pub fn is_grpc(fields: &HeaderMap) -> bool {
    let rest = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix(MEDIA_TYPE));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// How long the caller will wait, if it says so: at most eight digits and a unit.
#[must_use]
pub fn timeout(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// An answer that is our own, a refusal or a failure, as a gRPC caller reads it; one of a service passes as it is.
#[must_use]
pub fn answer(answer: Response<Body>) -> Response<Body> {
    let Some(own) = answer.extensions().get::<Own>().copied() else { return answer };
    let (mut head, mut rest) = answer.into_parts();
    let status = code(head.status);
    head.status = StatusCode::OK;
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(STATUS, HeaderValue::from(status));
    if let Own::Refusal(reason) = own {
        head.headers.insert(MESSAGE, HeaderValue::from_static(reason.code()));
    }
    // The account of the request ends with this body, so it is read and not dropped; its bytes are for nobody.
    let silent = Silent { inner: std::mem::replace(&mut rest, body::empty()) };
    Response::from_parts(head, silent.boxed_unsync())
}

/// gRPC's word for an HTTP status of ours.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        // INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED
        400 => 3,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        413 | 429 => 8,
        504 => 4,
        // UNAVAILABLE, INTERNAL
        502 | 503 => 14,
        _ => 13,
    }
}

/// A body of which nothing is passed on, read to its end.
struct Silent {
    inner: Body,
}

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(_dropped))) => {}
                Poll::Ready(_over) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A streamed answer whose time is over ends with the status that says so, in its trailers.
#[must_use]
pub fn ends_with_deadline(answer: Body) -> Body {
    Deadline { inner: answer, over: false }.boxed_unsync()
}

struct Deadline {
    inner: Body,
    over: bool,
}

impl http_body::Body for Deadline {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) if error.is::<Stalled>() => {
                self.over = true;
                let mut trailers = HeaderMap::new();
                trailers.insert(STATUS, DEADLINE_EXCEEDED);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn fields(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_grpc_itself_is_grpc() {
        for yes in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(&fields(header::CONTENT_TYPE, yes)), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!is_grpc(&fields(header::CONTENT_TYPE, no)), "{no}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(3600 * 1000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("5000000n", Some(5)),
            ("999999999m", None),
            ("5", None),
            ("S", None),
            ("-1S", None),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(timeout(&fields(TIMEOUT, text)), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
