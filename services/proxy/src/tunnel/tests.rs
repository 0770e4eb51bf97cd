//! Tunnels between sockets of this process: what ends them, and how each side hears of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::future::pending;

use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::passage::Passage;

const LONG: Duration = Duration::from_secs(60);

fn bounds(idle: Duration, whole: Duration, half: Option<Duration>) -> Bounds {
    Bounds { idle, whole, half }
}

/// A tunnel with both its outer ends in the test's hands: caller's and service's.
fn tunnel(
    bounds: Bounds,
    framed: bool,
    ending: impl Future<Output = Why> + Send + 'static,
) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<Summary>) {
    let (caller, near) = tokio::io::duplex(1024);
    let (service, far) = tokio::io::duplex(1024);
    let running = tokio::spawn(run(End::socket(near), End::socket(far), bounds, framed, ending));
    (caller, service, running)
}

// D8: each direction ends for itself, and both are counted.
#[tokio::test]
async fn a_half_closed_tunnel_still_brings_the_answer() {
    let (mut caller, mut service, running) = tunnel(bounds(LONG, LONG, None), false, pending());
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut heard = Vec::new();
    service.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    service.write_all(b"a longer answer").await.unwrap();
    service.shutdown().await.unwrap();
    heard.clear();
    caller.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"a longer answer");
    assert_eq!(running.await.unwrap(), Summary { bytes_in: 8, bytes_out: 15, why: Why::Closed });
}

// A13: past the limit it ends; with a byte every so often it does not.
#[tokio::test]
async fn a_tunnel_ends_when_it_is_idle_and_not_before() {
    let limit = Duration::from_millis(1200);
    let (mut caller, mut service, running) = tunnel(bounds(limit, LONG, None), false, pending());
    // Twice as long, with a byte every so often.
    for _ in 0..24 {
        tokio::time::sleep(limit / 12).await;
        caller.write_all(b"x").await.unwrap();
        assert_eq!(service.read_u8().await.unwrap(), b'x');
    }
    assert!(!running.is_finished());
    assert_eq!(running.await.unwrap(), Summary { bytes_in: 24, bytes_out: 0, why: Why::Idle });
}

// A13
#[tokio::test]
async fn a_tunnel_ends_when_its_whole_time_is_over_however_busy_it_is() {
    let (mut caller, mut service, running) = tunnel(bounds(LONG, Duration::from_secs(2), None), false, pending());
    let mut bytes_in = 0;
    while caller.write_all(b"x").await.is_ok() && service.read_u8().await.is_ok() {
        bytes_in += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let summary = running.await.unwrap();
    assert_eq!(summary.why, Why::Whole);
    assert!(bytes_in > 1 && summary.bytes_in >= bytes_in, "it was busy: {summary:?}");
}

// RFC 6455, section 7.1.1: who ends one direction of a WebSocket has closed it.
#[tokio::test]
async fn a_websocket_does_not_stay_half_closed() {
    let (mut caller, mut service, running) = tunnel(bounds(LONG, LONG, Some(Duration::from_millis(500))), true, pending());
    service.write_all(&Frames::close(1000)).await.unwrap();
    service.shutdown().await.unwrap();
    let mut heard = Vec::new();
    caller.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, &Frames::close(1000)[..], "the service's own Close, and no second one");
    assert_eq!(running.await.unwrap().why, Why::Closed);
}

// A18: a Close between two frames tells the caller why, and never lands inside of one.
#[tokio::test]
async fn what_ends_a_websocket_says_so_between_two_frames() {
    let (say, said) = tokio::sync::oneshot::channel();
    let ending = async move { said.await.unwrap() };
    let (mut caller, mut service, running) = tunnel(bounds(LONG, LONG, None), true, ending);
    // Half of a frame of ten bytes.
    service.write_all(&[0x82, 10, 1, 2, 3, 4, 5]).await.unwrap();
    let mut heard = vec![0; 7];
    caller.read_exact(&mut heard).await.unwrap();
    say.send(Why::Revoked(DenyReason::SessionEnded)).unwrap();
    service.write_all(&[6, 7, 8, 9, 10]).await.unwrap();
    heard.clear();
    caller.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [&[6, 7, 8, 9, 10][..], &Frames::close(1008)].concat());
    assert_eq!(running.await.unwrap().why.code(), "session_ended");
}

// D8: whoever reads can tell an end from a cut.
#[tokio::test]
async fn a_direction_that_breaks_is_not_taken_for_a_whole() {
    let (to_service, body) = Channel::<Bytes, BoxError>::new(1);
    let (to_caller, answer) = Channel::<Bytes, BoxError>::new(1);
    let (mut service, far) = tokio::io::duplex(1024);
    let caller = End::bodies(Passage::new(body).into_body(), to_caller);
    let running = tokio::spawn(run(caller, End::socket(far), bounds(LONG, LONG, None), false, pending()));
    service.write_all(b"half of").await.unwrap();
    let mut answer = Passage::new(answer).into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "half of");
    to_service.abort("the caller's connection broke".into());
    assert!(answer.frame().await.unwrap().is_err(), "broken, not ended");
    assert_eq!(running.await.unwrap().why, Why::Broken);
}
