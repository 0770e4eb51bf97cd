//! I8: each delivery in a sandbox of its own, which has ended when the delivery has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use contract::{Body, body};
use http::{Request, Response, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::world::{World, read, request, service};
use crate::client::MeshTransport;
use crate::mesh::{Connector, Job};

/// Sandboxes that answer with their number, how many requests they have seen and how many of them live; by what the request says, the
/// answer is of a size, or never comes.
#[derive(Debug, Default)]
struct Sandboxes {
    made: AtomicUsize,
    alive: Arc<AtomicUsize>,
    ended_well: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Sandbox {
    address: SocketAddr,
    alive: Arc<AtomicUsize>,
    ended_well: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Job for Sandbox {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        tokio::net::TcpStream::connect(self.address).await?.into_std()
    }
    async fn end(self: Box<Self>) {
        self.ended_well.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Connector for Sandboxes {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    async fn fresh(&self) -> std::io::Result<Box<dyn Job>> {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let (seen, alive) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&self.alive));
        let answer = move |request: Request<Body>| {
            let (seen, alive) = (seen.fetch_add(1, Ordering::SeqCst) + 1, alive.load(Ordering::SeqCst));
            async move {
                let said = body::collect(request.into_body(), 1 << 20).await.unwrap();
                match std::str::from_utf8(&said).unwrap().parse::<usize>() {
                    Ok(size) => body::with_type(StatusCode::OK, "text/plain", vec![b'x'; size]),
                    Err(_) if &*said == b"hang" => std::future::pending().await,
                    Err(_) => body::json(StatusCode::OK, &serde_json::json!({ "number": number, "seen": seen, "alive": alive })),
                }
            }
        };
        let stop = CancellationToken::new();
        let address = service(answer, stop.clone());
        let (alive, ended_well) = (Arc::clone(&self.alive), Arc::clone(&self.ended_well));
        Ok(Box::new(Sandbox { address, alive, ended_well, _stop: stop.drop_guard() }))
    }
}

struct Stage {
    world: World,
    sandboxes: Arc<Sandboxes>,
    queue: Arc<MeshTransport>,
}

fn stage(concurrency: u32) -> Stage {
    let world = World::new();
    let mut view = world.back_view();
    let profile = view.service.as_mut().unwrap();
    profile.fresh_per_job = true;
    profile.limits.concurrency = concurrency;
    let sandboxes = Arc::new(Sandboxes::default());
    let (_guard, address) = world.guard_through(&world.holder(&world.identity("back"), &view), sandboxes.clone());
    let queue = world.transport(&world.queue, &world.service("back"), address);
    Stage { world, sandboxes, queue }
}

impl Stage {
    fn delivery(&self, said: &'static str) -> Request<Body> {
        let token = self.world.job_token("back", "jobs");
        request("POST", "/events", &[("txn-token", &token), ("palisade-queue", "jobs")], body::full(said))
    }

    async fn deliver(&self, said: &'static str) -> Response<Body> {
        self.queue.call(self.delivery(said)).await.unwrap()
    }

    async fn wait_until(&self, what: &str, holds: impl Fn(&Sandboxes) -> bool) {
        for _ in 0..500 {
            if holds(&self.sandboxes) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.sandboxes);
    }
}

// I8: no connection and no process is used for two jobs; and the answer comes when the sandbox is gone.
#[tokio::test]
async fn each_delivery_goes_into_a_sandbox_of_its_own_and_ends_with_it() {
    let stage = stage(1);
    for number in 0..3 {
        let (status, said) = read(stage.deliver("say").await).await;
        assert_eq!((status, &said["number"], &said["seen"], &said["alive"]), (200, &number.into(), &1.into(), &1.into()));
        assert_eq!(stage.sandboxes.alive.load(Ordering::SeqCst), 0, "answered while its sandbox lived");
        assert_eq!(stage.sandboxes.ended_well.load(Ordering::SeqCst), number + 1, "asked to end before it was killed");
    }
}

// I8: with concurrency above one, deliveries at the same time have a sandbox each.
#[tokio::test]
async fn deliveries_at_the_same_time_do_not_share_a_sandbox() {
    let stage = stage(2);
    let transport = Arc::clone(&stage.queue);
    let (one, two) = (stage.delivery("hang"), stage.delivery("hang"));
    let hanging = tokio::spawn(async move { futures::future::join(transport.call(one), transport.call(two)).await });
    stage.wait_until("two sandboxes live", |all| all.alive.load(Ordering::SeqCst) == 2).await;
    let (status, said) = read(stage.deliver("say").await).await;
    assert_eq!((status, said["reason"].as_str()), (503, Some("concurrency_exceeded")), "a third");
    assert_eq!(stage.sandboxes.made.load(Ordering::SeqCst), 2, "nothing is started for what is refused");
    hanging.abort();
    stage.wait_until("both are gone", |all| all.alive.load(Ordering::SeqCst) == 0).await;
}

// I8, H5: a delivery that is given up, as the queue does when a lease ends or its own connection breaks, takes its sandbox along.
#[tokio::test]
async fn a_delivery_that_is_given_up_takes_its_sandbox_along() {
    let stage = stage(1);
    let (transport, hanging) = (Arc::clone(&stage.queue), stage.delivery("hang"));
    let call = tokio::spawn(async move { transport.call(hanging).await });
    stage.wait_until("it lives", |all| all.alive.load(Ordering::SeqCst) == 1).await;
    call.abort();
    stage.wait_until("it is gone", |all| all.alive.load(Ordering::SeqCst) == 0).await;
    assert_eq!(stage.sandboxes.ended_well.load(Ordering::SeqCst), 0, "killed, not asked");
    assert_eq!(read(stage.deliver("say").await).await.0, 200, "and the place is free again");
}

// The answer of a job is held whole, so it has a limit.
#[tokio::test]
async fn an_answer_of_a_job_is_held_whole_up_to_its_limit() {
    let stage = stage(1);
    assert_eq!(stage.deliver("1048576").await.status(), 200);
    assert_eq!(stage.deliver("1048577").await.status(), 500);
    assert_eq!(stage.sandboxes.alive.load(Ordering::SeqCst), 0);
}
