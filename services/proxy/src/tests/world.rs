//! The test's world: an authority, a clock that can be set, a manifest with two services and a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::control::{Outbound, ServiceLimits, ServiceProfile, SignedView, VIEW_TYP, View};
use contract::identity::{Bundle, Issued};
use contract::signing::AuthorityKey;
use contract::{Body, body};
use http::{Request, Response};
use manifest::Manifest;
use policy::slice_for;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use telemetry::{MemorySink, Metrics, Recorder};
use tokio_util::sync::CancellationToken;
use trust::{Authority, Clock, Job, SpiffeId, SystemClock, SystemEntropy, TrustDomain};

use crate::client::{Address, MeshTransport, Patience};
use crate::mesh::{Connector, Guard};
use crate::serve::connection;
use crate::svid::{PendingKey, WorkloadIdentity};
use crate::view::ViewHolder;

const PAIR: &str = r#"
[system]
name = "pair"
trust_domain = "pair.example"
purposes = ["view", "process"]

[data.page]
sensitivity = 1

[service.front]
owner = "f"
run = ["./front"]
data = "page"
public = [
  { path = "/relay/{*rest}", methods = ["GET", "POST"], purpose = "view" },
  { path = "/jobs/{*rest}", methods = ["GET"], purpose = "process" },
]
calls = ["service.back:GET /things/{id}", "service.back:POST /things/{*rest}", "service.lines:tcp", "egress.shop:POST /v1/charges/{id} for view", "egress.shop:GET /v1/{*rest} for view"]

[service.back]
owner = "b"
run = ["./back"]
data = "page"
internal = [
  { path = "/things/{id}", methods = ["GET"], purpose = "view" },
  { path = "/things/{*rest}", methods = ["POST"], purpose = "view" },
]
consumes = "queue.jobs"

[service.lines]
owner = "b"
run = ["./lines"]
protocol = "tcp"
data = "page"

[service.stranger]
owner = "s"
run = ["./stranger"]

[queue.jobs]
data = "page"
purpose = "process"

[egress.shop]
host = "shop.test"
data = "page"
"#;

/// The machine's clock, moved.
#[derive(Debug)]
pub struct MovedClock {
    real: Arc<dyn Clock>,
    by_ms: AtomicI64,
    wall_back_ms: AtomicI64,
}

impl MovedClock {
    pub fn by(seconds: i64) -> Arc<Self> {
        Arc::new(Self { real: SystemClock::shared(), by_ms: AtomicI64::new(seconds * 1000), wall_back_ms: AtomicI64::new(0) })
    }
    pub fn advance(&self, seconds: i64) {
        self.by_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
    /// Somebody sets the wall clock, and not the monotonic one.
    pub fn set_wall_back(&self, seconds: i64) {
        self.wall_back_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn unix_ms(&self) -> u64 {
        self.real.unix_ms().saturating_add_signed(self.by_ms.load(Ordering::SeqCst) - self.wall_back_ms.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.real.monotonic() + Duration::from_millis(self.by_ms.load(Ordering::SeqCst).max(0).unsigned_abs())
    }
}

/// A certificate authority for tests.
pub struct TestCa {
    pub domain: TrustDomain,
    key: KeyPair,
    params: CertificateParams,
    root: String,
}

impl TestCa {
    pub fn new(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{domain} root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = STANDARD.encode(params.self_signed(&key).unwrap().der());
        Self { domain: TrustDomain::parse(domain).unwrap(), key, params, root }
    }

    pub fn bundle(&self) -> Bundle {
        Bundle { sequence: 1, roots: vec![self.root.clone()], authority_keys: Vec::new(), revoked: Vec::new() }
    }

    /// A certificate for `csr` with these URI names, from `from_s` to `to_s` from now.
    pub fn certify(&self, csr: &str, uris: &[String], from_s: i64, to_s: i64) -> Vec<u8> {
        let der = STANDARD.decode(csr).unwrap();
        let mut request = CertificateSigningRequestParams::from_der(&der.into()).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let params = &mut request.params;
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(uri.clone().try_into().unwrap())).collect();
        params.not_before = now + time::Duration::seconds(from_s);
        params.not_after = now + time::Duration::seconds(to_s);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        request.signed_by(&issuer).unwrap().der().to_vec()
    }

    pub fn issue(&self, csr: &str, id: &SpiffeId, from_s: i64, to_s: i64) -> Issued {
        let leaf = self.certify(csr, &[id.to_string()], from_s, to_s);
        let not_after_s = SystemClock::shared().unix_s().saturating_add_signed(to_s);
        Issued { spiffe_id: id.clone(), chain: vec![STANDARD.encode(leaf)], not_after_s, bundle: self.bundle() }
    }

    pub fn identity(&self, id: &SpiffeId, clock: Arc<dyn Clock>) -> Arc<WorkloadIdentity> {
        let key = PendingKey::generate().unwrap();
        WorkloadIdentity::adopt(&key, &self.issue(key.csr(), id, -7200, 3600), clock).unwrap()
    }

    pub fn renew(&self, identity: &WorkloadIdentity) {
        let key = PendingKey::generate().unwrap();
        identity.renewed(&key, &self.issue(key.csr(), identity.id(), -60, 3600)).unwrap();
    }
}

/// Everything together.
pub struct World {
    pub ca: TestCa,
    pub clock: Arc<MovedClock>,
    pub sink: Arc<MemorySink>,
    pub recorder: Recorder,
    pub control: Arc<WorkloadIdentity>,
    pub edge: Arc<WorkloadIdentity>,
    pub queue: Arc<WorkloadIdentity>,
    policies: policy::Bundle,
    manifest: Manifest,
    pub stop: CancellationToken,
}

impl World {
    pub fn new() -> Self {
        Self::with_policies("")
    }

    /// With policies by hand.
    pub fn with_policies(text: &str) -> Self {
        let manifest = Manifest::parse("pair.toml", PAIR).unwrap_or_else(|error| panic!("{error:?}"));
        let by_hand = BTreeMap::from([("hand.cedar".to_owned(), text.to_owned())]);
        let policies = policy::Bundle::build(&manifest, &by_hand).unwrap_or_else(|error| panic!("{error}"));
        let ca = TestCa::new("pair.example");
        let clock = MovedClock::by(0);
        let sink = Arc::new(MemorySink::default());
        let recorder = Recorder::new(sink.clone(), clock.clone(), SystemEntropy::shared(), Arc::new(Metrics::new()));
        let role = |name: &str| ca.identity(&ca.domain.role(name), clock.clone());
        let (control, edge, queue) = (role("control"), role("edge"), role("queue"));
        Self { control, edge, queue, ca, clock, sink, recorder, policies, manifest, stop: CancellationToken::new() }
    }

    pub fn service(&self, name: &str) -> SpiffeId {
        self.ca.domain.service(name)
    }

    pub fn identity(&self, name: &str) -> Arc<WorkloadIdentity> {
        self.ca.identity(&self.service(name), self.clock.clone())
    }

    /// A view for `subject` with its policies, and nobody to call or be called by.
    pub fn view(&self, subject: &SpiffeId) -> View {
        let key = |owner: &WorkloadIdentity| {
            let key = owner.signing_key();
            AuthorityKey {
                kid: key.kid().to_owned(),
                owner: owner.id().clone(),
                public: key.public().clone(),
                not_after_s: owner.life_s().1,
            }
        };
        View {
            subject: subject.clone(),
            system: "pair".into(),
            trust_domain: self.ca.domain.clone(),
            manifest: self.manifest.digest(),
            epoch: 7,
            issued_at_ms: self.clock.unix_ms(),
            age_s_max: 300,
            policy: serde_json::to_value(slice_for(&subject.workload, &self.policies).unwrap()).unwrap(),
            roots: self.ca.bundle().roots,
            authority_keys: vec![key(&self.edge), key(&self.queue)],
            revoked: Vec::new(),
            callers: BTreeSet::new(),
            peers: BTreeMap::new(),
            contained: false,
            service: None,
            edge: None,
            pep: None,
            buckets: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// The view of the service `back`: called by `front`, `edge` and `queue`.
    pub fn back_view(&self) -> View {
        let mut view = self.view(&self.service("back"));
        view.callers = [self.service("front"), self.ca.domain.role("edge"), self.ca.domain.role("queue")].into();
        view.service = Some(profile("back", &["GET /things/{id}", "POST /things/{*rest}"], &["jobs"], Vec::new()));
        view
    }

    /// The view of the service `front`: called by `edge`, calls `back` at `address` through the listener 9001.
    pub fn front_view(&self, address: SocketAddr) -> View {
        let mut view = self.view(&self.service("front"));
        view.callers = [self.ca.domain.role("edge")].into();
        let routes = vec!["GET /things/{id}".to_owned(), "POST /things/{*rest}".to_owned()];
        let outbound = vec![Outbound { port: 9001, env: "BACK_URL".into(), peer: self.service("back"), routes, outside: None }];
        view.service = Some(profile("front", &["GET /relay/{*rest}", "POST /relay/{*rest}"], &[], outbound));
        view.peers = [(self.service("back"), vec![address.to_string()])].into();
        view
    }

    pub fn sign(&self, view: &View) -> SignedView {
        sign_as(&self.control, view)
    }

    pub fn holder(&self, identity: &Arc<WorkloadIdentity>, view: &View) -> Arc<ViewHolder> {
        let holder = ViewHolder::open(Arc::clone(identity), self.recorder.clone(), None);
        holder.accept(&self.sign(view)).unwrap();
        holder
    }

    /// A guard for `name` under `view`, its service being `answer`; where it listens.
    pub fn guard<H, F>(&self, name: &str, view: &View, answer: H) -> (Arc<Guard>, SocketAddr)
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.guard_before(&self.holder(&self.identity(name), view), service(answer, self.stop.clone()))
    }

    /// A guard that decides by `holder` before the program that listens at `service`; where it listens.
    pub fn guard_before(&self, holder: &Arc<ViewHolder>, service: SocketAddr) -> (Arc<Guard>, SocketAddr) {
        self.guard_through(holder, Arc::new(Loopback(service)))
    }

    /// A guard that decides by `holder` with that way to its service; where it listens.
    pub fn guard_through(&self, holder: &Arc<ViewHolder>, connector: Arc<dyn Connector>) -> (Arc<Guard>, SocketAddr) {
        let guard = Guard::new(Arc::clone(holder), self.recorder.clone(), self.clock.clone(), connector);
        let listener = crate::listen::loopback().unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&guard).inbound(listener, self.stop.clone()));
        (guard, address)
    }

    pub fn transport(&self, identity: &Arc<WorkloadIdentity>, peer: &SpiffeId, address: SocketAddr) -> Arc<MeshTransport> {
        MeshTransport::new(identity, peer.clone(), Address::Fixed(address), Patience::Call).unwrap()
    }

    /// A token that the edge minted for `user` and `purpose`.
    pub fn token(&self, user: &str, purpose: &str) -> String {
        self.mint(&authority(user, purpose))
    }

    /// A token that the edge minted for an authority.
    pub fn mint(&self, authority: &Authority) -> String {
        let verifier = contract::txn_token::Verifier::new(self.ca.domain.clone(), &self.view(self.edge.id()).authority_keys);
        self.edge.minter(&verifier).unwrap().mint(authority, 300, &*self.clock).unwrap()
    }

    /// A token that the queue narrowed to a job.
    pub fn job_token(&self, consumer: &str, queue: &str) -> String {
        let verifier = contract::txn_token::Verifier::new(self.ca.domain.clone(), &self.view(self.queue.id()).authority_keys);
        let job = Job {
            id: "job-1".into(),
            lease: "l".into(),
            queue: queue.into(),
            consumer: consumer.into(),
            inputs: Vec::new(),
            folder: "f".into(),
        };
        let authority = Authority { job: Some(job), ..authority("ann", "process") };
        self.queue.minter(&verifier).unwrap().mint(&authority, 300, &*self.clock).unwrap()
    }

    /// Whether an audit record of `event` with this reason (or decision's reason) turns up.
    pub async fn saw(&self, event: &str, reason: &str) -> bool {
        for _ in 0..200 {
            let found =
                self.sink.audit.lock().unwrap().iter().any(|record| {
                    record.event == event && serde_json::to_string(&record.fields).unwrap().contains(&format!("\"{reason}\""))
                });
            if found {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

pub fn sign_as(signer: &WorkloadIdentity, view: &View) -> SignedView {
    let (key, chain) = signer.signing_key_and_chain();
    SignedView { view: key.sign(VIEW_TYP, &chain, view).unwrap() }
}

pub fn authority(user: &str, purpose: &str) -> Authority {
    Authority {
        txn: "t-1".into(),
        user: user.into(),
        purpose: purpose.into(),
        scopes: BTreeSet::new(),
        roles: BTreeSet::new(),
        step_up: false,
        job: None,
    }
}

fn profile(name: &str, routes: &[&str], consumes: &[&str], outbound: Vec<Outbound>) -> ServiceProfile {
    let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    ServiceProfile {
        name: name.into(),
        run: vec![format!("/{name}")],
        artefacts: Vec::new(),
        tools: Vec::new(),
        read: Vec::new(),
        state: false,
        routes: texts(routes),
        websockets: Vec::new(),
        protocol: contract::control::Protocol::Http,
        consumes: texts(consumes),
        outbound,
        faults: Vec::new(),
        health: None,
        isolation: "full".into(),
        bwrap: false,
        syscalls: None,
        fresh_per_job: false,
        limits: ServiceLimits {
            memory_bytes: 0,
            cpu: 0.0,
            pids: 0,
            files: 0,
            file_bytes: 0,
            tmp_bytes: 0,
            state_bytes: 0,
            wall_s: 0,
            concurrency: 0,
        },
        replicas_min: 1,
        replicas_max: 1,
        idle_stop_s: 0,
    }
}

/// Connects to a service that listens on loopback, as the sandbox does inside it.
#[derive(Debug)]
struct Loopback(SocketAddr);

#[async_trait::async_trait]
impl Connector for Loopback {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        tokio::net::TcpStream::connect(self.0).await?.into_std()
    }
    async fn fresh(&self) -> std::io::Result<Box<dyn crate::mesh::Job>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// An ordinary HTTP/1.1 program.
pub fn service<H, F>(answer: H, stop: CancellationToken) -> SocketAddr
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, stop) = (answer.clone(), stop.clone());
            tokio::spawn(async move { connection::http1(stream, answer, &stop, |_| {}).await });
        }
    });
    address
}

/// A service that answers with what it saw: method, path, headers, and the body's length.
pub async fn mirror(request: Request<Body>) -> Response<Body> {
    let (parts, sent) = request.into_parts();
    let headers: BTreeMap<String, String> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let bytes = body::collect(sent, 1 << 20).await.unwrap();
    body::json(
        http::StatusCode::OK,
        &serde_json::json!({ "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers, "bytes": bytes.len() }),
    )
}

/// GET with headers.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    request("GET", path, headers, body::empty())
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], sent: Body) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(sent).unwrap()
}

/// Status and JSON of an answer.
pub async fn read(response: Response<Body>) -> (u16, serde_json::Value) {
    let status = response.status().as_u16();
    let bytes = body::collect(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null))
}

/// One raw HTTP/1.1 exchange; all that came back until the other end closed or fell silent.
pub async fn raw(address: SocketAddr, text: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        back.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&back).into_owned()
}
