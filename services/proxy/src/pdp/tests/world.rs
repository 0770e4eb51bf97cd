//! A world for a decision point: a view that `control` signed, a `login` that follows the rules, and a clock that moves when told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contract::control::{EdgeProfile, PepProfile, SignedView, VIEW_TYP, View};
use contract::identity::Revocation;
use contract::signing::AuthorityKey;
use contract::txn_token::Minter;
use contract::{Body, Client, body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use manifest::Manifest;
use prost::Message;
use serde_json::Value;
use telemetry::{Metrics, Recorder};
use tokio_util::sync::CancellationToken;
use trust::{AuditRecord, Authority, Clock, SpiffeId, SystemEntropy, TrustDomain};

use crate::edge::Limits;
use crate::edge::tests::world::{Authorities, Breakable, FakeLogin, Hand, ORIGIN, START_MS, routes_of, signing_key};
use crate::pdp::wire::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HttpRequest, HttpResponse, OkHttpResponse, Peer, Request as Asked,
};
use crate::pdp::{DecisionPoint, Parts, ProxyIdentity, check, message};
use crate::svid::{PendingKey, WorkloadIdentity};
use crate::view::ViewHolder;

/// The user that the enforcement point runs as.
pub const UID: u32 = 4242;

const SYSTEM: &str = r#"
[system]
name = "video"
trust_domain = "video.example"
purposes = ["view", "leisure"]

[edge]
hosts = ["localhost", "partner.localhost"]

[data.video]
sensitivity = 2

[pep.envoy]
owner = "web"
uid = 4242
offers = [
  "service.api:GET /api/videos", "service.api:POST /api/videos", "service.api:GET /api/videos/{id}", "service.api:GET /api/reports",
  "service.api:GET /live", "service.partner",
]

[service.partner]
run = ["./partner"]
data = "video"
public_at = { host = "partner.localhost" }
public = [{ path = "/api/videos", methods = ["GET"], purpose = "view" }]

[service.front]
run = ["./front"]
data = "video"
internal = [{ path = "/in", methods = ["GET"], purpose = "view" }]
calls = ["service.api:GET /api/videos"]

[service.api]
owner = "web"
run = ["./api"]
data = "video"
public = [
  { path = "/api/videos", methods = ["GET", "POST"], purpose = "view", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["GET"], purpose = "view", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["DELETE"], purpose = "view", scope = "admin" },
  { path = "/api/reports", methods = ["GET"], purpose = "leisure", limit = "1/s burst 3" },
  { path = "/live", methods = ["GET"], purpose = "view", scope = "videos", websocket = true },
  { path = "/secret", methods = ["GET"], purpose = "view" },
]
"#;

/// A policy by hand about whoever comes in, by whichever door.
const BARRED: &str = r#"
@id("barred")
forbid(principal, action == Action::"enter", resource == Route::"api:GET /api/videos")
  when { context has authority && context.authority.user.roles.contains("barred") };
"#;

pub struct World {
    pub clock: Arc<Hand>,
    pub login: Arc<FakeLogin>,
    pub sink: Arc<Breakable>,
    pub point: Arc<DecisionPoint>,
    pub proxy: Arc<ProxyIdentity>,
    pub domain: TrustDomain,
    pub stop: CancellationToken,
    pub ours: Arc<WorkloadIdentity>,
    pub edge: Arc<WorkloadIdentity>,
    authorities: Authorities,
    control: Arc<WorkloadIdentity>,
    views: Arc<ViewHolder>,
    pub view: View,
}

/// What Envoy was told.
pub enum Told {
    Ok(OkHttpResponse),
    Denied(DeniedHttpResponse),
}

impl World {
    pub fn new() -> Self {
        Self::with(true, Limits::standard())
    }

    pub fn with(view_taken: bool, limits: Limits) -> Self {
        let clock = Hand::at(START_MS);
        let shared: Arc<dyn Clock> = clock.clone();
        let manifest = Manifest::parse("palisade.toml", SYSTEM).unwrap_or_else(|error| panic!("{error}"));
        let by_hand = BTreeMap::from([("barred.cedar".to_owned(), BARRED.to_owned())]);
        let bundle = policy::Bundle::build(&manifest, &by_hand).unwrap_or_else(|error| panic!("{error}"));
        let domain = manifest.trust_domain.clone();
        let authorities = Authorities::new();
        let issue = |id: &SpiffeId| authorities.issue(id, shared.clone());
        let (ours, control, edge) = (issue(&domain.pdp("envoy")), issue(&domain.role("control")), issue(&domain.role("edge")));
        let sink = Arc::new(Breakable::default());
        let recorder = Recorder::new(sink.clone(), shared.clone(), SystemEntropy::shared(), Arc::new(Metrics::new()));
        let views = ViewHolder::open(ours.clone(), recorder.clone(), None);
        let key = |identity: &WorkloadIdentity| AuthorityKey {
            kid: identity.signing_key().kid().to_owned(),
            owner: identity.id().clone(),
            public: identity.signing_key().public().clone(),
            not_after_s: START_MS / 1000 + 3600,
        };
        let offered: BTreeSet<String> = manifest.offered(&manifest.peps["envoy"]).map(|(service, route)| route.id(service)).collect();
        let mut routes = [routes_of(&manifest, &domain, "api"), routes_of(&manifest, &domain, "partner")].concat();
        routes.retain(|r| offered.contains(&format!("{}:{} {}", r.service.workload.name(), r.method, r.path)));
        let view = View {
            subject: ours.id().clone(),
            system: "video".to_owned(),
            trust_domain: domain.clone(),
            manifest: manifest.digest(),
            epoch: 7,
            issued_at_ms: START_MS,
            age_s_max: 300,
            policy: serde_json::to_value(policy::slice_for(&ours.id().workload, &bundle).unwrap()).unwrap(),
            roots: vec![STANDARD.encode(&authorities.root_der)],
            authority_keys: vec![key(&ours), key(&edge)],
            revoked: vec![],
            callers: BTreeSet::new(),
            peers: BTreeMap::new(),
            contained: false,
            service: None,
            edge: Some(EdgeProfile { routes, buckets: BTreeMap::new(), issuers: Vec::new() }),
            pep: Some(PepProfile {
                spiffe_id: domain.pep("envoy"),
                uid: Some(UID),
                services: [(domain.service("api"), vec!["127.0.0.1:4001".to_owned(), "127.0.0.1:4002".to_owned()])].into(),
            }),
            buckets: BTreeMap::new(),
            queues: BTreeMap::new(),
        };
        let (key, jwk) = signing_key();
        let login = FakeLogin::new(clock.clone(), key, jwk);
        let proxy = ProxyIdentity::new(domain.pep("envoy"), ours.bundle().clone());
        let stop = CancellationToken::new();
        let point = DecisionPoint::new(Parts {
            views: views.clone(),
            proxy: proxy.clone(),
            uid: UID,
            own_uid: 0,
            login: Client::new(login.clone()),
            origin: ORIGIN.to_owned(),
            limits,
            recorder,
            clock: shared,
            entropy: SystemEntropy::shared(),
            stop: stop.clone(),
        });
        let world = Self { clock, login, sink, point, proxy, domain, stop, ours, edge, authorities, control, views, view };
        world.renew(3600);
        if view_taken {
            world.take(&world.view);
        }
        world
    }

    /// The enforcement point gets another SVID, of that life from the beginning of the world.
    pub fn renew(&self, life_s: u64) {
        let key = PendingKey::generate().unwrap();
        self.proxy.adopt(&key, &self.authorities.certify(&key, self.proxy.id(), life_s)).unwrap();
    }

    /// Puts a view in force.
    pub fn take(&self, view: &View) {
        let (key, chain) = self.control.signing_key_and_chain();
        self.views.accept(&SignedView { view: key.sign(VIEW_TYP, &chain, view).unwrap() }).unwrap();
    }

    /// A later view, changed.
    pub fn later(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.clone();
        (view.epoch, view.issued_at_ms) = (view.epoch + 1, self.clock.unix_ms());
        change(&mut view);
        self.take(&view);
    }

    pub fn revoke(&self, id: &SpiffeId) {
        let before_s = self.clock.unix_s();
        self.later(|view| view.revoked.push(Revocation { spiffe_id: id.clone(), before_s }));
    }

    /// A transaction token of the edge's.
    pub fn txn_token(&self, purpose: &str) -> String {
        let authority = Authority {
            txn: "t-1".into(),
            user: "u-anna".into(),
            purpose: purpose.to_owned(),
            scopes: ["videos".to_owned()].into(),
            roles: BTreeSet::new(),
            step_up: false,
            job: None,
        };
        let minter = Minter { issuer: self.edge.id().clone(), key: self.edge.signing_key() };
        minter.mint(&authority, 300, &*self.clock).unwrap()
    }

    pub fn audit(&self) -> Vec<AuditRecord> {
        self.sink.kept.audit.lock().unwrap().clone()
    }

    /// Reasons of the refusals on record, in their order.
    pub fn refusals(&self) -> Vec<String> {
        let denied = |record: &AuditRecord| record.fields["decision"]["deny"]["reason"].as_str().map(str::to_owned);
        self.audit().iter().filter(|record| record.event == "CallDecided").filter_map(denied).collect()
    }

    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.point.clone().answer(UID, request).await
    }

    /// Sends bytes as the one message of a call.
    pub async fn call(&self, path: &str, framed: Vec<u8>) -> (Option<Bytes>, String, String) {
        let request = Request::post(path).header("content-type", "application/grpc").body(body::full(framed)).unwrap();
        heard(self.answer(request).await).await
    }

    /// Asks as Envoy does.
    pub async fn ask(&self, asked: CheckRequest) -> CheckResponse {
        let (message, status, _) = self.call(check::PATH, message::framed(&asked).to_vec()).await;
        assert_eq!(status, "0");
        CheckResponse::decode(message.unwrap()).unwrap()
    }

    /// Asks about a request, with what it must come to if it is allowed or refused.
    pub async fn told(&self, asked: CheckRequest) -> Told {
        match self.ask(asked).await.http_response.unwrap() {
            HttpResponse::Ok(ok) => Told::Ok(ok),
            HttpResponse::Denied(denied) => Told::Denied(denied),
        }
    }

    /// That it is refused: the status, the reason that the client hears, and that this is on record.
    pub async fn refused(&self, asked: CheckRequest) -> (i32, String) {
        let before = self.refusals().len();
        let Told::Denied(denied) = self.told(asked).await else { panic!("it was let in") };
        let said: Value = serde_json::from_str(&denied.body).unwrap();
        let reason = said["reason"].as_str().unwrap().to_owned();
        assert_eq!(self.refusals().get(before), Some(&reason), "on record");
        (denied.status.unwrap().code, reason)
    }

    pub async fn evaluate(&self, path: &str, text: &str) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/json").body(body::full(text.to_owned())).unwrap();
        let answer = self.answer(request).await;
        let status = answer.status();
        (status, serde_json::from_slice(&body::collect(answer.into_body(), 1 << 20).await.unwrap()).unwrap_or(Value::Null))
    }
}

/// The message of an answer, its status and what it says besides.
pub async fn heard(answer: Response<Body>) -> (Option<Bytes>, String, String) {
    let (head, body) = answer.into_parts();
    assert_eq!((head.status, &head.headers["content-type"]), (StatusCode::OK, &"application/grpc".parse().unwrap()));
    let collected = body.collect().await.unwrap();
    let fields = collected.trailers().cloned().unwrap_or(head.headers);
    let said = |name: &str| fields.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let bytes = collected.to_bytes();
    ((!bytes.is_empty()).then(|| bytes.slice(5..)), said("grpc-status"), said("grpc-message"))
}

/// A request, as Envoy tells it.
pub fn http(method: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let headers: HashMap<String, String> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let http = HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        host: "shop.example:443".to_owned(),
        protocol: "HTTP/2".to_owned(),
        headers,
        header_map: None,
    };
    CheckRequest { attributes: Some(AttributeContext { source: None, request: Some(Asked { http: Some(http) }) }) }
}

/// A request that bears a token.
pub fn bearing(method: &str, path: &str, token: &str, more: &[(&str, &str)]) -> CheckRequest {
    let bearer = format!("Bearer {token}");
    http(method, path, &[&[("authorization", bearer.as_str())], more].concat())
}

/// The same request, from a workload whose SVID the proxy has verified.
pub fn from_workload(mut asked: CheckRequest, principal: &str) -> CheckRequest {
    asked.attributes.as_mut().unwrap().source = Some(Peer { address: None, principal: principal.to_owned() });
    asked
}
