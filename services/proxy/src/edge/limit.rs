//! Limits on a body that streams by, on its size and its pace: past them it is broken off, and whoever waits for the answer can tell why.
//!
//! Trailers end here: a field after the body would pass every check of the fields before it, and some servers read both alike
//! (RFC 9110, section 6.5.1; A5).
//!
//! The pace is that of the sender alone: only time in which somebody waited for the body counts, so a slow receiver is nobody's fault.
//! In each `PACE_WINDOW` of waiting `PACE_BYTES_MIN` must come. Without this, a byte a minute would keep a request under way forever.
//!
//! Guarantees: A13 body size and minimum pace.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};
use trust::DenyReason;

/// Time of waiting in which the least must have come.
pub(super) const PACE_WINDOW: Duration = Duration::from_secs(20);
/// The least that must come in it, in bytes: a tenth of what the slowest mobile network gives.
pub(super) const PACE_BYTES_MIN: u64 = 4 * 1024;

/// Why a body was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenOff {
    /// More bytes than allowed came.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Less than `PACE_BYTES_MIN` came within `PACE_WINDOW` of waiting.
    #[error("the body came too slowly")]
    TooSlow,
}

/// Whether a body went past its limits.
#[derive(Debug, Clone, Default)]
pub struct Exceeded(Arc<AtomicU8>);

impl Exceeded {
    /// Why it was broken off, if it was.
    #[must_use]
    pub fn reason(&self) -> Option<DenyReason> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(DenyReason::BodyTooLarge),
            2 => Some(DenyReason::BodyTooSlow),
            _ => None,
        }
    }

    fn say(&self, why: BrokenOff) {
        let code = match why {
            BrokenOff::TooLarge => 1,
            BrokenOff::TooSlow => 2,
        };
        self.0.store(code, Ordering::Relaxed);
    }
}

/// How fast the sender is, by the time that somebody waited for it.
struct Pace {
    window: Duration,
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, bytes: 0, waited: Duration::ZERO, since: None, timer: None }
    }

    fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
        self.timer = None;
        if self.bytes >= PACE_BYTES_MIN {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Whether the wait has been too long for what came. Wakes the task when that may be so.
    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let end = since + self.window.saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        timer.as_mut().poll(cx).is_ready()
    }
}

struct Limited {
    inner: Body,
    left: u64,
    pace: Option<Pace>,
    exceeded: Exceeded,
}

/// `inner`, of which at most `bytes` pass; one more breaks it off, and so does a sender slower than the least pace.
#[must_use]
pub fn limit(inner: Body, bytes: u64, exceeded: &Exceeded) -> Body {
    if inner.is_end_stream() {
        return inner;
    }
    Limited { inner, left: bytes, pace: Some(Pace::new(PACE_WINDOW)), exceeded: exceeded.clone() }.boxed_unsync()
}

/// The same for a stream of messages, which may pause for as long as the connection allows.
#[must_use]
pub fn limit_of_stream(inner: Body, bytes: u64, exceeded: &Exceeded) -> Body {
    Limited { inner, left: bytes, pace: None, exceeded: exceeded.clone() }.boxed_unsync()
}

impl Limited {
    fn break_off(&self, why: BrokenOff) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.exceeded.say(why);
        Poll::Ready(Some(Err(why.into())))
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                if self.pace.as_mut().is_some_and(|pace| pace.is_too_slow(cx)) {
                    return self.break_off(BrokenOff::TooSlow);
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    return Poll::Ready(None);
                }
                let bytes = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                match self.left.checked_sub(bytes) {
                    Some(left) => self.left = left,
                    None => return self.break_off(BrokenOff::TooLarge),
                }
                if let Some(pace) = &mut self.pace {
                    pace.came(bytes);
                }
            }
            Poll::Ready(_) => {}
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    /// Sends a piece of `bytes` after each `pause`, `times` over, with that window; how it ended for who reads, and how much came.
    async fn sent(window: Duration, bytes: usize, pause: Duration, times: usize) -> Result<u64, DenyReason> {
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        tokio::spawn(async move {
            for _ in 0..times {
                tokio::time::sleep(pause).await;
                if sender.send_data(Bytes::from(vec![0; bytes])).await.is_err() {
                    return;
                }
            }
        });
        let exceeded = Exceeded::default();
        let pace = Some(Pace::new(window));
        let mut body = Limited { inner: body.boxed_unsync(), left: u64::MAX, pace, exceeded: exceeded.clone() };
        let mut came = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => came += frame.data_ref().map_or(0, |data| data.len() as u64),
                Err(_) => return Err(exceeded.reason().unwrap()),
            }
        }
        Ok(came)
    }

    // A13: slow loris in a body, just below and across. On a busy machine the slow are slower still, and the window of the others is long.
    #[tokio::test]
    async fn a_body_slower_than_the_least_pace_is_broken_off() {
        let (short, long, ms) = (Duration::from_millis(300), Duration::from_secs(30), Duration::from_millis(10));
        let least = usize::try_from(PACE_BYTES_MIN).unwrap();
        assert_eq!(sent(short, 1, ms, 1000).await, Err(DenyReason::BodyTooSlow));
        assert_eq!(sent(short, least - 1, 2 * short, 2).await, Err(DenyReason::BodyTooSlow));
        assert_eq!(sent(short, 1 << 20, 2 * short, 2).await, Err(DenyReason::BodyTooSlow), "a large piece buys no time for the next");
        assert_eq!(sent(long, least, ms, 20).await, Ok(20 * PACE_BYTES_MIN));
        assert_eq!(sent(long, 1, ms, 20).await, Ok(20), "what ends within the window is slow in nothing");
    }

    // A13: who reads slowly does not make the sender slow.
    #[tokio::test]
    async fn a_slow_reader_breaks_nothing_off() {
        let window = Duration::from_millis(300);
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(4);
        for _ in 0..4 {
            sender.send_data(Bytes::from_static(&[0; 100])).await.unwrap();
        }
        drop(sender);
        let exceeded = Exceeded::default();
        let pace = Some(Pace::new(window));
        let mut body = Limited { inner: body.boxed_unsync(), left: u64::MAX, pace, exceeded: exceeded.clone() };
        for _ in 0..4 {
            tokio::time::sleep(2 * window).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.is_none());
        assert_eq!(exceeded.reason(), None);
    }

    // A13: exactly the limit passes, one byte more does not.
    #[tokio::test]
    async fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
        for (size, reason) in [(1000, None), (1001, Some(DenyReason::BodyTooLarge))] {
            let exceeded = Exceeded::default();
            let ended = limit(contract::body::full(vec![0; size]), 1000, &exceeded).collect().await;
            assert_eq!((ended.is_ok(), exceeded.reason()), (reason.is_none(), reason));
        }
    }
}
