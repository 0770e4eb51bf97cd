//! What a service has in hand while it answers: the work, the authority that came with it, and its flows.

use std::collections::BTreeMap;
use std::io;

use manifest::{BucketOperation, Flow, Protocol};
use serde_json::{Value, json};

use super::http::{Answer, Ask, Port, Request, parameter, text_of};
use super::mark::{Act, Mark};
use super::script::{Part, Script};
use super::{grpc, raw};

/// How a service was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// By a route.
    Route {
        /// Method.
        method: String,
        /// Path template.
        path: String,
        /// Its purpose.
        purpose: String,
    },
    /// By a delivery.
    Queue {
        /// Of which queue.
        queue: String,
        /// Its purpose.
        purpose: String,
    },
}

/// Where a flow leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer<'a> {
    /// The object store.
    Objects,
    /// The queue.
    Queue,
    /// Another service or a destination outside.
    Named(&'a str),
    /// The collector of traces.
    Telemetry,
}

/// What is in hand.
#[derive(Debug)]
pub struct Hand<'a> {
    /// What the system is.
    pub script: &'a Script,
    /// Which service this is.
    pub service: &'a str,
    /// Its part.
    pub part: &'a Part,
    /// Whose turn it is.
    pub mark: Mark,
    /// How it was called.
    pub entry: Entry,
    /// The transaction token that came along.
    pub token: Option<String>,
    /// The trace that came along.
    trace: Option<String>,
    /// The object that the work is about: bucket and key.
    pub input: Option<(String, String)>,
    /// What was stolen elsewhere and travels along.
    pub carry: Option<String>,
    /// How many services the work came through.
    pub hops: u64,
}

/// Services that one piece of work goes through at most.
pub const HOPS_MAX: u64 = 8;

impl<'a> Hand<'a> {
    /// What a request brings; nothing when it bears no mark, or is none of the service's work.
    #[must_use]
    pub fn of(script: &'a Script, service: &'a str, request: &Request) -> Option<Self> {
        let part = script.services.get(service)?;
        let data: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = |name: &str| text_of(&data, name).map(str::to_owned);
        let entry = match request.header("palisade-queue") {
            Some(queue) if request.header("ce-id").is_some() => {
                Entry::Queue { queue: queue.to_owned(), purpose: script.queues.get(queue).cloned().unwrap_or_default() }
            }
            _ => {
                let route = part.route(&request.method, request.path())?;
                Entry::Route { method: route.method.clone(), path: route.path.clone(), purpose: route.purpose.clone() }
            }
        };
        let subject = request.header("ce-subject").and_then(|subject| subject.split_once('/'));
        let named = text("bucket").zip(text("key")).or_else(|| subject.map(|(bucket, key)| (bucket.to_owned(), key.to_owned())));
        // Work on a request's authority is about no object.
        let named = named.filter(|(bucket, _)| script.buckets.contains_key(bucket));
        let mark = Mark::find(&request.target)
            .or_else(|| text("mark").as_deref().and_then(Mark::find))
            .or_else(|| named.as_ref().and_then(|(_, key)| Mark::find(key)))?;
        let hops = parameter(&request.target, "hops")
            .and_then(|hops| hops.parse().ok())
            .or_else(|| data.get("hops").and_then(Value::as_u64))
            .unwrap_or_default();
        Some(Self {
            script,
            service,
            part,
            mark,
            entry,
            token: request.header("txn-token").map(str::to_owned),
            trace: request.header("traceparent").map(str::to_owned),
            input: named,
            carry: parameter(&request.target, "carry").or_else(|| text("carry")),
            hops,
        })
    }

    /// Its purpose.
    #[must_use]
    pub fn purpose(&self) -> &str {
        match &self.entry {
            Entry::Route { purpose, .. } | Entry::Queue { purpose, .. } => purpose,
        }
    }

    /// Whether it is a job.
    #[must_use]
    pub fn is_job(&self) -> bool {
        matches!(self.entry, Entry::Queue { .. })
    }

    /// How it was called, in a word.
    #[must_use]
    pub fn entry_text(&self) -> String {
        match &self.entry {
            Entry::Route { method, path, .. } => format!("{method} {path}"),
            Entry::Queue { queue, .. } => format!("queue.{queue}"),
        }
    }

    /// Declared flows that its purpose permits.
    pub fn flows(&self) -> impl Iterator<Item = &'a Flow> {
        let purpose = self.purpose().to_owned();
        self.part.flows.iter().filter(move |flow| match flow {
            Flow::Bucket { purposes, .. } | Flow::Publish { purposes, .. } | Flow::Egress { purposes, .. } => {
                purposes.is_empty() || purposes.contains(&purpose)
            }
            Flow::Call { .. } | Flow::Secret { .. } => true,
        })
    }

    /// The mark of a person's things that were made in calm, just before this turn.
    #[must_use]
    pub fn before(&self, person: &str) -> Mark {
        Mark::new(Act::Calm, "none", person, self.mark.number)
    }

    /// Whether this operation on this bucket is declared for its purpose.
    #[must_use]
    pub fn may(&self, bucket: &str, operation: BucketOperation) -> bool {
        self.flows().any(|flow| matches!(flow, Flow::Bucket { bucket: b, operation: o, .. } if b == bucket && *o == operation))
    }

    /// The folder of the work: where its outputs go.
    #[must_use]
    pub fn folder(&self) -> String {
        let key = self.input.as_ref().map_or_else(|| self.mark.to_string(), |(_, key)| key.clone());
        key.split('/').next().unwrap_or_default().to_owned()
    }

    /// The key that its output in a bucket has. A job without an input has no folder: its own are the keys without one.
    #[must_use]
    pub fn output(&self, bucket: &str) -> String {
        if self.is_job() && self.input.is_none() { format!("{}_{bucket}", self.mark) } else { format!("{}/{bucket}", self.folder()) }
    }

    /// The key in a bucket that its work is about: its input, or what the work before it made there.
    #[must_use]
    pub fn own(&self, bucket: &str) -> String {
        match &self.input {
            Some((of, key)) if of == bucket => key.clone(),
            _ if self.is_job() => self.output(bucket),
            _ => self.mark.key(bucket),
        }
    }

    /// Sends a request to a peer, with its own token if there is one.
    ///
    /// # Errors
    /// There is no such flow (`NotFound`), or no answer.
    pub fn ask(&self, peer: Peer<'_>, request: Request) -> io::Result<Answer> {
        let token = self.token.clone();
        self.ask_as(peer, request, token.as_deref())
    }

    /// Sends a request to a peer with this token, or none.
    ///
    /// # Errors
    /// As `ask`.
    pub fn ask_as(&self, peer: Peer<'_>, mut request: Request, token: Option<&str>) -> io::Result<Answer> {
        if let Some(token) = token {
            request = request.with("txn-token", token);
        }
        if let Some(trace) = &self.trace {
            request = request.with("traceparent", trace.clone());
        }
        let port = port(peer).ok_or(io::ErrorKind::NotFound)?;
        let speaks = if let Peer::Named(name) = peer { self.script.services.get(name).map(|part| part.protocol) } else { None };
        match speaks {
            Some(Protocol::Grpc) => grpc::ask(port.0, &request),
            Some(Protocol::Tcp) => raw::ask(port, &request.body),
            Some(Protocol::Http) | None => port.ask(&request),
        }
    }

    /// What travels with a call in its message, where a protocol has no query.
    #[must_use]
    pub fn words(&self, hops: u64) -> Vec<u8> {
        json!({ "mark": self.mark.to_string(), "hops": hops, "carry": self.carry }).to_string().into_bytes()
    }

    /// Whether it came over a raw flow: with nobody's authority.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        matches!(&self.entry, Entry::Route { method, .. } if method == raw::METHOD)
    }

    /// An event of the work, to be published. It names an object only where the work is about one: nobody may name another.
    #[must_use]
    pub fn event(&self, queue: &str, effect: &str) -> Request {
        let subject = self.input.as_ref().map(|(bucket, key)| format!("{bucket}/{key}"));
        let (bucket, key) = self.input.clone().unwrap_or_default();
        let data = json!({ "mark": self.mark.to_string(), "bucket": bucket, "key": key, "hops": self.hops.saturating_add(1), "carry": self.carry });
        let event = Request::new("POST", format!("/queues/{queue}"))
            .with("ce-specversion", "1.0")
            .with("ce-id", format!("{}:{}:{queue}:{effect}", self.mark, self.service))
            .with("ce-source", format!("/breach/{}", self.service))
            .with("ce-type", "breach.step")
            .body("application/json", data.to_string());
        match subject {
            Some(subject) => event.with("ce-subject", subject),
            None => event,
        }
    }
}

/// The port of a peer, as the environment names it; nothing where there is no flow.
#[must_use]
pub fn port(peer: Peer<'_>) -> Option<Port> {
    let name = match peer {
        Peer::Objects => "AWS_ENDPOINT_URL".to_owned(),
        Peer::Queue => "QUEUE_URL".to_owned(),
        Peer::Telemetry => "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
        Peer::Named(name) => format!("{}_URL", name.to_uppercase().replace('-', "_")),
    };
    Port::of(&std::env::var(name).ok()?)
}

/// Every flow of loopback that the environment names: variable and port.
#[must_use]
pub fn ports() -> BTreeMap<String, Port> {
    std::env::vars().filter_map(|(name, value)| Some((name, Port::of(&value)?))).collect()
}
