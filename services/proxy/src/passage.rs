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

/// Any body of bytes that can be watched.
pub trait Source: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static> Source for B {}

/// What is done once a body is over.
pub trait AtEnd: Send + Unpin + 'static {
    /// It ended so, after so many bytes.
    fn act(self, how: Ended, bytes: u64);
}

impl<F: FnOnce(Ended) + Send + Unpin + 'static> AtEnd for F {
    fn act(self, how: Ended, _bytes: u64) {
        self(how);
    }
}

/// Something that is told how many bytes went by.
#[derive(Debug)]
pub struct Counted<F>(F);

impl<F: FnOnce(Ended, u64) + Send + Unpin + 'static> AtEnd for Counted<F> {
    fn act(self, how: Ended, bytes: u64) {
        (self.0)(how, bytes);
    }
}

/// Nothing is done.
#[derive(Debug)]
pub enum Nothing {}

impl AtEnd for Nothing {
    fn act(self, _how: Ended, _bytes: u64) {}
}

/// One after the other.
#[derive(Debug)]
pub struct Both<E, F>(Option<E>, F);

impl<E: AtEnd, F: AtEnd> AtEnd for Both<E, F> {
    fn act(self, how: Ended, bytes: u64) {
        if let Some(first) = self.0 {
            first.act(how, bytes);
        }
        self.1.act(how, bytes);
    }
}

/// A body with eyes on it.
pub struct Passage<B: Source, E: AtEnd = Nothing> {
    /// Nothing once it is read on.
    inner: Option<B>,
    idle: Option<Idle>,
    /// Since when nothing has come while somebody waits.
    since: Option<Instant>,
    deadline: Option<(Duration, Instant)>,
    /// For the next of the two: a body that is there at once needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
    progress: Option<Progress>,
    lingers: bool,
    bytes: u64,
    bytes_told: Option<Arc<AtomicU64>>,
    at_end: Option<E>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With its last byte.
    Whole,
    /// Before: its source failed, or its reader went away.
    Broken,
}

impl<B: Source> Passage<B> {
    /// Any body of bytes.
    pub fn new(body: B) -> Self {
        Self {
            inner: Some(body),
            idle: None,
            since: None,
            deadline: None,
            timer: None,
            progress: None,
            lingers: false,
            bytes: 0,
            bytes_told: None,
            at_end: None,
        }
    }
}

impl<B: Source, E: AtEnd> Passage<B, E> {
    /// Ends it with `Stalled` when nothing comes for `idle_ms` while somebody waits for it.
    #[must_use]
    pub fn within(self, idle_ms: u64) -> Self {
        self.within_shared(Idle::of(idle_ms))
    }

    /// The same, by a limit that may be extended while it streams.
    #[must_use]
    pub fn within_shared(mut self, idle: Idle) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Ends it with `Stalled` when it is not over at `deadline`, `whole` after its request began.
    #[must_use]
    pub fn by(mut self, deadline: Instant, whole: Duration) -> Self {
        self.deadline = Some((whole, deadline));
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

    /// Adds its bytes to a count that somebody else reads.
    #[must_use]
    pub fn counted_in(mut self, count: Arc<AtomicU64>) -> Self {
        self.bytes_told = Some(count);
        self
    }

    /// Does something once it is over, however it ends, after what was to be done already. Until then whatever `act` owns is kept.
    #[must_use]
    pub fn at_end<F: AtEnd>(mut self, act: F) -> Passage<B, Both<E, F>> {
        Passage {
            inner: self.inner.take(),
            idle: self.idle.take(),
            since: self.since,
            deadline: self.deadline,
            timer: self.timer.take(),
            progress: self.progress.take(),
            lingers: std::mem::take(&mut self.lingers),
            bytes: self.bytes,
            bytes_told: self.bytes_told.take(),
            at_end: Some(Both(self.at_end.take(), act)),
        }
    }

    /// The same, with the number of bytes that went by.
    #[must_use]
    pub fn at_end_counted<F: FnOnce(Ended, u64) + Send + Unpin + 'static>(self, act: F) -> Passage<B, Both<E, Counted<F>>> {
        self.at_end(Counted(act))
    }

    /// As a body.
    #[must_use]
    pub fn into_body(self) -> Body {
        self.boxed_unsync()
    }

    /// Something came: the wait for the next begins anew. Late only when the whole is.
    fn came(&mut self) -> Option<Stalled> {
        (self.timer, self.since) = (None, None);
        let (whole, deadline) = self.deadline?;
        (Instant::now() >= deadline).then_some(Stalled(whole))
    }

    /// Nothing is there: ready once that has lasted too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stalled>> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        loop {
            let idle = self.idle.as_ref().map(Idle::limit).map(|most| (most, since + most));
            let Some((most, at)) = [idle, self.deadline].into_iter().flatten().min_by_key(|(_, at)| *at) else { return Poll::Pending };
            if Instant::now() >= at {
                return Poll::Ready(Some(Stalled(most)));
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            ready!(timer.as_mut().poll(cx));
            // The limit may have been extended since the timer was set: then the rest is waited for.
            self.timer = None;
        }
    }

    fn is_over(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn ended(&mut self, how: Ended) {
        if let Some(end) = self.at_end.take() {
            end.act(how, self.bytes);
        }
    }
}

impl<B: Source, E: AtEnd> HttpBody for Passage<B, E> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let mut polled = Pin::new(inner).poll_frame(cx).map_err(Into::into);
        let late = match &polled {
            Poll::Pending => ready!(this.poll_late(cx)),
            // A source that never rests is late all the same; its end is its end.
            Poll::Ready(Some(_)) => this.came(),
            Poll::Ready(None) => None,
        };
        if let Some(late) = late {
            polled = Poll::Ready(Some(Err(Box::new(late))));
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                this.bytes = this.bytes.saturating_add(bytes);
                if let Some(count) = &this.bytes_told {
                    count.fetch_add(bytes, Ordering::Relaxed);
                }
                if let Some(progress) = &this.progress {
                    progress.0.fetch_add(1, Ordering::Relaxed);
                }
                if this.is_over() {
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
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Source, E: AtEnd> Drop for Passage<B, E> {
    fn drop(&mut self) {
        let how = if self.is_over() { Ended::Whole } else { Ended::Broken };
        self.ended(how);
        if self.lingers
            && how == Ended::Broken
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Some(body) = self.inner.take()
        {
            runtime.spawn(read_on(body));
        }
    }
}

/// Reads what still comes and drops it, within limits of time and size.
async fn read_on<B: Source>(mut body: B) {
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
