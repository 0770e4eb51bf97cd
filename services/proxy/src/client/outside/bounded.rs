//! A body of which no more passes than is declared.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use contract::{Body, BoxError};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// Whether a body was larger than it may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Over(Arc<AtomicBool>);

impl Over {
    /// Whether it was.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the body is larger than declared")]
struct TooLarge;

struct Bounded {
    inner: Body,
    left: u64,
    trailers: bool,
    over: Over,
}

/// `inner`, of which at most `bytes` pass; one more breaks it off and is said in `over`. Trailers pass where they may.
pub(crate) fn bounded(inner: Body, bytes: u64, trailers: bool, over: &Over) -> Body {
    if http_body::Body::is_end_stream(&inner) {
        return inner;
    }
    Bounded { inner, left: bytes, trailers, over: over.clone() }.boxed_unsync()
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if frame.is_trailers() && !self.trailers {
                return Poll::Ready(None);
            }
            let bytes = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => {
                    self.over.0.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(Box::new(TooLarge))));
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
