//! One accepted connection: HTTP/1.1 behind its screen, or HTTP/2, until its peer goes or the process drains.
//!
//! Guarantees: A1 HTTP/1.1 and 2; A13 limits on heads, streams and windows. Drain: what is in flight ends, nothing new begins.

use std::convert::Infallible;
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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::afterwards::Afterwards;
use super::screen::{Opened, Screen};
use super::stall::Stall;
use crate::limits;
use crate::passage::{Idle, Passage};

/// Serves HTTP/1.1; `refused` hears of messages that the screen did not let through.
pub async fn http1<S, H, F, R>(stream: S, handler: H, stop: &CancellationToken, refused: R)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Send + Sync,
    F: Future<Output = Response<Body>> + Send,
    R: Fn(&'static str) + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEAD_READ_MS))
        .max_headers(trust::limits::HEADERS_MAX)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES)
        .half_close(false);
    let (tunnels, opened) = (TaskTracker::new(), Opened::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let idle = extensible(&mut request);
        // Who expects `100 Continue` has sent nothing yet; reading on would ask for it.
        let waits = request.headers().contains_key(header::EXPECT);
        let answer = handler(request.map(|body| {
            if body.is_end_stream() {
                return contract::body::empty();
            }
            let body = Passage::new(body).within_shared(idle);
            if waits { body.into_body() } else { body.lingering().into_body() }
        }));
        let (tunnels, opened) = (&tunnels, &opened);
        async move {
            let mut answer = answer.await;
            if let Some(begin) = Afterwards::take(&mut answer) {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    opened.open();
                }
                tunnels.spawn(begin(stop.clone()));
            }
            Ok::<_, Infallible>(answer)
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

/// Serves HTTP/2.
pub async fn http2<S, H, F>(stream: S, handler: H, stop: &CancellationToken)
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
        .max_header_list_size(u32::try_from(trust::limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_millis(limits::PING_EVERY_MS))
        .keep_alive_timeout(Duration::from_millis(limits::PING_ANSWER_MS))
        // WebSockets of browsers (RFC 8441); every other CONNECT is refused by `canonical`.
        .enable_connect_protocol();
    let tunnels = TaskTracker::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        let idle = extensible(&mut request);
        let answer = handler(request.map(|body| {
            if body.is_end_stream() {
                return contract::body::empty();
            }
            Passage::new(body).within_shared(idle).into_body()
        }));
        let (tunnels, stop) = (tunnels.clone(), stop.clone());
        async move {
            let mut answer = answer.await;
            if let Some(begin) = Afterwards::take(&mut answer) {
                tunnels.spawn(begin(stop));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Stall::new(stream)), service));
    tokio::select! {
        _ended = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ended = tokio::time::timeout(Duration::from_millis(limits::DRAIN_MS), connection).await;
        }
    }
    tunnels.close();
    tunnels.wait().await;
}
