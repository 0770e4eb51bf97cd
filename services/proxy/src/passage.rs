//! Bodies in passing: what is noticed while bytes go by, none of them held back.
//!
//! Guarantees: A18 streaming without buffering; A13 in part: a body without progress ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

use crate::limits;

/// A body that makes no progress.
#[derive(Debug, thiserror::Error)]
#[error("the body made no progress for {0:?}, or did not end within it")]
pub struct Stalled(pub Duration);

/// Counts the frames of a body, so that somebody who waits can tell a slow upload from a dead one.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Frames gone by so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a body may make no progress. Whoever learns more of it than its listener knew may allow it more.
#[derive(Debug, Clone)]
pub struct Idle(Arc<AtomicU64>);

impl Idle {
    /// So many milliseconds.
    #[must_use]
    pub fn of(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    /// At least so many milliseconds from now on.
    pub fn extend(&self, ms: u64) {
        self.0.fetch_max(ms, Ordering::Relaxed);
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A body with eyes on it.
pub struct Passage {
    inner: Body,
    idle: Option<(Idle, Pin<Box<Sleep>>)>,
    /// What the timer of `idle` was last set to.
    waited: Duration,
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
    progress: Option<Progress>,
    lingers: bool,
    at_end: Option<Box<dyn FnOnce(Ended) + Send>>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With its last byte.
    Whole,
    /// Before: its source failed, or its reader went away.
    Broken,
}

impl Passage {
    /// Any body of bytes.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            inner: body.map_err(Into::into).boxed_unsync(),
            idle: None,
            waited: Duration::ZERO,
            deadline: None,
            progress: None,
            lingers: false,
            at_end: None,
        }
    }

    /// Ends it with `Stalled` when nothing comes for `idle_ms` while somebody waits for it.
    #[must_use]
    pub fn within(self, idle_ms: u64) -> Self {
        self.within_shared(Idle::of(idle_ms))
    }

    /// The same, by a limit that may be extended while it streams.
    #[must_use]
    pub fn within_shared(mut self, idle: Idle) -> Self {
        self.waited = idle.limit();
        let timer = Box::pin(tokio::time::sleep(self.waited));
        self.idle = Some((idle, timer));
        self
    }

    /// Ends it with `Stalled` when it is not over at `deadline`, `whole` after its request began.
    #[must_use]
    pub fn by(mut self, deadline: Instant, whole: Duration) -> Self {
        self.deadline = Some((whole, Box::pin(tokio::time::sleep_until(deadline))));
        self
    }

    /// Counts its frames.
    #[must_use]
    pub fn counted(mut self, progress: &Progress) -> Self {
        self.progress = Some(progress.clone());
        self
    }

    /// Reads on for a little when it is dropped before its end: a sender that has been answered early must be able to read that answer,
    /// and a connection closed over unread bytes would take it away (RFC 9112, section 9.6).
    #[must_use]
    pub fn lingering(mut self) -> Self {
        self.lingers = true;
        self
    }

    /// Does something once it is over, however it ends. Until then whatever `act` owns is kept.
    #[must_use]
    pub fn at_end(mut self, act: impl FnOnce(Ended) + Send + 'static) -> Self {
        self.at_end = Some(Box::new(act));
        self
    }

    /// As a body.
    #[must_use]
    pub fn into_body(self) -> Body {
        self.boxed_unsync()
    }

    fn ended(&mut self, how: Ended) {
        if let Some(act) = self.at_end.take() {
            act(how);
        }
    }
}

impl HttpBody for Passage {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some((whole, timer)) = &mut this.deadline
            && timer.as_mut().poll(cx).is_ready()
        {
            let late = Stalled(*whole);
            this.ended(Ended::Broken);
            return Poll::Ready(Some(Err(Box::new(late))));
        }
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let (Poll::Pending, Some((idle, timer))) = (&polled, &mut this.idle) {
            let began = timer.deadline();
            ready!(timer.as_mut().poll(cx));
            let limit = idle.limit();
            if limit > this.waited {
                // It was extended since: the rest is waited for.
                timer.as_mut().reset(began + limit.saturating_sub(this.waited));
                this.waited = limit;
                ready!(timer.as_mut().poll(cx));
            }
            let stalled = Stalled(limit);
            this.ended(Ended::Broken);
            return Poll::Ready(Some(Err(Box::new(stalled))));
        }
        if let (Poll::Ready(_), Some((idle, timer))) = (&polled, &mut this.idle) {
            this.waited = idle.limit();
            timer.as_mut().reset(Instant::now() + this.waited);
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) => {
                if let Some(progress) = &this.progress {
                    progress.0.fetch_add(1, Ordering::Relaxed);
                }
                if this.inner.is_end_stream() {
                    this.ended(Ended::Whole);
                }
            }
            Poll::Ready(Some(Err(_))) => {
                this.lingers = false;
                this.ended(Ended::Broken);
            }
            Poll::Ready(None) => {
                this.lingers = false;
                this.ended(Ended::Whole);
            }
            Poll::Pending => {}
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

impl Drop for Passage {
    fn drop(&mut self) {
        let how = if self.inner.is_end_stream() { Ended::Whole } else { Ended::Broken };
        self.ended(how);
        if self.lingers
            && how == Ended::Broken
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(read_on(std::mem::replace(&mut self.inner, contract::body::empty())));
        }
    }
}

/// Reads what still comes and drops it, within limits of time and size.
async fn read_on(mut body: Body) {
    let mut left = limits::LINGER_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let came = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(came) else { return };
            left = rest;
        }
    };
    // Late or not: what is left is not read.
    let _late = tokio::time::timeout(Duration::from_millis(limits::LINGER_MS), reading).await;
}
