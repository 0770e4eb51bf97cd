//! The room in the process: a fake `identity` behind the transport, a clock that is ours, real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::control::{Apply, HELD, ROUTES, SignedView, System, VIEW_TYP, View, ViewLine};
use contract::delta::digest_of;
use contract::identity::{Bundle, IdentityClient, Revocation};
use contract::signing::{self, SigningKey};
use contract::{Body, Caller, Client, LocalPeer, Peer, Room, Transport, body};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use manifest::{Lock, Manifest, Search};
use serde_json::Value;
use telemetry::{MemorySink, Metrics, Recorder};
use tokio::sync::Notify;
use trust::{Clock, DenyReason, Digest, Fault, KeySealer, Secret, SpiffeId, SystemEntropy, TraceContext, TrustDomain};

use crate::{Control, ControlConfig, ControlError, Parts, Signer, StoreError};

mod contain;
mod peps;

const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

#[derive(Debug)]
struct Key(SigningKey);

impl Signer for Key {
    fn current(&self) -> (SigningKey, Vec<Vec<u8>>) {
        (self.0.clone(), vec![b"leaf".to_vec()])
    }
}

/// `identity` as `control` meets it: a long poll that ends when the bundle grows, and a revocation.
#[derive(Debug)]
struct FakeIdentity {
    bundle: Mutex<Bundle>,
    grown: Notify,
}

impl FakeIdentity {
    fn shared() -> Arc<Self> {
        let bundle = Bundle { sequence: 1, roots: vec!["cm9vdA==".into()], authority_keys: Vec::new(), revoked: Vec::new() };
        Arc::new(Self { bundle: Mutex::new(bundle), grown: Notify::new() })
    }
    fn change(&self, change: impl FnOnce(&mut Bundle)) -> Bundle {
        let mut bundle = self.bundle.lock().unwrap();
        bundle.sequence += 1;
        change(&mut bundle);
        self.grown.notify_waiters();
        bundle.clone()
    }
}

#[async_trait]
impl Transport for FakeIdentity {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        if request.uri().path() == "/revoke" {
            let revocation: Revocation = body::parse_json(request.into_body()).await?;
            return Ok(body::json(StatusCode::OK, &self.change(|b| b.revoked.push(revocation))));
        }
        let after: u64 = request.uri().query().unwrap().strip_prefix("after=").unwrap().parse().unwrap();
        loop {
            let grown = self.grown.notified();
            let bundle = self.bundle.lock().unwrap().clone();
            if bundle.sequence > after {
                return Ok(body::json(StatusCode::OK, &bundle));
            }
            grown.await;
        }
    }
}

/// A folder with the programs of the reference manifest, and everything around the room.
struct House {
    folder: tempfile::TempDir,
    key: SigningKey,
    identity: Arc<FakeIdentity>,
    sink: Arc<MemorySink>,
    clock: Arc<TestClock>,
}

fn domain() -> TrustDomain {
    TrustDomain::parse("video.example").unwrap()
}

fn service(name: &str) -> SpiffeId {
    domain().service(name)
}

fn role(name: &str) -> SpiffeId {
    domain().role(name)
}

fn operator() -> Peer {
    Peer::Operator(LocalPeer { uid: 1, pid: 1, pidfd: None })
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = "video-api video-validator video-transcoder spare python3 ffmpeg ffprobe web/server.py web/static/app.js \
                     profiles/validator.syscalls profiles/transcoder.syscalls";
        for name in files.split(' ') {
            let path = folder.path().join("app").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let rng = aws_lc_rs::rand::SystemRandom::new();
        let pkcs8 =
            aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        Self {
            folder,
            key: SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap(),
            identity: FakeIdentity::shared(),
            sink: Arc::new(MemorySink::default()),
            clock: Arc::new(TestClock(AtomicU64::new(1_800_000_000_000))),
        }
    }

    fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn search(&self) -> Search {
        Search { folder: self.app(), bin: None }
    }

    /// The reference manifest with programs of this house, changed, and its lock.
    fn manifest(&self, change: impl Fn(String) -> String) -> Apply {
        let mut text = VIDEO.to_owned();
        for tool in ["python3", "ffmpeg", "ffprobe"] {
            text = text.replace(&format!("/usr/bin/{tool}"), self.app().join(tool).to_str().unwrap());
        }
        let manifest = change(text);
        let lock = match Manifest::parse("palisade.toml", &manifest) {
            Ok(parsed) => Lock::create(&parsed, &BTreeMap::new(), &self.search(), Digest::of(b"palisade")).unwrap().to_toml(),
            Err(_) => String::new(),
        };
        Apply { manifest, policies: BTreeMap::new(), lock }
    }

    fn try_open(&self, start: Apply, age_s_max: u64) -> Result<Control, ControlError> {
        let mut addresses = BTreeMap::new();
        for (port, name) in (4000..).zip(["web", "api", "validator", "transcoder", "spare"]) {
            addresses.insert(service(name), vec![format!("127.0.0.1:{port}")]);
        }
        for (port, name) in (5000..).zip(["control", "identity", "login", "objects", "queue", "evidence"]) {
            addresses.insert(role(name), vec![format!("127.0.0.1:{port}")]);
        }
        addresses.insert(domain().pdp("envoy"), Vec::new());
        let config = ControlConfig {
            folder: self.data(),
            sealer: KeySealer::new("control", &Secret::new([7; 32]), SystemEntropy::shared()).unwrap(),
            search: self.search(),
            palisade: Digest::of(b"palisade"),
            addresses,
            age_s_max,
            start,
        };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let recorder = Recorder::new(Arc::clone(&self.sink) as _, Arc::clone(&clock), SystemEntropy::shared(), Arc::new(Metrics::new()));
        let identity = IdentityClient(Client::new(Arc::clone(&self.identity) as _));
        Control::open(config, Parts { signer: Arc::new(Key(self.key.clone())), identity, recorder, clock })
    }

    /// Open, and following `identity`.
    async fn open(&self) -> Control {
        let control = self.try_open(self.manifest(|t| t), 300).unwrap();
        self.followed(control).await
    }

    async fn followed(&self, control: Control) -> Control {
        let follower = control.clone();
        tokio::spawn(async move { follower.follow_identity().await });
        for _ in 0..500 {
            let (status, _) = send(&control, Peer::Workload(role("edge")), Method::GET, "/view", &Value::Null).await;
            if status == StatusCode::OK {
                return control;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the bundle never came");
    }

    fn verified(&self, signed: &SignedView) -> View {
        signing::verify(&signed.view, VIEW_TYP, &self.key.public().decoding().unwrap()).unwrap()
    }

    async fn view(&self, control: &Control, id: &SpiffeId) -> View {
        let (status, value) = send(control, Peer::Workload(id.clone()), Method::GET, "/view", &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{id}: {value}");
        self.verified(&serde_json::from_value(value).unwrap())
    }

    fn audited(&self, event: &str) -> usize {
        self.sink.audit.lock().unwrap().iter().filter(|r| serde_json::to_string(r).unwrap().contains(event)).count()
    }
}

fn caller(peer: Peer) -> Caller {
    Caller { peer, authority: None, trace: TraceContext::root(0, &SystemEntropy) }
}

async fn send(control: &Control, peer: Peer, method: Method, path: &str, question: &impl serde::Serialize) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(body::full(serde_json::to_vec(question).unwrap())).unwrap();
    let response = control.call(caller(peer), request).await;
    let status = response.status();
    let bytes = body::collect(response.into_body(), 1 << 24).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// A stream, what was read of it and not yet looked at, the view that came last, and how many lines came as a change.
struct Stream(Body, Vec<u8>, Option<SignedView>, usize);

impl Stream {
    async fn open(control: &Control, id: &SpiffeId) -> Self {
        Self::go_on(control, id, None).await
    }
    /// From a view that is held.
    async fn go_on(control: &Control, id: &SpiffeId, held: Option<SignedView>) -> Self {
        let query = held.as_ref().map(|held| format!("?{HELD}{}", digest_of(held))).unwrap_or_default();
        let request = Request::get(format!("/view/stream{query}")).body(body::empty()).unwrap();
        let response = control.call(caller(Peer::Workload(id.clone())), request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self(response.into_body(), Vec::new(), held, 0)
    }
    /// The next view, or nothing when the stream ended.
    async fn next(&mut self) -> Option<SignedView> {
        loop {
            if let Some(end) = self.1.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                let signed = match serde_json::from_slice(&line).unwrap() {
                    ViewLine::Whole(signed) => signed,
                    ViewLine::Delta { delta } => {
                        self.3 += 1;
                        delta.onto(self.2.as_ref().unwrap()).unwrap()
                    }
                };
                self.2 = Some(signed.clone());
                return Some(signed);
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.0.frame()).await.expect("a line in time")?;
            self.1.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }
}

fn names(ids: impl IntoIterator<Item = SpiffeId>) -> BTreeSet<String> {
    ids.into_iter().map(|id| id.workload.name().to_owned()).collect()
}

// E16: signed, versioned, and a caller's own.
#[tokio::test]
async fn everybody_gets_their_own_view_and_loads_it() {
    let house = House::new();
    let control = house.open().await;
    let table = [
        (service("api"), "edge queue web", "control evidence identity objects queue"),
        (service("web"), "edge", "api control evidence identity"),
        (service("transcoder"), "queue", "control evidence identity objects queue"),
        (role("objects"), "api edge transcoder validator", "control evidence identity queue"),
        (role("queue"), "api evidence objects transcoder validator", "api control evidence identity transcoder validator"),
        (role("login"), "edge", "control evidence identity"),
        (role("edge"), "", "api control evidence identity login objects web"),
        (role("control"), "api edge evidence identity login objects queue transcoder validator web", "evidence identity"),
    ];
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    for (id, callers, peers) in table {
        let view = house.view(&control, &id).await;
        assert_eq!((view.subject.clone(), view.epoch, view.age_s_max), (id.clone(), 1, 300));
        assert_eq!(view.issued_at_ms, house.clock.unix_ms());
        assert_eq!(names(view.callers), list(callers), "callers of {id}");
        assert_eq!(names(view.peers.into_keys()), list(peers), "peers of {id}");
        let slice: policy::PolicySlice = serde_json::from_value(view.policy).unwrap();
        assert_eq!(slice.subject, id.workload.name());
        assert!(policy::Engine::load(&slice, view.epoch).is_ok());
        assert_eq!(
            (view.edge.is_some(), view.buckets.is_empty(), view.queues.is_empty()),
            (id == role("edge"), id != role("objects"), id != role("queue"))
        );
        assert_eq!(view.service.map(|s| s.name), id.as_service().map(str::to_owned));
    }
}

#[tokio::test]
async fn a_guards_profile_says_what_its_service_may_use() {
    let house = House::new();
    let control = house.open().await;
    let at = |name: &str| house.app().join(name).display().to_string();
    let web = house.view(&control, &service("web")).await.service.unwrap();
    assert_eq!(web.run, [at("python3"), at("web/server.py")]);
    assert_eq!(
        web.artefacts.iter().map(|a| a.path.clone()).collect::<BTreeSet<_>>(),
        ["python3", "web/server.py", "web/static/app.js"].map(at).into()
    );
    assert_eq!(web.read, ["web/server.py", "web/static"].map(at));
    assert_eq!(
        web.outbound.iter().map(|o| (o.env.as_str(), o.routes.len())).collect::<Vec<_>>(),
        [("OTEL_EXPORTER_OTLP_ENDPOINT", 0), ("API_URL", 1)]
    );
    let transcoder = house.view(&control, &service("transcoder")).await.service.unwrap();
    assert_eq!((transcoder.replicas_min, transcoder.idle_stop_s, transcoder.limits.wall_s), (0, 30, 3600));
    assert_eq!(transcoder.tools, [at("ffmpeg"), at("ffprobe")]);
    let env: Vec<_> = transcoder.outbound.iter().map(|o| o.env.as_str()).collect();
    assert_eq!(env, ["OTEL_EXPORTER_OTLP_ENDPOINT", "AWS_ENDPOINT_URL", "QUEUE_URL"]);
    let queues = house.view(&control, &role("queue")).await.queues;
    assert_eq!((queues["validated"].in_flight_max, queues["validated"].lease_s), (1, 3600), "as many as its guard takes at once");
    let edge = house.view(&control, &role("edge")).await.edge.unwrap();
    assert_eq!(edge.buckets.keys().collect::<Vec<_>>(), ["originals", "renditions"]);
    assert_eq!(edge.routes.len(), 8);
}

// Refusals: every route of the contract, called by everybody who may not; each is recorded.
#[tokio::test]
async fn every_route_refuses_whoever_may_not() {
    let house = House::new();
    let control = house.open().await;
    let foreign = TrustDomain::parse("other.example").unwrap();
    let local = || Peer::Local(LocalPeer { uid: 1, pid: 1, pidfd: None });
    for route in ROUTES {
        let mut peers = vec![(local(), DenyReason::CallerNotAdmitted), (Peer::Supervisor, DenyReason::CallerNotAdmitted)];
        match route.path {
            "/view" | "/view/stream" => {
                peers.push((operator(), DenyReason::CallerNotAdmitted));
                peers.push((Peer::Workload(foreign.service("api")), DenyReason::TrustDomainForeign));
                peers.push((Peer::Workload(foreign.role("edge")), DenyReason::TrustDomainForeign));
                peers.push((Peer::Workload(service("stranger")), DenyReason::PeerUndeclared));
                peers.push((Peer::Workload(service("edge")), DenyReason::PeerUndeclared));
                peers.push((Peer::Workload(role("api")), DenyReason::PeerUndeclared));
            }
            "/system" => {
                peers.push((operator(), DenyReason::CallerNotAdmitted));
                peers.push((Peer::Workload(service("evidence")), DenyReason::CallerNotAdmitted));
                peers.push((Peer::Workload(service("api")), DenyReason::CallerNotAdmitted));
                peers.push((Peer::Workload(foreign.role("evidence")), DenyReason::TrustDomainForeign));
            }
            _ => peers.extend(["edge", "evidence", "control"].map(|r| (Peer::Workload(role(r)), DenyReason::CallerNotAdmitted))),
        }
        for (peer, reason) in peers {
            let before = house.audited(reason.code());
            let who = format!("{} {} as {peer:?}", route.method, route.path);
            let (status, value) = send(&control, peer, route.method.parse().unwrap(), route.path, &Value::Null).await;
            assert_eq!((status.as_u16(), value["reason"].as_str()), (reason.status(), Some(reason.code())), "{who}");
            assert_eq!(house.audited(reason.code()), before + 1, "{who}");
        }
    }
    // Whose view it is comes from the SVID alone.
    let (_, value) =
        send(&control, Peer::Workload(service("web")), Method::GET, "/view?subject=spiffe://video.example/service/api", &Value::Null).await;
    assert_eq!(house.verified(&serde_json::from_value(value).unwrap()).subject, service("web"));
}

// M5: epoch n+1 for all, or an error and nothing changes.
#[tokio::test]
async fn a_manifest_comes_into_force_whole_or_not_at_all() {
    let house = House::new();
    let control = house.open().await;
    let good = house.manifest(|t| t.replace("attempts = 3", "attempts = 4"));
    let edited = Apply { manifest: good.manifest.replace("attempts = 4", "attempts = 9"), ..good.clone() };
    let forged = Apply { lock: good.lock.replacen("sha256:", "sha256:0", 1), ..good.clone() };
    let by_hand =
        Apply { policies: BTreeMap::from([("x.cedar".to_owned(), "forbid(principal, action, resource);".to_owned())]), ..good.clone() };
    let refused = [
        (house.manifest(|t| t.replace("attempts = 3", "atempts = 3")), "did you mean 'attempts'"),
        (edited, "the manifest is not the locked one"),
        (forged, "lock"),
        (by_hand, "x.cedar"),
        (house.manifest(|t| t.replace("video.example", "other.example")), "trust domain"),
        (house.manifest(|t| t + "\n[service.extra]\nrun = [\"./video-api\"]\n"), "extra is new"),
    ];
    for (apply, words) in refused {
        let (status, value) = send(&control, operator(), Method::POST, "/apply", &apply).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{words}: {value}");
        assert!(value["error"].as_str().unwrap().contains(words), "{words}: {value}");
        assert_eq!(house.view(&control, &role("queue")).await.queues["validated"].attempts_max, 3);
        assert_eq!(control.epoch(), 1);
    }
    // A swapped program: the lock in the request no longer fits the file.
    std::fs::write(house.app().join("video-api"), "evil").unwrap();
    let (status, value) = send(&control, operator(), Method::POST, "/apply", &good).await;
    assert_eq!((status, control.epoch()), (StatusCode::UNPROCESSABLE_ENTITY, 1), "{value}");
    assert!(house.audited("TamperingFound") > 0);
    std::fs::write(house.app().join("video-api"), "video-api").unwrap();

    let (status, value) = send(&control, operator(), Method::POST, "/apply", &good).await;
    assert_eq!((status, value["epoch"].as_u64()), (StatusCode::OK, Some(2)), "{value}");
    assert_eq!(house.view(&control, &role("queue")).await.queues["validated"].attempts_max, 4);
    drop(control);

    // Durable: started again with the same file, what was applied stays; with another, that is a new epoch.
    let again = house.try_open(house.manifest(|t| t), 300).unwrap();
    let again = house.followed(again).await;
    assert_eq!((again.epoch(), house.view(&again, &role("queue")).await.queues["validated"].attempts_max), (2, 4));
    drop(again);
    let other = house.try_open(house.manifest(|t| t.replace("attempts = 3", "attempts = 7")), 300).unwrap();
    assert_eq!(other.epoch(), 3);
}

// M5: while manifests change, every view is wholly one epoch's, and epochs never go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_view_mixes_two_epochs() {
    let house = House::new();
    let control = house.open().await;
    let variant = |n: u64| house.manifest(move |t| t.replace("attempts = 3", &format!("attempts = {}", n + 2)));
    let variants: Vec<Apply> = (2..=4).map(variant).collect();
    let mut streams = Vec::new();
    for id in [role("queue"), role("objects"), service("api")] {
        streams.push((id.clone(), Stream::open(&control, &id).await));
    }
    let applying = control.clone();
    let applied = tokio::spawn(async move {
        for apply in &variants {
            let (status, value) = send(&applying, operator(), Method::POST, "/apply", apply).await;
            assert_eq!(status, StatusCode::OK, "{value}");
        }
    });
    let mut by_epoch: BTreeMap<u64, BTreeSet<Digest>> = BTreeMap::new();
    for (_, stream) in &mut streams {
        let mut last = 0;
        while last < 4 {
            let view = house.verified(&stream.next().await.unwrap());
            assert!(view.epoch >= last);
            last = view.epoch;
            let slice: policy::PolicySlice = serde_json::from_value(view.policy.clone()).unwrap();
            assert_eq!(slice.manifest, view.manifest, "policies and profile of one manifest");
            if let Some(queue) = view.queues.get("validated") {
                assert_eq!(u64::from(queue.attempts_max), if view.epoch == 1 { 3 } else { view.epoch + 2 });
            }
            by_epoch.entry(view.epoch).or_default().insert(view.manifest);
        }
    }
    applied.await.unwrap();
    assert!(by_epoch.values().all(|manifests| manifests.len() == 1), "one manifest for each epoch, for all: {by_epoch:?}");
}

// E16, C11: a revocation is a new epoch, pushed at once and durable.
#[tokio::test]
async fn a_revocation_reaches_every_stream_at_once() {
    let house = House::new();
    let control = house.open().await;
    let mut stream = Stream::open(&control, &service("web")).await;
    assert!(house.verified(&stream.next().await.unwrap()).revoked.is_empty());
    let transcoder = service("transcoder");
    let (status, value) = send(&control, operator(), Method::POST, "/revoke", &serde_json::json!({ "spiffe_id": transcoder })).await;
    assert_eq!((status, value["epoch"].as_u64()), (StatusCode::OK, Some(2)), "{value}");
    let view = house.verified(&stream.next().await.unwrap());
    assert_eq!((view.epoch, view.revoked[0].spiffe_id.clone()), (2, transcoder));
    let (status, _) = send(&control, operator(), Method::POST, "/revoke", &serde_json::json!({ "spiffe_id": service("stranger") })).await;
    assert_eq!((status, control.epoch()), (StatusCode::NOT_FOUND, 2));
    // One that came from elsewhere is an epoch too; a renewed key is pushed without one.
    house.identity.change(|b| b.roots.push("bmV3".into()));
    let view = house.verified(&stream.next().await.unwrap());
    assert_eq!((view.epoch, view.roots.len()), (2, 2));
    house.identity.change(|b| b.revoked.push(Revocation { spiffe_id: service("api"), before_s: 1 }));
    let view = house.verified(&stream.next().await.unwrap());
    assert_eq!((view.epoch, view.revoked.len()), (3, 2));
    assert_eq!(house.try_open(house.manifest(|t| t), 300).unwrap().epoch(), 3);
}

// E16: what stayed the same is not sent again, on a stream and to whoever says what they hold; the signature is over the whole.
#[tokio::test]
async fn what_stayed_the_same_is_not_sent_again() {
    let house = House::new();
    let control = house.open().await;
    let id = role("objects");
    let mut stream = Stream::open(&control, &id).await;
    let first = stream.next().await.unwrap();
    assert_eq!(stream.3, 0, "whole, since nothing was held");
    let apply = house.manifest(|t| t.replace("attempts = 3", "attempts = 4"));
    assert_eq!(send(&control, operator(), Method::POST, "/apply", &apply).await.0, StatusCode::OK);
    let second = stream.next().await.unwrap();
    assert_eq!((house.verified(&second).epoch, stream.3), (2, 1));

    let pull = |held: &SignedView| format!("/view?{HELD}{}", digest_of(held));
    let (_, value) = send(&control, Peer::Workload(id.clone()), Method::GET, &pull(&second), &Value::Null).await;
    let size = value.to_string().len();
    let ViewLine::Delta { delta } = serde_json::from_value(value).unwrap() else { panic!("a change") };
    let third = delta.onto(&second).unwrap();
    assert_eq!(house.verified(&third).epoch, 2);
    assert!(size < third.view.len() / 10, "{size} bytes for a view of {}", third.view.len());
    let mut again = Stream::go_on(&control, &id, Some(third)).await;
    assert_eq!((house.verified(&again.next().await.unwrap()).epoch, again.3), (2, 1));

    // Whoever holds something else gets the whole: an older view, or another's.
    let other = house.view(&control, &role("queue")).await;
    let (_, theirs) = send(&control, Peer::Workload(role("queue")), Method::GET, "/view", &Value::Null).await;
    let theirs: SignedView = serde_json::from_value(theirs).unwrap();
    for held in [&first, &theirs] {
        let (status, value) = send(&control, Peer::Workload(id.clone()), Method::GET, &pull(held), &Value::Null).await;
        assert_eq!(status, StatusCode::OK);
        assert!(matches!(serde_json::from_value(value).unwrap(), ViewLine::Whole(_)), "{}", other.subject);
    }
}

// C12, M5: a service that is gone from the manifest has no identity any more, with the epoch that it is gone in; also when the system was
// started anew without it. `identity` renews nothing that was revoked.
#[tokio::test]
async fn a_service_that_is_gone_from_the_manifest_is_revoked() {
    let with_spare = |t: String| t + "\n[service.spare]\nowner = \"web\"\nrun = [\"./spare\"]\n";
    let house = House::new();
    let control = house.try_open(house.manifest(with_spare), 300).unwrap();
    let control = house.followed(control).await;
    let mut gone = Stream::open(&control, &service("spare")).await;
    let mut stays = Stream::open(&control, &service("web")).await;
    assert!(gone.next().await.is_some() && stays.next().await.is_some());
    let (status, value) = send(&control, operator(), Method::POST, "/apply", &house.manifest(|t| t)).await;
    assert_eq!((status, value["epoch"].as_u64()), (StatusCode::OK, Some(2)), "{value}");
    let view = house.verified(&stays.next().await.unwrap());
    let revoked: Vec<SpiffeId> = view.revoked.into_iter().map(|one| one.spiffe_id).collect();
    assert_eq!((view.epoch, revoked), (2, vec![service("spare")]), "one epoch, both");
    assert!(gone.next().await.is_none(), "its stream has ended");
    let (status, _) = send(&control, Peer::Workload(service("spare")), Method::GET, "/view", &Value::Null).await;
    assert_eq!(status.as_u16(), DenyReason::PeerUndeclared.status());

    // Started anew without it.
    let house = House::new();
    drop(house.try_open(house.manifest(with_spare), 300).unwrap());
    let control = house.try_open(house.manifest(|t| t), 300).unwrap();
    let control = house.followed(control).await;
    for _ in 0..500 {
        if house.view(&control, &service("web")).await.revoked.iter().any(|one| one.spiffe_id == service("spare")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a service of an earlier manifest keeps its identity");
}

// E17: a connected guard never goes stale, since views are issued again at a tenth of their age; and never back in time.
#[tokio::test]
async fn views_are_issued_again_long_before_they_are_stale() {
    let house = House::new();
    let control = house.try_open(house.manifest(|t| t), 1).unwrap();
    let control = house.followed(control).await;
    let mut stream = Stream::open(&control, &service("web")).await;
    let first = house.verified(&stream.next().await.unwrap());
    house.clock.0.fetch_add(100, Ordering::SeqCst);
    let second = house.verified(&stream.next().await.unwrap());
    assert_eq!((second.epoch, second.issued_at_ms), (first.epoch, first.issued_at_ms + 100));
    house.clock.0.fetch_sub(5_000, Ordering::SeqCst);
    let third = house.verified(&stream.next().await.unwrap());
    assert_eq!(third.issued_at_ms, second.issued_at_ms);
}

// A17: without a trust bundle there is no view, rather than one that trusts nothing or anything.
#[tokio::test]
async fn there_is_no_view_before_the_bundle() {
    let house = House::new();
    let control = house.try_open(house.manifest(|t| t), 300).unwrap();
    let (status, _) = send(&control, Peer::Workload(service("web")), Method::GET, "/view", &Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

fn newest(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

// Issue point 9: an edited byte of the kept manifest, or another epoch's file in its place, is found and reported, and nothing starts.
#[tokio::test]
async fn a_kept_manifest_that_was_tampered_with_is_found_and_reported() {
    let house = House::new();
    let control = house.open().await;
    let apply = house.manifest(|t| t.replace("attempts = 3", "attempts = 4"));
    assert_eq!(send(&control, operator(), Method::POST, "/apply", &apply).await.0, StatusCode::OK);
    drop(control);
    let path = newest(&house.data());
    let good = std::fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = (0..good.len())
        .step_by(997)
        .chain([0, good.len() - 1])
        .map(|i| {
            let mut bad = good.clone();
            bad[i] ^= 1;
            bad
        })
        .collect();
    cases.push(good[..good.len() / 2].to_vec());
    cases.push(Vec::new());
    cases.push(vec![0xff; 100]);
    let first = path.with_file_name(format!("epoch-{:020}", 1));
    cases.push(std::fs::read(first).unwrap());
    let count = cases.len();
    for bad in cases {
        std::fs::write(&path, bad).unwrap();
        let error = house.try_open(house.manifest(|t| t), 300).unwrap_err();
        assert!(matches!(error, ControlError::Store(StoreError::Tampered { .. })), "{error}");
    }
    assert_eq!(house.audited("TamperingFound"), count);
    std::fs::write(&path, good).unwrap();
    assert_eq!(house.try_open(house.manifest(|t| t), 300).unwrap().epoch(), 2);
}

// E16: one edited byte of a view, and it is nobody's.
#[tokio::test]
async fn an_edited_view_does_not_verify() {
    let house = House::new();
    let control = house.open().await;
    let (_, value) = send(&control, Peer::Workload(service("web")), Method::GET, "/view", &Value::Null).await;
    let signed: SignedView = serde_json::from_value(value).unwrap();
    let key = house.key.public().decoding().unwrap();
    assert!(signing::verify::<View>(&signed.view, VIEW_TYP, &key).is_ok());
    // The last character of each part has bits that base64url does not use; those are not content.
    for i in (0..signed.view.len()).step_by(61).filter(|i| !matches!(signed.view.as_bytes().get(i + 1), None | Some(b'.'))) {
        let mut bytes = signed.view.clone().into_bytes();
        bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
        let edited = String::from_utf8(bytes).unwrap();
        assert!(signing::verify::<View>(&edited, VIEW_TYP, &key).is_err(), "byte {i}");
    }
    assert!(signing::verify::<View>(&signed.view, "txntoken+jwt", &key).is_err());
}

#[tokio::test]
async fn the_map_shows_every_node_and_flow() {
    let house = House::new();
    let control = house.open().await;
    let (status, value) = send(&control, Peer::Workload(role("evidence")), Method::GET, "/system", &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let system: System = serde_json::from_value(value).unwrap();
    let ids: BTreeSet<&str> = system.nodes.iter().map(|n| n.id.as_str()).collect();
    assert_eq!(ids.len(), system.nodes.len());
    for flow in &system.flows {
        assert!(ids.contains(flow.from.as_str()) && ids.contains(flow.to.as_str()), "{flow:?}");
    }
    let flow = |from: &str, to: &str| system.flows.iter().find(|f| f.from == from && f.to == to).map(|f| f.actions.join(" "));
    assert_eq!(flow("service/transcoder", "bucket/originals").as_deref(), Some("read"));
    assert_eq!(flow("queue/validated", "service/transcoder").as_deref(), Some("deliver"));
    assert_eq!(flow("bucket/originals", "queue/uploaded").as_deref(), Some("created"));
    assert_eq!(flow("service/transcoder", "service/api"), None);
    let (status, value) = send(&control, operator(), Method::GET, "/status", &Value::Null).await;
    assert_eq!((status, value["epoch"].as_u64(), value["bundle_sequence"].as_u64()), (StatusCode::OK, Some(1), Some(1)));
}
