//! HTTP/2 connections to one peer: few, shared by many requests, replaced when the SVID is renewed or they break.
//!
//! Guarantees: C9 a renewed SVID means a new connection for new requests; those under way end on the old one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::connect::CallFailed;
use crate::{limits, tls};

/// A connection, and how many streams it carries.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<Body>,
    /// What it was made for: address and SVID generation.
    made_for: (std::net::SocketAddr, u64),
    /// The peer's SVID when it was made.
    pub(super) peer: Arc<crate::bundle::PeerSvid>,
    streams: Arc<AtomicUsize>,
}

/// One stream's place on a connection; freed when dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections to one peer.
#[derive(Default)]
pub(super) struct Streams {
    connections: Mutex<Vec<Shared>>,
    /// Held while a connection is made, so that a burst makes one and not a hundred. What it guards is when the last attempt failed.
    pub(super) making: tokio::sync::Mutex<Option<Instant>>,
}

impl Streams {
    /// A connection with room, made for this address and SVID; drops those that are not or that `good` no longer approves.
    pub(super) fn free(&self, made_for: (std::net::SocketAddr, u64), good: impl Fn(&Shared) -> bool) -> Option<(Shared, Place)> {
        let mut connections = self.connections.lock().ok()?;
        connections.retain(|shared| !shared.sender.is_closed() && shared.made_for == made_for && good(shared));
        let full = connections.len() >= limits::CONNECTIONS_PER_PEER_MAX;
        let least = connections.iter().min_by_key(|shared| shared.streams.load(Ordering::Relaxed))?;
        (full || least.streams.load(Ordering::Relaxed) < limits::STREAMS_BUSY).then(|| least.enter())
    }

    /// Adds a connection.
    pub(super) fn add(&self, shared: &Shared) {
        if let Ok(mut connections) = self.connections.lock() {
            connections.push(shared.clone());
        }
    }

    /// Forgets a connection that failed.
    pub(super) fn forget(&self, failed: &Shared) {
        if let Ok(mut connections) = self.connections.lock() {
            connections.retain(|shared| !Arc::ptr_eq(&shared.streams, &failed.streams));
        }
    }
}

impl Shared {
    /// Speaks HTTP/2 on a connection that TLS has verified.
    pub(super) async fn begin<S>(
        stream: S,
        made_for: (std::net::SocketAddr, u64),
        peer: Arc<crate::bundle::PeerSvid>,
    ) -> Result<Self, CallFailed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(limits::SEND_BUFFER_BYTES)
            .max_header_list_size(u32::try_from(trust::limits::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_millis(limits::PING_EVERY_MS))
            .keep_alive_timeout(Duration::from_millis(limits::PING_ANSWER_MS))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends when the peer closes it, or when the last sender is dropped and the last stream has ended.
        tokio::spawn(connection);
        Ok(Self { sender, made_for, peer, streams: Arc::default() })
    }

    /// Takes a place on it.
    pub(super) fn enter(&self) -> (Self, Place) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        (self.clone(), Place(Arc::clone(&self.streams)))
    }
}

/// A broken connection; when the peer's TLS alert broke it, it was our identity that was refused.
pub(crate) fn broken(error: hyper::Error) -> CallFailed {
    if tls::refused_by_peer(&error) { CallFailed::Refused } else { CallFailed::Broken(error) }
}
