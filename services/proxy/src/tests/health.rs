//! A15: services that are asked whether they are well, and what callers meet when one is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::control::HealthProfile;
use contract::{Body, body};
use http::{Request, Response, StatusCode};

use super::world::{World, get, read, request, service};
use crate::client::{Address, MeshTransport, Patience};
use crate::mesh::Guard;

/// A program with a `/health`, which can be made to say that it is ill, or to hang: to take requests and never answer.
#[derive(Clone, Default)]
struct Program {
    ill: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    worked: Arc<AtomicUsize>,
}

impl Program {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let is_question = request.uri().path() == "/health";
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let count = if is_question { &self.asked } else { &self.worked };
        count.fetch_add(1, Ordering::SeqCst);
        if is_question && self.ill.load(Ordering::SeqCst) {
            return body::plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let mut answer = body::plain(StatusCode::OK);
        answer.headers_mut().insert("palisade-replica-out", "1".parse().unwrap());
        answer
    }

    /// A guard in front of it that asks it; where it listens.
    fn guarded(&self, world: &World) -> (Arc<Guard>, SocketAddr) {
        let mut view = world.back_view();
        view.service.as_mut().unwrap().health =
            Some(HealthProfile { path: "/health".into(), interval_ms: 20, timeout_ms: 400, unhealthy: 3, healthy: 2 });
        let holder = world.holder(&world.identity("back"), &view);
        let program = self.clone();
        world.guard_before(&holder, service(move |request| program.clone().answer(request), world.stop.clone()))
    }
}

fn transport(world: &World, replicas: &[SocketAddr]) -> Arc<MeshTransport> {
    let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
    view.peers = [(world.service("back"), replicas.iter().map(ToString::to_string).collect())].into();
    let front = world.identity("front");
    MeshTransport::new(&front, world.service("back"), Address::Viewed(world.holder(&front, &view)), Patience::Call).unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

// A15: readiness, a bad time, and the way back; all out means 503 at once, and the service gets nothing meanwhile.
#[tokio::test]
async fn a_service_gets_requests_only_while_it_says_that_it_is_well() {
    let world = World::new();
    let program = Program::default();
    program.ill.store(true, Ordering::SeqCst);
    let (guard, address) = program.guarded(&world);
    let transport = transport(&world, &[address]);
    let token = world.token("ann", "view");
    let ask = async || {
        let answer = transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap();
        assert!(!answer.headers().contains_key("palisade-replica-out"), "what guards say among themselves stays there");
        let (status, said) = read(answer).await;
        (status, said["reason"].as_str().unwrap_or_default().to_owned())
    };
    let out = (503, "service_unhealthy".to_owned());
    assert_eq!(ask().await, out, "nobody has asked it yet");
    tokio::spawn(Arc::clone(&guard).probe(world.stop.clone()));
    until("it is asked", || program.asked.load(Ordering::SeqCst) >= 5).await;
    assert_eq!(ask().await, out, "it was never well");
    assert_eq!(program.worked.load(Ordering::SeqCst), 0);
    program.ill.store(false, Ordering::SeqCst);
    guard.well().await;
    assert_eq!(ask().await.0, 200);
    let worked = program.worked.load(Ordering::SeqCst);
    program.ill.store(true, Ordering::SeqCst);
    let audited = |act: &str| world.sink.audit.lock().unwrap().iter().filter(|record| format!("{record:?}").contains(act)).count();
    until("it is out", || audited("service.unhealthy") == 1).await;
    assert_eq!(ask().await, out);
    let write = request("POST", "/things/1", &[("txn-token", &token)], body::full("x"));
    assert_eq!(transport.call(write).await.unwrap().status(), 503);
    assert_eq!(program.worked.load(Ordering::SeqCst), worked, "it got none of them");
    program.ill.store(false, Ordering::SeqCst);
    until("it is back", || audited("service.healthy") == 2).await;
    assert_eq!(ask().await.0, 200);
}

// A15: one of three takes connections and answers nothing, also of what it had already in hand.
#[tokio::test]
async fn one_of_three_replicas_hangs_and_no_reader_notices() {
    let world = World::new();
    let programs: Vec<Program> = (0..3).map(|_| Program::default()).collect();
    let guarded: Vec<_> = programs.iter().map(|program| program.guarded(&world)).collect();
    for (guard, _) in &guarded {
        tokio::spawn(Arc::clone(guard).probe(world.stop.clone()));
        guard.well().await;
    }
    let transport = transport(&world, &guarded.iter().map(|(_, address)| *address).collect::<Vec<_>>());
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (transport, done, asked, token) =
                (Arc::clone(&transport), Arc::clone(&done), Arc::clone(&asked), world.token("ann", "view"));
            tokio::spawn(async move {
                let mut wrong = 0;
                while !done.load(Ordering::SeqCst) {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let answer = transport.call(get("/things/1", &[("txn-token", &token)])).await;
                    wrong += usize::from(!answer.is_ok_and(|answer| answer.status() == 200));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                wrong
            })
        })
        .collect();
    let worked = |which: usize| programs[which].worked.load(Ordering::SeqCst);
    until("all three work", || (0..3).all(|which| worked(which) >= 50)).await;
    programs[1].hangs.store(true, Ordering::SeqCst);
    let others = worked(0) + worked(2);
    until("the others go on", || worked(0) + worked(2) >= others + 1000).await;
    let before = worked(1);
    programs[1].hangs.store(false, Ordering::SeqCst);
    until("it works again", || worked(1) >= before + 20).await;
    done.store(true, Ordering::SeqCst);
    let mut wrong = 0;
    for task in tasks {
        wrong += task.await.unwrap();
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!(wrong * 1000 <= asked, "{wrong} of {asked}");
}
