//! The socket: who may connect, in which protocols, and how many at once.

use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use trust::Clock;

use super::world::{UID, World, bearing};
use crate::limits;
use crate::pdp::{DecisionPoint, Parts, check, message};

/// A socket of `uid`'s, served.
async fn listening(world: &World, folder: &Path, uid: u32) -> std::path::PathBuf {
    let path = folder.join(format!("{uid}.sock"));
    let listener = StdListener::bind(&path).unwrap();
    let clock: Arc<dyn Clock> = world.clock.clone();
    let point = DecisionPoint::new(Parts {
        views: world.point.views.clone(),
        proxy: world.proxy.clone(),
        uid,
        own_uid: 0,
        login: contract::Client::new(world.login.clone()),
        origin: crate::edge::tests::world::ORIGIN.to_owned(),
        limits: crate::edge::Limits::standard(),
        recorder: world.point.recorder.clone(),
        clock,
        entropy: trust::SystemEntropy::shared(),
        stop: world.stop.clone(),
    });
    tokio::spawn(point.serve(listener));
    path
}

fn own_uid() -> u32 {
    std::os::unix::net::UnixStream::pair()
        .map(|_| std::fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found)).unwrap())
        .unwrap()
}

/// A world whose view names this test's user.
fn ours() -> World {
    let world = World::new();
    world.later(|view| view.pep.as_mut().unwrap().uid = Some(own_uid()));
    world
}

async fn is_closed(mut stream: UnixStream) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await.expect("closed at once");
    matches!(read, Ok(0) | Err(_))
}

// E21: gRPC by HTTP/2 and AuthZEN by HTTP/1.1, on one socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_speaks_grpc_and_json() {
    let (world, folder) = (ours(), tempfile::tempdir().unwrap());
    let path = listening(&world, folder.path(), own_uid()).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = message::framed(&bearing("GET", "/api/videos", &world.login.token(), &[]));
    let request =
        Request::post(format!("http://pdp{}", check::PATH)).header("content-type", "application/grpc").body(body::full(asked)).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert!(world.refusals().is_empty());

    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let text = json!({
        "subject": { "type": "user", "id": "u-anna", "properties": { "access_token": world.login.token() } },
        "action": { "name": "GET" }, "resource": { "type": "route", "id": "/api/videos" },
    });
    let request = Request::post(crate::pdp::authzen::EVALUATION)
        .header("host", "pdp")
        .header("content-type", "application/json")
        .body(body::full(text.to_string()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let said: serde_json::Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(said["decision"], true);
    // Anything else is no connection.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"PRX nonsense\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
}

// E21: the kernel's word on who connects; the manifest's on who may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_proxys_user_gets_a_connection() {
    let (world, folder) = (ours(), tempfile::tempdir().unwrap());
    let other = listening(&world, folder.path(), own_uid() + 1).await;
    assert!(is_closed(UnixStream::connect(&other).await.unwrap()).await);
    let refused = |world: &World| world.audit().iter().filter(|r| r.event == "ConnectionRefused" && r.fields["point"] == "pdp").count();
    assert_eq!(refused(&world), 1, "on record");
    let path = listening(&world, folder.path(), own_uid()).await;
    assert!(UnixStream::connect(&path).await.is_ok());
    // The manifest names another user from now on: the process was started for this one, so nobody is left.
    let mut view = world.view.clone();
    (view.epoch, view.issued_at_ms) = (view.epoch + 2, world.clock.unix_ms());
    view.pep.as_mut().unwrap().uid = Some(own_uid() + 1);
    world.take(&view);
    assert!(is_closed(UnixStream::connect(&path).await.unwrap()).await);
    assert_eq!(refused(&world), 2);
}

#[tokio::test]
async fn a_connection_from_before_a_view_that_names_another_user_is_refused_too() {
    let world = World::new();
    let request = || Request::get(crate::pdp::authzen::METADATA).header("host", "pdp").body(body::empty()).unwrap();
    assert_eq!(world.point.clone().answer(UID, request()).await.status(), StatusCode::OK);
    assert_eq!(world.point.clone().answer(UID + 1, request()).await.status(), StatusCode::FORBIDDEN);
    world.later(|view| view.pep.as_mut().unwrap().uid = None);
    assert_eq!(world.point.clone().answer(UID, request()).await.status(), StatusCode::FORBIDDEN, "the one that runs Palisade is meant now");
}

// A13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_are_served_than_the_limit() {
    let (world, folder) = (ours(), tempfile::tempdir().unwrap());
    let path = listening(&world, folder.path(), own_uid()).await;
    let mut held = Vec::new();
    for _ in 0..limits::PEP_CONNECTIONS_MAX {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /.well-known/authzen-configuration HTTP/1.1\r\nhost: pdp\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    assert!(is_closed(UnixStream::connect(&path).await.unwrap()).await);
    assert_eq!(world.audit().last().unwrap().fields["reason"], "concurrency_exceeded");
    world.stop.cancel();
}
