//! HTTP/1.1 connections to one replica of a peer: one request at a time on each, for requests that HTTP/2 would only make dearer.
//!
//! Beside HTTP/2, never in its place: a request takes a connection of these when one is free, and goes over HTTP/2 when none is, or when
//! so many are under way that sharing writes is cheaper. One more
//! is opened beside the requests, once several of them found none, so a flow with little to do has none at all. What streams, waits long
//! or has trailers stays on HTTP/2.
//!
//! Guarantees: D1 the same mutual TLS with the same peer; C9 a renewed SVID or a revoked peer means another connection (`good`); A13 at
//!             most `PLAIN_CONNECTIONS_MAX` to one replica, none idle for longer than `PLAIN_IDLE_MS`.
//! Not here:   which replica (`balance`), making a connection (`mesh`). Why: docs/adr/0009.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::Body;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use trust::SpiffeId;

use super::connect::CallFailed;
use super::streams::broken;
use crate::bundle::PeerSvid;
use crate::passage::{Ended, Passage};
use crate::{grpc, limits};

/// The connections to one replica.
#[derive(Default)]
pub(super) struct Plain {
    /// Those that have waited longest first.
    idle: Mutex<VecDeque<(Connection, Instant)>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Connections there are, and those being made.
    all: AtomicUsize,
    /// Being made.
    making: AtomicUsize,
    /// Requests that found none since the last was begun.
    missed: AtomicUsize,
}

/// A connection.
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    /// Address and SVID generation that it was made for.
    made_for: (SocketAddr, u64),
    peer: Arc<PeerSvid>,
    _place: Place,
}

/// One connection's place among those of its replica.
struct Place(Arc<Counts>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to make one more.
pub(super) struct Making(Place);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.0.making.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Plain {
    /// A free connection that was made for this address and SVID and that `good` approves: the one used last, so that those not needed end.
    pub(super) fn take(&self, made_for: (SocketAddr, u64), good: impl Fn(&PeerSvid) -> bool) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = Instant::now().checked_sub(Duration::from_millis(limits::PLAIN_IDLE_MS));
        let over = |(connection, since): &(Connection, Instant)| {
            connection.sender.is_closed() || connection.made_for != made_for || oldest.is_some_and(|oldest| *since <= oldest)
        };
        while idle.front().is_some_and(over) {
            idle.pop_front();
        }
        loop {
            // One whose answer has only just ended may not be ready for the next request yet.
            let ready = idle.iter().rposition(|(connection, _)| connection.sender.is_ready())?;
            let (connection, _) = idle.remove(ready)?;
            if connection.made_for == made_for && good(&connection.peer) {
                return Some(connection);
            }
        }
    }

    /// Notes that a request found none; says when another is to be made.
    pub(super) fn missed(&self) -> Option<Making> {
        let counts = &self.counts;
        if counts.missed.fetch_add(1, Ordering::Relaxed) < limits::PLAIN_MISSED_MIN {
            return None;
        }
        let below = |most: usize| move |now: usize| (now < most).then(|| now.saturating_add(1));
        counts.making.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below(limits::PLAIN_MAKING_MAX)).ok()?;
        if counts.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below(limits::PLAIN_CONNECTIONS_MAX)).is_err() {
            counts.making.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        counts.missed.store(0, Ordering::Relaxed);
        Some(Making(Place(Arc::clone(counts))))
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back((connection, Instant::now()));
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.counts.all.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a connection that TLS has verified.
    pub(super) async fn begin<S>(stream: S, made_for: (SocketAddr, u64), peer: Arc<PeerSvid>, making: Making) -> Result<Self, CallFailed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(limits::HTTP1_BUFFER_BYTES).handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends when the peer closes it, or when the sender is dropped.
        tokio::spawn(connection);
        let place = Place(Arc::clone(&making.0.0));
        place.0.all.fetch_add(1, Ordering::Relaxed);
        drop(making);
        Ok(Self { sender, made_for, peer, _place: place })
    }

    /// Sends a request; when its answer has ended, the connection is free again and `held` is dropped.
    ///
    /// # Errors
    /// The request itself when nothing of it was written; else why it failed.
    pub(super) async fn send<H: Send + Unpin + 'static>(
        mut self,
        mut request: Request<Body>,
        to: &SpiffeId,
        plain: Arc<Plain>,
        held: H,
    ) -> Result<Response<Body>, Result<(Request<Body>, H), CallFailed>> {
        *request.version_mut() = Version::HTTP_11;
        if !request.headers().contains_key(header::HOST)
            && let Ok(name) = HeaderValue::from_str(to.workload.name())
        {
            request.headers_mut().insert(header::HOST, name);
        }
        let ms = limits::ANSWER_HEAD_MS;
        match tokio::time::timeout(Duration::from_millis(ms), self.sender.try_send_request(request)).await {
            Err(_late) => Err(Err(CallFailed::Late(ms))),
            Ok(Err(mut error)) => Err(match error.take_message() {
                Some(unsent) => Ok((unsent, held)),
                None => Err(broken(error.into_error())),
            }),
            Ok(Ok(mut response)) => {
                // As over HTTP/2, there is nothing of the connection in an answer.
                for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
                    response.headers_mut().remove(name);
                }
                let keep = move |ended| {
                    drop(held);
                    if ended == Ended::Whole {
                        plain.keep(self);
                    }
                };
                Ok(response.map(|body| Passage::new(body).at_end(keep).into_body()))
            }
        }
    }
}

/// Whether a request may go over HTTP/1.1: nothing of it streams, and its answer neither, as far as it says.
pub(super) fn may_take(request: &Request<Body>) -> bool {
    let fields = request.headers();
    let is_small = || request.body().size_hint().exact().is_some_and(|bytes| bytes <= limits::PLAIN_BODY_BYTES_MAX);
    let waits_for_events = || fields.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"));
    *request.method() != Method::CONNECT
        && (request.body().is_end_stream() || is_small())
        && !fields.contains_key(header::TE)
        && !grpc::is_grpc(fields)
        && !waits_for_events()
        && request.uri().authority().is_none()
        && request.extensions().get::<Protocol>().is_none()
}
