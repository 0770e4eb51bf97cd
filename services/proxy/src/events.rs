//! Event streams: answers that are never over, so that the time-outs of an answer are not theirs.
//!
//! They pass as they come, may pause for `EVENT_IDLE_MS` and last `TUNNEL_MS_MAX`; and since they outlive the moment in which they were
//! allowed, they end when that is no longer so.
//!
//! Spec:       HTML Living Standard, section 9.2 (server-sent events).
//! Guarantees: A18.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use futures::future::BoxFuture;
use http::{HeaderMap, header};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::limits;
use crate::passage::Passage;
use crate::tunnel::Why;

/// Whether an answer is a stream of events.
#[must_use]
pub fn is_event_stream(fields: &HeaderMap) -> bool {
    let media_type = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Lets events pass within their own bounds, until `ending` says why they end. Browsers open the stream anew, and are asked who they are.
#[must_use]
pub fn until(events: Body, ending: impl Future<Output = Why> + Send + 'static) -> Body {
    let whole = Duration::from_millis(limits::TUNNEL_MS_MAX);
    let inner = Passage::new(events).within(limits::EVENT_IDLE_MS).by(Instant::now() + whole, whole).into_body();
    Until { inner, ending: Some(Box::pin(ending)) }.boxed_unsync()
}

struct Until {
    inner: Body,
    ending: Option<BoxFuture<'static, Why>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(ending) = &mut self.ending else { return Poll::Ready(None) };
        if ending.as_mut().poll(cx).is_ready() {
            self.ending = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ending.is_none() || self.inner.is_end_stream()
    }
}
