//! A15, D9: several replicas behind one name, real sockets; one of them is killed as `kill -9` does it: its connections break, and its
//! listener, which is the supervisor's, stays and answers nobody.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::world::{World, get, request};
use crate::client::{Address, MeshTransport, Patience};
use crate::svid::WorkloadIdentity;

struct Replica {
    identity: Arc<WorkloadIdentity>,
    listener: TcpListener,
    recorder: telemetry::Recorder,
    answered: Arc<AtomicUsize>,
}

impl Replica {
    fn new(world: &World) -> Self {
        let listener = crate::listen::loopback().unwrap();
        Self { identity: world.identity("back"), listener, recorder: world.recorder.clone(), answered: Arc::default() }
    }

    /// A process of this replica, as far as a runtime of its own is one.
    fn start(&self) -> Runtime {
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (identity, listener, recorder) = (Arc::clone(&self.identity), self.listener.try_clone().unwrap(), self.recorder.clone());
        let answered = Arc::clone(&self.answered);
        process.spawn(async move {
            let answer = move |_, _| {
                let answered = Arc::clone(&answered);
                async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    answered.fetch_add(1, Ordering::SeqCst);
                    contract::body::plain(http::StatusCode::OK)
                }
            };
            crate::serve::mesh_with(&identity, listener, CancellationToken::new(), recorder, "test", answer).await
        });
        process
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

fn transport(world: &World, replicas: &[Replica]) -> Arc<MeshTransport> {
    let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
    let addresses = replicas.iter().map(|one| one.listener.local_addr().unwrap().to_string()).collect();
    view.peers = [(world.service("back"), addresses)].into();
    let front = world.identity("front");
    let holder = world.holder(&front, &view);
    MeshTransport::new(&front, world.service("back"), Address::Viewed(holder), Patience::Call).unwrap()
}

const TASKS: usize = 12;

/// Asks from many tasks until told to stop; how many were asked, and how many of these went wrong.
async fn load(transport: Arc<MeshTransport>, asked: Arc<AtomicUsize>, stop: CancellationToken) -> usize {
    let tasks = (0..TASKS).map(|_| {
        let (transport, asked, stop) = (Arc::clone(&transport), Arc::clone(&asked), stop.clone());
        tokio::spawn(async move {
            let mut errors = 0;
            while !stop.is_cancelled() {
                asked.fetch_add(1, Ordering::SeqCst);
                match transport.call(get("/things/1", &[])).await {
                    Ok(response) if response.status() == 200 => {}
                    _ => errors += 1,
                }
            }
            errors
        })
    });
    futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).sum()
}

fn wait_until(main: &Runtime, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        main.block_on(tokio::time::sleep(Duration::from_millis(10)));
    }
    panic!("{what}");
}

// A15
#[test]
fn one_of_three_replicas_is_killed_and_no_caller_notices() {
    let main = Runtime::new().unwrap();
    let _entered = main.enter();
    let world = World::new();
    let replicas: Vec<Replica> = (0..3).map(|_| Replica::new(&world)).collect();
    let mut processes: Vec<Runtime> = replicas.iter().map(Replica::start).collect();
    let (asked, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let loading = main.spawn(load(transport(&world, &replicas), Arc::clone(&asked), stop.clone()));
    wait_until(&main, "all three are asked", || replicas.iter().all(|one| one.answered() >= 100));
    processes.remove(1).shutdown_background();
    let at_death = asked.load(Ordering::SeqCst);
    wait_until(&main, "the others go on", || asked.load(Ordering::SeqCst) >= at_death + 500);
    let before = replicas[1].answered();
    processes.push(replicas[1].start());
    wait_until(&main, "the killed one is asked again", || replicas[1].answered() >= before + 100);
    stop.cancel();
    let errors = main.block_on(loading).unwrap();
    let asked = asked.load(Ordering::SeqCst);
    let each: Vec<usize> = replicas.iter().map(Replica::answered).collect();
    assert!(errors * 1000 <= asked, "{errors} of {asked}; answered by {each:?}");
    processes.into_iter().for_each(Runtime::shutdown_background);
}

// A15, D9: what cannot be repeated is not repeated, but a replica that takes no connection was not asked at all.
#[test]
fn a_write_goes_to_another_replica_only_when_nothing_of_it_was_sent() {
    let main = Runtime::new().unwrap();
    let _entered = main.enter();
    let world = World::new();
    let replicas: Vec<Replica> = (0..2).map(|_| Replica::new(&world)).collect();
    let living = replicas[1].start();
    let transport = transport(&world, &replicas);
    // The first has no process: its listener takes connections, and nobody shakes hands.
    for _ in 0..6 {
        let written = main.block_on(transport.call(request("POST", "/things/1", &[], contract::body::full("x")))).unwrap();
        assert_eq!(written.status(), 200);
    }
    assert_eq!((replicas[0].answered(), replicas[1].answered()), (0, 6));
    living.shutdown_background();
}
