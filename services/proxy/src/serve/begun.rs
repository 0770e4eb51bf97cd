//! A connection whose first bytes were looked at: they are read again as if they had not been.
//!
//! For streams that cannot be peeked at (UNIX sockets). Whether HTTP/2 by prior knowledge (RFC 9113, section 3.3) or HTTP/1.1 follows is
//! known by three bytes: no method of HTTP/1.1 begins with `PRI`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const SEEN: usize = 3;

/// The stream, with what was read of it.
#[derive(Debug)]
pub(crate) struct Begun<S> {
    inner: S,
    seen: [u8; SEEN],
    length: usize,
    given: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Begun<S> {
    /// Waits for the first bytes; whether they are those of HTTP/2.
    ///
    /// # Errors
    /// Those of reading; `UnexpectedEof` when nothing comes.
    pub(crate) async fn look(mut inner: S) -> io::Result<(Self, bool)> {
        let (mut seen, mut length) = ([0; SEEN], 0);
        while let Some(rest) = seen.get_mut(length..).filter(|rest| !rest.is_empty()) {
            let read = inner.read(rest).await?;
            if read == 0 {
                break;
            }
            length = length.saturating_add(read);
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_http2 = seen == *b"PRI";
        Ok((Self { inner, seen, length, given: 0 }, is_http2))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.seen.get(this.given..this.length) {
            Some(left) if !left.is_empty() && buffer.remaining() > 0 => {
                let take = left.len().min(buffer.remaining());
                buffer.put_slice(left.get(..take).unwrap_or_default());
                this.given = this.given.saturating_add(take);
                Poll::Ready(Ok(()))
            }
            _ => Pin::new(&mut this.inner).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
