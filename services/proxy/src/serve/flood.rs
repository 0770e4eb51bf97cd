//! HTTP/2 connections that cost more than they bring are ended: floods of frames that ask for nothing, and answers that nobody takes.
//!
//! `Meter` reads the headers of frames as they come in and keeps an account: a frame that carries no request and no content costs, bytes
//! of content both ways bring credit, and time brings some, too. `Answers` notices when hyper has stopped asking for the bytes of every
//! answer of a connection, which is what a peer with a closed window makes it do.
//!
//! Spec:       RFC 9113 sections 4.1 (frames), 6, and 10.5 (denial of service); CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316.
//! Guarantees: A13, D9: rapid reset, CONTINUATION, SETTINGS, PING, PRIORITY and empty DATA floods end the connection; a reader that
//!             stalls its windows holds nothing for longer than `WRITE_STALL_MS`.
//! Not here:   limits that h2 itself keeps (`connection`): streams at once, header lists, resets before they are accepted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits;

/// RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const END_STREAM: u8 = 0x1;

/// An HTTP/2 connection with an account.
pub(super) struct Meter<S> {
    inner: S,
    /// Bytes of the preface or of a payload that have not come.
    skip: usize,
    header: Vec<u8>,
    credit: u64,
    filled: Instant,
}

impl<S> Meter<S> {
    pub(super) fn new(inner: S) -> Self {
        let header = Vec::with_capacity(HEADER_BYTES);
        Self { inner, skip: PREFACE_BYTES, header, credit: limits::FLOOD_CREDIT_MAX, filled: Instant::now() }
    }

    /// Takes note of what came.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let now = self.skip.min(bytes.len());
                self.skip = self.skip.saturating_sub(now);
                bytes = bytes.get(now..).unwrap_or_default();
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let &[high, middle, low, kind, flags, ..] = &*self.header
                && self.header.len() == HEADER_BYTES
            {
                let length = u32::from_be_bytes([0, high, middle, low]);
                self.header.clear();
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                self.book(kind, flags, u64::from(length))?;
            }
        }
        Ok(())
    }

    fn book(&mut self, kind: u8, flags: u8, length: u64) -> io::Result<()> {
        let cost = match kind {
            HEADERS => 0,
            DATA if length > 0 || flags & END_STREAM != 0 => 0,
            RST_STREAM => limits::FLOOD_RESET_COST,
            _ => 1,
        };
        if kind == DATA {
            self.earn(length);
        }
        if cost > self.credit {
            self.refill();
        }
        self.credit = self.credit.checked_sub(cost).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a flood of frames"))?;
        Ok(())
    }

    /// Content brings credit: who moves bytes also moves windows.
    fn earn(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes / limits::FLOOD_BYTES_PER_CREDIT).min(limits::FLOOD_CREDIT_MAX);
    }

    fn refill(&mut self) {
        let passed = u64::try_from(self.filled.elapsed().as_millis()).unwrap_or(u64::MAX);
        let credit = passed.saturating_mul(limits::FLOOD_CREDIT_PER_S) / 1000;
        if credit > 0 {
            self.filled = Instant::now();
            self.credit = self.credit.saturating_add(credit).min(limits::FLOOD_CREDIT_MAX);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, out);
        if let Poll::Ready(Ok(())) = &polled {
            self.follow(out.filled().get(before..).unwrap_or_default())?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.earn(*written as u64);
        }
        polled
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(written)) = &polled {
            self.earn(*written as u64);
        }
        polled
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// The answers of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Answers that have more to give, or have not been asked, while nobody asks.
    unasked: AtomicUsize,
    /// How often one was asked.
    asked: AtomicU64,
}

impl Answers {
    /// Watches an answer's body.
    pub(super) fn watch(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        self.0.unasked.fetch_add(1, Ordering::Relaxed);
        Watched { inner: body, counts: Arc::clone(&self.0), unasked: true }.boxed_unsync()
    }

    /// Returns once there were answers to take for `limit`, and none of them was asked for a byte.
    pub(super) async fn untaken(&self, limit: Duration) {
        let (mut before, mut quiet) = (self.0.asked.load(Ordering::Relaxed), 0_u32);
        while quiet < 4 {
            tokio::time::sleep(limit / 4).await;
            let now = self.0.asked.load(Ordering::Relaxed);
            let stalled = now == before && self.0.unasked.load(Ordering::Relaxed) > 0;
            quiet = if stalled { quiet.saturating_add(1) } else { 0 };
            before = now;
        }
    }
}

struct Watched {
    inner: Body,
    counts: Arc<Counts>,
    /// Counted in `unasked`.
    unasked: bool,
}

impl Watched {
    fn now_unasked(&mut self, unasked: bool) {
        match (self.unasked, unasked) {
            (false, true) => self.counts.unasked.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.counts.unasked.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.unasked = unasked;
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        // Pending: somebody waits for it. Ended: there is nothing to take.
        let more = matches!(&polled, Poll::Ready(Some(Ok(_)))) && !self.inner.is_end_stream();
        self.now_unasked(more);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.now_unasked(false);
    }
}
