//! Streams: large bodies go through both guards with flat memory, in both directions.

use std::sync::Arc;

use bytes::Bytes;
use contract::{Body, BoxError, body};
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, read, request};
use crate::passage::Passage;

const MIB: usize = 1024 * 1024;
const PIECE: &[u8] = &[7; 64 * 1024];

pub fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn count(request: Request<Body>) -> Response<Body> {
    let mut bytes = 0_usize;
    let mut frames = request.into_body();
    while let Some(frame) = frames.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    body::json(http::StatusCode::OK, &serde_json::json!({ "bytes": bytes }))
}

// A18, smaller: 256 MiB from a service's plain HTTP/1.1 through its guard, over mutual TLS, through the other guard to its service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_streams_through_two_guards_with_flat_memory() {
    let world = World::new();
    let mut view = world.back_view();
    view.callers.insert(world.service("front"));
    let (_back, address) = world.guard("back", &view, count);
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let relay = move |request: Request<Body>| async move {
        // The service streams on while its own request is in flight.
        let token = request.headers()["txn-token"].to_str().unwrap().to_owned();
        let mut stream = tokio::net::TcpStream::connect(out).await.unwrap();
        let head = format!(
            "POST /things/up HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTxn-Token: {token}\r\nContent-Length: {}\r\n\r\n",
            256 * MIB
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..256 * MIB / PIECE.len() {
            stream.write_all(PIECE).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Response::new(body::full(answer.split_once("\r\n\r\n").unwrap().1.to_owned()))
    };
    let (front, front_address) = world.guard("front", &world.front_view(address), relay);
    tokio::spawn(Arc::clone(&front).outbound(9001, listener, world.stop.clone()));
    let edge = world.transport(&world.edge, &world.service("front"), front_address);
    let token = world.token("ann", "view");

    let before = resident_mib();
    let (done, mut over) = tokio::sync::oneshot::channel::<()>();
    let most = tokio::spawn(async move {
        let mut most = 0;
        while over.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            most = resident_mib().max(most);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        most
    });
    let (status, said) = read(edge.call(super::world::get("/relay/up", &[("txn-token", &token)])).await.unwrap()).await;
    assert_eq!((status, said["bytes"].as_u64()), (200, Some(256 * MIB as u64)));
    done.send(()).unwrap();
    let most = most.await.unwrap();
    assert!(most >= before, "memory was watched");
    assert!(most - before <= 16, "both guards, both services and the client together grew by {} MiB", most - before);
}

// A18: the other way, and a reader that stops holds the writer back instead of filling memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_service_back() {
    let world = World::new();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let pour = move |_request: Request<Body>| {
        let counted = Arc::clone(&counted);
        async move {
            let (mut sender, channel) = Channel::<Bytes, BoxError>::new(1);
            tokio::spawn(async move {
                for _ in 0..64 * MIB / PIECE.len() {
                    if sender.send_data(Bytes::from_static(PIECE)).await.is_err() {
                        return;
                    }
                    counted.fetch_add(PIECE.len(), std::sync::atomic::Ordering::Relaxed);
                }
            });
            Response::new(Passage::new(channel).into_body())
        }
    };
    let (_back, address) = world.guard("back", &world.back_view(), pour);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    let response = transport.call(request("POST", "/things/down", &[("txn-token", &token)], body::empty())).await.unwrap();
    let mut frames = response.into_body();
    let mut got = frames.frame().await.unwrap().unwrap().into_data().unwrap().len();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let ahead = sent.load(std::sync::atomic::Ordering::Relaxed) - got;
    assert!(ahead < 24 * MIB, "the service is {ahead} bytes ahead of its reader");
    while let Some(frame) = frames.frame().await {
        got += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(got, 64 * MIB);
}
