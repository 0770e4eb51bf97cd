//! Connections to one destination that may be used again: as long as it is declared as it was, and for a few minutes at most.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::Body;
use contract::control::Outside;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::{CameFrom, OutsideFailed};
use crate::limits;
use crate::passage::{Ended, Passage};

/// What a connection was made for, and when.
#[derive(Clone)]
struct Made {
    to: Arc<Outside>,
    address: SocketAddr,
    at: Instant,
}

impl Made {
    fn is_for(&self, to: &Arc<Outside>, now: Instant) -> bool {
        let young = now.saturating_duration_since(self.at) < Duration::from_millis(limits::OUTSIDE_CONNECTION_MS_MAX);
        young && (Arc::ptr_eq(&self.to, to) || self.to == *to)
    }
}

/// HTTP/2: shared by many requests.
#[derive(Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    made: Made,
    streams: Arc<AtomicUsize>,
}

/// One stream's place on a connection; freed when dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// HTTP/1.1: one request at a time.
pub(super) struct One {
    sender: http1::SendRequest<Body>,
    made: Made,
}

/// A connection with room for a request.
pub(super) enum Connection {
    Http1(One),
    Http2(Shared, Place),
}

/// The connections to one destination.
#[derive(Default)]
pub(super) struct Pool {
    shared: Mutex<Vec<Shared>>,
    /// Those that have waited longest first.
    idle: Mutex<VecDeque<(One, Instant)>>,
}

impl Pool {
    /// A connection that was made for `to` as it is declared now.
    pub(super) fn take(&self, to: &Arc<Outside>) -> Option<Connection> {
        let now = Instant::now();
        let mut shared = lock(&self.shared);
        shared.retain(|one| !one.sender.is_closed() && one.made.is_for(to, now));
        let least = shared.iter().min_by_key(|one| one.streams.load(Ordering::Relaxed));
        if let Some(least) = least.filter(|one| one.streams.load(Ordering::Relaxed) < limits::STREAMS_BUSY) {
            return Some(least.enter());
        }
        let mut idle = lock(&self.idle);
        let long = Duration::from_millis(limits::OUTSIDE_IDLE_MS);
        idle.retain(|(one, since)| !one.sender.is_closed() && one.made.is_for(to, now) && now.saturating_duration_since(*since) < long);
        // One whose answer has only just ended may not be ready for the next request yet.
        let ready = idle.iter().rposition(|(one, _)| one.sender.is_ready())?;
        idle.remove(ready).map(|(one, _)| Connection::Http1(one))
    }

    /// Adds an HTTP/2 connection, and takes a place on it.
    pub(super) fn share(&self, sender: http2::SendRequest<Body>, to: &Arc<Outside>, address: SocketAddr) -> Connection {
        let made = Made { to: Arc::clone(to), address, at: Instant::now() };
        let one = Shared { sender, made, streams: Arc::default() };
        let entered = one.enter();
        lock(&self.shared).push(one);
        entered
    }

    fn forget(&self, failed: &Shared) {
        lock(&self.shared).retain(|one| !Arc::ptr_eq(&one.streams, &failed.streams));
    }

    fn keep(&self, one: One) {
        let mut idle = lock(&self.idle);
        if idle.len() < limits::OUTSIDE_IDLE_MAX {
            idle.push_back((one, Instant::now()));
        }
    }
}

impl Shared {
    fn enter(&self) -> Connection {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Connection::Http2(self.clone(), Place(Arc::clone(&self.streams)))
    }
}

impl Connection {
    /// One that nobody else has.
    pub(super) fn one(sender: http1::SendRequest<Body>, to: &Arc<Outside>, address: SocketAddr) -> Self {
        Self::Http1(One { sender, made: Made { to: Arc::clone(to), address, at: Instant::now() } })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The request itself when nothing of it was written; else why it failed.
    pub(super) async fn send(
        self,
        request: Request<Body>,
        to: &Outside,
        pool: &Arc<Pool>,
    ) -> Result<Response<Body>, Result<Request<Body>, OutsideFailed>> {
        match self {
            Self::Http1(one) => one.send(request, to, pool).await,
            Self::Http2(shared, place) => shared.send(request, to, pool, place).await,
        }
    }
}

impl One {
    async fn send(
        mut self,
        mut request: Request<Body>,
        to: &Outside,
        pool: &Arc<Pool>,
    ) -> Result<Response<Body>, Result<Request<Body>, OutsideFailed>> {
        let host = HeaderValue::from_str(&authority(to)).map_err(|error| Err(OutsideFailed::Request(error.into())))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().remove(header::TE);
        *request.uri_mut() = Uri::from(target(&request));
        *request.version_mut() = Version::HTTP_11;
        match self.sender.try_send_request(request).await {
            Ok(mut response) => {
                response.extensions_mut().insert(CameFrom(self.made.address));
                let pool = Arc::clone(pool);
                let keep = move |ended| {
                    if ended == Ended::Whole {
                        pool.keep(self);
                    }
                };
                Ok(response.map(|body| Passage::new(body).at_end(keep).into_body()))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(unsent) => Ok(unsent),
                None => Err(OutsideFailed::Broken(error.into_error())),
            }),
        }
    }
}

impl Shared {
    async fn send(
        mut self,
        mut request: Request<Body>,
        to: &Outside,
        pool: &Arc<Pool>,
        place: Place,
    ) -> Result<Response<Body>, Result<Request<Body>, OutsideFailed>> {
        if self.sender.ready().await.is_err() {
            pool.forget(&self);
            return Err(Ok(request));
        }
        request.headers_mut().remove(header::HOST);
        let mut parts = http::uri::Parts::default();
        let whole = Authority::try_from(authority(to)).map_err(|error| Err(OutsideFailed::Request(error.into())))?;
        (parts.scheme, parts.authority, parts.path_and_query) = (Some(Scheme::HTTPS), Some(whole), Some(target(&request)));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| Err(OutsideFailed::Request(error.into())))?;
        *request.version_mut() = Version::HTTP_2;
        match self.sender.try_send_request(request).await {
            Ok(mut response) => {
                response.extensions_mut().insert(CameFrom(self.made.address));
                Ok(response.map(|body| Passage::new(body).at_end(move |_| drop(place)).into_body()))
            }
            Err(mut error) => {
                pool.forget(&self);
                Err(match error.take_message() {
                    Some(unsent) => Ok(unsent),
                    None => Err(OutsideFailed::Broken(error.into_error())),
                })
            }
        }
    }
}

fn target(request: &Request<Body>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// The declared host as requests name it (RFC 9110 section 7.2); whatever the service wrote there is gone.
fn authority(to: &Outside) -> String {
    let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    if to.port == 443 { host } else { format!("{host}:{}", to.port) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks panics, and each value is valid at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
