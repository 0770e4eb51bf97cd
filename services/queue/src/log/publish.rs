//! Putting a message in: once, whole, and on the disk before anybody is told.

use contract::queue::Event;
use state::sqlx::{self, Row};
use state::{StateError, WriteTxn, int, uint};
use trust::{Authority, Digest, SpiffeId, TraceContext, clock::random_hex};

use super::Log;
use super::message::Raw;
use crate::binding::{Binder, fingerprint};

/// A message to put in, already allowed.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    pub(crate) queue: &'a str,
    pub(crate) publisher: &'a SpiffeId,
    pub(crate) authority: Option<&'a Authority>,
    pub(crate) trace: TraceContext,
    pub(crate) event: Event,
    pub(crate) depth_max: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is in.
    New(String),
    /// The same message came before, as this job.
    Duplicate(String),
    /// Another message with this source and id came before.
    Conflict,
    /// The queue holds as many as it may.
    Full,
}

impl Log {
    /// Puts a message in.
    pub(crate) async fn publish(&self, new: Submission<'_>) -> Result<Stored, StateError> {
        let now = int(self.clock.unix_ms());
        let event = &new.event;
        let digest = Digest::of(&event.data).to_string();
        let subject = event.subject.as_deref().unwrap_or("\0absent");
        let same = [event.kind.as_bytes(), subject.as_bytes(), event.content_type.as_bytes(), digest.as_bytes()];
        let same = fingerprint(&same).to_string();
        let publisher = new.publisher.to_string();
        let mut txn = self.store.write().await?;
        let before = sqlx::query("SELECT job, fingerprint FROM seen WHERE queue = ? AND publisher = ? AND source = ? AND event_id = ?")
            .bind(new.queue)
            .bind(&publisher)
            .bind(&event.source)
            .bind(&event.id)
            .fetch_optional(&mut *txn)
            .await?;
        if let Some(row) = before {
            let known: String = row.try_get(1)?;
            return Ok(if known == same { Stored::Duplicate(row.try_get(0)?) } else { Stored::Conflict });
        }
        let depth: i64 = sqlx::query("SELECT count(*) FROM message WHERE queue = ? AND state IN ('waiting', 'leased')")
            .bind(new.queue)
            .fetch_one(&mut *txn)
            .await?
            .try_get(0)?;
        if uint(depth) >= new.depth_max {
            return Ok(Stored::Full);
        }
        let job = random_hex(&*self.entropy, 16);
        let authority = new.authority.map(serde_json::to_string).transpose().map_err(|error| sqlx::Error::Encode(error.into()))?;
        let raw = Raw { queue: new.queue.to_owned(), publisher, event: new.event, digest, authority, trace: Some(new.trace.to_string()) };
        raw.insert(&mut txn, &self.binder, &job, now).await?;
        sqlx::query("INSERT INTO seen (queue, publisher, source, event_id, fingerprint, job, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(&raw.queue)
            .bind(&raw.publisher)
            .bind(&raw.event.source)
            .bind(&raw.event.id)
            .bind(&same)
            .bind(&job)
            .bind(now)
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        Ok(Stored::New(job))
    }
}

impl Raw {
    /// Puts it in, to be delivered at once.
    pub(super) async fn insert(&self, txn: &mut WriteTxn, binder: &Binder, job: &str, now: i64) -> Result<(), StateError> {
        sqlx::query(
            "INSERT INTO message (job, queue, publisher, source, event_id, kind, subject, content_type, data, digest, authority, trace, binding,
                published_ms, state, due_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
        )
        .bind(job)
        .bind(&self.queue)
        .bind(&self.publisher)
        .bind(&self.event.source)
        .bind(&self.event.id)
        .bind(&self.event.kind)
        .bind(&self.event.subject)
        .bind(&self.event.content_type)
        .bind(&self.event.data)
        .bind(&self.digest)
        .bind(&self.authority)
        .bind(&self.trace)
        .bind(self.bind(binder, job))
        .bind(now)
        .bind(now)
        .execute(&mut **txn)
        .await?;
        Ok(())
    }
}
