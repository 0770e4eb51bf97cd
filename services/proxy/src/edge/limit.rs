//! A limit on a body that streams by: past it the body is broken off, and whoever waits for the answer can tell why.
//!
//! Trailers end here: a field after the body would pass every check of the fields before it, and some servers read both alike
//! (RFC 9110, section 6.5.1; A5).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use contract::{Body, BoxError};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// More bytes than allowed came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is larger than allowed")]
pub struct TooLarge;

/// Whether a body went past its limit.
#[derive(Debug, Clone, Default)]
pub struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    /// Whether it did.
    #[must_use]
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Limited {
    inner: Body,
    left: u64,
    exceeded: Exceeded,
}

/// `inner`, of which at most `bytes` pass; one more breaks it off.
#[must_use]
pub fn limit(inner: Body, bytes: u64, exceeded: &Exceeded) -> Body {
    Limited { inner, left: bytes, exceeded: exceeded.clone() }.boxed_unsync()
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if frame.is_trailers() {
                return Poll::Ready(None);
            }
            let bytes = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => {
                    self.exceeded.0.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(TooLarge.into())));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
