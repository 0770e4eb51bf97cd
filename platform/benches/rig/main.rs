//! Palisade behind the ports of the side-by-side rig: the edge and the guards of the product, each as a process of its own, with
//! everything on that they have on in `palisade up`.
//!
//! What is not the product: the world (an authority, a manifest of three services and their views, made at the start instead of by
//! `identity` and `control`), an `evidence` that takes records and drops them, the app that stands in a sandbox's place, and a shim
//! that gives the load generator's requests the transaction token that a service would pass along. The last two are not counted. The
//! floor, a bare proxy, is here too: what the product is compared with.
//!
//! `cargo xtask bench` starts it, beside the peers that are installed.
//! docs/performance.md has the method.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark's scaffold: it stops at the first surprise"
)]

mod app;
mod credentials;
mod floor;
mod hold;
mod hop;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use contract::control::{EdgeProfile, IssuerProfile, Outbound, PublicRoute};
use contract::evidence::{Appended, BATCH_BYTES_MAX, Batch, EvidenceClient};
use contract::{Body, Client, Transport, body};
use http::{Request, Response, StatusCode};
use platform::access_log::{AccessLog, Settings};
use platform::spool::Spool;
use proxy::bundle::PeerSvid;
use proxy::client::{Address, MeshTransport, Patience};
use proxy::edge::{Balancers, CertificateFiles, Certificates, Edge, Entrance, Limits, Parts, Place, Sessions};
use proxy::mesh::Guard;
use proxy::svid::WorkloadIdentity;
use telemetry::{AuditLost, Metrics, NewRecord, NewSpan, Recorder, Sink};
use tokio_util::sync::CancellationToken;
use trust::{Fault, SpiffeId, SystemClock, SystemEntropy};
use world::World;

/// What the command line said: `rig MODE name=value …`.
struct Told(HashMap<String, String>);

impl Told {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("say {name}=…"))
    }
    fn port(&self, name: &str) -> u16 {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is a port"))
    }
    fn folder(&self, name: &str) -> PathBuf {
        PathBuf::from(self.text(name))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(mode) = arguments.next() else { return };
    let told = Told(arguments.filter_map(|a| a.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect());
    let mut builder = if told.0.get("threads").is_some_and(|threads| threads != "1") {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(told.text("threads").parse().unwrap());
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().unwrap();
    // As a role does it: without one, what is below the level costs more.
    tracing_subscriber::fmt().json().with_env_filter("info").with_writer(std::io::stderr).init();
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        match mode.as_str() {
            "world" => {
                World::make(&told.folder("world"));
                credentials::write(&World::open(&told.folder("world")), &told.folder("files"));
            }
            "floor" => floor::run(&told).await,
            "hold" => hold::run(&told).await,
            "evidence" => evidence(&told).await,
            "edge" => edge(&told).await,
            "guard-in" => guard_in(&told).await,
            "guard-out" => guard_out(&told).await,
            "shim" => app::shim(told.port("listen"), told.port("to")).await,
            other => panic!("no mode {other}"),
        }
    });
}

fn listen(port: u16) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    socket.listen(1024).unwrap().into_std().unwrap()
}

/// Keeps and ships records, and drops spans: what is over with all telemetry on is what telemetry costs.
#[derive(Debug)]
struct RecordsAlone(Arc<Spool>);

impl Sink for RecordsAlone {
    fn audit(&self, record: NewRecord<'_>) -> Result<(), AuditLost> {
        self.0.audit(record)
    }
    fn span(&self, _span: NewSpan<'_>) {}
}

/// The product's access log.
fn access_log(told: &Told, recorder: &Recorder) -> Arc<AccessLog> {
    let folder = told.folder("world").join(format!("access-{}", std::process::id()));
    let settings = Settings { folder, door: "edge".to_owned(), service: String::new(), bytes_max: 64 << 20, age_ms_max: 86_400_000 };
    AccessLog::start(settings, SystemClock::shared(), recorder.metrics().clone()).unwrap()
}

/// Whether only what must be kept is kept: `telemetry=records`.
fn records_alone(told: &Told) -> bool {
    told.0.get("telemetry").is_some_and(|telemetry| telemetry == "records")
}

/// The product's recorder over the product's spool, shipping over mTLS.
fn recorder(told: &Told, world: &World, identity: &Arc<WorkloadIdentity>) -> Recorder {
    let metrics = Arc::new(Metrics::new());
    let folder = told.folder("world").join(format!("spool-{}", std::process::id()));
    let spool = Spool::open(&folder, &*SystemEntropy::shared(), metrics.clone()).unwrap();
    let address = Address::Fixed(SocketAddr::from(([127, 0, 0, 1], told.port("evidence"))));
    let transport = MeshTransport::new(identity, world.domain().role("evidence"), address, Patience::Call).unwrap();
    tokio::spawn(spool.clone().ship(EvidenceClient(Client::new(transport))));
    let sink: Arc<dyn Sink> = if records_alone(told) { Arc::new(RecordsAlone(spool)) } else { spool };
    Recorder::new(sink, SystemClock::shared(), SystemEntropy::shared(), metrics)
}

async fn evidence(told: &Told) {
    let world = World::open(&told.folder("world"));
    let identity = world.identity(&world.domain().role("evidence"));
    let sink = Arc::new(telemetry::MemorySink::default());
    let recorder = Recorder::new(sink, SystemClock::shared(), SystemEntropy::shared(), Arc::new(Metrics::new()));
    let take = |_: PeerSvid, request: Request<Body>| async move {
        let batch: Batch = match body::parse_json_within(request.into_body(), BATCH_BYTES_MAX).await {
            Ok(batch) => batch,
            Err(fault) => return body::fault(&fault),
        };
        body::json(StatusCode::OK, &Appended { seq: batch.audit.last().map_or(0, |record| record.seq) })
    };
    proxy::serve::mesh_with(&identity, listen(told.port("listen")), CancellationToken::new(), recorder, "evidence", take).await.unwrap();
}

async fn edge(told: &Told) {
    let world = World::open(&told.folder("world"));
    let domain = world.domain().clone();
    let identity = world.identity(&domain.role("edge"));
    let mut recorder = recorder(told, &world, &identity);
    if !records_alone(told) {
        recorder = recorder.clone().with_access_log(access_log(told, &recorder));
    }
    let app = domain.service("app");
    let mut view = world.view(&identity, vec![&identity]);
    let keys: serde_json::Value = serde_json::from_slice(&std::fs::read(told.text("jwks")).unwrap()).unwrap();
    view.edge = Some(EdgeProfile {
        routes: vec![Arc::new(PublicRoute {
            host: None,
            headers: BTreeMap::new(),
            service: app.clone(),
            method: "GET".into(),
            path: "/".into(),
            scope: Some(told.text("scope").into()),
            purpose: "order".into(),
            step_up: false,
            page: false,
            websocket: false,
            rate: None,
            concurrency_max: None,
            cors: BTreeSet::new(),
            body_bytes_max: 1 << 20,
        })],
        buckets: BTreeMap::new(),
        issuers: vec![IssuerProfile {
            name: "bench".into(),
            url: told.text("iss").into(),
            audience: told.text("aud").into(),
            scopes: BTreeSet::from([told.text("scope").to_owned()]),
            keys: keys.get("keys").and_then(|keys| keys.as_array()).unwrap().clone(),
        }],
    });
    world::publish_authority(told.0.get("authority"), &view.authority_keys);
    let upstream: Arc<dyn Transport> = match told.0.get("guard") {
        None => app::Plain::new(told.port("app")),
        Some(port) => {
            let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
            let hop = world.identity_as(told.text("ident"), &domain.role("edge"));
            MeshTransport::new(&hop, app, Address::Fixed(address), Patience::Call).unwrap()
        }
    };
    let port = told.port("listen");
    let sessions = told.folder("world").join(format!("sessions-{}.db", std::process::id()));
    let parts = Parts {
        place: Place { hosts: BTreeSet::from(["127.0.0.1".to_owned()]), content: None, port },
        limits: generous(),
        clients: proxy::edge::ClientAuthorities::none(),
        views: world.holder(&identity, &recorder, &view),
        sessions: Sessions::open(&sessions, 1800, 28_800, SystemClock::shared(), SystemEntropy::shared()).await.unwrap(),
        peers: Arc::new(Upstream(upstream)),
        recorder,
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
    };
    let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let files = CertificateFiles { name: "rig".to_owned(), hosts, chain: told.folder("cert"), key: told.folder("key") };
    let certificates = Certificates::open(vec![files]).unwrap();
    let entrance = Entrance { certificates, balancers: Balancers::none(), acme: false };
    Edge::new(parts).unwrap().run(listen(port), entrance, CancellationToken::new()).await.unwrap();
}

/// The limits are on, and never reached.
fn generous() -> Limits {
    let most = NonZeroU32::new(1_000_000).unwrap();
    Limits {
        address_rate: most,
        address_burst: most,
        person_rate: most,
        person_burst: most,
        address_in_flight_max: 10_000,
        person_in_flight_max: 10_000,
        in_flight_max: 20_000,
        address_connections_max: 10_000,
        ..Limits::standard()
    }
}

#[derive(Debug)]
struct Upstream(Arc<dyn Transport>);

impl proxy::edge::Peers for Upstream {
    fn transport(&self, _peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault> {
        Ok(Arc::clone(&self.0))
    }
}

/// The guard of the app: lets the edge and the service `front` in.
async fn guard_in(told: &Told) {
    let world = World::open(&told.folder("world"));
    let domain = world.domain().clone();
    let identity = world.identity(&domain.service("app"));
    let recorder = recorder(told, &world, &identity);
    let mut view = world.view(&identity, Vec::new());
    view.authority_keys = world::await_authority(told.text("authority")).await;
    view.callers = BTreeSet::from([domain.role("edge"), domain.service("front")]);
    view.service = Some(world::profile("app", &["GET /"], Vec::new()));
    let views = world.holder(&identity, &recorder, &view);
    let guard = Guard::new(views, recorder, SystemClock::shared(), Arc::new(app::Beside(told.port("app"))));
    guard.inbound(listen(told.port("listen")), CancellationToken::new()).await.unwrap();
}

/// The guard of the service `front`, whose requests come from the shim.
async fn guard_out(told: &Told) {
    let world = World::open(&told.folder("world"));
    let domain = world.domain().clone();
    let identity = world.identity_as(told.text("ident"), &domain.service("front"));
    let minting = world.identity(&domain.role("edge"));
    let recorder = recorder(told, &world, &identity);
    let mut view = world.view(&identity, vec![&minting]);
    world::publish_authority(told.0.get("authority"), &view.authority_keys);
    view.callers = BTreeSet::from([domain.role("edge")]);
    let routes = vec!["GET /".to_owned()];
    view.service = Some(world::profile(
        "front",
        &["GET /begin"],
        vec![Outbound { port: 9001, env: "APP_URL".into(), peer: domain.service("app"), routes, outside: None }],
    ));
    view.peers = BTreeMap::from([(domain.service("app"), vec![format!("127.0.0.1:{}", told.port("peer"))])]);
    let views = world.holder(&identity, &recorder, &view);
    let guard = Guard::new(views, recorder, SystemClock::shared(), Arc::new(app::Beside(app::holding(told.folder("world").join("token")))));
    let (listener, stop) = (listen(told.port("listen")), CancellationToken::new());
    let beginning = app::begin(Arc::clone(&guard), world.peer(&minting), world.token(&minting, &view.authority_keys));
    let _begun = tokio::join!(beginning, guard.outbound(9001, listener, stop));
}

/// Something that the rig's own parts answer.
fn plain(status: StatusCode) -> Response<Body> {
    body::plain(status)
}
