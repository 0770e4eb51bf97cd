//! Requests between two workloads over HTTP/1.1 and HTTP/2: which takes which, how many connections there are, and when they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::{Body, body};
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::world::{World, get, request};
use crate::client::MeshTransport;
use crate::limits;

/// A workload that says by which version it was asked, once the gate lets it.
struct Peer {
    address: SocketAddr,
    stop: CancellationToken,
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

fn peer(world: &World) -> Peer {
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, gate, waiting) = (CancellationToken::new(), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), Arc::new(AtomicUsize::new(0)));
    let (inner, counted) = (Arc::clone(&gate), Arc::clone(&waiting));
    let answer = move |_, request: Request<Body>| {
        let (gate, waiting) = (Arc::clone(&inner), Arc::clone(&counted));
        async move {
            assert_eq!(request.uri().authority().map_or_else(|| request.headers()["host"].to_str().unwrap(), |a| a.as_str()), "back");
            waiting.fetch_add(1, Ordering::SeqCst);
            let _through = gate.acquire().await.unwrap();
            waiting.fetch_sub(1, Ordering::SeqCst);
            let version = request.version();
            let got = request.into_body().collect().await.unwrap().to_bytes();
            let mut answer = body::with_type(http::StatusCode::OK, "text/plain", got);
            answer.headers_mut().insert("x-version", format!("{version:?}").parse().unwrap());
            answer
        }
    };
    let (identity, recorder, until) = (world.identity("back"), world.recorder.clone(), stop.clone());
    tokio::spawn(async move { crate::serve::mesh_with(&identity, listener, until, recorder, "test", answer).await });
    Peer { address, stop, gate, waiting }
}

async fn version(transport: &MeshTransport, request: Request<Body>) -> String {
    let answer = transport.call(request).await.unwrap();
    let version = answer.headers()["x-version"].to_str().unwrap().to_owned();
    assert!(!answer.headers().contains_key("connection") && !answer.headers().contains_key("transfer-encoding"));
    answer.into_body().collect().await.unwrap();
    version
}

/// Asks until a request goes over HTTP/1.1.
async fn until_plain(transport: &MeshTransport) {
    for _ in 0..2000 {
        if version(transport, get("/things/1", &[])).await == "HTTP/1.1" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no request went over HTTP/1.1");
}

async fn gone(transport: &MeshTransport, down_to: usize) {
    for _ in 0..500 {
        if transport.plain_connections() <= down_to {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} connections are still there", transport.plain_connections());
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))).collect()
}

// A1, D8: a flow with little to do has one connection; one with more has HTTP/1.1 beside it, which what streams never takes.
#[tokio::test]
async fn plain_requests_go_over_http_1_once_there_are_many_and_streams_never() {
    let world = World::new();
    let peer = peer(&world);
    let transport = world.transport(&world.identity("front"), &world.service("back"), peer.address);
    for _ in 0..limits::PLAIN_MISSED_MIN {
        assert_eq!(version(&transport, get("/things/1", &[])).await, "HTTP/2.0");
    }
    assert_eq!(transport.plain_connections(), 0, "few requests have no connection opened for them");
    until_plain(&transport).await;
    for streams in [
        &[("content-type", "application/grpc")][..],
        &[("content-type", "application/grpc+proto"), ("te", "trailers")],
        &[("te", "trailers")],
        &[("accept", "text/event-stream")],
    ] {
        let mut request = get("/things/1", &[]);
        request.headers_mut().extend(fields(streams));
        assert_eq!(version(&transport, request).await, "HTTP/2.0", "{streams:?}");
    }
    for (bytes, by) in [(limits::PLAIN_BODY_BYTES_MAX, "HTTP/1.1"), (limits::PLAIN_BODY_BYTES_MAX + 1, "HTTP/2.0")] {
        let sent = body::full(vec![b'x'; usize::try_from(bytes).unwrap()]);
        let answer = transport.call(request("POST", "/things/1", &[], sent)).await.unwrap();
        assert_eq!(answer.headers()["x-version"], by, "a body of {bytes} bytes");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len() as u64, bytes);
    }
}

// A13: however many requests there are at once, there are only so many connections; the others go over HTTP/2.
#[tokio::test]
async fn there_are_only_so_many_http_1_connections_to_a_replica() {
    let world = World::new();
    let peer = peer(&world);
    let transport = world.transport(&world.identity("front"), &world.service("back"), peer.address);
    until_plain(&transport).await;
    let most = limits::PLAIN_CONNECTIONS_MAX;
    // Requests that wait hold their connections, so each further one needs another.
    peer.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut asked = Vec::new();
    for _ in 0..most * 8 {
        let transport = Arc::clone(&transport);
        asked.push(tokio::spawn(async move { version(&transport, get("/things/1", &[])).await }));
        if asked.len() % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for _ in 0..1000 {
        if peer.waiting.load(Ordering::SeqCst) == asked.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(transport.plain_connections() <= most);
    assert_eq!(peer.waiting.load(Ordering::SeqCst), asked.len(), "none waits for a connection");
    peer.gate.add_permits(10_000);
    let mut plain = 0;
    for one in asked {
        plain += usize::from(one.await.unwrap() == "HTTP/1.1");
    }
    assert!((1..=most).contains(&plain), "{plain} over HTTP/1.1");
    assert!(transport.plain_connections() <= most);
}

// C9: a renewed SVID means a new connection for new requests, here as over HTTP/2.
#[tokio::test]
async fn a_renewed_svid_ends_http_1_connections() {
    let world = World::new();
    let peer = peer(&world);
    let front = world.identity("front");
    let transport = world.transport(&front, &world.service("back"), peer.address);
    until_plain(&transport).await;
    world.ca.renew(&front);
    assert_eq!(version(&transport, get("/things/1", &[])).await, "HTTP/2.0", "the connections of before are not used");
    until_plain(&transport).await;
}

// C4: a revoked peer is asked nothing more, on no connection that there was.
#[tokio::test]
async fn a_revoked_peer_is_not_asked_over_a_connection_of_before() {
    let world = World::new();
    let peer = peer(&world);
    let front = world.identity("front");
    let transport = world.transport(&front, &world.service("back"), peer.address);
    until_plain(&transport).await;
    front.bundle().revoke(&[contract::identity::Revocation { spiffe_id: world.service("back"), before_s: u64::MAX }]);
    for _ in 0..20 {
        assert!(transport.call(get("/things/1", &[])).await.is_err());
    }
    gone(&transport, 0).await;
}

// D9: connections that the other side closed while they were idle cost no request.
#[tokio::test]
async fn a_peer_that_starts_anew_is_asked_without_an_error() {
    let world = World::new();
    let first = peer(&world);
    let transport = world.transport(&world.identity("front"), &world.service("back"), first.address);
    until_plain(&transport).await;
    first.stop.cancel();
    let mut again = None;
    for _ in 0..500 {
        again = std::net::TcpListener::bind(first.address).ok();
        if again.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (listener, identity, recorder) = (again.unwrap(), world.identity("back"), world.recorder.clone());
    tokio::spawn(async move {
        let answer = |_, _| async { body::plain(http::StatusCode::NO_CONTENT) };
        crate::serve::mesh_with(&identity, listener, CancellationToken::new(), recorder, "test", answer).await
    });
    for _ in 0..50 {
        assert_eq!(transport.call(get("/things/1", &[])).await.unwrap().status(), 204);
    }
}

// A18 in part: who goes away before the end of an answer ends it for the peer, too; the connection is not used again.
#[tokio::test]
async fn an_answer_that_nobody_wants_ends_its_http_1_connection() {
    let world = World::new();
    let peer = peer(&world);
    let transport = world.transport(&world.identity("front"), &world.service("back"), peer.address);
    until_plain(&transport).await;
    let before = transport.plain_connections();
    let sent = request("POST", "/things/1", &[], body::full("not read"));
    let answer = transport.call(sent).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 200));
    drop(answer);
    gone(&transport, before - 1).await;
}
