//! Tunnels: bytes both ways between a caller and a service, once an opening has passed every step of a request.
//!
//! Nothing is collected: one piece of at most `TUNNEL_PIECE_BYTES` is under way in each direction, and a reader that stops holds the
//! writer back. A direction that ends is ended on the other side too (half-close), a direction that breaks breaks both: whoever reads
//! can tell an end from a cut. A tunnel lives at most `Bounds::whole`, and `Bounds::idle` without a byte; what may end it earlier (a
//! revoked session, a withdrawn flow, a drain) is the opener's to watch.
//!
//! Guarantees: A18 flat memory both ways; D8 WebSocket and raw TCP; A13 idle and total limits; bytes of both directions are counted.
//! Not here:   who may open one (`edge`, `mesh`), what is said in it (`websocket` follows frames to close cleanly).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::{Body, BoxError};
use http_body_util::BodyExt;
use http_body_util::channel::Sender;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trust::DenyReason;

use crate::limits;
use crate::websocket::Frames;

/// How long a tunnel may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Without a byte in either direction. It ends at most a quarter of this later.
    pub idle: Duration,
    /// In all.
    pub whole: Duration,
    /// After one direction has ended; without it only `idle` and `whole` count.
    pub half: Option<Duration>,
}

impl Bounds {
    /// Of a WebSocket: whoever ends one direction has closed (RFC 6455, section 7.1.1).
    #[must_use]
    pub fn websocket() -> Self {
        Self {
            idle: Duration::from_millis(limits::TUNNEL_IDLE_MS),
            whole: Duration::from_millis(limits::TUNNEL_MS_MAX),
            half: Some(Duration::from_millis(limits::TUNNEL_HALF_MS)),
        }
    }
}

impl Bounds {
    /// Of a raw flow, whose two directions end each for itself.
    #[must_use]
    pub fn flow() -> Self {
        Self { idle: Duration::from_millis(limits::FLOW_IDLE_MS), whole: Duration::from_millis(limits::FLOW_MS_MAX), half: None }
    }
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Both directions ended by themselves.
    Closed,
    /// One direction broke, or the bytes were not what was agreed.
    Broken,
    /// No byte for `Bounds::idle`.
    Idle,
    /// `Bounds::whole` is over.
    Whole,
    /// This process stops.
    Drained,
    /// What was allowed at the opening is no longer.
    Revoked(DenyReason),
}

impl Why {
    /// Its name in records.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Whole => "total_time",
            Self::Drained => "drained",
            Self::Revoked(reason) => reason.code(),
        }
    }

    /// The status of a Close frame that says so (RFC 6455, section 7.4.1).
    fn close_status(self) -> u16 {
        match self {
            Self::Closed => 1000,
            Self::Idle | Self::Whole | Self::Drained => 1001,
            Self::Revoked(_) => 1008,
            Self::Broken => 1011,
        }
    }
}

/// How a tunnel went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes from the caller to the service.
    pub bytes_in: u64,
    /// Bytes from the service to the caller.
    pub bytes_out: u64,
    /// Why it ended.
    pub why: Why,
}

/// Where bytes come from.
pub enum Source {
    /// A message's body.
    Body(Body),
    /// A connection.
    Socket(Box<dyn AsyncRead + Send + Unpin>),
}

/// Where bytes go.
pub enum Sink {
    /// The body of a message that somebody reads.
    Body(Sender<Bytes, BoxError>),
    /// A connection.
    Socket(Box<dyn AsyncWrite + Send + Unpin>),
    /// A plain TCP connection, which can be reset.
    Tcp(OwnedWriteHalf),
}

/// One side of a tunnel.
pub struct End {
    /// What that side says.
    pub source: Source,
    /// What it hears.
    pub sink: Sink,
}

impl End {
    /// A connection as one side.
    pub fn socket<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Self {
        let (source, sink) = tokio::io::split(stream);
        Self { source: Source::Socket(Box::new(source)), sink: Sink::Socket(Box::new(sink)) }
    }

    /// A plain TCP connection as one side.
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        let (source, sink) = stream.into_split();
        Self { source: Source::Socket(Box::new(source)), sink: Sink::Tcp(sink) }
    }

    /// A message from there and one to there as one side.
    #[must_use]
    pub fn bodies(from: Body, to: Sender<Bytes, BoxError>) -> Self {
        Self { source: Source::Body(from), sink: Sink::Body(to) }
    }
}

impl Source {
    /// The next piece; nothing at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Body(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    // Trailers end it; they say nothing here.
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) if bytes.is_empty() => {}
                        Ok(bytes) => return Ok(Some(bytes)),
                        Err(_trailers) => return Ok(None),
                    },
                    Some(Err(error)) => return Err(io::Error::other(error)),
                }
            },
            Self::Socket(stream) => {
                let mut piece = BytesMut::with_capacity(limits::TUNNEL_PIECE_BYTES);
                let read = stream.read_buf(&mut piece).await?;
                Ok((read > 0).then(|| piece.freeze()))
            }
        }
    }
}

impl Sink {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Body(sender) => sender.send_data(bytes).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe)),
            Self::Socket(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
            Self::Tcp(stream) => stream.write_all(&bytes).await,
        }
    }

    /// Says that nothing more comes.
    async fn finish(self) {
        match self {
            Self::Body(sender) => drop(sender),
            // Who has gone does not hear it.
            Self::Socket(mut stream) => drop(stream.shutdown().await),
            Self::Tcp(mut stream) => drop(stream.shutdown().await),
        }
    }

    /// Breaks off, so that what was sent is not taken for the whole.
    fn abort(self) {
        match self {
            Self::Body(sender) => sender.abort("the tunnel broke".into()),
            Self::Socket(stream) => drop(stream),
            // Without lingering it ends with RST (RFC 9293, section 3.10.7); otherwise it would end well.
            Self::Tcp(stream) => {
                drop(stream.as_ref().set_zero_linger());
                // Dropped, it would say that all is said; closed with its other half, it is reset.
                stream.forget();
            }
        }
    }
}

/// One direction.
struct Direction {
    source: Source,
    sink: Sink,
    /// Follows frames, where there are any, so that a Close can be said between two of them.
    frames: Option<Frames>,
    framed: bool,
}

impl Direction {
    /// Moves bytes until the source ends, something breaks, or `ending` says why to stop; whether it went well.
    async fn run(mut self, seen: &AtomicU64, ending: &CancellationToken, why: impl Fn() -> Why) -> bool {
        loop {
            let stopped = ending.is_cancelled();
            let between = self.frames.as_ref().is_none_or(Frames::is_between);
            if stopped && between {
                return self.stop(why()).await;
            }
            let next = tokio::select! {
                biased;
                () = ending.cancelled(), if !stopped => continue,
                next = self.source.next() => next,
            };
            let moved = match next {
                Ok(Some(bytes)) => self.pass(bytes, seen).await,
                Ok(None) => {
                    self.sink.finish().await;
                    return true;
                }
                Err(error) => Err(error),
            };
            if moved.is_err() {
                self.stop(Why::Broken).await;
                return false;
            }
        }
    }

    async fn pass(&mut self, bytes: Bytes, seen: &AtomicU64) -> io::Result<()> {
        seen.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(frames) = &mut self.frames {
            frames.follow(&bytes)?;
        }
        self.sink.send(bytes).await
    }

    /// A framed direction ends with a Close, where one fits in; another is cut.
    async fn stop(mut self, why: Why) -> bool {
        if !self.framed {
            self.sink.abort();
            return false;
        }
        if self.frames.as_ref().is_some_and(Frames::takes_close) {
            // Who has gone does not hear it.
            let _heard = self.sink.send(Frames::close(why.close_status())).await;
        }
        self.sink.finish().await;
        true
    }
}

/// Runs a tunnel to its end. `framed`: it carries WebSocket frames, and a Close tells the caller why it ends. `ending` says when
/// something else than its two sides ends it.
pub async fn run(caller: End, service: End, bounds: Bounds, framed: bool, ending: impl Future<Output = Why>) -> Summary {
    let (bytes_in, bytes_out) = (AtomicU64::new(0), AtomicU64::new(0));
    let (stop, said) = (CancellationToken::new(), std::sync::OnceLock::new());
    let said_why = || said.get().copied().unwrap_or(Why::Broken);
    let up = Direction { source: caller.source, sink: service.sink, frames: None, framed };
    let down = Direction { source: service.source, sink: caller.sink, frames: framed.then(Frames::default), framed };
    let mut up = std::pin::pin!(up.run(&bytes_in, &stop, said_why));
    let mut down = std::pin::pin!(down.run(&bytes_out, &stop, said_why));
    let (mut up_over, mut down_over) = (None, None);
    let moved = || bytes_in.load(Ordering::Relaxed).saturating_add(bytes_out.load(Ordering::Relaxed));
    let mut ending = std::pin::pin!(ending);
    let mut whole = std::pin::pin!(tokio::time::sleep(bounds.whole));
    let mut idle = std::pin::pin!(idle(bounds.idle, moved));
    let mut half = std::pin::pin!(tokio::time::sleep(bounds.whole));
    let why = loop {
        tokio::select! {
            well = &mut up, if up_over.is_none() => up_over = Some(well),
            well = &mut down, if down_over.is_none() => down_over = Some(well),
            why = &mut ending => break why,
            () = &mut whole => break Why::Whole,
            () = &mut idle => break Why::Idle,
            () = &mut half, if bounds.half.is_some() && (up_over.is_some() != down_over.is_some()) => break Why::Closed,
        }
        match (up_over, down_over) {
            (Some(true), Some(true)) => break Why::Closed,
            (Some(false), _) | (_, Some(false)) => break Why::Broken,
            _ => {}
        }
        if let Some(after) = bounds.half {
            half.as_mut().reset(Instant::now() + after);
        }
    };
    // It is said once.
    let _first = said.set(why);
    stop.cancel();
    let rest = async {
        tokio::join!(
            async {
                if up_over.is_none() {
                    up.await;
                }
            },
            async {
                if down_over.is_none() {
                    down.await;
                }
            }
        );
    };
    // What cannot be said in this time is not said.
    let _late = tokio::time::timeout(Duration::from_millis(limits::TUNNEL_GRACE_MS), rest).await;
    Summary { bytes_in: bytes_in.load(Ordering::Relaxed), bytes_out: bytes_out.load(Ordering::Relaxed), why }
}

/// Returns once nothing has moved for `limit`.
async fn idle(limit: Duration, moved: impl Fn() -> u64) {
    let (mut before, mut quiet) = (moved(), 0_u32);
    while quiet < 4 {
        tokio::time::sleep(limit / 4).await;
        let now = moved();
        quiet = if now == before { quiet.saturating_add(1) } else { 0 };
        before = now;
    }
}

#[cfg(test)]
mod tests;
