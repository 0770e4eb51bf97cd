//! A13: a connection without a request has its time, and one with a request has as long as that takes.

use std::time::Duration;

use contract::body;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::tls::{connect, served_behind};
use super::world::{ORIGIN, Settings};

/// Longer than the pause between two looks.
const LOOKED: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_connection_over_http2_without_a_request_for_two_minutes_is_ended() {
    let served = served_behind(Settings::default()).await;
    let stream = connect(&served, &served.root, &rustls::version::TLS13, b"h2").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let me = || Request::get(format!("{ORIGIN}/auth/me")).body(body::empty()).unwrap();
    assert_eq!(sender.send_request(me()).await.unwrap().status(), 401);
    served.world.clock.forward_s(115);
    assert!(tokio::time::timeout(LOOKED, &mut connection).await.is_err(), "just below it is kept");
    assert_eq!(sender.send_request(me()).await.unwrap().status(), 401, "which begins its time anew");
    served.world.clock.forward_s(115);
    assert!(tokio::time::timeout(LOOKED, &mut connection).await.is_err());
    served.world.clock.forward_s(6);
    // Without an error: it was told that no more is taken (GOAWAY), and closed.
    tokio::time::timeout(PATIENCE, &mut connection).await.expect("it is ended").unwrap().unwrap();
    assert!(sender.send_request(me()).await.is_err());
}
