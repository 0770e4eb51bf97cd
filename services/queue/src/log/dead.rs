//! Dead letters: put aside, kept for a while, and told of where the manifest says so.
//!
//! Who hears of one gets a message of the queue's own: what died, and why. It has the subject and the authority of what died, so that it
//! is delivered as narrowly: one job about the same object, for the same person. It is put in with the burial, in one transaction.
//!
//! Guarantees: H1 (told once, as durably as it died), H3 (its publisher is the queue), H4, H5.

use contract::control::QueueProfile;
use contract::queue::{DEAD_LETTER, DeadLettered, Event};
use state::sqlx::{self, Row};
use state::{StateError, WriteTxn, int};
use trust::{Digest, clock::random_hex};

use super::Log;
use super::message::{Message, Raw};

impl Log {
    /// Buries a message and tells of it.
    pub(super) async fn bury(
        &self,
        txn: &mut WriteTxn,
        seq: i64,
        profile: &QueueProfile,
        reason: &str,
        now: u64,
    ) -> Result<(), StateError> {
        bury(txn, seq, reason, now).await?;
        let Some(to) = &profile.dead_letters_to else { return Ok(()) };
        let row = sqlx::query("SELECT * FROM message WHERE seq = ?").bind(seq).fetch_one(&mut **txn).await?;
        let queue: String = row.try_get("queue")?;
        let authority: Option<String> = row.try_get("authority")?;
        let (message, binding) = Message::load(&row)?;
        let died = message.job.clone();
        // Nothing is said in the name of a message that was changed on the disk.
        let Ok(genuine) = message.verify(&self.binder, &binding) else { return Ok(()) };
        let told = DeadLettered { queue, kind: genuine.event.kind, id: genuine.event.id, reason: reason.to_owned() };
        let data = serde_json::to_vec(&told).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let raw = Raw {
            queue: to.clone(),
            publisher: genuine.publisher.trust_domain.role("queue").to_string(),
            digest: Digest::of(&data).to_string(),
            event: Event {
                id: format!("{died}:dead"),
                source: format!("/queues/{}", told.queue),
                kind: DEAD_LETTER.to_owned(),
                subject: genuine.event.subject,
                content_type: "application/json".to_owned(),
                data,
            },
            authority,
            trace: genuine.trace.map(|trace| trace.to_string()),
        };
        raw.insert(txn, &self.binder, &random_hex(&*self.entropy, 16), int(now)).await
    }
}

/// Puts a message aside.
pub(super) async fn bury(txn: &mut WriteTxn, seq: i64, reason: &str, now: u64) -> Result<(), StateError> {
    sqlx::query("UPDATE message SET state = 'dead', lease = NULL, reason = ?, ended_ms = ? WHERE seq = ?")
        .bind(reason.to_owned())
        .bind(int(now))
        .bind(seq)
        .execute(&mut **txn)
        .await?;
    Ok(())
}
