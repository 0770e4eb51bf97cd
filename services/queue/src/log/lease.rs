//! Leases: a message in one consumer's hands, until acknowledged, given back, or too late.
//!
//! A push lease lives as long as the delivery under way in this process; a pull lease until its time. Whatever ends one ends it for
//! good: a later word about it is refused.
//!
//! Guarantees: H1, H5; the same subject is never in two hands, and its messages go out in order (G10).

use contract::control::QueueProfile;
use contract::queue::{LeaseState, Leased};
use state::sqlx::{self, Row};
use state::{StateError, WriteTxn, int, uint};
use trust::{Authority, ObjectRef, SpiffeId, clock::random_hex};

use super::Log;
use super::dead::bury;
use super::message::{Delivery, Message};
use crate::backoff;

/// A consumer that cannot be reached is tried this many times as often as one that answers and fails.
const UNREACHED_FACTOR: u32 = 20;

const NEXT: &str = "SELECT * FROM message m WHERE queue = ? AND state = 'waiting' AND due_ms <= ? AND (subject IS NULL OR NOT EXISTS (
    SELECT 1 FROM message e WHERE e.queue = m.queue AND e.subject = m.subject AND e.seq < m.seq AND e.state IN ('waiting', 'leased')))
    ORDER BY seq LIMIT 1";

/// How a message comes into a consumer's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Push,
    Pull,
}

/// What taking the next message gave.
#[derive(Debug)]
pub(crate) enum Taken {
    /// None is ready.
    Nothing,
    /// One was not as it was stored; it is a dead letter now.
    Tampered { job: String, detail: &'static str },
    /// This one.
    Message(Box<Delivery>),
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Done; forget the message.
    Ack,
    /// Failed; try again after a pause, up to `attempts_max`.
    Nack(String),
    /// The consumer was not there to fail; try again, up to 20 times as often.
    Unreached(String),
    /// It will never work.
    Dead(String),
}

/// What became of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The lease had ended before.
    Ended,
    /// Forgotten.
    Acked,
    /// It waits again.
    Waiting,
    /// A dead letter.
    Dead { job: String, reason: String },
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

impl Log {
    /// Hands the next message of `queue` that is ready to `consumer`.
    pub(crate) async fn take(&self, queue: &str, profile: &QueueProfile, consumer: &SpiffeId, way: Way) -> Result<Taken, StateError> {
        let now = self.clock.unix_ms();
        let mut txn = self.store.write().await?;
        let Some(row) = sqlx::query(NEXT).bind(queue).bind(int(now)).fetch_optional(&mut *txn).await? else { return Ok(Taken::Nothing) };
        let (message, binding) = Message::load(&row)?;
        let (seq, job) = (message.seq, message.job.clone());
        let attempt = message.attempts.saturating_add(1);
        let delivery_number = attempt.saturating_add(message.unreached);
        let genuine = match message.verify(&self.binder, &binding) {
            Ok(genuine) => genuine,
            Err(detail) => {
                bury(&mut txn, seq, &format!("tampered: {detail}"), now).await?;
                txn.commit().await?;
                return Ok(Taken::Tampered { job, detail });
            }
        };
        let inputs: Vec<ObjectRef> = genuine.event.input().into_iter().collect();
        let folder = inputs.first().map(ObjectRef::folder).unwrap_or_default().to_owned();
        let lease = random_hex(&*self.entropy, 16);
        let until_ms = now.saturating_add(profile.lease_s.saturating_mul(1000));
        sqlx::query("UPDATE message SET state = 'leased', attempts = ?, lease = ? WHERE seq = ?")
            .bind(attempt)
            .bind(&lease)
            .bind(seq)
            .execute(&mut *txn)
            .await?;
        sqlx::query("INSERT INTO lease (id, job, queue, consumer, way, inputs, folder, until_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&lease)
            .bind(&job)
            .bind(queue)
            .bind(consumer.to_string())
            .bind(way.as_str())
            .bind(serde_json::to_string(&inputs).map_err(|error| sqlx::Error::Encode(error.into()))?)
            .bind(&folder)
            .bind(int(until_ms))
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        let leased = Leased {
            lease,
            job,
            attempt: delivery_number,
            until_ms,
            publisher: genuine.publisher,
            data_digest: genuine.digest,
            token: None,
            event: genuine.event,
        };
        Ok(Taken::Message(Box::new(Delivery { leased, authority: genuine.authority, inputs, folder, trace: genuine.trace })))
    }

    /// Marks a push lease as under way; it lives until what this returns is dropped.
    pub(crate) fn begin(&self, lease: &str) -> UnderWay<'_> {
        self.under_way().insert(lease.to_owned());
        UnderWay { log: self, lease: lease.to_owned() }
    }

    /// Ends a lease that lives.
    pub(crate) async fn settle(&self, lease: &str, profile: &QueueProfile, ending: Ending) -> Result<Settled, StateError> {
        let now = self.clock.unix_ms();
        let mut txn = self.store.write().await?;
        let row = sqlx::query(
            "SELECT m.seq, m.job, m.attempts, m.unreached FROM lease l JOIN message m ON m.lease = l.id AND m.state = 'leased'
             WHERE l.id = ? AND l.ended_ms IS NULL AND (l.way = 'push' OR l.until_ms > ?)",
        )
        .bind(lease)
        .bind(int(now))
        .fetch_optional(&mut *txn)
        .await?;
        let Some(row) = row else { return Ok(Settled::Ended) };
        let held = Held { seq: row.try_get(0)?, job: row.try_get(1)?, attempts: row.try_get(2)?, unreached: row.try_get(3)? };
        let settled = self.end(&mut txn, lease, held, profile, ending, now).await?;
        txn.commit().await?;
        Ok(settled)
    }

    /// Gives the messages of pull leases past their time back, as failed deliveries. Returns what became of each.
    pub(crate) async fn expire(&self, queue: &str, profile: &QueueProfile) -> Result<Vec<Settled>, StateError> {
        let now = self.clock.unix_ms();
        let late = "SELECT m.seq, m.job, m.attempts, m.unreached, l.id FROM lease l JOIN message m ON m.lease = l.id AND m.state = 'leased'
             WHERE l.queue = ? AND l.ended_ms IS NULL AND l.way = 'pull' AND l.until_ms <= ? LIMIT 100";
        if sqlx::query(late).bind(queue).bind(int(now)).fetch_optional(self.store.reader()).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut txn = self.store.write().await?;
        let rows = sqlx::query(late).bind(queue).bind(int(now)).fetch_all(&mut *txn).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let held = Held { seq: row.try_get(0)?, job: row.try_get(1)?, attempts: row.try_get(2)?, unreached: row.try_get(3)? };
            let lease: String = row.try_get(4)?;
            all.push(self.end(&mut txn, &lease, held, profile, Ending::Nack("the lease ran out".to_owned()), now).await?);
        }
        txn.commit().await?;
        Ok(all)
    }

    /// Moves the end of a living pull lease; gives the new end.
    pub(crate) async fn extend(&self, lease: &str, lease_s: u64) -> Result<Option<u64>, StateError> {
        let now = self.clock.unix_ms();
        let until = now.saturating_add(lease_s.saturating_mul(1000));
        let mut txn = self.store.write().await?;
        let done = sqlx::query("UPDATE lease SET until_ms = ? WHERE id = ? AND way = 'pull' AND ended_ms IS NULL AND until_ms > ?")
            .bind(int(until))
            .bind(lease)
            .bind(int(now))
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        Ok((done.rows_affected() == 1).then_some(until))
    }

    /// Whether a lease lives, for whom and over what, and its queue; nothing when there never was one.
    pub(crate) async fn lease(&self, lease: &str) -> Result<Option<(LeaseState, String, Way)>, StateError> {
        let row = sqlx::query("SELECT job, queue, consumer, way, inputs, folder, until_ms, ended_ms FROM lease WHERE id = ?")
            .bind(lease)
            .fetch_optional(self.store.reader())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (way, ended): (String, Option<i64>) = (row.try_get("way")?, row.try_get("ended_ms")?);
        let way = if way == "push" { Way::Push } else { Way::Pull };
        let timely = uint(row.try_get("until_ms")?) > self.clock.unix_ms();
        let held = way == Way::Pull || self.under_way().contains(lease);
        let damaged = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
        let (consumer, inputs): (String, String) = (row.try_get("consumer")?, row.try_get("inputs")?);
        let state = LeaseState {
            alive: ended.is_none() && timely && held,
            consumer: consumer.parse().map_err(|error: trust::spiffe::SpiffeIdError| damaged(error.into()))?,
            job: row.try_get("job")?,
            inputs: serde_json::from_str(&inputs).map_err(|error| damaged(error.into()))?,
            folder: row.try_get("folder")?,
        };
        Ok(Some((state, row.try_get("queue")?, way)))
    }

    /// The authority of a message that is on lease; nothing if it has none or is not as it was stored.
    pub(crate) async fn authority_of(&self, job: &str) -> Result<Option<Authority>, StateError> {
        let row =
            sqlx::query("SELECT * FROM message WHERE job = ? AND state = 'leased'").bind(job).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let (message, binding) = Message::load(&row)?;
        Ok(message.verify(&self.binder, &binding).ok().and_then(|genuine| genuine.authority))
    }

    pub(super) async fn void_push_leases(&self) -> Result<(), StateError> {
        let now = int(self.clock.unix_ms());
        let mut txn = self.store.write().await?;
        sqlx::query(
            "UPDATE message SET state = 'waiting', lease = NULL, due_ms = ?, attempts = max(attempts - 1, 0)
             WHERE state = 'leased' AND lease IN (SELECT id FROM lease WHERE way = 'push' AND ended_ms IS NULL)",
        )
        .bind(now)
        .execute(&mut *txn)
        .await?;
        sqlx::query("UPDATE lease SET ended_ms = ? WHERE way = 'push' AND ended_ms IS NULL").bind(now).execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(())
    }

    async fn end(
        &self,
        txn: &mut WriteTxn,
        lease: &str,
        held: Held,
        profile: &QueueProfile,
        ending: Ending,
        now: u64,
    ) -> Result<Settled, StateError> {
        sqlx::query("UPDATE lease SET ended_ms = ? WHERE id = ?").bind(int(now)).bind(lease).execute(&mut **txn).await?;
        let (attempts, unreached, reason) = match ending {
            Ending::Ack => {
                sqlx::query("DELETE FROM message WHERE seq = ?").bind(held.seq).execute(&mut **txn).await?;
                return Ok(Settled::Acked);
            }
            Ending::Dead(reason) => {
                self.bury(txn, held.seq, profile, &reason, now).await?;
                return Ok(Settled::Dead { job: held.job, reason });
            }
            Ending::Nack(reason) => (held.attempts, held.unreached, reason),
            Ending::Unreached(reason) => (held.attempts.saturating_sub(1), held.unreached.saturating_add(1), reason),
        };
        if attempts >= profile.attempts_max || unreached >= profile.attempts_max.saturating_mul(UNREACHED_FACTOR) {
            let reason = format!("{attempts} deliveries failed, {unreached} did not reach the consumer; the last one: {reason}");
            self.bury(txn, held.seq, profile, &reason, now).await?;
            return Ok(Settled::Dead { job: held.job, reason });
        }
        let pause = backoff::pause_ms(profile, attempts.saturating_add(unreached), &*self.entropy);
        sqlx::query(
            "UPDATE message SET state = 'waiting', lease = NULL, due_ms = ?, attempts = ?, unreached = ?, reason = ? WHERE seq = ?",
        )
        .bind(int(now.saturating_add(pause)))
        .bind(attempts)
        .bind(unreached)
        .bind(reason)
        .bind(held.seq)
        .execute(&mut **txn)
        .await?;
        Ok(Settled::Waiting)
    }
}

/// A leased message's row, as far as ending its lease needs it.
struct Held {
    seq: i64,
    job: String,
    attempts: u32,
    unreached: u32,
}

/// A push delivery under way: while this lives, so does its lease.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    log: &'a Log,
    lease: String,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.log.under_way().remove(&self.lease);
    }
}
