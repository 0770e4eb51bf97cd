//! The manifest as it is written: every table and key, with its meaning and its default. These comments are the JSON Schema's.
//!
//! A default never opens anything: what is not written is not reachable, not readable, not consumed. Shape is checked here, meaning
//! in `check`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{Backend, Fresh, Isolation, Protocol};
use crate::quantity::{Bytes, Lasting, Origin, WrittenRate};

mod egress;
mod entrance;
mod fault;
mod health;
mod pep;

pub(crate) use self::egress::Destination;
pub(crate) use self::entrance::{AccessLog, Acme, Certificate, EdgeLimits, ProxyProtocol, PublicAt};
pub(crate) use self::fault::Fault;
pub(crate) use self::health::Health;
pub(crate) use self::pep::Pep;

/// A system: its services, data and flows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Palisade manifest")]
pub(crate) struct Written {
    /// The system itself.
    pub(crate) system: System,
    /// How the outside reaches it.
    #[serde(default)]
    pub(crate) edge: Edge,
    /// Classes of data.
    #[serde(default)]
    pub(crate) data: BTreeMap<String, Data>,
    /// Services: programs, each behind its own guard.
    #[serde(default)]
    pub(crate) service: BTreeMap<String, Service>,
    /// Buckets of objects.
    #[serde(default)]
    pub(crate) bucket: BTreeMap<String, Bucket>,
    /// Queues of messages.
    #[serde(default)]
    pub(crate) queue: BTreeMap<String, Queue>,
    /// Secrets that services may read or sign with.
    #[serde(default)]
    pub(crate) secret: BTreeMap<String, Secret>,
    /// Destinations outside of the system that services may reach. Nothing else outside can be reached.
    #[serde(default)]
    pub(crate) egress: BTreeMap<String, Destination>,
    /// Faults on purpose, for tests; none by default.
    #[serde(default)]
    pub(crate) fault: BTreeMap<String, Fault>,
    /// Enforcement points of somebody else's making (Envoy), which ask this system whether a request may go on.
    #[serde(default)]
    pub(crate) pep: BTreeMap<String, Pep>,
}

/// The system itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct System {
    /// Name: lower-case letters, digits and inner '-'.
    pub(crate) name: String,
    /// SPIFFE trust domain of every workload.
    pub(crate) trust_domain: String,
    /// Every reason for which anyone may act. Routes, queues and flows name one of these.
    pub(crate) purposes: Vec<String>,
    /// Life of a workload's certificate (X.509-SVID), which is renewed at half of it: "2m" to "1h"; default "1h".
    pub(crate) svid_life: Option<Lasting>,
    /// Whether the faults of this manifest happen. Never in a system that people rely on; default false.
    #[serde(default)]
    pub(crate) faults: bool,
}

/// How the outside reaches the system.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edge {
    /// Address and port; default "127.0.0.1:8443", this machine only.
    pub(crate) listen: Option<String>,
    /// Host names that it answers to; default ["localhost"].
    pub(crate) hosts: Option<Vec<String>>,
    /// A host for what people have stored, and for nothing else: an origin of its own, where no page is and no cookie goes, as in
    /// "content.video.example". It needs a certificate as every host does.
    pub(crate) content: Option<String>,
    /// A session ends after this long without a request; default "30m".
    pub(crate) session_idle: Option<Lasting>,
    /// A session ends after this long in any case; default "12h".
    pub(crate) session_life: Option<Lasting>,
    /// Identity providers whose access tokens count too; none by default.
    #[serde(default)]
    pub(crate) issuer: BTreeMap<String, Issuer>,
    /// Certificates that you bring, by name. Hosts of this machine alone (localhost, loopback addresses) need none.
    #[serde(default)]
    pub(crate) certificate: BTreeMap<String, Certificate>,
    /// Certificates that the edge gets and renews by itself (ACME, RFC 8555); none by default.
    pub(crate) acme: Option<Acme>,
    /// Load balancers that say whom they connect for (PROXY protocol); by default nobody is believed.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Applications that people may sign in to besides the system's own pages; none by default.
    #[serde(default)]
    pub(crate) client: BTreeMap<String, Client>,
    /// PEM file of the authorities of clients' certificates, relative to the manifest's folder. Without it none is asked for.
    pub(crate) client_ca: Option<String>,
    /// How much one may ask for, over all routes.
    #[serde(default)]
    pub(crate) limits: EdgeLimits,
    /// How much of the access logs is kept, in log/access. The edge has one; guards have where their service asks for it.
    #[serde(default)]
    pub(crate) access_log: AccessLog,
}

/// An application that people may sign in to: an OAuth client without a secret. Its name is its 'client_id'.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    /// Addresses that people are sent back to, exactly; "http://127.0.0.1/PATH" is any port there.
    pub(crate) returns: Vec<String>,
    /// "signed" (default): access tokens that say what they are for. "opaque": references, which end within a second of a revocation.
    #[serde(default)]
    pub(crate) tokens: Tokens,
    /// It gets no token without a proof of a key (DPoP); default false: tokens are bound where it proves one.
    #[serde(default)]
    pub(crate) dpop: bool,
    /// DNS name in the certificate that it shows itself to be by (mutual TLS); its tokens are bound to the certificate. Needs 'client_ca'.
    pub(crate) certificate: Option<String>,
}

/// What an application's access tokens are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tokens {
    /// They say what they are for.
    #[default]
    Signed,
    /// They are references.
    Opaque,
}

/// An identity provider besides the system's own. Its people are `NAME|SUB` here, and have no role of ours.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// The 'iss' of its tokens, exactly.
    pub(crate) url: String,
    /// The 'aud' that its tokens for this system have.
    pub(crate) audience: String,
    /// Scopes that its tokens may bring; others are left out. Default: none.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// Its public keys as in its JWK set (RFC 7517), each with 'kid' and 'alg' (ES256, ES384, EdDSA, RS256 or PS256).
    pub(crate) keys: Vec<BTreeMap<String, String>>,
}

/// A class of data.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    /// 1 public, 2 personal, 3 secret. Services with untrusted input never meet 3.
    #[schemars(range(min = 1, max = 3))]
    pub(crate) sensitivity: u8,
}

/// A service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// The team that answers for it.
    pub(crate) owner: Option<String>,
    /// Program and arguments. A program with a relative path is looked for in the manifest's folder, then in the folder of built
    /// programs. Its digest is locked, and the service's identity is bound to it. An argument that names one of `files` is made absolute.
    pub(crate) run: Vec<String>,
    /// Files and folders that it may read, relative to the manifest's folder; each file is locked.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// Other programs that it may run; absolute paths, locked.
    #[serde(default)]
    pub(crate) tools: Vec<String>,
    /// It parses bytes of strangers: it may act only on what the job in hand names, and never meets sensitivity 3.
    #[serde(default)]
    pub(crate) untrusted_input: bool,
    /// It has a folder of its own that outlives it.
    #[serde(default)]
    pub(crate) state: bool,
    /// Sandbox that must really apply, else it is not started; default "full".
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// Who builds its sandbox; default "own". With "bwrap" it is bubblewrap, which must be installed.
    #[serde(default)]
    pub(crate) sandbox: Backend,
    /// File with the names of the system calls that it and its tools may make, relative to the manifest's folder, locked; written by
    /// `palisade sandbox trace`. It only ever narrows what ordinary programs may. Default: what those may.
    pub(crate) syscalls: Option<String>,
    /// When it gets a new sandbox: "job" for each delivery, so that no job finds anything of another; or "start", when it is started.
    /// Default "job" for a service with untrusted input that consumes a queue, else "start". With "job" it has no routes and no state.
    pub(crate) fresh: Option<Fresh>,
    /// What it speaks on its port; default "http". With "grpc" it gets HTTP/2 by prior knowledge.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// Class of the data that its routes carry; needed if it has routes.
    pub(crate) data: Option<String>,
    /// Routes that signed-in people reach through the edge.
    #[serde(default)]
    pub(crate) public: Vec<Route>,
    /// Where the edge offers the public routes, if not at the host that people sign in at.
    #[serde(default)]
    pub(crate) public_at: PublicAt,
    /// Routes for other services only.
    #[serde(default)]
    pub(crate) internal: Vec<Route>,
    /// Queues whose messages are delivered to it: "queue.NAME" or a list.
    #[serde(default)]
    pub(crate) consumes: OneOrMany,
    /// Flows out of it, each "TARGET:OPERATION" or "TARGET:OPERATION for PURPOSE, PURPOSE": service.NAME:METHOD /path, or service.NAME:tcp where it takes raw flows;
    /// bucket.NAME:read, write, delete, list, share, verdict, presign-get or presign-put; queue.NAME:publish; secret.NAME:read or
    /// sign; egress.NAME:METHOD /path. Without "for" the service's one purpose is meant.
    #[serde(default)]
    pub(crate) calls: Vec<String>,
    /// What it may use of the machine.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How many of it run.
    #[serde(default)]
    pub(crate) replicas: Replicas,
    /// How a replica is found to be well; by default none is asked.
    pub(crate) health: Option<Health>,
    /// Whether each request to it gets a line in an access log of its guard's; default false. A change counts from the next start.
    #[serde(default)]
    pub(crate) access_log: bool,
}

/// One text or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// A route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Path; a segment is literal, {name} for one segment, or last {*name} for the rest.
    pub(crate) path: String,
    /// Methods, upper case.
    pub(crate) methods: Vec<String>,
    /// Why a request on it is made; one of the system's purposes.
    pub(crate) purpose: String,
    /// OAuth scope that the person's token must have; without it being signed in is enough.
    pub(crate) scope: Option<String>,
    /// It takes a second factor, proved within the last five minutes. For public routes.
    #[serde(default)]
    pub(crate) step_up: bool,
    /// A page: a browser without a session is sent to sign in. Otherwise an interface: it is answered 401.
    #[serde(default)]
    pub(crate) page: bool,
    /// It takes WebSockets; its one method is GET. Without it an opening is refused.
    #[serde(default)]
    pub(crate) websocket: bool,
    /// Largest body of a request; default "1MiB".
    pub(crate) max_body: Option<Bytes>,
    /// How often one person may ask for it, as "100/s burst 200" or "60/m"; besides what holds for each person over all routes.
    pub(crate) limit: Option<WrittenRate>,
    /// Requests of everybody at the same time; default: as many as the edge takes.
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) concurrency: Option<u32>,
    /// Origins whose pages may call it with a token and read the answer, as "https://app.example"; default none. Cookies never count there.
    #[serde(default)]
    pub(crate) cors: Vec<Origin>,
}

/// What a service may use of the machine.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Memory; default "256MiB".
    pub(crate) memory: Option<Bytes>,
    /// Processors; default 1.0.
    #[schemars(range(min = 0.01, max = 256))]
    pub(crate) cpu: Option<f64>,
    /// Processes and threads; default 64.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) pids: Option<u32>,
    /// Longest time for one request or job; default "1m".
    pub(crate) wall: Option<Lasting>,
    /// Largest file that it may write; default "64MiB".
    pub(crate) file: Option<Bytes>,
    /// Its private temporary folder; default "64MiB".
    pub(crate) tmp: Option<Bytes>,
    /// What its state folder may take on the disk, with `state = true`; default "1GiB".
    pub(crate) state: Option<Bytes>,
    /// Open files of each process; default 256.
    #[schemars(range(min = 16, max = 65536))]
    pub(crate) open_files: Option<u32>,
    /// Requests and deliveries at the same time in one replica; default 16.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) concurrency: Option<u32>,
}

/// How many of a service run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replicas {
    /// At least: so many run all the time; default 1. Zero starts one when a message waits.
    #[schemars(range(min = 0, max = 64))]
    pub(crate) min: Option<u32>,
    /// At most: each has a guard of its own; those above min are started by work. Default the larger of 1 and min. A service with
    /// state has one.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) max: Option<u32>,
    /// One above min stops after this long without work; default "1m".
    pub(crate) idle: Option<Lasting>,
}

/// A bucket of objects. Nobody reads an object without a clean verdict, so a bucket says where verdicts come from: from the
/// service in quarantine_until, or, for results of the system's own work, from being written by a service in clean_from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bucket {
    /// Class of its data.
    pub(crate) data: String,
    /// The service whose signed verdict makes an object readable. Only it may read what has none yet.
    pub(crate) quarantine_until: Option<String>,
    /// Services whose output is clean as written, because the system made it. Never an upload.
    #[serde(default)]
    pub(crate) clean_from: Vec<String>,
    /// Largest object; default "64MiB".
    pub(crate) max_object: Option<Bytes>,
    /// Media types that it takes.
    pub(crate) types: Vec<String>,
    /// Queues that learn what happens here.
    #[serde(default)]
    pub(crate) events: Events,
}

/// Queues that learn what happens in a bucket.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Events {
    /// "queue.NAME" that gets a CloudEvent for each object stored, with the authority that stored it.
    pub(crate) created: Option<String>,
}

/// A queue of messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// Class of its messages.
    pub(crate) data: String,
    /// Why its consumers work: the purpose of the narrowed authority that comes with a delivery.
    pub(crate) purpose: String,
    /// Longest time of one delivery, after which its authority is dead; default the consumer's wall limit.
    pub(crate) lease: Option<Lasting>,
    /// Deliveries of one message before it becomes a dead letter; default 5.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) attempts: Option<u32>,
    /// Waiting time after a failed delivery.
    #[serde(default)]
    pub(crate) backoff: Backoff,
    /// Messages that wait at most, more are refused; default 10000.
    #[schemars(range(min = 1, max = 10000000))]
    pub(crate) depth: Option<u32>,
    /// Queue whose consumer hears of each dead letter, as `queue.NAME`: a queue of the same class of data.
    pub(crate) dead_letters_to: Option<String>,
    /// Dead letters are kept this long; default "14d".
    pub(crate) keep_dead: Option<Lasting>,
}

/// Waiting time after a failed delivery: doubled each time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backoff {
    /// After the first; default "1s".
    pub(crate) first: Option<Lasting>,
    /// At most; default "5m".
    pub(crate) max: Option<Lasting>,
}

/// A secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secret {
    /// Its class.
    pub(crate) data: String,
}
