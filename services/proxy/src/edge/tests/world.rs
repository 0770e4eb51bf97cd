//! A world for the edge: a CA, a view that `control` signed, a `login` that follows the rules or breaks them, peers that write down
//! what reached them, and a clock that moves when told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64};
use bytes::Bytes;
use contract::control::{EdgeProfile, PublicRoute, RouteRate, SignedView, VIEW_TYP, View};
use contract::identity::{Bundle, Issued};
use contract::login::{ACCESS_TYP, ACR_PASSWORD, AccessClaims, CLIENT_HEADER, Confirmation, EDGE_CLIENT, ID_TYP};
use contract::signing::{AuthorityKey, SigningKey};
use contract::{Body, Transport, body};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use manifest::Manifest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use telemetry::{MemorySink, Metrics, Recorder, Sink};
use trust::{AuditRecord, Clock, Digest, Entropy, Fault, SpiffeId, SystemEntropy, TrustDomain};

use crate::edge::{ClientAuthorities, Edge, Limits, Parts, Peers, Place, Sessions};
use crate::svid::{PendingKey, WorkloadIdentity};
use crate::view::ViewHolder;

pub const ORIGIN: &str = "https://localhost:8443";
pub const START_MS: u64 = 1_800_000_000_000;

/// A clock in our hands.
#[derive(Debug)]
pub struct Hand(AtomicU64);

impl Hand {
    /// A clock that stands there.
    pub fn at(unix_ms: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(unix_ms)))
    }

    pub fn forward_s(&self, s: u64) {
        self.0.fetch_add(s * 1000, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms() - START_MS)
    }
}

/// A sink that can break.
#[derive(Debug, Default)]
pub struct Breakable {
    pub kept: MemorySink,
    pub broken: AtomicBool,
}

impl Sink for Breakable {
    fn audit(&self, record: telemetry::NewRecord<'_>) -> Result<(), telemetry::AuditLost> {
        if self.broken.load(Ordering::SeqCst) { Err(telemetry::AuditLost) } else { self.kept.audit(record) }
    }
    fn span(&self, span: telemetry::NewSpan<'_>) {
        self.kept.span(span);
    }
}

/// What reached a peer.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub uri: String,
    pub headers: HeaderMap,
    pub bytes: usize,
    pub trailers: bool,
}

/// A peer that writes down what it gets, and answers as told.
pub struct Recording {
    pub seen: Mutex<Vec<Seen>>,
    pub received: AtomicUsize,
    answer: Mutex<Answering>,
}

type Answering = Box<dyn FnMut() -> Result<Response<Body>, Fault> + Send>;

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recording")
    }
}

impl Recording {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            received: AtomicUsize::new(0),
            answer: Mutex::new(Box::new(|| Ok(body::with_type(StatusCode::OK, "text/plain", "fine")))),
        })
    }
    pub fn answers(&self, answer: impl FnMut() -> Result<Response<Body>, Fault> + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("something reached the peer")
    }
}

#[async_trait]
impl Transport for Recording {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let (head, mut body) = request.into_parts();
        if crate::websocket::is_tunnel(&head.headers) {
            // A service that says back whatever it hears.
            self.seen.lock().unwrap().push(Seen {
                method: head.method,
                uri: head.uri.to_string(),
                headers: head.headers,
                bytes: 0,
                trailers: false,
            });
            let mut answer = Response::new(body);
            crate::websocket::mark(answer.headers_mut());
            return Ok(answer);
        }
        let (mut bytes, mut trailers) = (0, false);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Fault::unavailable("the body broke").because(e))?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
            trailers |= frame.is_trailers();
            self.received.store(bytes, Ordering::SeqCst);
        }
        self.seen.lock().unwrap().push(Seen { method: head.method, uri: head.uri.to_string(), headers: head.headers, bytes, trailers });
        (self.answer.lock().unwrap())()
    }
}

/// `login`, in small.
#[derive(Debug)]
pub struct FakeLogin {
    pub clock: Arc<Hand>,
    pub key: Mutex<SigningKey>,
    pub jwk: Mutex<Value>,
    pub down: AtomicBool,
    pub key_fetches: AtomicUsize,
    pub refreshes: AtomicUsize,
    /// code: (challenge, nonce)
    pub codes: Mutex<HashMap<String, (String, String)>>,
    pub refresh: Mutex<Option<String>>,
    pub passed_on: Mutex<Vec<Seen>>,
    pub forms: Mutex<Vec<BTreeMap<String, String>>>,
    pub roles: Mutex<BTreeSet<String>>,
    pub scope: Mutex<String>,
    pub token_life_s: AtomicU64,
    /// What opaque tokens and keys stand for.
    pub references: Mutex<HashMap<String, AccessClaims>>,
    pub introspections: AtomicUsize,
    /// What its access tokens are bound to.
    pub bound_to: Mutex<Option<Confirmation>>,
    /// By what they prove themselves.
    pub acr: Mutex<String>,
    /// Who signs in.
    pub user: Mutex<String>,
    /// Public origin that its tokens are for.
    pub origin: Mutex<String>,
}

impl FakeLogin {
    /// That signs with this key.
    pub fn new(clock: Arc<Hand>, key: SigningKey, jwk: Value) -> Arc<Self> {
        Arc::new(Self {
            clock,
            key: Mutex::new(key),
            jwk: Mutex::new(jwk),
            down: AtomicBool::new(false),
            key_fetches: AtomicUsize::new(0),
            refreshes: AtomicUsize::new(0),
            codes: Mutex::default(),
            refresh: Mutex::default(),
            passed_on: Mutex::default(),
            forms: Mutex::default(),
            roles: Mutex::default(),
            scope: Mutex::new("openid videos".to_owned()),
            token_life_s: AtomicU64::new(300),
            bound_to: Mutex::default(),
            acr: Mutex::new(ACR_PASSWORD.to_owned()),
            references: Mutex::default(),
            introspections: AtomicUsize::new(0),
            origin: Mutex::new(ORIGIN.to_owned()),
            user: Mutex::new("u-anna".to_owned()),
        })
    }

    /// From now on its tokens are for that origin.
    pub fn at(&self, origin: &str) {
        origin.clone_into(&mut self.origin.lock().unwrap());
    }

    pub fn claims(&self) -> AccessClaims {
        let now = self.clock.unix_s();
        let origin = self.origin.lock().unwrap().clone();
        AccessClaims {
            iss: format!("{origin}/oidc"),
            sub: self.user.lock().unwrap().clone(),
            aud: origin,
            client_id: EDGE_CLIENT.to_owned(),
            iat: now,
            exp: now + self.token_life_s.load(Ordering::SeqCst),
            jti: trust::clock::random_hex(&SystemEntropy, 8),
            scope: self.scope.lock().unwrap().clone(),
            roles: self.roles.lock().unwrap().clone(),
            auth_time: now,
            acr: self.acr.lock().unwrap().clone(),
            sid: "sid-1".to_owned(),
            cnf: self.bound_to.lock().unwrap().clone(),
        }
    }

    pub fn token(&self) -> String {
        self.key.lock().unwrap().sign(ACCESS_TYP, &[], &self.claims()).unwrap()
    }

    /// What `/authorize` would do once the person has proved themselves: a code for that request.
    pub fn code_for(&self, authorize: &str) -> (String, String) {
        let query = query_of(authorize);
        assert_eq!(query["code_challenge_method"], "S256");
        assert!(query["scope"].split(' ').any(|s| s == "offline_access"));
        assert_eq!(query["redirect_uri"], format!("{ORIGIN}/auth/callback"));
        let code = trust::clock::random_hex(&SystemEntropy, 8);
        self.codes.lock().unwrap().insert(code.clone(), (query["code_challenge"].clone(), query["nonce"].clone()));
        (code, query["state"].clone())
    }

    fn grant(&self, form: &BTreeMap<String, String>) -> Response<Body> {
        let refused = || body::json(StatusCode::BAD_REQUEST, &json!({"error": "invalid_grant"}));
        let mut nonce = None;
        match form["grant_type"].as_str() {
            "authorization_code" => {
                let Some((challenge, its_nonce)) = self.codes.lock().unwrap().remove(&form["code"]) else { return refused() };
                if B64.encode(Digest::of(form["code_verifier"].as_bytes()).as_bytes()) != challenge {
                    return refused();
                }
                nonce = Some(its_nonce);
            }
            "refresh_token" => {
                self.refreshes.fetch_add(1, Ordering::SeqCst);
                if self.refresh.lock().unwrap().as_ref() != form.get("refresh_token") {
                    return refused();
                }
            }
            other => panic!("grant {other}"),
        }
        let refresh = trust::clock::random_hex(&SystemEntropy, 8);
        *self.refresh.lock().unwrap() = Some(refresh.clone());
        let mut answer = json!({"access_token": self.token(), "token_type": "Bearer", "expires_in": 300, "refresh_token": refresh});
        if let Some(nonce) = nonce {
            let claims = self.claims();
            let id = json!({"iss": claims.iss, "sub": claims.sub, "aud": EDGE_CLIENT, "exp": claims.exp, "iat": claims.iat, "nonce": nonce,
                "name": "Anna", "preferred_username": "anna"});
            answer["id_token"] = self.key.lock().unwrap().sign(ID_TYP, &[], &id).unwrap().into();
        }
        body::json(StatusCode::OK, &answer)
    }
}

#[async_trait]
impl Transport for FakeLogin {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Fault::unavailable("login is down"));
        }
        let (head, sent) = request.into_parts();
        let own = head.headers.get(CLIENT_HEADER).is_some_and(|v| v == EDGE_CLIENT);
        match (head.uri.path(), own) {
            ("/jwks", _) => {
                self.key_fetches.fetch_add(1, Ordering::SeqCst);
                Ok(body::json(StatusCode::OK, &json!({"keys": [*self.jwk.lock().unwrap()]})))
            }
            ("/token", true) => {
                let bytes = body::collect(sent, 10_000).await?;
                let form: BTreeMap<String, String> = url::form_urlencoded::parse(&bytes).into_owned().collect();
                self.forms.lock().unwrap().push(form.clone());
                // Slow enough for requests of one session to meet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(self.grant(&form))
            }
            ("/introspect", true) => {
                self.introspections.fetch_add(1, Ordering::SeqCst);
                let bytes = body::collect(sent, 10_000).await?;
                let form: BTreeMap<String, String> = url::form_urlencoded::parse(&bytes).into_owned().collect();
                // Slow enough for questions about one reference to meet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let Some(claims) = self.references.lock().unwrap().get(&form["token"]).cloned() else {
                    return Ok(body::json(StatusCode::OK, &json!({"active": false})));
                };
                let mut said = serde_json::to_value(claims).unwrap();
                said["active"] = true.into();
                said["token_type"] = "Bearer".into();
                Ok(body::json(StatusCode::OK, &said))
            }
            ("/revoke", true) => {
                *self.refresh.lock().unwrap() = None;
                Ok(body::plain(StatusCode::OK))
            }
            _ => {
                let uri = head.uri.to_string();
                self.passed_on.lock().unwrap().push(Seen { method: head.method, uri, headers: head.headers, bytes: 0, trailers: false });
                let mut answer = body::with_type(StatusCode::OK, "text/plain", "login");
                answer.headers_mut().insert(header::SET_COOKIE, "__Host-palisade-login=x; Path=/; Secure; HttpOnly".parse().unwrap());
                Ok(answer)
            }
        }
    }
}

#[derive(Debug)]
struct Fakes {
    login: Arc<FakeLogin>,
    peers: HashMap<String, Arc<Recording>>,
}

impl Peers for Fakes {
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault> {
        match peer.workload.name() {
            "login" => Ok(self.login.clone()),
            name => self.peers.get(name).cloned().map(|p| p as Arc<dyn Transport>).ok_or_else(|| Fault::unavailable("no such peer")),
        }
    }
}

const VIDEO: &str = r#"
[system]
name = "video"
trust_domain = "video.example"
purposes = ["view"]

[edge]
hosts = ["localhost", "127.0.0.1", "partner.localhost"]

[data.video]
sensitivity = 2

[service.next]
run = ["./next"]
data = "video"
public_at = { headers = { x-release = "next" } }
public = [{ path = "/api/videos", methods = ["GET"], purpose = "view", scope = "videos" }]

[service.partner]
run = ["./partner"]
data = "video"
public_at = { host = "partner.localhost" }
public = [{ path = "/api/videos", methods = ["GET"], purpose = "view", scope = "videos", cors = ["https://app.example"] }]

[service.api]
owner = "web"
run = ["./api"]
data = "video"
public = [
  { path = "/", methods = ["GET"], purpose = "view", page = true },
  { path = "/watch", methods = ["GET"], purpose = "view", page = true },
  { path = "/watch/{*page}", methods = ["GET"], purpose = "view", page = true },
  { path = "/watch/{id}", methods = ["GET"], purpose = "view", page = true },
  { path = "/api/videos", methods = ["GET", "POST"], purpose = "view", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["GET"], purpose = "view", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["DELETE"], purpose = "view", scope = "admin" },
  { path = "/settings", methods = ["GET", "POST"], purpose = "view", page = true, step_up = true },
  { path = "/api/keys", methods = ["DELETE"], purpose = "view", step_up = true },
  { path = "/live", methods = ["GET"], purpose = "view", scope = "videos", websocket = true },
  { path = "/api/reports", methods = ["GET", "POST"], purpose = "view", limit = "1/s burst 3", concurrency = 2, cors = ["https://app.example"] },
]
"#;

/// A policy by hand: whoever is barred sees no list.
const BARRED: &str = r#"
@id("barred")
forbid(principal, action == Action::"enter", resource == Route::"api:GET /api/videos")
  when { context has authority && context.authority.user.roles.contains("barred") };

@id("soon-barred")
@shadow
forbid(principal, action == Action::"enter", resource == Route::"api:GET /api/videos/{id}")
  when { context has authority && context.authority.user.roles.contains("guest") };
"#;

/// A new P-256 signing key and its public JWK.
pub fn signing_key() -> (SigningKey, Value) {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
    let key = SigningKey::from_pkcs8(der.as_ref()).unwrap();
    let point = pair.public_key().as_ref().to_vec();
    let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.kid(), "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65])});
    (key, jwk)
}

pub struct Authorities {
    pub root_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authorities {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "root");
        let root_der = params.self_signed(&key).unwrap().der().to_vec();
        Self { root_der, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, id: &SpiffeId, clock: Arc<dyn Clock>) -> Arc<WorkloadIdentity> {
        let key = PendingKey::generate().unwrap();
        let issued = self.certify(&key, id, 3600);
        WorkloadIdentity::adopt(&key, &issued, clock).unwrap()
    }

    /// An SVID that lives for so long from the beginning of the world.
    pub fn certify(&self, key: &PendingKey, id: &SpiffeId, life_s: u64) -> Issued {
        let der = STANDARD.decode(key.csr()).unwrap();
        let mut csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).unwrap();
        csr.params.distinguished_name = DistinguishedName::new();
        csr.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        csr.params.is_ca = IsCa::ExplicitNoCa;
        csr.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let start = time::OffsetDateTime::from_unix_timestamp(i64::try_from(START_MS / 1000).unwrap()).unwrap();
        csr.params.not_before = start - time::Duration::minutes(1);
        csr.params.not_after = start + time::Duration::seconds(i64::try_from(life_s).unwrap());
        let leaf = csr.signed_by(&self.issuer).unwrap();
        let bundle = Bundle { sequence: 1, roots: vec![STANDARD.encode(&self.root_der)], authority_keys: vec![], revoked: vec![] };
        Issued { spiffe_id: id.clone(), chain: vec![STANDARD.encode(leaf.der())], not_after_s: START_MS / 1000 + life_s, bundle }
    }
}

/// Everything.
pub struct World {
    pub clock: Arc<Hand>,
    pub edge: Arc<Edge>,
    pub login: Arc<FakeLogin>,
    pub api: Arc<Recording>,
    pub next: Arc<Recording>,
    pub partner: Arc<Recording>,
    pub objects: Arc<Recording>,
    pub evidence: Arc<Recording>,
    pub sink: Arc<Breakable>,
    pub lines: Arc<Lines>,
    pub views: Arc<ViewHolder>,
    pub identity: Arc<WorkloadIdentity>,
    control: Arc<WorkloadIdentity>,
    pub view: View,
    pub folder: tempfile::TempDir,
}

/// Settings that differ between tests.
pub struct Settings {
    pub port: u16,
    pub limits: Limits,
    pub clients: ClientAuthorities,
    pub with_view: bool,
    pub hosts: &'static [&'static str],
    pub content: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 8443,
            limits: Limits::standard(),
            clients: ClientAuthorities::none(),
            with_view: true,
            hosts: &["localhost", "127.0.0.1", "partner.localhost"],
            content: None,
        }
    }
}

fn public_routes(manifest: &Manifest, domain: &TrustDomain) -> Vec<Arc<PublicRoute>> {
    let mut routes = routes_of(manifest, domain, "api");
    routes.extend(routes_of(manifest, domain, "next"));
    routes.extend(routes_of(manifest, domain, "partner"));
    routes
}

pub fn routes_of(manifest: &Manifest, domain: &TrustDomain, name: &str) -> Vec<Arc<PublicRoute>> {
    let service = &manifest.services[name];
    let public = |r: &manifest::Route| PublicRoute {
        service: domain.service(name),
        host: service.public_at.host.clone(),
        headers: service.public_at.headers.clone(),
        method: r.method.clone(),
        path: r.path.clone(),
        scope: r.scope.clone(),
        step_up: r.step_up,
        purpose: r.purpose.clone(),
        page: r.page,
        body_bytes_max: 1000,
        websocket: r.websocket,
        rate: r.rate.map(|r| RouteRate { requests: r.requests, period_ms: r.period_ms, burst: r.burst }),
        concurrency_max: r.concurrency,
        cors: r.cors.clone(),
    };
    service.routes.iter().map(public).map(Arc::new).collect()
}

fn profile_of(manifest: &Manifest, domain: &TrustDomain) -> EdgeProfile {
    EdgeProfile {
        routes: public_routes(manifest, domain),
        buckets: BTreeMap::from([("originals".to_owned(), 4 << 30)]),
        issuers: Vec::new(),
    }
}

/// What the view tells the edge.
pub fn profile() -> EdgeProfile {
    let manifest = Manifest::parse("palisade.toml", VIDEO).unwrap();
    profile_of(&manifest, &manifest.trust_domain)
}

impl World {
    pub fn recorder(&self) -> Recorder {
        Recorder::new(self.sink.clone(), self.clock_shared(), SystemEntropy::shared(), Arc::new(Metrics::new()))
    }

    pub fn clock_shared(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Where the edge is by default.
    pub fn place(&self) -> Place {
        Place { hosts: BTreeSet::from(["localhost".to_owned(), "127.0.0.1".to_owned()]), content: None, port: 8443 }
    }

    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(START_MS)));
        let shared: Arc<dyn Clock> = clock.clone();
        let entropy: Arc<dyn Entropy> = SystemEntropy::shared();
        let manifest = Manifest::parse("palisade.toml", VIDEO).unwrap_or_else(|e| panic!("{e}"));
        let policies = BTreeMap::from([("barred.cedar".to_owned(), BARRED.to_owned())]);
        let bundle = policy::Bundle::build(&manifest, &policies).unwrap_or_else(|e| panic!("{e}"));
        let domain = manifest.trust_domain.clone();
        let slice = policy::slice_for(&domain.role("edge").workload, &bundle).unwrap();
        let authorities = Authorities::new();
        let identity = authorities.issue(&domain.role("edge"), shared.clone());
        let control = authorities.issue(&domain.role("control"), shared.clone());
        let sink = Arc::new(Breakable::default());
        let lines = Arc::new(Lines::default());
        let recorder = Recorder::new(sink.clone(), shared.clone(), entropy.clone(), Arc::new(Metrics::new()));
        let recorder = recorder.with_access_log(lines.clone());
        let views = ViewHolder::open(identity.clone(), recorder.clone(), None);
        let key = identity.signing_key();
        let view = View {
            subject: domain.role("edge"),
            system: "video".to_owned(),
            trust_domain: domain.clone(),
            manifest: manifest.digest(),
            epoch: 7,
            issued_at_ms: START_MS,
            age_s_max: 300,
            policy: serde_json::to_value(&slice).unwrap(),
            roots: vec![STANDARD.encode(&authorities.root_der)],
            authority_keys: vec![AuthorityKey {
                kid: key.kid().to_owned(),
                owner: domain.role("edge"),
                public: key.public().clone(),
                not_after_s: START_MS / 1000 + 3600,
            }],
            revoked: vec![],
            callers: BTreeSet::new(),
            peers: BTreeMap::new(),
            contained: false,
            service: None,
            edge: Some(profile_of(&manifest, &domain)),
            pep: None,
            buckets: BTreeMap::new(),
            queues: BTreeMap::new(),
        };
        let (key, jwk) = signing_key();
        let login = FakeLogin::new(clock.clone(), key, jwk);
        let (api, objects, evidence) = (Recording::new(), Recording::new(), Recording::new());
        let (next, partner) = (Recording::new(), Recording::new());
        let peers = HashMap::from([
            ("api".to_owned(), api.clone()),
            ("next".to_owned(), next.clone()),
            ("partner".to_owned(), partner.clone()),
            ("objects".to_owned(), objects.clone()),
            ("evidence".to_owned(), evidence.clone()),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(&folder.path().join("edge.db"), 1800, 8 * 3600, shared.clone(), entropy.clone()).await.unwrap();
        let edge = Edge::new(Parts {
            place: Place {
                hosts: settings.hosts.iter().copied().chain(settings.content).map(str::to_owned).collect(),
                content: settings.content.map(str::to_owned),
                port: settings.port,
            },
            limits: settings.limits,
            clients: settings.clients,
            views: views.clone(),
            sessions,
            peers: Arc::new(Fakes { login: login.clone(), peers }),
            recorder,
            clock: shared,
            entropy,
        })
        .unwrap();
        let world = Self { clock, edge, login, api, next, partner, objects, evidence, sink, lines, views, identity, control, view, folder };
        if settings.with_view {
            world.push_view();
        }
        world
    }

    /// `control` pushes the view, issued now.
    pub fn push_view(&self) {
        let view = View { issued_at_ms: self.clock.unix_ms(), ..self.view.clone() };
        let (key, chain) = self.control.signing_key_and_chain();
        self.views.accept(&SignedView { view: key.sign(VIEW_TYP, &chain, &view).unwrap() }).unwrap();
    }

    /// Answers a request.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.edge.serve_from(IpAddr::V4(Ipv4Addr::LOCALHOST), request).await;
        let (head, body) = answer.into_parts();
        let text = String::from_utf8_lossy(&body::collect(body, 1 << 20).await.unwrap()).into_owned();
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, "")).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], bytes: &'static str) -> Answer {
        self.send(request("POST", path, headers, bytes)).await
    }

    /// Signs in through the whole flow; gives the session's cookie, `name=value`.
    pub async fn sign_in(&self) -> String {
        let begun = self.get("/auth/login?return=/watch", &[]).await;
        assert_eq!(begun.status, 303, "{}", begun.text);
        let browser = begun.cookie("__Host-palisade-sign-in");
        let (code, state) = self.login.code_for(begun.location());
        let done = self.get(&callback(&code, &state), &[("cookie", &browser)]).await;
        assert_eq!((done.status, done.location()), (303, "/watch"), "{}", done.text);
        done.cookie("__Host-palisade")
    }

    /// Reasons of the refusals in the audit log, in order.
    pub fn refusals(&self) -> Vec<String> {
        let kept = self.sink.kept.audit.lock().unwrap();
        kept.iter().filter_map(|r| r.fields.get("decision")?.get("deny")?.get("reason")?.as_str().map(str::to_owned)).collect()
    }

    /// Waits for the record of a tunnel's end.
    pub async fn saw_tunnel_end(&self, why: &str) {
        for _ in 0..2000 {
            let ended = |r: &AuditRecord| r.event == "TunnelEnded" && r.fields.get("why").is_some_and(|said| said == why);
            if self.sink.kept.audit.lock().unwrap().iter().any(ended) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no tunnel has ended: {why}");
    }

    /// Reasons of the connections that were refused before a request, in order.
    pub fn connection_refusals(&self) -> Vec<String> {
        let kept = self.sink.kept.audit.lock().unwrap();
        let refused = kept.iter().filter(|r| r.event == "ConnectionRefused");
        refused.filter_map(|r| r.fields.get("reason")?.as_str().map(str::to_owned)).collect()
    }

    pub fn audited(&self) -> usize {
        self.sink.kept.audit.lock().unwrap().len()
    }
}

pub fn callback(code: &str, state: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("code", code)
        .append_pair("state", state)
        .append_pair("iss", &format!("{ORIGIN}/oidc"))
        .finish();
    format!("/auth/callback?{query}")
}

pub fn query_of(target: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(target.split_once('?').unwrap().1.as_bytes()).into_owned().collect()
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], bytes: &'static str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        builder = builder.header("host", "localhost:8443");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(if bytes.is_empty() { body::empty() } else { body::full(bytes) }).unwrap()
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    pub fn location(&self) -> &str {
        self.header("location")
    }
    pub fn set_cookies(&self) -> Vec<String> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }
    /// `name=value` of a cookie that it sets.
    pub fn cookie(&self, name: &str) -> String {
        let set = self.set_cookies();
        let found = set.iter().find(|c| c.starts_with(&format!("{name}="))).unwrap_or_else(|| panic!("{name} in {set:?}"));
        found.split(';').next().unwrap().to_owned()
    }
}

/// The access log, as its file would have it.
#[derive(Debug, Default)]
pub struct Lines(pub Mutex<Vec<Value>>);

impl telemetry::AccessSink for Lines {
    fn take(&self, access: &telemetry::Access<'_>) {
        let mut line = Vec::new();
        access.write("", "", &mut line);
        self.0.lock().unwrap().push(serde_json::from_slice(&line).unwrap());
    }
}

impl Edge {
    /// A request from that address, over no connection in particular.
    pub(super) async fn serve_from(&self, from: IpAddr, request: Request<Body>) -> Response<Body> {
        self.serve(from, "1.3", request).await
    }
}
