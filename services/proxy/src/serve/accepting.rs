//! Accepting: a loop that takes connections until `stop`, then waits for those it took.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits;

/// Takes connections from `accept` and serves each in a task of its own, at most `CONNECTIONS_MAX` at the same time. After `stop`
/// nothing more is taken; returns when the last one has ended (each sees `stop` itself and ends within `DRAIN_MS`).
pub(crate) async fn run<S, A, AF, C, CF>(accept: A, serve: C, stop: &CancellationToken)
where
    A: Fn() -> AF,
    AF: Future<Output = io::Result<S>>,
    C: Fn(S) -> CF,
    CF: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                accept().await.map(|stream| (place, stream))
            } => accepted,
        };
        match accepted {
            Ok((place, stream)) => {
                let connection = serve(stream);
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // Out of descriptors, or the peer was gone already: others are still served.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    tasks.close();
    tasks.wait().await;
}
