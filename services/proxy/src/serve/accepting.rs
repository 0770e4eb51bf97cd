//! Accepting: a loop that takes connections until `stop`, then waits for those it took.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits;

/// Something that connections come from.
pub(crate) trait Listener {
    /// A connection, with its other end's address.
    type Accepted;
    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>> + Send;
}

impl Listener for TcpListener {
    type Accepted = (TcpStream, SocketAddr);
    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>> + Send {
        self.accept()
    }
}

impl Listener for UnixListener {
    type Accepted = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Takes connections from `listener` and serves each in a task of its own, at most `CONNECTIONS_MAX` at the same time. At `stop` the
/// listener is closed; returns when the last connection has ended (each sees `stop` itself and ends within `DRAIN_MS`).
pub(crate) async fn run<L, C, CF>(listener: L, serve: C, stop: &CancellationToken)
where
    L: Listener,
    C: Fn(L::Accepted) -> CF,
    CF: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                listener.accept().await.map(|accepted| (place, accepted))
            } => accepted,
        };
        match accepted {
            Ok((place, accepted)) => {
                let connection = serve(accepted);
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // Out of descriptors, or the peer was gone already: others are still served.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Somebody always wants to connect.
    struct Crowd;

    impl Listener for Crowd {
        type Accepted = ();
        async fn accept(&self) -> io::Result<()> {
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    // A13: exactly so many are served at the same time; one more waits until one of them ends.
    #[tokio::test]
    async fn so_many_connections_are_taken_and_the_next_one_waits_for_an_end() {
        let (taken, ends, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)), CancellationToken::new());
        let serve = {
            let (taken, ends) = (Arc::clone(&taken), Arc::clone(&ends));
            move |()| {
                let (taken, ends) = (Arc::clone(&taken), Arc::clone(&ends));
                async move {
                    taken.fetch_add(1, Ordering::SeqCst);
                    ends.acquire().await.unwrap().forget();
                }
            }
        };
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { run(Crowd, serve, &stop).await }
        });
        let settled = async || {
            for _ in 0..4 * limits::CONNECTIONS_MAX {
                tokio::task::yield_now().await;
            }
            taken.load(Ordering::SeqCst)
        };
        assert_eq!(settled().await, limits::CONNECTIONS_MAX);
        ends.add_permits(1);
        assert_eq!(settled().await, limits::CONNECTIONS_MAX + 1);
        stop.cancel();
        ends.add_permits(limits::CONNECTIONS_MAX);
        running.await.unwrap();
    }
}
