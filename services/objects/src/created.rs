//! The messenger: tells queues of created objects, at least once, in order for each object.
//!
//! Guarantees: G10.

use std::time::Duration;

use contract::Call;
use trust::{Fault, FaultKind};

use crate::ledger::Note;
use crate::refusal::Refusal;
use crate::room::Objects;

const SLEEP: Duration = Duration::from_secs(1);
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 30_000;
/// An upload that was not completed within a day goes.
pub(crate) const UPLOAD_AGE_MS_MAX: u64 = 24 * 3_600_000;
/// Wakings between two tidyings.
const TIDY_EVERY: u32 = 1_800;

/// Tells of created objects.
#[derive(Debug)]
pub struct Messenger(Objects);

impl Messenger {
    /// A messenger of `objects`. There is one for each folder.
    #[must_use]
    pub fn new(objects: Objects) -> Self {
        Self(objects)
    }

    /// Tells until dropped.
    pub async fn run(self) {
        let mut wakings: u32 = 0;
        loop {
            match self.round().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(refusal) => tracing::error!(?refusal, "the outbox cannot be read"),
            }
            if wakings.is_multiple_of(TIDY_EVERY)
                && let Err(refusal) = self.tidy().await
            {
                tracing::warn!(?refusal, "what is past its time could not be removed");
            }
            wakings = wakings.wrapping_add(1);
            let _ = tokio::time::timeout(SLEEP, self.0.shelf.stirred.notified()).await;
        }
    }

    /// Tells what is due; gives whether all of it, and something, was told.
    async fn round(&self) -> Result<bool, Refusal> {
        let shelf = &self.0.shelf;
        let notes = shelf.ledger.due_notes(shelf.clock.unix_ms()).await?;
        let mut all = !notes.is_empty();
        for note in notes {
            if !note.genuine {
                if let Ok(at) = note.object.parse() {
                    shelf.gate.tampered(note.trace, &at, "an event in the outbox is not as it was stored");
                }
                shelf.ledger.told(&note).await?;
                continue;
            }
            match self.tell(&note).await {
                Ok(()) => shelf.ledger.told(&note).await?,
                // The queue has an event with this id already, which nobody else could have given it.
                Err(fault) if fault.kind == FaultKind::Conflict => shelf.ledger.told(&note).await?,
                Err(fault) => {
                    all = false;
                    let pause = PAUSE_MS.saturating_mul(1_u64.checked_shl(note.tries.min(20)).unwrap_or(u64::MAX)).min(PAUSE_MS_MAX);
                    tracing::warn!(error = %fault, queue = note.queue, object = note.object, pause_ms = pause, "an event waits");
                    shelf.ledger.postpone(&note, shelf.clock.unix_ms().saturating_add(pause)).await?;
                }
            }
        }
        Ok(all)
    }

    async fn tell(&self, note: &Note) -> Result<(), Fault> {
        let call = Call { token: None, trace: Some(note.trace) };
        let queue = &self.0.shelf.gate.queue;
        match &note.authority {
            Some(authority) => queue.publish_kept(&call, &note.queue, &note.event, authority).await?,
            None => queue.publish(&call, &note.queue, &note.event).await?,
        };
        Ok(())
    }

    pub(crate) async fn tidy(&self) -> Result<(), Refusal> {
        let shelf = &self.0.shelf;
        let now = shelf.clock.unix_ms();
        for upload in shelf.ledger.stale_uploads(now.saturating_sub(UPLOAD_AGE_MS_MAX)).await? {
            let gone = shelf.ledger.abort_upload(&upload).await?;
            shelf.blobs.remove(&gone).await;
        }
        shelf.ledger.prune_grants((now / 1000).saturating_sub(24 * 3600)).await
    }
}
