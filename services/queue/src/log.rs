//! The log: messages, leases and the memory of what was published, in SQL.
//!
//! Every change is one transaction, on the disk when it returns. A message is `waiting`, `leased` or `dead`; an acknowledged one is
//! gone. Its (publisher, source, id) stays known for `SEEN_MS`, so that a repeat has no effect.
//!
//! Guarantees: H1, H4, H6, G10.
//! Not here:   who may (`room`), when to deliver (`dispatch`).

mod lease;
mod message;
mod publish;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use contract::queue::QueueStats;
use state::sqlx::{self, Row};
use state::{Migration, StateError, Store, int, uint};
use trust::{Clock, Entropy};

use crate::binding::Binder;

pub(crate) use lease::{Ending, Settled, Taken, Way};
pub(crate) use message::Delivery;
pub(crate) use publish::{Stored, Submission};

const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "messages, leases, seen",
    sql: "
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    publisher TEXT NOT NULL,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT,
    content_type TEXT NOT NULL,
    data BLOB NOT NULL,
    digest TEXT NOT NULL,
    authority TEXT,
    trace TEXT,
    binding BLOB NOT NULL,
    published_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'dead')),
    due_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    unreached INTEGER NOT NULL DEFAULT 0,
    lease TEXT,
    reason TEXT,
    ended_ms INTEGER
) STRICT;
CREATE INDEX message_next ON message (queue, state, seq);
CREATE INDEX message_subject ON message (queue, subject, seq) WHERE subject IS NOT NULL;
CREATE INDEX message_due ON message (state, due_ms);
CREATE TABLE lease (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    queue TEXT NOT NULL,
    consumer TEXT NOT NULL,
    way TEXT NOT NULL CHECK (way IN ('push', 'pull')),
    inputs TEXT NOT NULL,
    folder TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX lease_open ON lease (queue, until_ms) WHERE ended_ms IS NULL;
CREATE INDEX lease_ended ON lease (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE seen (
    queue TEXT NOT NULL,
    publisher TEXT NOT NULL,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (queue, publisher, source, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at_ms);
",
}];

/// For how long a repeat of a published message is known for one.
const SEEN_MS: u64 = 7 * 24 * 3_600_000;
/// For how long an ended lease is remembered as one that was.
const LEASE_MEMORY_MS: u64 = 24 * 3_600_000;
/// For how long a dead letter waits for somebody to look at it.
const DEAD_MS: u64 = 30 * 24 * 3_600_000;

/// Why the queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database or its key file.
    #[error("the queue's database cannot be used")]
    State(#[from] StateError),
}

/// A message that will not be delivered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message's id.
    pub job: String,
    /// Its `ce-id`.
    pub event_id: String,
    /// Its subject.
    pub subject: Option<String>,
    /// Why.
    pub reason: String,
    /// Deliveries that counted.
    pub attempts: u32,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    store: Store,
    binder: Binder,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    // INVARIANT: holds exactly the push leases whose delivery is under way in this process. A push lease that is not in here is dead,
    // whatever the table says: so a crash ends them all.
    under_way: Mutex<BTreeSet<String>>,
}

impl Log {
    /// Opens the log in `folder`. Push leases of an earlier process are void, their messages wait again and the delivery that was cut
    /// short does not count: killing the queue never makes a dead letter.
    pub(crate) async fn open(folder: &Path, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        let key = state::open_key(&folder.join("queue.key"), &*entropy)?;
        let store = Store::open(&folder.join("queue.db"), SCHEMA).await?;
        let log = Self { store, binder: Binder::new(&key), clock, entropy, under_way: Mutex::default() };
        log.void_push_leases().await?;
        Ok(log)
    }

    /// Figures of one queue.
    pub(crate) async fn stats(&self, queue: &str) -> Result<QueueStats, StateError> {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'leased'), count(*) FILTER (WHERE state = 'dead'),
                    min(published_ms) FILTER (WHERE state = 'waiting') FROM message WHERE queue = ?",
        )
        .bind(queue)
        .fetch_one(self.store.reader())
        .await?;
        let oldest: Option<i64> = row.try_get(3)?;
        Ok(QueueStats {
            queue: queue.to_owned(),
            waiting: uint(row.try_get(0)?),
            in_flight: uint(row.try_get(1)?),
            dead: uint(row.try_get(2)?),
            oldest_ms: oldest.map_or(0, |at| self.clock.unix_ms().saturating_sub(uint(at))),
        })
    }

    /// Dead letters of a queue, oldest first, 1,000 at most.
    pub(crate) async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, StateError> {
        let rows = sqlx::query(
            "SELECT job, event_id, subject, reason, attempts FROM message WHERE queue = ? AND state = 'dead' ORDER BY seq LIMIT 1000",
        )
        .bind(queue)
        .fetch_all(self.store.reader())
        .await?;
        rows.iter()
            .map(|row| {
                let reason: Option<String> = row.try_get(3)?;
                Ok(DeadLetter {
                    job: row.try_get(0)?,
                    event_id: row.try_get(1)?,
                    subject: row.try_get(2)?,
                    reason: reason.unwrap_or_default(),
                    attempts: row.try_get(4)?,
                })
            })
            .collect()
    }

    /// When the next message that waits for its time is due, or the next pull lease runs out, after that moment; if any does.
    pub(crate) async fn next_due_ms(&self, after_ms: u64) -> Result<Option<u64>, StateError> {
        let sql = "SELECT min(at) FROM (SELECT min(due_ms) AS at FROM message WHERE state = 'waiting' AND due_ms > ?1
            UNION ALL SELECT min(until_ms) FROM lease WHERE ended_ms IS NULL AND way = 'pull' AND until_ms > ?1)";
        let row = sqlx::query(sql).bind(int(after_ms)).fetch_one(self.store.reader()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(uint))
    }

    /// Forgets what is older than its memory.
    pub(crate) async fn prune(&self) -> Result<(), StateError> {
        let now = self.clock.unix_ms();
        let before = |age: u64| int(now.saturating_sub(age));
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM seen WHERE at_ms < ?").bind(before(SEEN_MS)).execute(&mut *txn).await?;
        sqlx::query("DELETE FROM lease WHERE ended_ms < ?").bind(before(LEASE_MEMORY_MS)).execute(&mut *txn).await?;
        sqlx::query("DELETE FROM message WHERE state = 'dead' AND ended_ms < ?").bind(before(DEAD_MS)).execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(())
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
