//! One accepted connection: HTTP/1.1 behind its screen, or HTTP/2, until its peer goes or the process drains.
//!
//! Guarantees: A1 HTTP/1.1 and 2; A13 limits on heads, streams and windows. Drain: what is in flight ends, nothing new begins.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use contract::Body;
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::afterwards::Afterwards;
use super::broken_off::BrokenOff;
use super::flood::{Answers, Meter};
use super::screen::{Opened, Screen};
use super::stall::Stall;
use crate::limits;
use crate::passage::{Idle, Passage};

/// The first bytes of a connection come together, nearly always.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// hyper takes as many fields when it is told nothing, and only then keeps their places on the stack, unwritten.
const _: () = assert!(trust::limits::HEADERS_MAX == 100, "tell hyper of it: max_headers");

/// Serves HTTP/1.1; `refused` hears of messages that the screen did not let through.
pub async fn http1<S, H, F, R>(stream: S, handler: H, stop: &CancellationToken, refused: R)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send,
    R: Fn(&'static str) + Unpin + Send + 'static,
{
    http1_idle(Some(Duration::from_millis(limits::HEAD_READ_MS)), stream, handler, stop, refused).await;
}

/// The same with the longest wait for a head; `None` is for the one peer that may be silent for as long as it lives, the supervisor,
/// whose connection cannot be made anew.
pub(super) async fn http1_idle<S, H, F, R>(idle: Option<Duration>, stream: S, handler: H, stop: &CancellationToken, refused: R)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send,
    R: Fn(&'static str) + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(limits::HTTP1_BUFFER_BYTES).half_close(false);
    let (tunnels, opened) = (TaskTracker::new(), Opened::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        // A request without a body, which most are, has nothing that could be allowed more time.
        let idle = (!request.body().is_end_stream()).then(|| extensible(&mut request));
        // Who expects `100 Continue` has sent nothing yet; reading on would ask for it.
        let waits = request.headers().contains_key(header::EXPECT);
        let answer = handler(request.map(|body| {
            let Some(idle) = idle else { return contract::body::empty() };
            let body = Passage::new(body).within_shared(idle);
            if waits { body.into_body() } else { body.lingering().into_body() }
        }));
        let (tunnels, opened) = (&tunnels, &opened);
        async move {
            let mut answer = answer.await;
            BrokenOff::check(&answer)?;
            if let Some(begin) = Afterwards::take(&mut answer) {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    opened.open();
                }
                tunnels.spawn(begin(stop.clone()));
            }
            Ok::<_, BrokenOff>(answer)
        }
    });
    let screen = Screen::new(Stall::new(stream), refused, opened.clone());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(screen), service).with_upgrades());
    tokio::select! {
        // However a connection ends, its requests have said for themselves how they ended.
        _ended = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ended = tokio::time::timeout(Duration::from_millis(limits::DRAIN_MS), connection).await;
        }
    }
    // A tunnel has its own limits, and ends soon after `stop`.
    tunnels.close();
    tunnels.wait().await;
}

/// Lets whoever decides about a request allow its body more time between two pieces.
fn extensible(request: &mut Request<Incoming>) -> Idle {
    let idle = Idle::of(limits::BODY_IDLE_MS);
    request.extensions_mut().insert(idle.clone());
    idle
}

/// Serves whichever version its first bytes say: HTTP/2 by prior knowledge (RFC 9113, section 3.3), or HTTP/1.1.
pub async fn by_preface<H, F, R>(stream: TcpStream, handler: H, stop: &CancellationToken, refused: R)
where
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send + 'static,
    R: Fn(&'static str) + Unpin + Send + 'static,
{
    let first = tokio::time::timeout(Duration::from_millis(limits::HEAD_READ_MS), begins_http2(&stream));
    let is_http2 = tokio::select! {
        is_http2 = first => is_http2,
        () = stop.cancelled() => return,
    };
    match is_http2 {
        Ok(true) => http2(stream, handler, stop).await,
        Ok(false) => http1(stream, handler, stop, refused).await,
        Err(_silent) => {}
    }
}

/// Whether the preface of HTTP/2 comes; `PRI` is no method.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    loop {
        match stream.peek(&mut first).await {
            Ok(3) => return first == *b"PRI",
            Ok(seen) if seen > 0 && b"PRI".get(..seen) == first.get(..seen) => tokio::time::sleep(PEEK_PAUSE).await,
            _ => return false,
        }
    }
}

/// Serves HTTP/2.
pub async fn http2<S, H, F>(stream: S, handler: H, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    http2_taken_within(Duration::from_millis(limits::WRITE_STALL_MS), stream, handler, stop).await;
}

/// The same for another limit on how long answers may wait to be taken.
pub(crate) async fn http2_taken_within<S, H, F>(limit: Duration, stream: S, handler: H, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_MAX)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::RESETS_PENDING_MAX)
        .max_local_error_reset_streams(limits::RESETS_FOR_ERRORS_MAX)
        .max_header_list_size(u32::try_from(trust::limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_millis(limits::PING_EVERY_MS))
        .keep_alive_timeout(Duration::from_millis(limits::PING_ANSWER_MS))
        // WebSockets of browsers (RFC 8441); every other CONNECT is refused by `canonical`.
        .enable_connect_protocol();
    let (tunnels, answers) = (TaskTracker::new(), Answers::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let idle = (!request.body().is_end_stream()).then(|| extensible(&mut request));
        let answer = handler(request.map(|body| {
            let Some(idle) = idle else { return contract::body::empty() };
            Passage::new(body).within_shared(idle).into_body()
        }));
        let (tunnels, answers, stop) = (tunnels.clone(), answers.clone(), stop.clone());
        async move {
            let mut answer = answer.await;
            BrokenOff::check(&answer)?;
            if let Some(begin) = Afterwards::take(&mut answer) {
                tunnels.spawn(begin(stop));
            }
            Ok::<_, BrokenOff>(answer.map(|body| answers.watch(body)))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Meter::new(Stall::new(stream))), service));
    tokio::select! {
        _ended = connection.as_mut() => {}
        // Whoever takes none of its answers is gone, whatever it says.
        () = answers.untaken(limit) => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ended = tokio::time::timeout(Duration::from_millis(limits::DRAIN_MS), connection).await;
        }
    }
    tunnels.close();
    tunnels.wait().await;
}
