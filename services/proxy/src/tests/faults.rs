//! D9: faults on purpose, as callers meet them: retries, exclusion, time-outs and limits with something going wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::control::{FaultAct, FaultProfile, View};

use super::world::{World, get, mirror, read, request};
use crate::client::{Address, CallFailed, MeshTransport, Patience};
use crate::limits;
use crate::mesh::Guard;
use crate::view::ViewHolder;

fn fault(act: FaultAct, percent: u8) -> FaultProfile {
    FaultProfile { name: "on-purpose".into(), route: None, from: None, header: None, percent, act }
}

/// The view of `back` with that going wrong.
fn faulty(world: &World, faults: &[FaultProfile]) -> View {
    let mut view = world.back_view();
    view.service.as_mut().unwrap().faults = faults.to_vec();
    view
}

/// A replica of `back`, and the holder of its view.
fn replica(world: &World, faults: &[FaultProfile]) -> (Arc<Guard>, SocketAddr, Arc<ViewHolder>) {
    let holder = world.holder(&world.identity("back"), &faulty(world, faults));
    let (guard, address) = world.guard_before(&holder, super::world::service(mirror, world.stop.clone()));
    (guard, address, holder)
}

fn transport(world: &World, replicas: &[SocketAddr]) -> Arc<MeshTransport> {
    let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
    view.peers = [(world.service("back"), replicas.iter().map(ToString::to_string).collect())].into();
    let front = world.identity("front");
    MeshTransport::new(&front, world.service("back"), Address::Viewed(world.holder(&front, &view)), Patience::Call).unwrap()
}

/// How often the guards have answered a GET, whatever it was.
fn tried(world: &World) -> usize {
    world.sink.spans.lock().unwrap().iter().filter(|span| span.name.starts_with("guard GET")).count()
}

// D9: recorded, counted, behind the decision, and only for what it is declared for.
#[tokio::test]
async fn a_fault_happens_behind_the_decision_and_is_on_the_span() {
    let world = World::new();
    let narrow = FaultProfile { header: Some("x-fault".into()), ..fault(FaultAct::Abort(418), 100) };
    let (_guard, address, _) = replica(&world, &[narrow]);
    let transport = transport(&world, &[address]);
    let token = world.token("ann", "view");
    let ask = async |fields: &[(&str, &str)]| transport.call(get("/things/1", fields)).await.unwrap().status().as_u16();
    assert_eq!(ask(&[("txn-token", &token), ("x-fault", "1")]).await, 418);
    assert_eq!(ask(&[("txn-token", &token)]).await, 200, "it does not have the field");
    assert_eq!(ask(&[("x-fault", "1")]).await, 403, "what is refused is refused");
    let spans = format!("{:?}", world.sink.spans.lock().unwrap());
    assert!(spans.contains("palisade.fault") && spans.contains("on-purpose"), "{spans}");
    assert!(world.recorder.metrics().render().contains("palisade_acts_total{act=\"fault.injected\"} 1"));
}

// D9, A15: outlier ejection. A replica that refuses all is left out, and found again when it is well.
#[tokio::test]
async fn a_replica_that_only_fails_is_left_out_and_comes_back() {
    let world = World::new();
    let answered = Arc::new(AtomicUsize::new(0));
    let counting = {
        let answered = Arc::clone(&answered);
        move |request| {
            answered.fetch_add(1, Ordering::SeqCst);
            mirror(request)
        }
    };
    let holder = world.holder(&world.identity("back"), &faulty(&world, &[fault(FaultAct::Abort(503), 100)]));
    let (_bad, bad) = world.guard_before(&holder, super::world::service(counting, world.stop.clone()));
    let (_good, good, _) = replica(&world, &[]);
    let transport = transport(&world, &[bad, good]);
    let token = world.token("ann", "view");
    let mut refused = 0;
    for _ in 0..300 {
        let status = transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap().status();
        refused += usize::from(status == 503);
    }
    // So many in a row until it is out, then one at a time after pauses that double.
    let most = limits::REPLICA_BAD_ANSWERS_MAX as usize + 8;
    assert!((limits::REPLICA_BAD_ANSWERS_MAX as usize..=most).contains(&refused), "{refused} of 300");
    let mut well = world.back_view();
    well.epoch += 1;
    holder.accept(&world.sign(&well)).unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 0, "its service got none of them");
    for _ in 0..6000 {
        assert_eq!(transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap().status(), 200);
        if answered.load(Ordering::SeqCst) >= 10 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is well, and nobody asks it");
}

// D9: what only reads is asked once more; what writes is not, since nobody knows whether it was done.
#[tokio::test]
async fn broken_reads_are_retried_and_broken_writes_are_not() {
    let world = World::new();
    let (_guard, address, _) = replica(&world, &[fault(FaultAct::Reset, 10)]);
    let transport = transport(&world, &[address]);
    let token = world.token("ann", "view");
    for round in 0..100 {
        let answer = transport.call(get("/things/1", &[("txn-token", &token)])).await;
        assert_eq!(answer.unwrap_or_else(|failed| panic!("{round}: {failed}")).status(), 200);
    }
    let mut broken = 0;
    for _ in 0..100 {
        let write = request("POST", "/things/1", &[("txn-token", &token)], contract::body::full("x"));
        match transport.call(write).await {
            Ok(answer) => assert_eq!(answer.status(), 200),
            Err(CallFailed::Broken(_)) => broken += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(broken, 10);
}

// D9: a peer that breaks everything off is asked little more than once for each request.
#[tokio::test]
async fn retries_stay_within_their_budget_when_all_goes_wrong() {
    let world = World::new();
    let (_guard, address, _) = replica(&world, &[fault(FaultAct::Reset, 100)]);
    let transport = transport(&world, &[address]);
    let token = world.token("ann", "view");
    let began = tokio::time::Instant::now();
    for _ in 0..300 {
        assert!(transport.call(get("/things/1", &[("txn-token", &token)])).await.is_err());
    }
    let seconds = began.elapsed().as_secs() + 1;
    let budget = 300 * limits::RETRIES_PERCENT / 100 + limits::RETRIES_IDLE_MAX + limits::RETRIES_A_SECOND * seconds;
    let tried = tried(&world) as u64;
    assert!(tried > 300 && tried <= 300 + budget, "{tried} tries, {budget} of them may be retries");
}

// D9: a service that is too slow is ended by its own time, and one just in time is not.
#[tokio::test]
async fn a_delay_ends_with_the_time_that_a_service_has() {
    for (delay_ms, status) in [(100, 200), (30_000, 504)] {
        let world = World::new();
        let mut view = faulty(&world, &[fault(FaultAct::DelayMs(delay_ms), 100)]);
        view.service.as_mut().unwrap().limits.wall_s = 2;
        let holder = world.holder(&world.identity("back"), &view);
        let (_guard, address) = world.guard_before(&holder, super::world::service(mirror, world.stop.clone()));
        let token = world.token("ann", "view");
        let answer = transport(&world, &[address]).call(get("/things/1", &[("txn-token", &token)])).await.unwrap();
        assert_eq!(read(answer).await.0, status, "{delay_ms} ms");
    }
}

// D9: slow requests fill a service's places; one more is refused at once and not queued.
#[tokio::test]
async fn a_full_service_refuses_at_once() {
    let world = World::new();
    let slow = FaultProfile { header: Some("x-slow".into()), ..fault(FaultAct::DelayMs(3000), 100) };
    let mut view = faulty(&world, &[slow]);
    view.service.as_mut().unwrap().limits.concurrency = 2;
    let holder = world.holder(&world.identity("back"), &view);
    let (guard, address) = world.guard_before(&holder, super::world::service(mirror, world.stop.clone()));
    let transport = transport(&world, &[address]);
    let token = world.token("ann", "view");
    let ask = async |more: &[(&str, &str)]| {
        let fields: Vec<_> = [("txn-token", token.as_str())].into_iter().chain(more.iter().copied()).collect();
        read(transport.call(get("/things/1", &fields)).await.unwrap()).await.0
    };
    let third = async {
        while guard.in_flight() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (ask(&[]).await, guard.in_flight())
    };
    let slow = [("x-slow", "1")];
    let (first, second, third) = tokio::join!(ask(&slow), ask(&slow), third);
    assert_eq!((first, second, third), (200, 200, (503, 2)), "the third did not wait for a place");
}
