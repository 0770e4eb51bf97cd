//! The gate: every act passes it, with who, on whose authority, and what the store knows of the object.
//!
//! For a job's authority it asks `queue` whether the lease lives: before each act, again before a write is committed, and every few
//! seconds or megabytes while bytes flow. A lease that cannot be asked about is a dead one.
//!
//! Guarantees: G9, G15, H5; E4 (the decision is the policy's, not this file's).

use std::sync::Arc;
use std::time::Duration;

use contract::control::BucketProfile;
use contract::queue::QueueClient;
use policy::{Action, Question, Resource};
use telemetry::Recorder;
use telemetry::event::{CallDecided, TamperingFound};
use trust::{Authority, Clock, Decision, DenyReason, FaultKind, Job, ObjectRef, SpiffeId, TraceContext};

use crate::refusal::Refusal;
use crate::rules::{Rulebook, Rules};

/// While bytes flow, the lease is asked about after so many of them…
const WATCH_BYTES: u64 = 8 * 1024 * 1024;
/// …or after so long.
const WATCH_AFTER: Duration = Duration::from_secs(3);

/// Who acts, verified.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) principal: SpiffeId,
    pub(crate) authority: Option<Authority>,
    pub(crate) trace: TraceContext,
}

/// Decides and records.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) rules: Arc<dyn Rules>,
    pub(crate) queue: QueueClient,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    /// Asks nobody whether a lease lives; in a throw-away copy alone, to see that an attack finds that.
    pub(crate) dangerous_leaseless: bool,
}

impl Visitor {
    pub(crate) fn user(&self) -> Option<&str> {
        self.authority.as_ref().map(|a| a.user.as_str())
    }

    pub(crate) fn job(&self) -> Option<&Job> {
        self.authority.as_ref().and_then(|a| a.job.as_ref())
    }
}

impl Gate {
    pub(crate) fn rules(&self) -> Result<Arc<Rulebook>, Refusal> {
        self.rules.current().map_err(Refusal::Denied)
    }

    /// A bucket's profile. An undeclared bucket does not exist.
    pub(crate) fn bucket(&self, name: &str) -> Result<BucketProfile, Refusal> {
        self.rules()?.buckets.get(name).cloned().ok_or(Refusal::NoSuchBucket)
    }

    /// Whether `visitor` may do `action` to `resource`, now.
    pub(crate) async fn allow(&self, visitor: &Visitor, action: Action, resource: &Resource) -> Result<(), Refusal> {
        let rules = self.rules()?;
        let decision = match self.lease_lives(visitor).await {
            Err(reason) => Decision::deny(reason),
            Ok(()) => {
                let caller = visitor.principal.workload.name();
                rules.decide.decide(&Question { caller, action, resource, authority: visitor.authority.as_ref() })
            }
        };
        let refused = decision.deny_reason();
        self.record(visitor, action.as_str(), &resource.to_string(), decision)?;
        refused.map_or(Ok(()), |reason| Err(Refusal::Denied(reason)))
    }

    /// Records an answer that was found without the policy, and gives it.
    pub(crate) fn refuse(&self, visitor: &Visitor, action: &str, resource: &str, reason: DenyReason) -> Refusal {
        match self.record(visitor, action, resource, Decision::deny(reason)) {
            Ok(()) => Refusal::Denied(reason),
            Err(lost) => lost,
        }
    }

    fn record(&self, visitor: &Visitor, action: &str, resource: &str, decision: Decision) -> Result<(), Refusal> {
        let authority = visitor.authority.as_ref();
        let event = CallDecided {
            point: "objects",
            principal: visitor.principal.to_string(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            user: authority.map(|a| a.user.clone()).unwrap_or_default(),
            purpose: authority.map(|a| a.purpose.clone()).unwrap_or_default(),
            txn: authority.map(|a| a.txn.clone()).unwrap_or_default(),
            job: visitor.job().map(|j| j.id.clone()).unwrap_or_default(),
            decision,
        };
        self.recorder.record(Some(visitor.trace), &event).map_err(|_| Refusal::Denied(DenyReason::AuditUnavailable))
    }

    /// Whether the job in hand, if there is one, is still in the hands of this caller.
    pub(crate) async fn lease_lives(&self, visitor: &Visitor) -> Result<(), DenyReason> {
        let Some(job) = visitor.job().filter(|_| !self.dangerous_leaseless) else { return Ok(()) };
        let lease = self.queue.lease(&job.lease).await.map_err(|fault| match fault.kind {
            FaultKind::NotFound => DenyReason::LeaseEnded,
            _ => DenyReason::DependencyDown,
        })?;
        if !lease.alive {
            return Err(DenyReason::LeaseEnded);
        }
        let same = lease.consumer == visitor.principal && lease.job == job.id && lease.inputs == job.inputs && lease.folder == job.folder;
        if same { Ok(()) } else { Err(DenyReason::JobMismatch) }
    }

    /// Says that an object is not as it was stored.
    pub(crate) fn tampered(&self, trace: TraceContext, which: &ObjectRef, detail: &str) -> Refusal {
        let found = TamperingFound { what: "object", which: which.to_string(), detail: detail.to_owned() };
        if self.recorder.record(Some(trace), &found).is_err() {
            tracing::error!(object = %which, "tampering could not be recorded");
        }
        Refusal::Tampered
    }
}

/// Keeps an eye on the lease while bytes flow.
#[derive(Debug)]
pub(crate) struct Watch {
    gate: Arc<Gate>,
    visitor: Visitor,
    asked: Duration,
    bytes: u64,
}

impl Watch {
    pub(crate) fn new(gate: Arc<Gate>, visitor: Visitor) -> Self {
        let asked = gate.clock.monotonic();
        Self { gate, visitor, asked, bytes: 0 }
    }

    pub(crate) fn visitor(&self) -> &Visitor {
        &self.visitor
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// To be called with every piece, before it goes on.
    pub(crate) async fn step(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let now = self.gate.clock.monotonic();
        if self.bytes >= WATCH_BYTES || now.saturating_sub(self.asked) >= WATCH_AFTER {
            self.ask().await?;
            (self.bytes, self.asked) = (0, now);
        }
        Ok(())
    }

    /// Asks now.
    pub(crate) async fn ask(&self) -> Result<(), Refusal> {
        match self.gate.lease_lives(&self.visitor).await {
            Ok(()) => Ok(()),
            Err(reason) => {
                let job = self.visitor.job().map(|j| j.id.clone()).unwrap_or_default();
                Err(self.gate.refuse(&self.visitor, "lease", &format!("job/{job}"), reason))
            }
        }
    }
}
