//! L15: what a guard does when its own view says that its service is contained, and what others meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::{Body, body};
use http::{Request, Response, StatusCode};

use super::world::{World, get, read, service};
use crate::client::{Address, CallFailed, MeshTransport, Patience};

// L15: what was under way is answered when it is cut, what comes later is refused, and the service gets none of it.
#[tokio::test]
async fn a_contained_service_gets_nothing_and_who_waits_for_it_is_told() {
    let world = World::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let frozen = service(
        move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Response<Body>>()
        },
        world.stop.clone(),
    );
    let mut view = world.back_view();
    let holder = world.holder(&world.identity("back"), &view);
    let (guard, address) = world.guard_before(&holder, frozen);
    let front = world.identity("front");
    let transport = world.transport(&front, &world.service("back"), address);
    let token = world.token("ann", "view");
    let ask = || {
        let (transport, token) = (Arc::clone(&transport), token.clone());
        async move { read(transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap()).await }
    };
    let under_way = tokio::spawn(ask());
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    view.contained = true;
    view.epoch += 1;
    holder.accept(&world.sign(&view)).unwrap();
    let (status, said) = ask().await;
    assert_eq!((status, &said["reason"]), (503, &serde_json::json!("service_contained")), "{said}");
    assert!(!under_way.is_finished(), "it waits for its service");
    guard.cut();
    assert_eq!(under_way.await.unwrap().0, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Released, the same guard lets requests to it again; what was cut stays cut until it is a fresh run.
    view.contained = false;
    view.epoch += 1;
    holder.accept(&world.sign(&view)).unwrap();
    assert_eq!(ask().await.0, 503);
    assert!(world.saw("CallDecided", "service_contained").await);
}

// L15: what the service itself asks for is refused, whatever authority it still holds.
#[tokio::test]
async fn a_contained_service_calls_nobody() {
    let world = World::new();
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reached);
    let answer = move |_: Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { body::plain(StatusCode::OK) }
    };
    let (_back, address) = world.guard("back", &world.back_view(), answer);
    let mut view = world.front_view(address);
    let holder = world.holder(&world.identity("front"), &view);
    let (guard, _) = world.guard_before(&holder, "127.0.0.1:9".parse().unwrap());
    let port = view.service.as_ref().unwrap().outbound[0].port;
    let ask = async || {
        let listener = crate::listen::loopback().unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&guard).outbound(port, listener, world.stop.clone()));
        super::world::raw(at, "GET /things/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
    };
    let before = ask().await;
    assert!(!before.contains("service_contained"), "{before}");
    view.contained = true;
    view.epoch += 1;
    holder.accept(&world.sign(&view)).unwrap();
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("service_contained"), "{answer}");
}

// L15: a peer that is named without an address fails at once, as one that is down, and is not looked for.
#[tokio::test]
async fn a_peer_without_an_address_is_contained() {
    let world = World::new();
    let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
    let front = world.identity("front");
    view.peers.insert(world.service("back"), Vec::new());
    let holder = world.holder(&front, &view);
    let transport = MeshTransport::new(&front, world.service("back"), Address::Viewed(holder), Patience::Call).unwrap();
    let failed = transport.call(get("/things/1", &[])).await.unwrap_err();
    assert!(matches!(failed, CallFailed::Contained), "{failed:?}");
    assert_eq!(crate::client::fault_of(failed).status(), 503);
}
