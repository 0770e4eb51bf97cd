//! Every room as the roles assemble it, in one process: real rooms, real authority, real views, in a temporary folder. Only the sockets
//! are missing: a request comes with the proof that its handshake would have given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::control::{Control, ControlConfig};
use ::evidence::{Evidence, NoteSigner, Place, Retention};
use ::identity::{Ca, CaConfig, Identity};
use ::login::{Login, LoginConfig};
use ::objects::{Messenger, Objects};
use ::queue::Queue;
use console::Console;
use contract::console::{Reader, TraceFilter};
use contract::control::{Apply, SignedView};
use contract::identity::IdentityClient;
use contract::queue::QueueClient;
use contract::txn_token::Minter;
use contract::{Body, Client, LocalPeer, Room, body};
use http::Request;
use manifest::{Lock, Manifest, Search};
use proxy::bundle::PeerSvid;
use proxy::enforce::{Enforcement, Proof, Views};
use proxy::mesh::Guard;
use proxy::svid::{PendingKey, WorkloadIdentity};
use proxy::view::{Loaded, ViewHolder};
use serde_json::Value;
use telemetry::{MemorySink, Metrics, Recorder};
use trust::{AuditRecord, Authority, Clock, Digest, KeySealer, Secret, SpiffeId, SystemClock, SystemEntropy, TrustDomain, limits};

use super::door::{Door, Forward, ObjectRules, Point, QueueMinting, QueueRules, Signer, Wire, counting};
use crate::roles::revocation;
use crate::roles::rules::{FromView, MintFromView};

const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");
/// Flows that the reference application has no use for, so that every row of `objects` has somebody who may; and a service that
/// is revoked on the way.
const MORE: &str = r#"
[service.filer]
owner = "web"
run = ["./filer"]
data = "video"
public = [{ path = "/filing", methods = ["GET"], purpose = "manage" }]
calls = ["bucket.files:read for manage", "bucket.files:write for manage", "bucket.files:delete for manage", "bucket.files:list for manage",
  "bucket.files:presign-get for manage"]
[service.spare]
owner = "web"
run = ["./spare"]
data = "page"
public = [{ path = "/spare", methods = ["GET"], purpose = "view" }]
[service.gone]
owner = "web"
run = ["./gone"]
data = "page"
public = [{ path = "/gone", methods = ["GET"], purpose = "view" }]
[pep.door]
offers = ["service.spare"]
[bucket.files]
data = "video"
clean_from = ["filer"]
max_object = "300MiB"
types = ["video/mp4"]
"#;
pub const ORIGIN: &str = "https://video.example:8443";
pub const ROLES: &[&str] = &["control", "identity", "login", "objects", "queue", "evidence", "edge"];
pub const SERVICES: &[&str] = &["web", "api", "validator", "transcoder", "filer", "spare"];

/// All of it.
pub struct House {
    pub domain: TrustDomain,
    pub points: Vec<Point>,
    pub sink: Arc<MemorySink>,
    pub ca: Arc<Ca>,
    pub apply: Apply,
    pub reached: Arc<AtomicUsize>,
    identities: BTreeMap<String, Arc<WorkloadIdentity>>,
    holders: BTreeMap<String, Arc<ViewHolder>>,
    evidence: Arc<Evidence>,
    clock: Arc<Forward>,
    folder: tempfile::TempDir,
    cookies: Mutex<BTreeMap<String, String>>,
    serial: AtomicUsize,
    /// Leases that the validator may hold.
    pub held: Mutex<Vec<String>>,
}

fn sealer(realm: &str) -> KeySealer {
    KeySealer::new(realm, &Secret::new([7; 32]), SystemEntropy::shared()).unwrap()
}

/// The reference manifest with programs of this folder, and its lock.
fn applied(app: &Path, search: &Search) -> Apply {
    let programs = ["video-api", "video-validator", "video-transcoder", "filer", "spare", "gone", "python3", "ffmpeg", "ffprobe"];
    let files = ["web/server.py", "web/static/app.js", "profiles/validator.syscalls", "profiles/transcoder.syscalls"];
    for name in programs.into_iter().chain(files) {
        let path = app.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let mut text = format!("{VIDEO}{MORE}");
    for tool in ["python3", "ffmpeg", "ffprobe"] {
        text = text.replace(&format!("/usr/bin/{tool}"), app.join(tool).to_str().unwrap());
    }
    let manifest = Manifest::parse("palisade.toml", &text).unwrap_or_else(|error| panic!("{error:?}"));
    let lock = Lock::create(&manifest, &BTreeMap::new(), search, Digest::of(b"palisade")).unwrap().to_toml();
    Apply { manifest: text, policies: BTreeMap::new(), lock }
}

impl House {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { folder.path().join(name) };
        let domain = TrustDomain::parse("video.example").unwrap();
        let forward = Arc::new(Forward(SystemClock::shared(), AtomicU64::new(0)));
        let clock: Arc<dyn Clock> = forward.clone();
        let (sink, entropy) = (Arc::new(MemorySink::default()), SystemEntropy::shared());
        let recorder = Recorder::new(sink.clone(), clock.clone(), entropy.clone(), Arc::new(Metrics::new()));
        let config = CaConfig {
            folder: at("ca"),
            trust_domain: domain.clone(),
            sealer: sealer("identity"),
            svid_life_s: limits::SVID_LIFE_S_MAX,
            clock: clock.clone(),
            entropy: entropy.clone(),
        };
        let ca = Arc::new(Ca::open(config).unwrap());
        let roles = ROLES.iter().map(|name| domain.role(name));
        let mut identities = BTreeMap::new();
        for id in roles.chain(SERVICES.iter().map(|name| domain.service(name))).chain([domain.pdp("door")]) {
            identities.insert(id.workload.name().to_owned(), admitted(&ca, &id, &clock));
        }
        let door = |room: Arc<dyn Room>, point: &'static str, own: &str, views: Views| {
            let bundle = Some(identities[own].bundle().clone());
            let enforcement = Arc::new(Enforcement::new(room.clone(), point, recorder.clone(), clock.clone(), bundle, views));
            (enforcement, room)
        };

        let room = Arc::new(Identity::new(ca.clone(), recorder.clone(), clock.clone()));
        let identity = door(room, "identity", "identity", Views::Unneeded);
        tokio::spawn(revocation::follow_own(identities["identity"].bundle().clone(), ca.clone()));

        let wire = |to: &Arc<Enforcement>, own: &str| Client::new(Arc::new(Wire(to.clone(), svid(&identities[own]))));
        let client = IdentityClient(wire(&identity.0, "control"));
        let search = Search { folder: at("app"), bin: None };
        let apply = applied(&at("app"), &search);
        let ids = identities.values().map(|one| one.id().clone()).chain([domain.service("gone")]);
        let addresses = ids.map(|id| (id, vec!["127.0.0.1:9".to_owned()])).collect();
        let config = ControlConfig {
            folder: at("epochs"),
            sealer: sealer("control"),
            search,
            palisade: Digest::of(b"palisade"),
            addresses,
            age_s_max: limits::VIEW_AGE_S_MAX,
            start: apply.clone(),
        };
        let parts = ::control::Parts {
            signer: Arc::new(Signer(identities["control"].clone())),
            identity: client.clone(),
            recorder: recorder.clone(),
            clock: clock.clone(),
        };
        let room = Control::open(config, parts).unwrap();
        let follower = room.clone();
        tokio::spawn(async move { follower.follow_identity().await });
        tokio::spawn(revocation::follow(identities["control"].bundle().clone(), client));
        let control = door(Arc::new(room), "control", "control", Views::Unneeded);

        let mut holders = BTreeMap::new();
        for name in ["login", "objects", "queue", "evidence", "edge", "validator", "api"] {
            let holder = ViewHolder::open(identities[name].clone(), recorder.clone(), None);
            let view = view_of(&control.0, svid(&identities[name])).await;
            holder.accept(&view).unwrap();
            holders.insert(name.to_owned(), holder);
        }
        let held = |name: &str| Views::Held(holders[name].clone());

        let make: fn(&Arc<Loaded>) -> ::queue::Rulebook =
            |l| ::queue::Rulebook { queues: l.view.queues.clone(), decide: l.engine.policy().clone() };
        std::fs::create_dir_all(at("queue")).unwrap();
        let minting = MintFromView { identity: identities["queue"].clone(), view: holders["queue"].clone() };
        let parts = ::queue::Parts {
            folder: at("queue"),
            rules: Arc::new(QueueRules(FromView::new(holders["queue"].clone(), make))),
            minting: Arc::new(QueueMinting(minting)),
            clock: clock.clone(),
            entropy: entropy.clone(),
            recorder: recorder.clone(),
        };
        let queue = door(Arc::new(Queue::open(parts).await.unwrap()), "queue", "queue", held("queue"));

        let make: fn(&Arc<Loaded>) -> ::objects::Rulebook =
            |l| ::objects::Rulebook { buckets: l.view.buckets.clone(), decide: l.engine.policy().clone() };
        std::fs::create_dir_all(at("objects")).unwrap();
        let parts = ::objects::Parts {
            folder: at("objects"),
            free_bytes_min: 0,
            rules: Arc::new(ObjectRules(FromView::new(holders["objects"].clone(), make))),
            queue: QueueClient(wire(&queue.0, "objects")),
            origin: ORIGIN.to_owned(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            recorder: recorder.clone(),
        };
        let room = Objects::open(parts).await.unwrap();
        tokio::spawn(Messenger::new(room.clone()).run());
        let objects = door(Arc::new(room), "objects", "objects", held("objects"));

        let config = LoginConfig {
            database: at("people.db"),
            public_origin: ORIGIN.to_owned(),
            system: "video".to_owned(),
            trust_domain: domain.clone(),
            scopes: ["videos".to_owned()].into(),
            clients: Vec::new(),
            sealer: sealer("login"),
            clock: clock.clone(),
            entropy: entropy.clone(),
            recorder: recorder.clone(),
        };
        let login = door(Arc::new(Login::open(config).await.unwrap()), "login", "login", held("login"));

        std::fs::create_dir_all(at("anchor")).unwrap();
        let parts = ::evidence::Parts {
            own: domain.role("evidence"),
            place: Place { dir: at("audit"), anchor: at("anchor").join("checkpoints"), segment_bytes: 1 << 20, free_bytes_min: 0 },
            signer: NoteSigner::from_seed("video.example/audit", &[9; 32]).unwrap(),
            database: at("index.db"),
            retention: Retention { age_s: 3600, spans: 1000, records: 1000 },
            clock: clock.clone(),
            recorder: recorder.clone(),
            control: wire(&control.0, "evidence"),
            queue: QueueClient(wire(&queue.0, "evidence")),
            pages: Arc::new(Console),
        };
        let kept = Evidence::open(parts).await.unwrap();
        let evidence = door(kept.clone(), "evidence", "evidence", held("evidence"));

        let reached = Arc::new(AtomicUsize::new(0));
        let guard = Guard::new(holders["validator"].clone(), recorder.clone(), clock.clone(), counting(reached.clone()));
        let point = |name, routes, (enforcement, room)| Point { name, routes, door: Door::Room(enforcement, room) };
        let points = vec![
            point("identity", contract::identity::ROUTES, identity),
            point("control", contract::control::ROUTES, control),
            point("login", contract::login::ROUTES, login),
            point("objects", contract::objects::ROUTES, objects),
            point("queue", contract::queue::ROUTES, queue),
            point("evidence", contract::evidence::ROUTES, evidence),
            Point { name: "guard", routes: contract::guard::ROUTES, door: Door::Guard(guard) },
        ];
        Self {
            domain,
            points,
            sink,
            ca,
            apply,
            reached,
            identities,
            holders,
            evidence: kept,
            clock: forward,
            folder,
            cookies: Mutex::default(),
            serial: AtomicUsize::new(0),
            held: Mutex::default(),
        }
    }

    pub fn point(&self, name: &str) -> &Point {
        self.points.iter().find(|point| point.name == name).unwrap()
    }

    /// Every workload of the manifest.
    pub fn workloads(&self) -> Vec<SpiffeId> {
        self.identities.values().map(|one| one.id().clone()).collect()
    }

    pub fn svid(&self, name: &str) -> PeerSvid {
        svid(&self.identities[name])
    }

    pub fn proof(&self, name: &str) -> Proof {
        Proof::Svid(self.svid(name))
    }

    /// An SVID of this authority for a workload that the manifest does not have.
    pub fn stranger(&self) -> PeerSvid {
        let clock: Arc<dyn Clock> = self.clock.clone();
        svid(&admitted(&self.ca, &self.domain.service("stranger"), &clock))
    }

    /// Another SVID for a workload: attested anew.
    pub fn anew(&self, id: &SpiffeId) -> PeerSvid {
        let clock: Arc<dyn Clock> = self.clock.clone();
        svid(&admitted(&self.ca, id, &clock))
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.1.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub fn now_s(&self) -> u64 {
        self.clock.unix_s()
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// A number that nothing else here has.
    pub fn fresh(&self) -> usize {
        self.serial.fetch_add(1, Ordering::SeqCst)
    }

    /// What mints at the edge.
    pub fn minter(&self) -> Minter {
        let loaded = self.holders["edge"].fresh().unwrap();
        self.identities["edge"].minter(&loaded.verifier).unwrap()
    }

    pub fn token(&self, user: &str, purpose: &str, roles: &[&str]) -> String {
        self.minter().mint(&authority(user, purpose, roles), 300, &*self.clock).unwrap()
    }

    /// A job's token that `queue`'s own key signs.
    pub fn job_token(&self, job: trust::Job) -> String {
        let loaded = self.holders["queue"].fresh().unwrap();
        let minter = self.identities["queue"].minter(&loaded.verifier).unwrap();
        minter.mint(&Authority { job: Some(job), ..authority("ann", "process", &[]) }, 300, &*self.clock).unwrap()
    }

    pub fn cookies(&self) -> &Mutex<BTreeMap<String, String>> {
        &self.cookies
    }

    /// Takes every point's view again, with these SVIDs.
    pub async fn refresh_views(&self, svids: &BTreeMap<SpiffeId, PeerSvid>) {
        let Door::Room(control, _) = &self.point("control").door else { panic!("a room") };
        for (name, holder) in &self.holders {
            let view = view_of(control, svids[self.identities[name].id()].clone()).await;
            holder.accept(&view).unwrap();
        }
    }

    /// Waits until `control` and `identity`, which have no view, know every revocation.
    pub async fn revocations_known(&self, of: &str) {
        for (name, of) in [("control", "web"), ("identity", of)] {
            let old = self.svid(of);
            let known = async {
                while self.identities[name].bundle().still_good(&old).is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), known).await.unwrap_or_else(|_| panic!("{name} never heard of a revocation"));
        }
    }

    /// The policies of every point that has a view.
    pub fn engines(&self) -> Vec<(&str, Arc<policy::Engine>)> {
        self.holders.iter().map(|(name, holder)| (name.as_str(), holder.fresh().unwrap().engine.policy().clone())).collect()
    }

    /// The manifest's policy, unsliced.
    pub fn whole_policy(&self) -> policy::Engine {
        let manifest = Manifest::parse("palisade.toml", &self.apply.manifest).unwrap_or_else(|error| panic!("{error:?}"));
        policy::Engine::whole(&policy::Bundle::build(&manifest, &BTreeMap::new()).unwrap(), 1).unwrap()
    }

    /// All that a refused call could have changed.
    pub async fn state(&self) -> Vec<String> {
        self.settled().await;
        let mut state = vec![serde_json::to_string(&self.ca.bundle().unwrap()).unwrap()];
        let status: Value = serde_json::from_str(&self.text("control", &operator(), get("/status")).await).unwrap();
        state.push(format!("{} {}", status["epoch"], status["manifest"]));
        state.push(self.text("login", &operator(), get("/users")).await);
        let mut list = get("/files?list-type=2");
        list.headers_mut().insert("txn-token", self.token("ann", "manage", &[]).parse().unwrap());
        state.push(self.text("objects", &self.proof("filer"), list).await);
        let stats = self.text("queue", &self.proof("evidence"), get("/queues")).await;
        let mut stats: Value = serde_json::from_str(&stats).unwrap();
        for one in stats.as_array_mut().unwrap() {
            one["oldest_ms"] = 0.into();
        }
        state.push(stats.to_string());
        let filter = TraceFilter { limit: 100, ..TraceFilter::default() };
        let traces: BTreeSet<String> = self.evidence.traces(&filter).await.unwrap().into_iter().map(|t| t.trace).collect();
        state.push(format!("{} {traces:?}", self.evidence.audit_state().records));
        state.push(format!("{:?}", self.evidence.breach().await.unwrap()));
        let metrics = self.text("evidence", &operator(), get("/metrics")).await;
        state.push(metrics.contains("coverage_probe").to_string());
        state.push(self.reached.load(Ordering::SeqCst).to_string());
        let acts = ["ActDone", "SignInSucceeded", "CredentialReplayed", "SignInRefused"];
        state.push(self.audit(0).iter().filter(|r| acts.contains(&r.event.as_str())).count().to_string());
        let blobs = walk(&self.folder.path().join("objects")).into_iter().filter(|p| !p.to_string_lossy().contains(".db")).count();
        state.push(blobs.to_string());
        state
    }

    /// Waits until `control` has what `identity` says, so that what a served call did is not taken for a later one's doing.
    async fn settled(&self) {
        let known = async {
            loop {
                let status = self.text("control", &operator(), get("/status")).await;
                let status: Value = serde_json::from_str(&status).unwrap();
                if status["bundle_sequence"] == self.ca.bundle().unwrap().sequence {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known).await.expect("control never had identity's bundle");
    }

    pub async fn text(&self, point: &str, proof: &Proof, request: Request<Body>) -> String {
        let answer = self.point(point).answer(proof, request).await;
        assert!(answer.status().is_success(), "{point}: {}", answer.status());
        let bytes = body::collect(answer.into_body(), 1 << 24).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Audit records after the first `from`.
    pub fn audit(&self, from: usize) -> Vec<AuditRecord> {
        self.sink.audit.lock().unwrap()[from..].to_vec()
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(walk(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

fn admitted(ca: &Ca, id: &SpiffeId, clock: &Arc<dyn Clock>) -> Arc<WorkloadIdentity> {
    let key = PendingKey::generate().unwrap();
    let issued = ca.admit(id, key.csr()).unwrap();
    WorkloadIdentity::adopt(&key, &issued, clock.clone()).unwrap()
}

fn svid(identity: &WorkloadIdentity) -> PeerSvid {
    let (not_before_s, not_after_s) = identity.life_s();
    PeerSvid { id: identity.id().clone(), not_before_s, not_after_s }
}

/// `control`'s view for a workload, once `control` has the trust bundle.
async fn view_of(control: &Enforcement, svid: PeerSvid) -> SignedView {
    let proof = Proof::Svid(svid);
    for _ in 0..500 {
        let answer = control.answer(&proof, get("/view")).await;
        if answer.status().is_success() {
            return body::parse_json(answer.into_body()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no view for {proof:?}");
}

pub fn authority(user: &str, purpose: &str, roles: &[&str]) -> Authority {
    Authority {
        txn: "t-1".into(),
        user: user.into(),
        purpose: purpose.into(),
        scopes: BTreeSet::new(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        step_up: false,
        job: None,
    }
}

pub fn local() -> LocalPeer {
    let own = std::os::unix::net::UnixStream::pair().unwrap().0;
    let cred = nix::sys::socket::getsockopt(&own, nix::sys::socket::sockopt::PeerCredentials).unwrap();
    LocalPeer { uid: cred.uid(), pid: cred.pid(), pidfd: None }
}

pub fn operator() -> Proof {
    Proof::Operator(local())
}

pub fn get(path: &str) -> Request<Body> {
    request("GET", path, &[], "")
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], content: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path).header(http::header::HOST, "room");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body::full(content.to_owned())).unwrap()
}
