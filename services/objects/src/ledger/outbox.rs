//! The outbox: events that were committed with their object and wait to be told.

use contract::queue::Event;
use state::sqlx::{self, Row};
use state::{WriteTxn, int};
use trust::{Authority, TraceContext};

use super::{Ledger, damaged};
use crate::refusal::Refusal;
use crate::seal::Sealer;

/// An event to tell.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    /// Its place; zero before it is stored.
    pub(crate) seq: i64,
    pub(crate) queue: String,
    /// `bucket/key`: events of the same object are told in order.
    pub(crate) object: String,
    pub(crate) event: Event,
    pub(crate) authority: Option<Authority>,
    pub(crate) trace: TraceContext,
    pub(crate) tries: u32,
    /// Whether it is as it was stored; of one that is not, only place and object mean anything.
    pub(crate) genuine: bool,
}

impl Note {
    pub(super) async fn insert(&self, txn: &mut WriteTxn, sealer: &Sealer, now_ms: u64) -> Result<(), Refusal> {
        let authority = self.authority.as_ref().map(serde_json::to_string).transpose().map_err(|_| damaged("authority"))?;
        let event = serde_json::to_string(&self.event).map_err(|_| damaged("event"))?;
        let trace = self.trace.to_string();
        let seal = sealer.seal("note", &fields(&self.queue, &self.object, &event, authority.as_deref(), &trace));
        sqlx::query("INSERT INTO outbox (queue, object, event, authority, trace, seal, due_ms) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(&self.queue)
            .bind(&self.object)
            .bind(event)
            .bind(authority)
            .bind(trace)
            .bind(seal)
            .bind(int(now_ms))
            .execute(&mut **txn)
            .await?;
        Ok(())
    }
}

fn fields<'a>(queue: &'a str, object: &'a str, event: &'a str, authority: Option<&'a str>, trace: &'a str) -> [&'a [u8]; 5] {
    [queue.as_bytes(), object.as_bytes(), event.as_bytes(), authority.unwrap_or("\0absent").as_bytes(), trace.as_bytes()]
}

impl Ledger {
    /// The next events that are due; of each object only the oldest.
    pub(crate) async fn due_notes(&self, now_ms: u64) -> Result<Vec<Note>, Refusal> {
        let rows = sqlx::query(
            "SELECT * FROM outbox o WHERE due_ms <= ? AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.object = o.object AND e.seq < o.seq)
             ORDER BY seq LIMIT 100",
        )
        .bind(int(now_ms))
        .fetch_all(self.store.reader())
        .await?;
        rows.iter()
            .map(|row| {
                let (event, trace): (String, String) = (row.try_get("event")?, row.try_get("trace")?);
                let authority: Option<String> = row.try_get("authority")?;
                let (queue, object, seal): (String, String, Vec<u8>) =
                    (row.try_get("queue")?, row.try_get("object")?, row.try_get("seal")?);
                let genuine = self.sealer.holds("note", &fields(&queue, &object, &event, authority.as_deref(), &trace), &seal);
                Ok(Note {
                    seq: row.try_get("seq")?,
                    queue,
                    object,
                    genuine,
                    event: serde_json::from_str(&event).map_err(|_| damaged("event"))?,
                    authority: authority.as_deref().map(serde_json::from_str).transpose().map_err(|_| damaged("authority"))?,
                    trace: TraceContext::parse(&trace).ok_or_else(|| damaged("trace"))?,
                    tries: row.try_get("tries")?,
                })
            })
            .collect()
    }

    /// An event was told and is durable at the queue.
    pub(crate) async fn told(&self, note: &Note) -> Result<(), Refusal> {
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM outbox WHERE seq = ?").bind(note.seq).execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(())
    }

    /// An event could not be told; it waits until `due_ms`.
    pub(crate) async fn postpone(&self, note: &Note, due_ms: u64) -> Result<(), Refusal> {
        let mut txn = self.store.write().await?;
        sqlx::query("UPDATE outbox SET due_ms = ?, tries = tries + 1 WHERE seq = ?")
            .bind(int(due_ms))
            .bind(note.seq)
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        Ok(())
    }
}
