//! The contract of `control`: the applied manifest, and each enforcement point's signed view of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trust::{Digest, SpiffeId, TrustDomain};

use crate::identity::{Artefact, Revocation};
use crate::route::{Route, Who};
use crate::signing::AuthorityKey;

mod containment;

pub use containment::{Contain, Contained, Release};

/// Every route.
pub const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/view", action: "control.view.read", who: Who::Policy },
    Route { method: "GET", path: "/view/stream", action: "control.view.stream", who: Who::Policy },
    Route { method: "GET", path: "/system", action: "control.system.read", who: Who::Roles(&["evidence"]) },
    Route { method: "POST", path: "/apply", action: "control.apply", who: Who::Operator },
    Route { method: "POST", path: "/revoke", action: "control.revoke", who: Who::Operator },
    Route { method: "POST", path: "/contain", action: "control.contain", who: Who::Operator },
    Route { method: "POST", path: "/release", action: "control.release", who: Who::Operator },
    Route { method: "GET", path: "/status", action: "control.status.read", who: Who::Operator },
];

/// `typ` of a signed view: a JWS whose header carries `control`'s SVID chain (`x5c`).
pub const VIEW_TYP: &str = "palisade-view+jwt";

/// Query of `/view` and `/view/stream` by which a subscriber says which view it holds: the `Digest` of that view's JWS. What `control`
/// sends first may then be a `ViewDelta` on it. On a stream each line may be a delta on the line before.
pub const HELD: &str = "held=";

/// A line of the stream, and the answer to a pull: `{"view": "…"}` or `{"delta": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ViewLine {
    /// The whole view.
    Whole(SignedView),
    /// What is new in it.
    Delta {
        /// The change.
        delta: crate::delta::ViewDelta,
    },
}

/// A view as it is kept, and as it travels when it travels whole: compact JWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedView {
    /// The JWS.
    pub view: String,
}

/// All that one enforcement point needs to decide, for at most `age_s_max` seconds after `issued_at_ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View<P = serde_json::Value> {
    /// Whose view it is. Another's is refused.
    pub subject: SpiffeId,
    /// The system's name.
    pub system: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Digest of the manifest that it comes from.
    pub manifest: Digest,
    /// Grows with every applied manifest or revocation. A view of a lower epoch than one already seen is refused.
    pub epoch: u64,
    /// Milliseconds since the epoch.
    pub issued_at_ms: u64,
    /// Past this age the enforcement point denies; seconds.
    pub age_s_max: u64,
    /// Its slice of the policies (`policy::PolicySlice` as JSON).
    pub policy: P,
    /// Root certificates; DER, base64.
    pub roots: Vec<String>,
    /// Keys whose transaction tokens are accepted.
    pub authority_keys: Vec<AuthorityKey>,
    /// Revoked identities.
    pub revoked: Vec<Revocation>,
    /// Workloads that may open a connection to this one.
    pub callers: BTreeSet<SpiffeId>,
    /// Workloads that this one may call, with the address of each of their replicas (`127.0.0.1:PORT`).
    pub peers: BTreeMap<SpiffeId, Vec<String>>,
    /// For a guard: an operator has contained its service. It freezes it, cuts what is under way, and keeps the evidence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contained: bool,
    /// For a guard: its service. Absent for a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceProfile>,
    /// For the edge, and for a decision point: what comes in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeProfile>,
    /// For a decision point: the enforcement point that it decides for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pep: Option<PepProfile>,
    /// For `objects`: the buckets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub buckets: BTreeMap<String, BucketProfile>,
    /// For `queue`: the queues. For others: empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queues: BTreeMap<String, QueueProfile>,
}

/// What a guard needs to know of its service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceProfile {
    /// Its name.
    pub name: String,
    /// Program and arguments; the program's path is absolute.
    pub run: Vec<String>,
    /// What the lock says of every file that it runs.
    pub artefacts: Vec<Artefact>,
    /// Programs that it may execute besides.
    pub tools: Vec<String>,
    /// Files and folders that it may read besides.
    pub read: Vec<String>,
    /// Whether it has a folder of its own.
    pub state: bool,
    /// Routes that the guard lets in, as `METHOD /path/{template}`.
    pub routes: Vec<String>,
    /// Those of them that take WebSockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub websockets: Vec<String>,
    /// What it speaks on its port.
    #[serde(default)]
    pub protocol: Protocol,
    /// Queues delivered to it.
    pub consumes: Vec<String>,
    /// Listeners inside its sandbox.
    pub outbound: Vec<Outbound>,
    /// What goes wrong on purpose before it, in a system for tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultProfile>,
    /// How its guard finds out whether it is well; absent: it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthProfile>,
    /// Sandbox level that must be reached: `full` or `confined`.
    pub isolation: String,
    /// Whether bubblewrap builds its sandbox.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bwrap: bool,
    /// File with the names of the system calls that it may make, one of its artefacts; absent: what ordinary programs may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<String>,
    /// Whether each delivery gets a sandbox of its own, which ends with it.
    pub fresh_per_job: bool,
    /// Limits.
    pub limits: ServiceLimits,
    /// Zero: started by the first request, stopped when idle.
    pub replicas_min: u32,
    /// At most so many at once.
    pub replicas_max: u32,
    /// Seconds without a request after which a service with `replicas_min = 0` is stopped.
    pub idle_stop_s: u64,
}

/// How a service is found to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthProfile {
    /// Where it is asked, with GET.
    pub path: String,
    /// Pause between two questions, in milliseconds.
    pub interval_ms: u64,
    /// An answer after this is none, in milliseconds.
    pub timeout_ms: u64,
    /// Bad answers in a row after which it gets no requests.
    pub unhealthy: u32,
    /// Good answers in a row after which it gets requests again.
    pub healthy: u32,
}

/// A fault on purpose before a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultProfile {
    /// Its name in the manifest.
    pub name: String,
    /// The route that it happens on, as `METHOD /path/{template}`; absent: routes and deliveries alike.
    pub route: Option<String>,
    /// Name of the workload whose requests it happens to; absent: everybody's.
    pub from: Option<String>,
    /// A field that such a request has, lower-case; absent: every request.
    pub header: Option<String>,
    /// To so many of a hundred.
    pub percent: u8,
    /// What happens.
    pub act: FaultAct,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultAct {
    /// Its service gets it so many milliseconds later.
    DelayMs(u64),
    /// It is answered with this status.
    Abort(u16),
    /// Its connection or stream is broken off.
    Reset,
}

/// What a service speaks on its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 by prior knowledge, as gRPC servers do.
    Grpc,
    /// A protocol of its own over TCP: raw flows, and no requests.
    Tcp,
}

/// Stands for the one route of a service of raw flows.
pub const TCP_ROUTE: &str = "TCP /";

impl Outbound {
    /// Whether what is written to this listener goes to the peer as it is.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.routes.iter().any(|route| route == TCP_ROUTE)
    }
}

/// A local listener that stands for one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Port on the sandbox's loopback.
    pub port: u16,
    /// Environment variable that names it, as `API_URL`; its value is `http://127.0.0.1:PORT`.
    pub env: String,
    /// Who is behind it.
    pub peer: SpiffeId,
    /// For a service or a destination outside: what may be called, as `METHOD /path/{template}`. For a role: empty, its contract and
    /// policy decide.
    pub routes: Vec<String>,
    /// A destination outside, which this listener stands for in the place of a peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Arc<Outside>>,
}

/// Stands for whoever is outside where a workload is named.
pub const OUTSIDE_ROLE: &str = "internet";

/// A destination outside the system, as a guard reaches it. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Its name in the manifest.
    pub name: String,
    /// Host name or address; its certificate must be for it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Networks that its addresses are in; empty: public addresses alone.
    pub networks: Vec<trust::Network>,
    /// PEM file of its roots; absent: this machine's.
    pub root: Option<String>,
    /// PEM files of the chain and the key that are shown there.
    pub certificate: Option<(String, String)>,
    /// The field that is added to each request, and the file that has its value.
    pub credential: Option<(String, String)>,
    /// Largest body of a request, in bytes.
    pub body_bytes_max: u64,
    /// Largest body of an answer, in bytes.
    pub answer_bytes_max: u64,
    /// Longest time for one call, in milliseconds.
    pub wall_ms: u64,
    /// Calls at the same time.
    pub concurrency: u32,
    /// Whether it is told traces.
    pub trace: bool,
}

/// What a service may use. Zero means: not limited by this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLimits {
    /// Bytes of private memory of each process.
    pub memory_bytes: u64,
    /// Cores.
    pub cpu: f64,
    /// Processes and threads.
    pub pids: u64,
    /// Open files of each process.
    pub files: u64,
    /// Largest file.
    pub file_bytes: u64,
    /// Size of its private /tmp.
    pub tmp_bytes: u64,
    /// What its state folder may take on the disk.
    pub state_bytes: u64,
    /// Longest time that one request or delivery may take, in seconds.
    pub wall_s: u64,
    /// Requests at the same time.
    pub concurrency: u32,
}

/// What the edge serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeProfile {
    /// Public routes of services; a request under way shares its route's row.
    pub routes: Vec<Arc<PublicRoute>>,
    /// Buckets whose presigned URLs it lets through, at `/BUCKET/KEY`, with the largest body for each in bytes.
    pub buckets: BTreeMap<String, u64>,
    /// Identity providers besides `login` whose access tokens count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerProfile>,
}

/// An enforcement point of somebody else's making, as its decision point needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PepProfile {
    /// Who it is.
    pub spiffe_id: SpiffeId,
    /// The user that it runs as; absent: the one that runs Palisade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Services that it offers routes of, with the address of each of their replicas (`127.0.0.1:PORT`).
    #[serde(default)]
    pub services: BTreeMap<SpiffeId, Vec<String>>,
}

/// An identity provider whose access tokens the edge accepts (RFC 9068, and the JWTs of providers from before it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerProfile {
    /// Its name here; people of it are `NAME|SUB`, so that they are never taken for our own.
    pub name: String,
    /// The `iss` of its tokens, exactly.
    pub url: String,
    /// The `aud` that its tokens for this system have.
    pub audience: String,
    /// Scopes that its tokens may bring; others are left out.
    pub scopes: BTreeSet<String>,
    /// Its keys (RFC 7517), each with `kid` and `alg`.
    pub keys: Vec<serde_json::Value>,
}

/// A public route of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicRoute {
    /// The service.
    pub service: SpiffeId,
    /// The host that it is served at; absent: the one that people sign in at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Fields that a request must have, each once and with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Upper-case method.
    pub method: String,
    /// Path template.
    pub path: String,
    /// Scope that the person's token must have; absent: any signed-in person.
    pub scope: Option<String>,
    /// It takes a second proof of just now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub step_up: bool,
    /// Purpose that the transaction token will have.
    pub purpose: String,
    /// A page (a browser without a session is sent to sign in) or an interface (it gets 401).
    pub page: bool,
    /// Largest body, in bytes.
    pub body_bytes_max: u64,
    /// It takes WebSockets.
    #[serde(default)]
    pub websocket: bool,
    /// How often one person may ask for it; absent: as often as for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RouteRate>,
    /// Requests of everybody at the same time; absent: as many as the edge takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<u32>,
    /// Origins whose pages may read its answers, as browsers write them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cors: BTreeSet<String>,
}

/// So many requests in a period over time, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRate {
    /// Requests in a period.
    pub requests: u32,
    /// The period, in milliseconds.
    pub period_ms: u64,
    /// Requests at once.
    pub burst: u32,
}

/// What `objects` needs to know of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketProfile {
    /// Class of data.
    pub class: String,
    /// The service whose verdict frees an object; absent: what a declared writer stores is readable at once.
    pub quarantine_until: Option<String>,
    /// Largest object, in bytes.
    pub object_bytes_max: u64,
    /// Media types that may be stored; empty: any.
    pub types: Vec<String>,
    /// Queue that hears of created objects.
    pub created_queue: Option<String>,
}

/// What `queue` needs to know of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueProfile {
    /// Class of data.
    pub class: String,
    /// The service that it is delivered to.
    pub consumer: Option<SpiffeId>,
    /// Deliveries at the same time.
    pub in_flight_max: u32,
    /// Longest time that a delivery may take, in seconds.
    pub lease_s: u64,
    /// Deliveries before a message is a dead letter.
    pub attempts_max: u32,
    /// First pause before a redelivery, doubled each time, in milliseconds.
    pub backoff_ms: u64,
    /// Longest pause, in milliseconds.
    pub backoff_ms_max: u64,
    /// Purpose that a delivered job's authority has (`process`).
    pub purpose: String,
    /// Messages kept at most; more are refused.
    pub depth_max: u64,
    /// Queue whose consumer hears of each dead letter.
    pub dead_letters_to: Option<String>,
}

/// A new manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The manifest's text.
    pub manifest: String,
    /// Hand-written policies by file name.
    pub policies: BTreeMap<String, String>,
    /// The lock's text.
    pub lock: String,
}

/// The system as the console's map shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Its name.
    pub name: String,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Present epoch.
    pub epoch: u64,
    /// Services, roles, buckets, queues.
    pub nodes: Vec<Node>,
    /// Declared flows.
    pub flows: Vec<Flow>,
}

/// Something on the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `service/api`, `bucket/originals`, `queue/uploaded`, `role/edge`.
    pub id: String,
    /// Owner team; empty for Palisade's own.
    pub owner: String,
    /// Class of data; empty where there is none.
    pub class: String,
    /// Sensitivity of that class, 1 (public) to 3; 0 where there is none.
    #[serde(default)]
    pub sensitivity: u8,
    /// Whether it takes untrusted input.
    pub untrusted_input: bool,
}

/// A declared flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Node id of who calls.
    pub from: String,
    /// Node id of what is called.
    pub to: String,
    /// Actions, as `read`, `publish`, `GET /api/videos`.
    pub actions: Vec<String>,
}
