//! A message as it is stored, and the check that it is still the one that was published.

use contract::queue::{Event, Leased};
use state::StateError;
use state::sqlx::{Row, sqlite::SqliteRow};
use trust::{Authority, Digest, ObjectRef, SpiffeId, TraceContext};

use crate::binding::Binder;

/// A stored message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) seq: i64,
    pub(crate) job: String,
    pub(crate) attempts: u32,
    pub(crate) unreached: u32,
    raw: Raw,
}

/// The columns that the binding covers, as text.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) queue: String,
    pub(crate) publisher: String,
    pub(crate) event: Event,
    pub(crate) digest: String,
    pub(crate) authority: Option<String>,
    pub(crate) trace: Option<String>,
}

/// A message in a consumer's hands.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) leased: Leased,
    pub(crate) authority: Option<Authority>,
    pub(crate) inputs: Vec<ObjectRef>,
    pub(crate) folder: String,
    pub(crate) trace: Option<TraceContext>,
}

/// A verified message's parts.
pub(crate) struct Genuine {
    pub(crate) publisher: SpiffeId,
    pub(crate) digest: Digest,
    pub(crate) authority: Option<Authority>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) event: Event,
}

impl Raw {
    /// The MAC over everything and the message's id.
    pub(crate) fn bind(&self, binder: &Binder, job: &str) -> Vec<u8> {
        binder.bind(&self.fields(job))
    }

    fn fields<'a>(&'a self, job: &'a str) -> [&'a [u8]; 12] {
        let optional = |value: &'a Option<String>| value.as_deref().unwrap_or("\0absent").as_bytes();
        let event = &self.event;
        [
            b"palisade-message-1",
            job.as_bytes(),
            self.queue.as_bytes(),
            self.publisher.as_bytes(),
            event.source.as_bytes(),
            event.id.as_bytes(),
            event.kind.as_bytes(),
            optional(&event.subject),
            event.content_type.as_bytes(),
            self.digest.as_bytes(),
            optional(&self.authority),
            optional(&self.trace),
        ]
    }
}

impl Message {
    pub(crate) fn load(row: &SqliteRow) -> Result<(Self, Vec<u8>), StateError> {
        let event = Event {
            id: row.try_get("event_id")?,
            source: row.try_get("source")?,
            kind: row.try_get("kind")?,
            subject: row.try_get("subject")?,
            content_type: row.try_get("content_type")?,
            data: row.try_get("data")?,
        };
        let raw = Raw {
            queue: row.try_get("queue")?,
            publisher: row.try_get("publisher")?,
            event,
            digest: row.try_get("digest")?,
            authority: row.try_get("authority")?,
            trace: row.try_get("trace")?,
        };
        let message = Self {
            seq: row.try_get("seq")?,
            job: row.try_get("job")?,
            attempts: row.try_get("attempts")?,
            unreached: row.try_get("unreached")?,
            raw,
        };
        Ok((message, row.try_get("binding")?))
    }

    /// The parts, if payload and row are still those that were published.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn verify(self, binder: &Binder, binding: &[u8]) -> Result<Genuine, &'static str> {
        if !binder.holds(&self.raw.fields(&self.job), binding) {
            return Err("the row is not as it was stored");
        }
        let digest: Digest = self.raw.digest.parse().map_err(|_| "the digest cannot be read")?;
        if Digest::of(&self.raw.event.data) != digest {
            return Err("the payload does not have the digest that was published");
        }
        let authority = match &self.raw.authority {
            Some(json) => Some(serde_json::from_str(json).map_err(|_| "the authority cannot be read")?),
            None => None,
        };
        let publisher = self.raw.publisher.parse().map_err(|_| "the publisher cannot be read")?;
        let trace = self.raw.trace.as_deref().and_then(TraceContext::parse);
        Ok(Genuine { publisher, digest, authority, trace, event: self.raw.event })
    }
}
