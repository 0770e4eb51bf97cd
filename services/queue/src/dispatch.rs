//! The dispatcher: pushes messages to their consumers' guards, several at a time, each for as long as its connection works on it.
//!
//! 2xx acknowledges; 400 and 422 make a dead letter; 429 and 503 say "not now"; any other answer, a time-out or a lost connection is a
//! failed delivery. The lease ends before the answer is acted upon, and the message is forgotten only once that is on the disk.
//!
//! Guarantees: H1, H5, H8 (the delivery continues the publisher's trace).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use contract::control::QueueProfile;
use contract::queue::Deliver;
use futures::FutureExt;
use tokio::task::JoinSet;
use trust::{Fault, FaultKind, SpiffeId};

use crate::hand::Handed;
use crate::log::{Delivery, Ending, Way};
use crate::room::Queue;
use crate::rules::Rulebook;

/// Longest sleep. What makes a message ready wakes the dispatcher: publishing, an end of a lease, a new view, its time; this is for clocks
/// that are set back.
const SLEEP_MS_MAX: u64 = 60_000;
/// Pause after the database or the policy could not be asked.
const TROUBLE: Duration = Duration::from_millis(500);
/// Refusals by the policy in one go, after which a queue has to wait for the next.
const REFUSED_MAX: u32 = 32;
/// Time between two prunings of what is past its memory.
const PRUNE_EVERY_MS: u64 = 3_600_000;

/// Pushes messages.
#[derive(Debug)]
pub struct Dispatcher {
    queue: Queue,
    deliver: Arc<dyn Deliver>,
    // INVARIANT: a queue's token has one clone for each delivery under way, and no other.
    under_way: BTreeMap<String, Arc<()>>,
}

impl Dispatcher {
    /// A dispatcher of `queue`. There is one for each folder.
    #[must_use]
    pub fn new(queue: Queue, deliver: Arc<dyn Deliver>) -> Self {
        Self { queue, deliver, under_way: BTreeMap::new() }
    }

    /// Pushes until dropped; deliveries under way end with it, unacknowledged.
    pub async fn run(mut self) {
        let mut deliveries = JoinSet::new();
        let mut pruned_ms = 0;
        loop {
            let pause = match self.fill(&mut deliveries).await {
                Ok(pause) => pause,
                Err(fault) => {
                    let cause = fault.cause.as_ref().map(ToString::to_string);
                    tracing::warn!(error = %fault, cause, "the dispatcher waits");
                    TROUBLE
                }
            };
            let stirred = Arc::clone(&self.queue.stirred);
            tokio::select! {
                () = stirred.notified() => {}
                Some(_) = deliveries.join_next() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let now_ms = self.queue.clock.unix_ms();
            if now_ms.saturating_sub(pruned_ms) >= PRUNE_EVERY_MS {
                pruned_ms = now_ms;
                if let Err(error) = self.queue.log.prune().await {
                    tracing::warn!(%error, "what is past its memory could not be forgotten");
                }
            }
        }
    }

    /// Starts whatever may start; gives the time until the next message is due.
    async fn fill(&mut self, deliveries: &mut JoinSet<()>) -> Result<Duration, Fault> {
        let rules = self.queue.rules.current().map_err(|reason| Fault::unavailable(format!("no rules: {reason}")))?;
        // Without a key no job can be handed out; the messages keep waiting, and no delivery is counted.
        drop(self.queue.minting.current()?);
        let began_ms = self.queue.clock.unix_ms();
        let (mut trouble, mut more) = (None, false);
        for (queue, profile) in &rules.queues {
            let Some(consumer) = &profile.consumer else { continue };
            let filled = self.fill_one(deliveries, &rules, queue, profile, consumer).await;
            match filled {
                Ok(refused) => more |= refused,
                Err(fault) => trouble = trouble.or(Some(fault)),
            }
        }
        if let Some(fault) = trouble {
            return Err(fault);
        }
        if more {
            return Ok(TROUBLE);
        }
        // Whatever became due since this began was perhaps not seen: it is looked for again at once.
        let due = self.queue.log.next_due_ms(began_ms).await?.map(|due| due.saturating_sub(self.queue.clock.unix_ms()));
        Ok(Duration::from_millis(due.unwrap_or(SLEEP_MS_MAX).clamp(1, SLEEP_MS_MAX)))
    }

    /// Starts what may start of one queue; whether there may be more that nobody will wake us for.
    async fn fill_one(
        &mut self,
        deliveries: &mut JoinSet<()>,
        rules: &Rulebook,
        queue: &str,
        profile: &QueueProfile,
        consumer: &SpiffeId,
    ) -> Result<bool, Fault> {
        self.queue.expire(rules, queue).await?;
        let token = Arc::clone(self.under_way.entry(queue.to_owned()).or_default());
        // One clone is the table's, one is `token`.
        let mut refused: u32 = 0;
        while refused < REFUSED_MAX
            && Arc::strong_count(&token).saturating_sub(2) < usize::try_from(profile.in_flight_max).unwrap_or(usize::MAX)
        {
            match self.queue.hand(rules, queue, profile, consumer, Way::Push).await? {
                Handed::Nothing => break,
                Handed::Refused(_) => refused = refused.saturating_add(1),
                Handed::Message(delivery) => {
                    let work = Work {
                        queue: self.queue.clone(),
                        deliver: Arc::clone(&self.deliver),
                        name: queue.to_owned(),
                        profile: profile.clone(),
                        consumer: consumer.clone(),
                    };
                    let slot = Arc::clone(&token);
                    deliveries.spawn(async move {
                        work.run(*delivery).await;
                        drop(slot);
                    });
                }
            }
        }
        Ok(refused >= REFUSED_MAX)
    }
}

/// One delivery.
struct Work {
    queue: Queue,
    deliver: Arc<dyn Deliver>,
    name: String,
    profile: QueueProfile,
    consumer: SpiffeId,
}

impl Work {
    async fn run(self, delivery: Delivery) {
        let span = self.queue.span(delivery.trace);
        let lease = delivery.leased.lease.clone();
        let outcome = {
            let _alive = self.queue.log.begin(&lease);
            let sent =
                AssertUnwindSafe(self.deliver.deliver(&self.consumer, &self.name, &delivery.leased, Some(span.context))).catch_unwind();
            tokio::time::timeout(Duration::from_secs(self.profile.lease_s), sent).await
        };
        let (status, ending) = match outcome {
            Ok(Ok(Ok(status))) => (status, ending_of(status)),
            Ok(Ok(Err(fault))) => (fault.status(), ending_of_fault(&fault)),
            Ok(Err(_)) => (500, Ending::Nack("the delivery broke down".to_owned())),
            Err(_) => (504, Ending::Nack(format!("no answer within {} s", self.profile.lease_s))),
        };
        let mut attributes = serde_json::Map::new();
        attributes.insert("queue".to_owned(), self.name.clone().into());
        attributes.insert("job".to_owned(), delivery.leased.job.clone().into());
        attributes.insert("attempt".to_owned(), delivery.leased.attempt.into());
        attributes.insert("peer".to_owned(), self.consumer.to_string().into());
        self.queue.recorder.end(&span, &format!("deliver {}", self.name), "consumer", status, &attributes);
        self.settle(&lease, ending, span.context).await;
    }

    /// Until it is on the disk, the message is neither forgotten nor given to another.
    async fn settle(&self, lease: &str, ending: Ending, trace: trust::TraceContext) {
        loop {
            match self.queue.log.settle(lease, &self.profile, ending.clone()).await {
                Ok(settled) => {
                    self.queue.tell(&self.consumer, &self.name, Some(trace), &settled);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, queue = self.name, "the end of a delivery cannot be stored; trying again");
                    tokio::time::sleep(TROUBLE).await;
                }
            }
        }
    }
}

fn ending_of(status: u16) -> Ending {
    match status {
        200..=299 => Ending::Ack,
        400 | 422 => Ending::Dead(format!("the consumer answered {status}")),
        429 | 503 => Ending::Unreached(format!("the consumer answered {status}")),
        _ => Ending::Nack(format!("the consumer answered {status}")),
    }
}

/// A peer that could not be reached did not fail the message; one that was reached and broke off did: it may have been the message that
/// broke it.
fn ending_of_fault(fault: &Fault) -> Ending {
    match fault.kind {
        FaultKind::Unavailable | FaultKind::Refused => Ending::Unreached(fault.to_string()),
        _ => Ending::Nack(fault.to_string()),
    }
}
