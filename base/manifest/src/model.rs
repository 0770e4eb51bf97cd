//! The manifest as a value: whole, valid, with every default filled in.
//!
//! INVARIANT: every name in it refers to something in it; only `check` makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trust::{Digest, TrustDomain};

use crate::flow::{BucketOperation, Flow};
use crate::problem::ManifestError;

pub(crate) mod egress;
pub(crate) mod entrance;
pub(crate) mod fault;
pub(crate) mod health;

pub use self::egress::Destination;
pub use self::entrance::{AccessLog, Acme, Certificate, Edge, EdgeLimits, PublicAt};
pub use self::fault::{Fault, FaultAct};
pub use self::health::Health;

/// A valid system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// SPIFFE trust domain.
    pub trust_domain: TrustDomain,
    /// Every purpose, `operate` among them.
    pub purposes: BTreeSet<String>,
    /// Life of an SVID, ms.
    pub svid_life_ms: u64,
    /// How the outside reaches it.
    pub edge: Edge,
    /// Classes of data and their sensitivity, 1 to 3.
    pub data: BTreeMap<String, u8>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Buckets by name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Queues by name.
    pub queues: BTreeMap<String, Queue>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Destinations outside by name.
    pub egress: BTreeMap<String, Destination>,
    /// Faults on purpose by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, Fault>,
    /// Enforcement points of somebody else's making, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peps: BTreeMap<String, Pep>,
    #[serde(skip)]
    pub(crate) digest: Option<Digest>,
}

/// An application that people may sign in to: an OAuth client without a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// Addresses that people are sent back to; on the loopback without a port, which is the program's choice.
    pub returns: BTreeSet<String>,
    /// Its access tokens are references.
    pub opaque: bool,
    /// It gets no token without a proof of a key (RFC 9449).
    pub proof_required: bool,
    /// DNS name in the certificate that it shows itself to be by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// An identity provider besides `login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub url: String,
    /// The `aud` of its tokens for this system.
    pub audience: String,
    /// Scopes that its tokens may bring.
    pub scopes: BTreeSet<String>,
    /// Its public keys (RFC 7517).
    pub keys: Vec<BTreeMap<String, String>>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The team that answers for it.
    pub owner: Option<String>,
    /// Program and arguments.
    pub run: Vec<String>,
    /// Files and folders that it may read, relative to the manifest's folder.
    pub files: BTreeSet<String>,
    /// Other programs that it may run.
    pub tools: BTreeSet<String>,
    /// It parses bytes of strangers.
    pub untrusted_input: bool,
    /// It has a folder that outlives it.
    pub state: bool,
    /// Sandbox that must apply.
    pub isolation: Isolation,
    /// Who builds its sandbox.
    #[serde(skip_serializing_if = "Backend::is_own")]
    pub sandbox: Backend,
    /// File with the names of the system calls that it may make, relative to the manifest's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<String>,
    /// When it gets a new sandbox.
    pub fresh: Fresh,
    /// Class of what its routes carry; there if it has routes.
    pub data: Option<String>,
    /// Routes, sorted by path and method.
    pub routes: Vec<Route>,
    /// Where the edge offers its public routes.
    #[serde(skip_serializing_if = "PublicAt::is_anything")]
    pub public_at: PublicAt,
    /// What it speaks on its port.
    #[serde(skip_serializing_if = "Protocol::is_http")]
    pub protocol: Protocol,
    /// Queues that it consumes.
    pub consumes: BTreeSet<String>,
    /// Flows out of it.
    pub flows: BTreeSet<Flow>,
    /// Limits.
    pub limits: Limits,
    /// Replicas.
    pub replicas: Replicas,
    /// How a replica is found to be well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Whether its guard has an access log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub access_log: bool,
}

/// One method on one path of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Path template.
    pub path: String,
    /// Method.
    pub method: String,
    /// Why a request on it is made.
    pub purpose: String,
    /// Scope that the person's token must have.
    pub scope: Option<String>,
    /// Whether the person must have proved a second factor just now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub step_up: bool,
    /// Whether the edge offers it to signed-in people.
    pub public: bool,
    /// Whether a browser without a session is sent to sign in, rather than answered 401.
    pub page: bool,
    /// Largest body, bytes.
    pub body_bytes_max: u64,
    /// Whether it takes WebSockets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub websocket: bool,
    /// How often one person may ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Requests of everybody at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Origins whose pages may read its answers.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cors: BTreeSet<String>,
}

/// So many requests in a period over time, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate {
    /// Requests in a period.
    pub requests: u32,
    /// The period, milliseconds.
    pub period_ms: u64,
    /// Requests at once.
    pub burst: u32,
}

/// What a service speaks on its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// gRPC, or anything else over HTTP/2 by prior knowledge. A method is a route, POST /package.Service/Method.
    Grpc,
    /// A protocol of its own over TCP. It has no routes; who may open a flow to it says "service.NAME:tcp".
    Tcp,
}

impl Protocol {
    /// Manifests that do not say so have the digest that they always had.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// How strict a sandbox must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Every layer: own user, mount, PID, network and IPC namespaces, Landlock, seccomp, limits.
    #[default]
    Full,
    /// Namespaces may be missing (where the kernel forbids them to unprivileged users); Landlock, seccomp and limits must apply.
    Confined,
}

/// Who builds a service's sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Palisade.
    #[default]
    Own,
    /// The program bubblewrap (/usr/bin/bwrap) makes namespaces and root; Landlock, system calls and limits stay as they are.
    Bwrap,
}

impl Backend {
    /// Manifests that do not say so have the digest that they always had.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// When a service gets a new sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fresh {
    /// For each delivery; it ends with that.
    Job,
    /// When it is started.
    Start,
}

/// Limits of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Processor time, thousandths of a processor.
    pub cpu_milli: u32,
    /// Processes and threads.
    pub pids: u32,
    /// One request or job, ms.
    pub wall_ms: u64,
    /// Largest file, bytes.
    pub file_bytes: u64,
    /// Temporary folder, bytes.
    pub tmp_bytes: u64,
    /// Its state folder, bytes.
    pub state_bytes: u64,
    /// Open files of each process.
    pub open_files: u32,
    /// Requests and deliveries at the same time in one replica.
    pub concurrency: u32,
}

/// Replicas of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// Idle time before one above `min` stops, ms.
    pub idle_ms: u64,
}

/// An enforcement point of somebody else's making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pep {
    /// The team that answers for it.
    pub owner: Option<String>,
    /// The user that it runs as; absent: the one that runs Palisade.
    pub uid: Option<u32>,
    /// Public routes that it offers.
    pub flows: BTreeSet<Flow>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Class of its data.
    pub data: String,
    /// The service whose verdict makes an object readable.
    pub quarantine_until: Option<String>,
    /// Services whose writes are clean.
    pub clean_from: BTreeSet<String>,
    /// Largest object, bytes.
    pub max_object_bytes: u64,
    /// Media types.
    pub types: BTreeSet<String>,
    /// Queue that learns of each object stored.
    pub created: Option<String>,
}

/// What is known of an object's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody has looked.
    Untyped,
    /// The bucket's validator found nothing, or a service in `clean_from` made it.
    Clean,
    /// The bucket's validator refused it.
    Rejected,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Class of its messages.
    pub data: String,
    /// Purpose of its deliveries.
    pub purpose: String,
    /// Longest time of one delivery, ms.
    pub lease_ms: u64,
    /// Deliveries before a message is a dead letter.
    pub attempts: u32,
    /// Waiting after failures.
    pub backoff: Backoff,
    /// Messages that wait at most.
    pub depth_max: u32,
    /// Queue whose consumer hears of each dead letter.
    pub dead_letters_to: Option<String>,
    /// Dead letters are kept, ms.
    pub keep_dead_ms: u64,
}

/// Waiting after failed deliveries, doubled each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first, ms.
    pub first_ms: u64,
    /// At most, ms.
    pub max_ms: u64,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its class.
    pub data: String,
}

impl Manifest {
    /// Declared flows that nothing serves yet, by service.
    #[must_use]
    pub fn unserved(&self) -> BTreeMap<String, BTreeSet<String>> {
        let of = |service: &Service| service.flows.iter().filter(|flow| !flow.is_served()).map(ToString::to_string).collect();
        let all = self.services.iter().map(|(name, service)| (name.clone(), of(service)));
        all.filter(|(_, flows): &(String, BTreeSet<String>)| !flows.is_empty()).collect()
    }

    /// Parses and validates `text`; `file` names it in messages.
    ///
    /// # Errors
    /// Every problem found, with its place; never a manifest that is valid in part.
    pub fn parse(file: &str, text: &str) -> Result<Self, ManifestError> {
        crate::check::parse(file, text)
    }

    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// As `parse`; also when the file cannot be read, is over `MANIFEST_BYTES_MAX` or not UTF-8.
    pub fn open(path: &Path) -> Result<Self, ManifestError> {
        let file = path.display().to_string();
        let text = crate::document::read(path, crate::MANIFEST_BYTES_MAX).map_err(|why| ManifestError::unplaced(&file, "", &why))?;
        Self::parse(&file, &text)
    }

    /// SHA-256 of `canonical_json`: the same for every layout, comment and order of the same system.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest.unwrap_or_else(|| Digest::of(crate::canonical_json(self).as_bytes()))
    }

    /// The sensitivity of a class, the highest if it is unknown.
    #[must_use]
    pub fn sensitivity(&self, class: &str) -> u8 {
        self.data.get(class).copied().unwrap_or(3)
    }

    /// Whether browsers reach `bucket` by presigned URLs.
    #[must_use]
    pub fn is_presignable(&self, bucket: &str) -> bool {
        let presigns = |flow: &Flow| matches!(flow, Flow::Bucket { bucket: b, operation: BucketOperation::PresignGet | BucketOperation::PresignPut, .. } if b == bucket);
        self.services.values().any(|s| s.flows.iter().any(presigns))
    }

    /// The service that consumes `queue`; there is at most one.
    #[must_use]
    pub fn consumer(&self, queue: &str) -> Option<&str> {
        self.services.iter().find(|(_, s)| s.consumes.contains(queue)).map(|(name, _)| name.as_str())
    }

    /// Public routes that an enforcement point offers, each with its service.
    pub fn offered<'m>(&'m self, pep: &'m Pep) -> impl Iterator<Item = (&'m str, &'m Route)> {
        pep.flows.iter().filter_map(|flow| match flow {
            Flow::Call { service, method, path } => {
                let routes = &self.services.get(service)?.routes;
                Some((service.as_str(), routes.iter().find(|r| r.public && r.method == *method && r.path == *path)?))
            }
            _ => None,
        })
    }

    /// Services that `service` calls, by its flows.
    #[must_use]
    pub fn callees(&self, service: &str) -> BTreeSet<&str> {
        let flows = self.services.get(service).map(|s| s.flows.iter()).into_iter().flatten();
        flows.filter_map(|f| if let Flow::Call { service, .. } = f { Some(service.as_str()) } else { None }).collect()
    }
}

impl Route {
    /// What stands for the raw flows of a service that takes them.
    pub(crate) const TCP: &'static str = "TCP";

    /// The one route of a service of raw flows: nobody's authority comes with one, so there is no purpose.
    pub(crate) fn tcp() -> Self {
        Self {
            path: "/".to_owned(),
            method: Self::TCP.to_owned(),
            purpose: String::new(),
            scope: None,
            step_up: false,
            public: false,
            page: false,
            body_bytes_max: 0,
            websocket: false,
            rate: None,
            concurrency: None,
            cors: BTreeSet::new(),
        }
    }

    /// Whether it stands for raw flows.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.method == Self::TCP
    }

    /// Its id within the system: `api:GET /api/videos`.
    #[must_use]
    pub fn id(&self, service: &str) -> String {
        format!("{service}:{} {}", self.method, self.path)
    }
}

impl Bucket {
    /// The verdict that an object has as soon as `writer` has stored it. `None` is a browser with a presigned URL.
    #[must_use]
    pub fn verdict_at_commit(&self, writer: Option<&str>) -> Verdict {
        match writer {
            Some(service) if self.quarantine_until.is_none() && self.clean_from.contains(service) => Verdict::Clean,
            _ => Verdict::Untyped,
        }
    }
}

impl Service {
    /// Purposes for which it can be working at all: its routes' and its queues'.
    pub(crate) fn purposes<'a>(&'a self, queues: &'a BTreeMap<String, Queue>) -> BTreeSet<&'a str> {
        let routes = self.routes.iter().filter(|r| !r.is_tcp()).map(|r| r.purpose.as_str());
        routes.chain(self.consumes.iter().filter_map(|q| queues.get(q)).map(|q| q.purpose.as_str())).collect()
    }
}

impl Verdict {
    /// Its name in policies, tables and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untyped => "untyped",
            Self::Clean => "clean",
            Self::Rejected => "rejected",
        }
    }
}
