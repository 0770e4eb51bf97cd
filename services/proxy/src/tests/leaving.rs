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
        let guard = crate::mesh::Guard::new(Arc::clone(&holder), world.recorder.clone(), world.clock.clone(), Arc::new(super::contact::To(service)));
        let stop = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(guard.inbound(listener.try_clone().unwrap(), stop.clone()));
        for _ in 0..3 {
            let answered = transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap_or_else(|failed| panic!("round {round}: {failed:?}"));
            assert_eq!(read(answered).await.0, 200);
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
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
