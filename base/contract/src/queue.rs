//! The contract of `queue`: publish, and leases. Messages are CloudEvents 1.0 over HTTP, binary content mode.

use base64::Engine as _;
use http::{HeaderMap, Method, Request, header};
use serde::{Deserialize, Serialize};
use trust::{Authority, Digest, Fault, ObjectRef, SpiffeId};

use crate::body;
use crate::route::{Route, Who};
use crate::transport::{Call, Client};

/// Every route.
pub const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/queues/{queue}", action: "queue.publish", who: Who::Policy },
    Route { method: "POST", path: "/queues/{queue}/lease", action: "queue.lease", who: Who::Policy },
    Route { method: "POST", path: "/leases/{lease}/extend", action: "queue.lease.extend", who: Who::Policy },
    Route { method: "POST", path: "/leases/{lease}/ack", action: "queue.lease.ack", who: Who::Policy },
    Route { method: "POST", path: "/leases/{lease}/nack", action: "queue.lease.nack", who: Who::Policy },
    Route { method: "GET", path: "/leases/{lease}", action: "queue.lease.read", who: Who::Roles(&["objects"]) },
    Route { method: "GET", path: "/queues", action: "queue.stats.read", who: Who::Roles(&["evidence"]) },
];

/// Header in which `objects`, and nobody else, gives the authority that it verified when it granted what it now speaks of: base64 of
/// the JSON of `trust::Authority`. The token of that time may have ended since. From any other caller it is refused.
pub const AUTHORITY_HEADER: &str = "palisade-authority";

/// A CloudEvent (CloudEvents 1.0, section 3.1): context attributes and data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `ce-id`: with `source`, unique per effect; a second one with the same pair is taken and dropped.
    pub id: String,
    /// `ce-source`.
    pub source: String,
    /// `ce-type`.
    pub kind: String,
    /// `ce-subject`: the object that it is about, as `bucket/key`; the job that consumes it may read that object.
    pub subject: Option<String>,
    /// `content-type` of the data.
    pub content_type: String,
    /// The data.
    pub data: Vec<u8>,
}

/// A message in a consumer's hands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leased {
    /// The lease.
    pub lease: String,
    /// The message's id in the queue: the job.
    pub job: String,
    /// Which delivery it is, from 1.
    pub attempt: u32,
    /// End unless extended, milliseconds since the epoch.
    pub until_ms: u64,
    /// Who published it, as `queue` verified.
    pub publisher: SpiffeId,
    /// SHA-256 of the data.
    pub data_digest: Digest,
    /// The narrowed transaction token, if the message carried authority.
    pub token: Option<String>,
    /// The event.
    pub event: Event,
}

/// The answer to extending a lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Extended {
    /// Its new end, milliseconds since the epoch.
    pub until_ms: u64,
    /// A token that lives as long, if the message carried authority.
    pub token: Option<String>,
}

/// Whether a lease lives, for whom and over what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// Whether it lives now.
    pub alive: bool,
    /// The service that holds it.
    pub consumer: SpiffeId,
    /// The job.
    pub job: String,
    /// Inputs that it names.
    pub inputs: Vec<ObjectRef>,
    /// Folder for its outputs.
    pub folder: String,
}

/// Type of the event that tells of a dead letter; its source is `/queues/QUEUE`, its subject the message's own.
pub const DEAD_LETTER: &str = "queue.dead_letter";

/// Data of that event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettered {
    /// The queue that it died in.
    pub queue: String,
    /// `ce-type` of what died.
    pub kind: String,
    /// `ce-id` of what died.
    pub id: String,
    /// Why, for operators.
    pub reason: String,
}

/// One queue's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Its name.
    pub queue: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Messages on lease.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest waiting message, in milliseconds.
    pub oldest_ms: u64,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The message's id: the job.
    pub job: String,
    /// Whether a message with this source and id was there before; then nothing was added.
    pub duplicate: bool,
}

impl Event {
    /// Reads the context attributes from headers (HTTP protocol binding, section 3.1.3).
    ///
    /// # Errors
    /// `BadRequest` naming the attribute that is missing, too long, or has control characters (CloudEvents 1.0, section 3.1).
    pub fn from_parts(headers: &HeaderMap, data: Vec<u8>) -> Result<Self, Fault> {
        // Each byte of an attribute may come as three (section 3.1.3.2); the limit is that of what they mean.
        let field = |name: &str, max: usize| -> Result<Option<&str>, Fault> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= max);
            text.map(Some).ok_or_else(|| Fault::bad_request(format!("{name} must have 1 to {max} visible characters")))
        };
        let read = |name: &str, max: usize| -> Result<Option<String>, Fault> {
            let Some(text) = field(name, max * 3)? else { return Ok(None) };
            let meant = percent_encoding::percent_decode_str(text).decode_utf8();
            let meant = meant.map_err(|_| Fault::bad_request(format!("{name} is not UTF-8 once percent-decoded")))?;
            if meant.len() > max || meant.chars().any(char::is_control) {
                return Err(Fault::bad_request(format!(
                    "{name} must be at most {max} bytes without control characters, once percent-decoded"
                )));
            }
            Ok(Some(meant.into_owned()))
        };
        let needed = |name: &str, max: usize| {
            read(name, max)?.ok_or_else(|| Fault::bad_request(format!("header {name} is missing: send CloudEvents in binary mode")))
        };
        if needed("ce-specversion", 8)? != "1.0" {
            return Err(Fault::bad_request("ce-specversion must be 1.0"));
        }
        Ok(Self {
            id: needed("ce-id", 256)?,
            source: needed("ce-source", 512)?,
            kind: needed("ce-type", 128)?,
            subject: read("ce-subject", trust::limits::OBJECT_KEY_BYTES_MAX + 64)?,
            content_type: field("content-type", 128)?.unwrap_or("application/octet-stream").to_owned(),
            data,
        })
    }

    /// Writes the context attributes as headers.
    ///
    /// # Errors
    /// `BadRequest` when an attribute cannot be a header value.
    pub fn write_headers(&self, headers: &mut HeaderMap) -> Result<(), Fault> {
        const ESCAPED: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'%');
        let mut put = |name: &'static str, value: &str| -> Result<(), Fault> {
            let escaped = percent_encoding::utf8_percent_encode(value, &ESCAPED).to_string();
            let value = escaped.parse().map_err(|_| Fault::bad_request(format!("{name} is not a header value")))?;
            headers.insert(name, value);
            Ok(())
        };
        put("ce-specversion", "1.0")?;
        put("ce-id", &self.id)?;
        put("ce-source", &self.source)?;
        put("ce-type", &self.kind)?;
        if let Some(subject) = &self.subject {
            put("ce-subject", subject)?;
        }
        let content_type = self.content_type.parse().map_err(|_| Fault::bad_request("content-type is not a header value"))?;
        headers.insert(header::CONTENT_TYPE, content_type);
        Ok(())
    }

    /// What a delivered job may do with the person's authority: the input that the event's subject names.
    #[must_use]
    pub fn input(&self) -> Option<ObjectRef> {
        self.subject.as_deref().and_then(|s| s.parse().ok())
    }
}

/// Client of `queue`.
#[derive(Debug, Clone)]
pub struct QueueClient(pub Client);

impl QueueClient {
    /// Publishes; when this returns the message is durable.
    /// # Errors
    /// `Refused`, `TooLarge` (256 KiB), `Unavailable`.
    pub async fn publish(&self, call: &Call<'_>, queue: &str, event: &Event) -> Result<Published, Fault> {
        self.send(call, queue, event, None).await
    }
    /// Publishes on an authority that was verified and kept; only for `objects`.
    /// # Errors
    /// As `publish`.
    pub async fn publish_kept(&self, call: &Call<'_>, queue: &str, event: &Event, authority: &Authority) -> Result<Published, Fault> {
        let json = serde_json::to_vec(authority).map_err(Fault::internal)?;
        let value = base64::engine::general_purpose::STANDARD.encode(json);
        self.send(call, queue, event, Some(value)).await
    }
    async fn send(&self, call: &Call<'_>, queue: &str, event: &Event, authority: Option<String>) -> Result<Published, Fault> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/queues/{queue}"))
            .body(body::full(event.data.clone()))
            .map_err(|error| Fault::bad_request("not a queue's name").because(error))?;
        event.write_headers(request.headers_mut())?;
        if let Some(value) = authority {
            let value = value.parse().map_err(|_| Fault::bad_request("the authority is not a header value"))?;
            request.headers_mut().insert(AUTHORITY_HEADER, value);
        }
        let response = self.0.send(call, request).await?;
        let status = response.status();
        let bytes = body::collect(response.into_body(), trust::limits::JSON_BODY_BYTES_MAX).await?;
        if !status.is_success() {
            let public = format!("the queue answered {status}");
            return Err(match status.as_u16() {
                400 => Fault::bad_request(public),
                401 | 403 => Fault::refused(public),
                404 => Fault::not_found(public),
                409 => Fault::conflict(public),
                413 => Fault::too_large(public),
                _ => Fault::unavailable(public),
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| Fault::unavailable("the queue answered something else than agreed").because(error))
    }
    /// Whether a lease lives.
    /// # Errors
    /// `NotFound` when there never was one.
    pub async fn lease(&self, lease: &str) -> Result<LeaseState, Fault> {
        self.0.get(&Call::default(), &format!("/leases/{lease}")).await
    }
    /// Figures of all queues.
    /// # Errors
    /// Those of the transport.
    pub async fn stats(&self) -> Result<Vec<QueueStats>, Fault> {
        self.0.get(&Call::default(), "/queues").await
    }
}

/// How `queue` hands a message to its consumer's guard; the lease lives while the answer is awaited.
#[async_trait::async_trait]
pub trait Deliver: Send + Sync + std::fmt::Debug + 'static {
    /// Posts the event to the consumer and gives the status that the service answered with.
    ///
    /// # Errors
    /// When the guard could not be reached or the connection ended before an answer.
    async fn deliver(&self, consumer: &SpiffeId, queue: &str, leased: &Leased, trace: Option<trust::TraceContext>) -> Result<u16, Fault>;
}

/// Narrows the authority of a message to one delivery of it.
#[must_use]
pub fn narrowed(authority: &Authority, purpose: &str, job: trust::Job) -> Authority {
    Authority {
        purpose: purpose.to_owned(),
        scopes: std::collections::BTreeSet::new(),
        step_up: false,
        job: Some(job),
        ..authority.clone()
    }
}

#[cfg(test)]
mod tests;
