//! A day of rotations while requests flow: on kept connections, on new ones, and on one stream that lasts all the while.
//!
//! `a_day_of_rotations_drops_nothing` runs with the tests: the clock is ours, and a day takes seconds. The other has the machine's own
//! clock, real timers, and lives so short that as many rotations come in ten minutes: PALISADE_SOAK_S=600 `cargo nextest run -p palisade --run-ignored only -E "test(measured_soak)" --no-capture`.
//!
//! Guarantees: C9.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use contract::transport::{Call, Client};
use contract::{Body, BoxError, body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use proxy::client::{Address, MeshTransport, Patience};
use proxy::mesh::{Connector, Guard};
use proxy::renewal;
use proxy::svid::WorkloadIdentity;
use proxy::view::ViewHolder;
use tokio_util::sync::CancellationToken;
use trust::{Authority, Clock, SystemClock, SystemEntropy, limits};

use super::ground::Ground;

const MANIFEST: &str = r#"
[system]
name = "soak"
trust_domain = "soak.example"
purposes = ["view"]

[data.page]
sensitivity = 1

[service.front]
owner = "o"
run = ["./prog"]
data = "page"
limits = { wall = "1h" }
public = [{ path = "/things/{*rest}", methods = ["GET", "POST"], purpose = "view" }]
"#;

/// The machine's clock, set forward.
#[derive(Debug)]
struct Forward(Arc<dyn Clock>, AtomicI64);

impl Forward {
    fn pass(&self, seconds: i64) {
        self.1.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for Forward {
    fn unix_ms(&self) -> u64 {
        self.0.unix_ms().saturating_add_signed(self.1.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_millis(self.1.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// A service: it says how many bytes it was sent.
#[derive(Debug)]
struct Counts(SocketAddr);

#[async_trait::async_trait]
impl Connector for Counts {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        tokio::net::TcpStream::connect(self.0).await?.into_std()
    }
    async fn fresh(&self) -> std::io::Result<Box<dyn proxy::mesh::Job>> {
        Ok(Box::new(Self(self.0)))
    }
}

#[async_trait::async_trait]
impl proxy::mesh::Job for Counts {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        Connector::connect(self).await
    }
    async fn end(self: Box<Self>) {}
}

fn service() -> Arc<Counts> {
    let listener = proxy::listen::loopback().unwrap();
    let at = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = |request: Request<Body>| async {
                let (mut sent, mut bytes) = (request.into_body(), 0);
                while let Some(Ok(frame)) = sent.frame().await {
                    bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
                }
                Response::new(body::full(bytes.to_string()))
            };
            tokio::spawn(async move { proxy::serve::connection::http1(stream, answer, &CancellationToken::new(), |_| {}).await });
        }
    });
    Arc::new(Counts(at))
}

/// The edge on one side, the guard of a service on the other, both with SVIDs that `identity` renews and views that `control` sends.
struct Pair {
    ground: Ground,
    edge: Arc<WorkloadIdentity>,
    edge_view: Arc<ViewHolder>,
    front: Arc<WorkloadIdentity>,
    front_view: Arc<ViewHolder>,
    front_at: SocketAddr,
}

impl Pair {
    async fn open(ground: Ground, subscribed: bool) -> Self {
        let edge = ground.admitted(&ground.domain.role("edge"));
        let front = ground.admitted(&ground.domain.service("front"));
        let held = |identity: &Arc<WorkloadIdentity>| {
            if subscribed { ground.subscribed(identity.clone()) } else { ViewHolder::open(identity.clone(), ground.recorder.clone(), None) }
        };
        let (edge_view, front_view) = (held(&edge), held(&front));
        let guard = Guard::new(front_view.clone(), ground.recorder.clone(), ground.clock.clone(), service());
        let listener = proxy::listen::loopback().unwrap();
        let front_at = listener.local_addr().unwrap();
        tokio::spawn(guard.inbound(listener, ground.stop.clone()));
        Self { ground, edge, edge_view, front, front_view, front_at }
    }

    /// Pulls both views anew over their connections to `control`.
    async fn pull(&self, clients: &[(Client, Arc<ViewHolder>)]) {
        for (client, holder) in clients {
            // `control` has the trust bundle a moment after it serves.
            let pulled = async {
                loop {
                    match client.get::<contract::control::SignedView>(&Call::default(), "/view").await {
                        Ok(signed) => return signed,
                        Err(fault) => assert_eq!(fault.kind, trust::FaultKind::Unavailable, "{fault}"),
                    }
                }
            };
            holder.accept(&tokio::time::timeout(Duration::from_secs(60), pulled).await.unwrap()).unwrap();
        }
    }

    fn transport(&self) -> Arc<MeshTransport> {
        MeshTransport::new(&self.edge, self.front.id().clone(), Address::Fixed(self.front_at), Patience::Delivery).unwrap()
    }

    /// A request with a token of this moment, minted with the edge's key that the views know.
    fn request(&self, method: &str, sent: Body) -> Request<Body> {
        let authority = Authority {
            txn: "t".into(),
            user: "ann".into(),
            purpose: "view".into(),
            scopes: [].into(),
            roles: [].into(),
            step_up: false,
            job: None,
        };
        let minter = self.edge.minter(&self.edge_view.fresh().unwrap().verifier).expect("a key that is known");
        let token = minter.mint(&authority, limits::TXN_TOKEN_LIFE_S, &*self.ground.clock).unwrap();
        Request::builder().method(method).uri("/things/1").header("txn-token", token).body(sent).unwrap()
    }

    async fn asks(&self, transport: &MeshTransport) -> Result<(), String> {
        let answer = transport.call(self.request("GET", body::empty())).await.map_err(|failed| format!("{failed:?}"))?;
        let status = answer.status();
        let said = body::collect(answer.into_body(), 1 << 16).await.map_err(|fault| fault.to_string())?;
        if status == StatusCode::OK { Ok(()) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&said))) }
    }

    /// One request whose body goes on until the sender is dropped; what the service counted.
    fn stream(self: &Arc<Self>) -> (Sender<bytes::Bytes, BoxError>, tokio::task::JoinHandle<String>) {
        let (sender, channel) = Channel::<bytes::Bytes, BoxError>::new(1);
        let (request, transport) = (self.request("POST", channel.boxed_unsync()), self.transport());
        let told = tokio::spawn(async move {
            let answer = transport.call(request).await.unwrap_or_else(|failed| panic!("the stream: {failed:?}"));
            let bytes = body::collect(answer.into_body(), 1 << 16).await.unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        (sender, told)
    }
}

fn intermediate(identity: &WorkloadIdentity) -> Vec<u8> {
    identity.signing_key_and_chain().1[1].clone()
}

// C9: 24 hours in which each end renews every half hour, over `identity`'s real socket; the intermediate is replaced on the way. Every
// request gets through, on connections that are kept, on new ones, and on a stream that lasts the whole day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_rotations_drops_nothing() {
    const STEP_S: i64 = 240;
    let clock = Arc::new(Forward(SystemClock::shared(), AtomicI64::new(0)));
    let shared: Arc<dyn Clock> = clock.clone();
    // The authority is 59 days and a half old: its intermediate, which lives for 90, is replaced 30 days before its end.
    let aged = clock.clone();
    let ground = Ground::open(MANIFEST.to_owned(), shared, limits::SVID_LIFE_S_MAX, move || aged.pass((59 * 24 + 12) * 3600)).await;
    let pair = Arc::new(Pair::open(ground, false).await);
    let clients: Vec<_> = [(&pair.edge, &pair.edge_view), (&pair.front, &pair.front_view)]
        .map(|(identity, view)| (Client::new(pair.ground.to_control(identity)), view.clone()))
        .into();
    pair.pull(&clients).await;
    let first = intermediate(&pair.front);
    let kept = pair.transport();
    let (mut sender, counted) = pair.stream();
    let (mut requests, mut rotations, mut sent) = (0, 0, 0);
    for step in 1..=(24 * 3600 / STEP_S) {
        clock.pass(STEP_S);
        if step * STEP_S % 1800 < STEP_S {
            for identity in [&pair.edge, &pair.front, &pair.ground.own] {
                renewal::renew_once(identity, &pair.ground.socket).await.unwrap();
                rotations += 1;
            }
            let key = proxy::svid::PendingKey::generate().unwrap();
            let own = pair.ground.ca.admit(pair.ground.authority.id(), key.csr()).unwrap();
            pair.ground.authority.renewed(&key, &own).unwrap();
        }
        pair.pull(&clients).await;
        for transport in [&kept, &kept, &pair.transport()] {
            pair.asks(transport).await.unwrap_or_else(|failed| panic!("after {} s: {failed}", step * STEP_S));
            requests += 1;
        }
        sender.send_data(bytes::Bytes::from_static(b"x")).await.expect("the stream goes on");
        sent += 1;
    }
    drop(sender);
    assert_eq!(counted.await.unwrap(), sent.to_string(), "a day on one stream");
    assert_eq!((rotations, requests), (3 * 48, 3 * 360));
    assert_eq!((pair.edge.generation(), pair.front.generation()), (48, 48));
    assert_ne!(intermediate(&pair.front), first, "the intermediate was replaced on the way");
    pair.ground.stop.cancel();
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// Renews `identity`'s own SVID, as its role does.
fn look_after(ground: &Ground, every: Duration) {
    let (ca, own) = (ground.ca.clone(), ground.authority.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let key = proxy::svid::PendingKey::generate().unwrap();
            let issued = ca.admit(own.id(), key.csr()).unwrap();
            own.renewed(&key, &issued).unwrap();
        }
    });
}

#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    failed: AtomicU64,
    told: AtomicBool,
}

impl Tally {
    fn note(&self, asked: Result<(), String>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = asked {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if !self.told.swap(true, Ordering::Relaxed) {
                eprintln!("first failure: {why}");
            }
        }
    }
}

// C9, with the machine's clock and real timers: lives of 20 s are renewed some 60 times in ten minutes on each end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes: see the head of this file"]
async fn measured_soak() {
    let seconds: u64 = std::env::var("PALISADE_SOAK_S").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600);
    let life_s: u64 = 20;
    let ground = Ground::open(MANIFEST.to_owned(), SystemClock::shared(), life_s, || ()).await;
    look_after(&ground, Duration::from_secs(life_s / 4));
    let pair = Arc::new(Pair::open(ground, true).await);
    for view in [&pair.edge_view, &pair.front_view] {
        let mut changed = view.changed();
        tokio::time::timeout(Duration::from_secs(60), changed.wait_for(|epoch| *epoch > 0)).await.unwrap().unwrap();
    }
    for identity in [&pair.edge, &pair.front, &pair.ground.own] {
        let (identity, socket) = (identity.clone(), pair.ground.socket.clone());
        let (recorder, stop) = (pair.ground.recorder.clone(), pair.ground.stop.clone());
        tokio::spawn(renewal::keep(identity, socket, recorder, SystemEntropy::shared(), stop));
    }
    let (kept, new, ending) = (Arc::new(Tally::default()), Arc::new(Tally::default()), CancellationToken::new());
    let mut asking = Vec::new();
    for (tally, fresh) in [(&kept, false), (&kept, false), (&new, true)] {
        let (pair, tally, ending, one) = (pair.clone(), tally.clone(), ending.clone(), pair.transport());
        asking.push(tokio::spawn(async move {
            while !ending.is_cancelled() {
                let transport = if fresh { pair.transport() } else { one.clone() };
                tally.note(pair.asks(&transport).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let (mut sender, counted) = pair.stream();
    let (mut sent, began, mut memory) = (0, pair.ground.clock.monotonic(), Vec::new());
    while pair.ground.clock.monotonic() - began < Duration::from_secs(seconds) {
        sender.send_data(bytes::Bytes::from_static(b"x")).await.expect("the stream goes on");
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let past = (pair.ground.clock.monotonic() - began).as_secs();
        if past / 30 > memory.len() as u64 {
            memory.push(resident_kib());
        }
    }
    drop(sender);
    ending.cancel();
    for one in asking {
        one.await.unwrap();
    }
    assert_eq!(counted.await.unwrap(), sent.to_string());
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    eprintln!(
        "{seconds} s: {} requests on kept connections, {} failed; {} on new connections, {} failed; one stream of {sent} pieces; \
         rotations: edge {}, guard {}, control {}; resident KiB each 30 s: {memory:?}",
        count(&kept.asked),
        count(&kept.failed),
        count(&new.asked),
        count(&new.failed),
        pair.edge.generation(),
        pair.front.generation(),
        pair.ground.own.generation(),
    );
    assert_eq!(count(&kept.failed) + count(&new.failed), 0);
    pair.ground.stop.cancel();
}
