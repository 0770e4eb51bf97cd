//! The store under the real policy of the reference manifest, in process, on real files; only `queue` is played.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod behaviours;
mod copying;
mod durability;
mod events;
mod parts;
mod presigned;
mod quarantine;
mod s3_api;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use contract::control::BucketProfile;
use contract::queue::{Event, LeaseState, Published, QueueClient};
use contract::{Body, Caller, Client, Peer, Room, Transport, VerifiedAuthority, body};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use policy::{Bundle, Engine};
use telemetry::{MemorySink, Metrics, Recorder};
use trust::{Authority, Clock, DenyReason, Fault, Job, ObjectRef, SpiffeId, SystemEntropy, TraceContext, TrustDomain};

use crate::{Objects, Parts, Rulebook, Rules};

const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");
const MORE: &str = r#"
[service.filer]
owner = "web"
run = ["./filer"]
data = "video"
public = [{ path = "/filing", methods = ["GET"], purpose = "manage" }]
calls = ["bucket.files:read for manage", "bucket.files:write for manage", "bucket.files:delete for manage", "bucket.files:list for manage",
  "bucket.files:presign-get for manage", "bucket.albums:read for manage", "bucket.albums:write for manage",
  "bucket.inbox:write for manage", "bucket.inbox:read for manage", "bucket.inbox:delete for manage"]
[bucket.files]
data = "video"
clean_from = ["filer"]
max_object = "300MiB"
types = ["video/mp4"]
[bucket.albums]
data = "video"
clean_from = ["filer", "checker"]
types = ["video/mp4"]
[bucket.inbox]
data = "video"
quarantine_until = "checker"
types = ["video/mp4"]
[service.checker]
owner = "web"
run = ["./checker"]
untrusted_input = true
data = "video"
consumes = "queue.inbox"
calls = ["bucket.inbox:read", "bucket.inbox:verdict", "bucket.albums:write"]
[queue.inbox]
data = "video"
purpose = "process"
"#;
pub(crate) const ORIGIN: &str = "https://video.example:8443";
pub(crate) const MIB: usize = 1024 * 1024;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let manifest = manifest::Manifest::parse("palisade.toml", &format!("{VIDEO}{MORE}")).unwrap_or_else(|error| panic!("{error:?}"));
    Bundle::build(&manifest, &BTreeMap::new()).unwrap()
});

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Arc::new(Engine::whole(&BUNDLE, 1).unwrap()));

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("video.example").unwrap()
}

pub(crate) fn service(name: &str) -> SpiffeId {
    domain().service(name)
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

#[derive(Debug)]
pub(crate) struct Book(pub(crate) Mutex<Result<Arc<Rulebook>, DenyReason>>);

impl Rules for Book {
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason> {
        self.0.lock().unwrap().clone()
    }
}

/// Plays `queue`: leases that a test opens and ends, and what was published.
#[derive(Debug, Default)]
pub(crate) struct PlayedQueue {
    pub(crate) leases: Mutex<BTreeMap<String, LeaseState>>,
    pub(crate) published: Mutex<Vec<(Event, Authority)>>,
    /// Publishes that fail before one succeeds.
    pub(crate) failures: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) down: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Transport for PlayedQueue {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Fault::unavailable("down"));
        }
        let (head, content) = request.into_parts();
        if let Some(lease) = head.uri.path().strip_prefix("/leases/") {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return Ok(match self.leases.lock().unwrap().get(lease) {
                Some(state) => body::json(StatusCode::OK, state),
                None => body::fault(&Fault::not_found("no lease")),
            });
        }
        let data = body::collect(content, 1 << 20).await?;
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Ok(body::plain(StatusCode::SERVICE_UNAVAILABLE));
        }
        let event = Event::from_parts(&head.headers, data.to_vec())?;
        let kept = head.headers.get(contract::queue::AUTHORITY_HEADER).expect("objects publishes on a kept authority");
        let json = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, kept).unwrap();
        self.published.lock().unwrap().push((event, serde_json::from_slice(&json).unwrap()));
        Ok(body::json(StatusCode::ACCEPTED, &Published { job: "j".into(), duplicate: false }))
    }
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) book: Arc<Book>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) queue: Arc<PlayedQueue>,
}

fn bucket(max: usize, types: &[&str], quarantine: Option<&str>, created: Option<&str>) -> BucketProfile {
    BucketProfile {
        class: "video".into(),
        quarantine_until: quarantine.map(str::to_owned),
        object_bytes_max: u64::try_from(max).unwrap(),
        types: types.iter().map(|t| (*t).to_owned()).collect(),
        created_queue: created.map(str::to_owned),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let buckets = BTreeMap::from([
            ("originals".to_owned(), bucket(32 * MIB, &["video/mp4", "video/webm"], Some("validator"), Some("uploaded"))),
            ("renditions".to_owned(), bucket(32 * MIB, &["video/mp4", "image/jpeg"], None, None)),
            ("files".to_owned(), bucket(300 * MIB, &[], None, None)),
            ("albums".to_owned(), bucket(32 * MIB, &["video/mp4"], None, None)),
            ("inbox".to_owned(), bucket(32 * MIB, &["video/mp4"], Some("checker"), None)),
        ]);
        let decide = ENGINE.clone();
        let book = Arc::new(Book(Mutex::new(Ok(Arc::new(Rulebook { buckets, decide })))));
        let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000_000)));
        Self { folder: tempfile::tempdir().unwrap(), clock, book, sink: Arc::default(), queue: Arc::default() }
    }

    pub(crate) fn edit(&self, bucket: &str, change: impl FnOnce(&mut BucketProfile)) {
        let mut held = self.book.0.lock().unwrap();
        let mut rules = Rulebook::clone(held.as_ref().unwrap());
        change(rules.buckets.get_mut(bucket).unwrap());
        *held = Ok(Arc::new(rules));
    }

    /// Opens the store as a fresh process would.
    pub(crate) async fn open(&self) -> Objects {
        let entropy = SystemEntropy::shared();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let recorder = Recorder::new(self.sink.clone(), Arc::clone(&clock), Arc::clone(&entropy), Arc::new(Metrics::new()));
        let parts = Parts {
            folder: self.folder.path().to_owned(),
            free_bytes_min: 0,
            rules: self.book.clone(),
            queue: QueueClient(Client::new(self.queue.clone())),
            origin: ORIGIN.into(),
            clock,
            entropy,
            recorder,
        };
        Objects::open(parts).await.unwrap()
    }

    /// A job of `consumer` about `input`, with a living lease of this name.
    pub(crate) fn job(&self, lease: &str, consumer: &str, input: &str, user: &str) -> Authority {
        let input: ObjectRef = input.parse().unwrap();
        let folder = input.folder().to_owned();
        let state = LeaseState {
            alive: true,
            consumer: service(consumer),
            job: format!("job-{lease}"),
            inputs: vec![input.clone()],
            folder: folder.clone(),
        };
        self.queue.leases.lock().unwrap().insert(lease.to_owned(), state);
        let job = Job {
            id: format!("job-{lease}"),
            lease: lease.into(),
            queue: "q".into(),
            consumer: consumer.into(),
            inputs: vec![input],
            folder,
        };
        Authority { job: Some(job), scopes: BTreeSet::new(), ..person(user, "process") }
    }

    pub(crate) fn end_lease(&self, lease: &str) {
        self.queue.leases.lock().unwrap().get_mut(lease).unwrap().alive = false;
    }

    pub(crate) fn recorded(&self, event: &str) -> usize {
        self.sink.audit.lock().unwrap().iter().filter(|r| r.event == event).count()
    }
}

pub(crate) fn person(user: &str, purpose: &str) -> Authority {
    Authority {
        txn: "t".into(),
        user: user.into(),
        purpose: purpose.into(),
        scopes: BTreeSet::from(["videos".to_owned()]),
        roles: BTreeSet::new(),
        step_up: false,
        job: None,
    }
}

pub(crate) fn caller(who: SpiffeId, authority: Option<Authority>) -> Caller {
    let authority = authority.map(|authority| VerifiedAuthority { authority, token: "opaque".into() });
    Caller { peer: Peer::Workload(who), authority, trace: TraceContext::root(0, &SystemEntropy) }
}

/// The filer on Ada's authority: may do everything with her objects in `files`.
pub(crate) fn filer() -> Caller {
    caller(service("filer"), Some(person("ada", "manage")))
}

pub(crate) fn request(method: Method, uri: &str, headers: &[(&str, &str)], content: impl Into<Bytes>) -> Request<Body> {
    let content = content.into();
    let mut builder = Request::builder().method(method).uri(uri).header("host", "127.0.0.1:9000").header("content-length", content.len());
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body::full(content)).unwrap()
}

pub(crate) async fn send(
    objects: &Objects,
    who: &Caller,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    content: impl Into<Bytes>,
) -> Response<Body> {
    objects.call(who.clone(), request(method, uri, headers, content)).await
}

pub(crate) async fn bytes(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    String::from_utf8(bytes(response).await.to_vec()).unwrap()
}

pub(crate) async fn put(objects: &Objects, who: &Caller, uri: &str, media_type: &str, content: impl Into<Bytes>) -> Response<Body> {
    send(objects, who, Method::PUT, uri, &[("content-type", media_type)], content).await
}

pub(crate) async fn get(objects: &Objects, who: &Caller, uri: &str) -> Response<Body> {
    send(objects, who, Method::GET, uri, &[], "").await
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n.wrapping_mul(31).wrapping_add(n >> 11) % 251).unwrap()).collect()
}

pub(crate) fn files_in(world: &World, folder: &str) -> usize {
    std::fs::read_dir(world.folder.path().join(folder)).unwrap().count()
}

/// Changes a database behind the store's back.
pub(crate) async fn tamper(world: &World, sql: &'static str) {
    use state::sqlx::{self, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
    let mut connection = SqliteConnectOptions::new().filename(world.folder.path().join("objects.db")).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Ada's upload through `api` and the edge, as a browser makes it.
pub(crate) async fn granted(objects: &Objects, who: &Caller, uri: &str, wish: serde_json::Value) -> contract::objects::Presigned {
    let response =
        send(objects, who, Method::POST, &format!("{uri}?presign"), &[("content-type", "application/json")], wish.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&bytes(response).await).unwrap()
}

pub(crate) async fn redeem(
    objects: &Objects,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    content: impl Into<Bytes>,
) -> Response<Body> {
    let original = url.strip_prefix(ORIGIN).unwrap_or(url).to_owned();
    let mut request = request(method, &format!("/presigned{original}"), headers, content);
    for (name, value) in [(contract::objects::ORIGINAL_URI_HEADER, original.as_str()), (contract::objects::PUBLIC_ORIGIN_HEADER, ORIGIN)] {
        if !request.headers().contains_key(name) {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    objects.call(caller(domain().role("edge"), None), request).await
}

pub(crate) fn api(purpose: &str) -> Caller {
    caller(service("api"), Some(person("ada", purpose)))
}

/// Puts an original in place, as Ada, and gives its bytes.
pub(crate) async fn upload(objects: &Objects, key: &str, length: usize) -> Vec<u8> {
    let content = pattern(length);
    let wish = serde_json::json!({ "method": "PUT", "expires_s": 60, "content_length": length, "content_type": "video/mp4" });
    let grant = granted(objects, &api("upload"), &format!("/originals/{key}"), wish).await;
    let response = redeem(objects, Method::PUT, &grant.url, &[("content-type", "video/mp4")], content.clone()).await;
    assert_eq!(response.status(), StatusCode::OK);
    content
}
