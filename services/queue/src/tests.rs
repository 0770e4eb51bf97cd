//! The room and the dispatcher, in process, on real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod delivery;
mod model;
mod publishing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use contract::control::QueueProfile;
use contract::queue::{Deliver, Event, Leased, Published, QueueStats};
use contract::signing::{AuthorityKey, SigningKey};
use contract::txn_token::{Minter, Verifier};
use contract::{Body, Caller, Peer, Room, VerifiedAuthority, body};
use http::{Request, Response, StatusCode};
use telemetry::{MemorySink, Metrics, Recorder};
use trust::{Authority, Clock, Decision, DenyReason, Fault, Job, SpiffeId, SystemEntropy, TraceContext, TrustDomain};

use crate::{Ask, Decide, Minting, Parts, Queue, Rulebook, Rules};

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("video.example").unwrap()
}

pub(crate) fn service(name: &str) -> SpiffeId {
    domain().service(name)
}

pub(crate) fn role(name: &str) -> SpiffeId {
    domain().role(name)
}

#[derive(Debug)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

/// Permits exactly the named (principal, action, queue), and consuming only with a job of the consumer's.
#[derive(Debug)]
pub(crate) struct Matrix(BTreeSet<(String, &'static str, String)>);

impl Decide for Matrix {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let listed = self.0.contains(&(ask.principal.workload.name().to_owned(), ask.action.as_str(), ask.queue.to_owned()));
        if listed {
            Decision::Allow { policies: vec!["test".into()], epoch: 1, shadow: None }
        } else {
            Decision::deny(DenyReason::PolicyDenied)
        }
    }
}

#[derive(Debug)]
pub(crate) struct Book(pub(crate) Mutex<Result<Arc<Rulebook>, DenyReason>>);

impl Rules for Book {
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Debug)]
pub(crate) struct Mint(pub(crate) Mutex<Option<Minter>>);

impl Minting for Mint {
    fn current(&self) -> Result<Minter, Fault> {
        self.0.lock().unwrap().clone().ok_or_else(|| Fault::unavailable("no key yet"))
    }
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) book: Arc<Book>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) minter: Minter,
    pub(crate) mint: Arc<Mint>,
}

pub(crate) fn profile(consumer: &str) -> QueueProfile {
    QueueProfile {
        class: "video".into(),
        consumer: Some(service(consumer)),
        in_flight_max: 4,
        lease_s: 30,
        attempts_max: 3,
        backoff_ms: 0,
        backoff_ms_max: 0,
        purpose: "process".into(),
        depth_max: 100,
        dead_letters_to: None,
    }
}

impl World {
    /// `uploaded` is the validator's, fed by `objects`; `validated` the transcoder's, fed by the validator; `status` api's, fed by both.
    pub(crate) fn new() -> Self {
        let rows = [
            ("objects", "publish", "uploaded"),
            ("validator", "consume", "uploaded"),
            ("validator", "publish", "validated"),
            ("transcoder", "consume", "validated"),
            ("validator", "publish", "status"),
            ("transcoder", "publish", "status"),
            ("api", "publish", "uploaded"),
            ("api", "consume", "status"),
        ];
        let matrix = Matrix(rows.iter().map(|(p, a, q)| ((*p).to_owned(), *a, (*q).to_owned())).collect());
        let queues = [("uploaded", "validator"), ("validated", "transcoder"), ("status", "api")];
        let queues: BTreeMap<_, _> = queues.into_iter().map(|(q, c)| (q.to_owned(), profile(c))).collect();
        let book = Arc::new(Book(Mutex::new(Ok(Arc::new(Rulebook { queues, decide: Arc::new(matrix) })))));
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let minter = Minter { issuer: role("queue"), key: SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap() };
        let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000_000)));
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock,
            book,
            sink: Arc::default(),
            mint: Arc::new(Mint(Mutex::new(Some(minter.clone())))),
            minter,
        }
    }

    pub(crate) fn edit(&self, queue: &str, change: impl FnOnce(&mut QueueProfile)) {
        let mut held = self.book.0.lock().unwrap();
        let mut rules = Rulebook::clone(held.as_ref().unwrap());
        change(rules.queues.get_mut(queue).unwrap());
        *held = Ok(Arc::new(rules));
    }

    /// From now on under another policy.
    pub(crate) fn decide(&self, decide: Arc<dyn Decide>) {
        let mut held = self.book.0.lock().unwrap();
        let rules = Rulebook { decide, ..Rulebook::clone(held.as_ref().unwrap()) };
        *held = Ok(Arc::new(rules));
    }

    /// Opens the queue as a fresh process would.
    pub(crate) async fn open(&self) -> Queue {
        let entropy = SystemEntropy::shared();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let recorder = Recorder::new(self.sink.clone(), Arc::clone(&clock), Arc::clone(&entropy), Arc::new(Metrics::new()));
        let parts =
            Parts { folder: self.folder.path().to_owned(), rules: self.book.clone(), minting: self.mint.clone(), clock, entropy, recorder };
        Queue::open(parts).await.unwrap()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        let key = AuthorityKey {
            kid: self.minter.key.kid().to_owned(),
            owner: role("queue"),
            public: self.minter.key.public().clone(),
            not_after_s: u64::MAX,
        };
        Verifier::new(domain(), &[key])
    }

    pub(crate) fn recorded(&self, event: &str) -> Vec<serde_json::Value> {
        let audit = self.sink.audit.lock().unwrap();
        audit.iter().filter(|r| r.event == event).map(|r| serde_json::Value::Object(r.fields.clone())).collect()
    }
}

pub(crate) fn person() -> Authority {
    Authority {
        txn: "txn-1".into(),
        user: "ada".into(),
        purpose: "upload".into(),
        scopes: BTreeSet::from(["videos".to_owned()]),
        roles: BTreeSet::from(["admin".to_owned()]),
        step_up: true,
        job: None,
    }
}

pub(crate) fn with_job(leased: &Leased, consumer: &str) -> Authority {
    let inputs: Vec<_> = leased.event.input().into_iter().collect();
    let folder = inputs.first().map(|i| i.folder().to_owned()).unwrap_or_default();
    let job = Job { id: leased.job.clone(), lease: leased.lease.clone(), queue: "q".into(), consumer: consumer.into(), inputs, folder };
    Authority { job: Some(job), ..person() }
}

pub(crate) fn caller(who: SpiffeId, authority: Option<Authority>) -> Caller {
    let authority = authority.map(|authority| VerifiedAuthority { authority, token: "opaque".into() });
    Caller { peer: Peer::Workload(who), authority, trace: TraceContext::root(0, &SystemEntropy) }
}

pub(crate) fn event(id: &str, subject: Option<&str>) -> Event {
    Event {
        id: id.into(),
        source: "/test".into(),
        kind: "test.event".into(),
        subject: subject.map(str::to_owned),
        content_type: "application/json".into(),
        data: format!("{{\"n\":\"{id}\"}}").into_bytes(),
    }
}

pub(crate) fn post(path: &str) -> Request<Body> {
    Request::post(path).body(body::empty()).unwrap()
}

pub(crate) fn publish_request(queue: &str, event: &Event) -> Request<Body> {
    let mut request = Request::post(format!("/queues/{queue}")).body(body::full(event.data.clone())).unwrap();
    event.write_headers(request.headers_mut()).unwrap();
    request
}

pub(crate) async fn parsed<T: serde::de::DeserializeOwned>(response: Response<Body>) -> T {
    serde_json::from_slice(&body::collect(response.into_body(), 1 << 20).await.unwrap()).unwrap()
}

/// Publishes as `objects` on Ada's kept authority.
pub(crate) async fn upload(queue: &Queue, event: &Event) -> Response<Body> {
    use base64::Engine as _;
    let mut request = publish_request("uploaded", event);
    let kept = base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&person()).unwrap());
    request.headers_mut().insert(contract::queue::AUTHORITY_HEADER, kept.parse().unwrap());
    queue.call(caller(role("objects"), None), request).await
}

pub(crate) async fn uploaded(queue: &Queue, id: &str, subject: Option<&str>) -> Published {
    let response = upload(queue, &event(id, subject)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    parsed(response).await
}

pub(crate) async fn lease(queue: &Queue, name: &str, who: &str) -> Option<Leased> {
    let response = queue.call(caller(service(who), None), post(&format!("/queues/{name}/lease"))).await;
    match response.status() {
        StatusCode::OK => Some(parsed(response).await),
        StatusCode::NO_CONTENT => None,
        status => panic!("lease answered {status}"),
    }
}

pub(crate) async fn on_lease(queue: &Queue, lease: &str, verb: &str, who: &str) -> StatusCode {
    queue.call(caller(service(who), None), post(&format!("/leases/{lease}/{verb}"))).await.status()
}

pub(crate) async fn alive(queue: &Queue, lease: &str) -> bool {
    let request = Request::get(format!("/leases/{lease}")).body(body::empty()).unwrap();
    let response = queue.call(caller(role("objects"), None), request).await;
    assert_eq!(response.status(), StatusCode::OK);
    parsed::<contract::queue::LeaseState>(response).await.alive
}

pub(crate) async fn stats(queue: &Queue, name: &str) -> QueueStats {
    let response = queue.call(caller(role("evidence"), None), Request::get("/queues").body(body::empty()).unwrap()).await;
    parsed::<Vec<QueueStats>>(response).await.into_iter().find(|s| s.queue == name).unwrap()
}

/// Changes a database behind the queue's back.
pub(crate) async fn tamper(folder: &Path, sql: &'static str) {
    use state::sqlx::{self, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
    let mut connection = SqliteConnectOptions::new().filename(folder.join("queue.db")).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A delivery, its trace, and where its answer goes.
pub(crate) type Arrived = (Leased, Option<TraceContext>, tokio::sync::oneshot::Sender<Result<u16, Fault>>);

/// A consumer whose answers a test gives.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) seen: tokio::sync::mpsc::UnboundedSender<Arrived>,
}

#[async_trait::async_trait]
impl Deliver for Desk {
    async fn deliver(&self, _consumer: &SpiffeId, _queue: &str, leased: &Leased, trace: Option<TraceContext>) -> Result<u16, Fault> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.seen.send((leased.clone(), trace, answer)).map_err(|_| Fault::unavailable("the test has ended"))?;
        answered.await.map_err(|_| Fault::unavailable("the connection ended"))?
    }
}
