//! What calls do when a peer is away, closes, or does not answer.

use std::sync::Arc;

use super::world::{World, get, mirror, read};
use crate::client::{Address, CallFailed, MeshTransport, Patience};

// D9 in part: a peer that was restarted on the same socket is found again.
#[tokio::test]
async fn a_restarted_peer_is_reached_again() {
    let world = World::new();
    let back = world.identity("back");
    let holder = world.holder(&back, &world.back_view());
    let service = super::world::service(mirror, world.stop.clone());
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    for round in 0..3 {
        let guard = crate::mesh::Guard::new(
            Arc::clone(&holder),
            world.recorder.clone(),
            world.clock.clone(),
            Arc::new(super::contact::To(service)),
        );
        let stop = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(guard.inbound(listener.try_clone().unwrap(), stop.clone()));
        for _ in 0..3 {
            let answered = transport
                .call(get("/things/1", &[("txn-token", &token)]))
                .await
                .unwrap_or_else(|failed| panic!("round {round}: {failed:?}"));
            assert_eq!(read(answered).await.0, 200);
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}

// A role that is killed in the middle of an answer: who asked for something to read is answered by the next one on the same socket.
#[test]
fn a_read_whose_peer_was_killed_is_asked_once_more_and_a_write_is_not() {
    let main = tokio::runtime::Runtime::new().unwrap();
    let _entered = main.enter();
    let world = World::new();
    let back = world.identity("back");
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    let token = world.token("ann", "view");
    for (method, path, expect) in [("GET", "/things/1", Some(200)), ("POST", "/things/1", None)] {
        let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = |slow: bool, stop: &tokio_util::sync::CancellationToken| {
            let (identity, listener, recorder, stop) =
                (Arc::clone(&back), listener.try_clone().unwrap(), world.recorder.clone(), stop.clone());
            async move {
                let answer = move |_, _| async move {
                    if slow {
                        std::future::pending::<()>().await;
                    }
                    contract::body::plain(http::StatusCode::OK)
                };
                crate::serve::mesh_with(&identity, listener, stop, recorder, "test", answer).await
            }
        };
        let transport = world.transport(&world.identity("front"), &world.service("back"), address);
        let stop = tokio_util::sync::CancellationToken::new();
        doomed.spawn(serve(true, &stop));
        let request = super::world::request(method, path, &[("txn-token", &token)], contract::body::empty());
        let calling = {
            let transport = Arc::clone(&transport);
            main.spawn(async move { transport.call(request).await.ok().map(|response| response.status().as_u16()) })
        };
        main.block_on(tokio::time::sleep(std::time::Duration::from_millis(400)));
        doomed.shutdown_timeout(std::time::Duration::from_secs(1));
        let next = main.spawn(serve(false, &stop));
        assert_eq!(main.block_on(calling).unwrap(), expect, "{method}");
        stop.cancel();
        main.block_on(next).unwrap().unwrap();
    }
}

// D10 in part: without a view, or with one that does not name the peer, there is nowhere to call.
#[tokio::test]
async fn a_peer_that_the_view_does_not_name_is_not_called() {
    let world = World::new();
    let front = world.identity("front");
    let holder = world.holder(&front, &world.view(front.id()));
    let transport = MeshTransport::new(&front, world.service("back"), Address::Viewed(holder), Patience::Call).unwrap();
    assert!(matches!(transport.call(get("/things/1", &[])).await.unwrap_err(), CallFailed::Undeclared));
}

// D13 in part: nobody there is said quickly and as such.
#[tokio::test]
async fn an_address_where_nobody_listens_is_unreachable() {
    let world = World::new();
    let address = crate::listen::loopback().unwrap().local_addr().unwrap();
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    assert!(matches!(transport.call(get("/things/1", &[])).await.unwrap_err(), CallFailed::Unreachable(_)));
}

#[test]
fn a_socket_is_replaced_only_when_nobody_listens_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let first = crate::listen::unix(&path).unwrap();
    assert!(crate::listen::unix(&path).is_err(), "somebody listens");
    drop(first);
    let again = crate::listen::unix(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(again);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not a socket").unwrap();
    assert!(crate::listen::unix(&path).is_err(), "a file is not replaced");
}
