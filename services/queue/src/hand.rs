//! Handing a message out: take it, ask the policy, mint the token that dies with the lease.
//!
//! Guarantees: H2, H4 (a message that was changed on the disk is found here), H5.

use contract::control::QueueProfile;
use contract::queue::{LeaseState, narrowed};
use telemetry::event::TamperingFound;
use trust::{Authority, DenyReason, Fault, Job, SpiffeId, TraceContext, limits};

use crate::log::{Delivery, Ending, Settled, Taken, Way};
use crate::room::{Queue, Refusal};
use crate::rules::{Ask, QueueAction, Rulebook};

/// What handing out gave.
#[derive(Debug)]
pub(crate) enum Handed {
    /// Nothing is ready.
    Nothing,
    /// This message; its lease is open.
    Message(Box<Delivery>),
    /// A message was ready, but this consumer may not have it; it waits again.
    Refused(DenyReason),
}

impl Queue {
    /// Takes the next message of `queue` for `consumer`.
    pub(crate) async fn hand(
        &self,
        rules: &Rulebook,
        queue: &str,
        profile: &QueueProfile,
        consumer: &SpiffeId,
        way: Way,
    ) -> Result<Handed, Fault> {
        let mut delivery = loop {
            match self.log.take(queue, profile, consumer, way).await? {
                Taken::Nothing => return Ok(Handed::Nothing),
                Taken::Message(delivery) => break delivery,
                Taken::Tampered { job, detail } => self.tampered(consumer, queue, job, detail),
            }
        };
        match self.permit(rules, queue, profile, consumer, &mut delivery) {
            Ok(()) => Ok(Handed::Message(delivery)),
            Err(refusal) => {
                let reason = match &refusal {
                    Refusal::Denied(reason) => format!("refused: {reason}"),
                    Refusal::Fault(fault) => fault.to_string(),
                };
                let settled = self.log.settle(&delivery.leased.lease, profile, Ending::Unreached(reason)).await?;
                self.tell(consumer, queue, delivery.trace, &settled);
                match refusal {
                    Refusal::Denied(reason) => Ok(Handed::Refused(reason)),
                    Refusal::Fault(fault) => Err(fault),
                }
            }
        }
    }

    fn permit(
        &self,
        rules: &Rulebook,
        queue: &str,
        profile: &QueueProfile,
        consumer: &SpiffeId,
        delivery: &mut Delivery,
    ) -> Result<(), Refusal> {
        let job = Job {
            id: delivery.leased.job.clone(),
            lease: delivery.leased.lease.clone(),
            queue: queue.to_owned(),
            consumer: consumer.workload.name().to_owned(),
            inputs: delivery.inputs.clone(),
            folder: delivery.folder.clone(),
        };
        let authority = delivery.authority.as_ref().map(|a| narrowed(a, &profile.purpose, job));
        let span = delivery.trace.unwrap_or_else(|| self.recorder.start(None).context);
        let ask = Ask { principal: consumer, action: QueueAction::Consume, queue, profile, authority: authority.as_ref() };
        self.decide(rules, &ask, span)?;
        delivery.leased.token = authority.as_ref().map(|a| self.mint(a, profile)).transpose()?;
        delivery.authority = authority;
        Ok(())
    }

    fn mint(&self, authority: &Authority, profile: &QueueProfile) -> Result<String, Fault> {
        let life_s = profile.lease_s.saturating_add(limits::CLOCK_SKEW_S_MAX);
        self.minting.current()?.mint(authority, life_s, &*self.clock).map_err(Fault::internal)
    }

    /// A token for a lease that was extended.
    pub(crate) async fn renew(
        &self,
        profile: &QueueProfile,
        queue: &str,
        lease: &str,
        held: &LeaseState,
    ) -> Result<Option<String>, Refusal> {
        let Some(authority) = self.log.authority_of(&held.job).await? else { return Ok(None) };
        let job = Job {
            id: held.job.clone(),
            lease: lease.to_owned(),
            queue: queue.to_owned(),
            consumer: held.consumer.workload.name().to_owned(),
            inputs: held.inputs.clone(),
            folder: held.folder.clone(),
        };
        Ok(Some(self.mint(&narrowed(&authority, &profile.purpose, job), profile)?))
    }

    fn tampered(&self, consumer: &SpiffeId, queue: &str, job: String, detail: &'static str) {
        let found = TamperingFound { what: "message", which: format!("queue/{queue}/{job}"), detail: detail.to_owned() };
        if self.recorder.record(None, &found).is_err() {
            tracing::error!(job, queue, "tampering could not be recorded");
        }
        self.tell(consumer, queue, None, &Settled::Dead { job, reason: format!("tampered: {detail}") });
    }

    /// The span under which a delivery is recorded: a child of the publisher's.
    pub(crate) fn span(&self, trace: Option<TraceContext>) -> telemetry::SpanStart {
        self.recorder.start(trace)
    }
}
