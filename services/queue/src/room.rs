//! The room: publish, lease, extend, acknowledge, give back; and what `objects` and `evidence` may ask.
//!
//! Guarantees: H1, H2, H3, H5, H6, H9.

use std::path::PathBuf;
use std::sync::Arc;

use contract::queue::{Event, Extended, LeaseState, Leased, Published, QueueStats, ROUTES};
use contract::{Body, Caller, Found, Room, Route, Who, body, find};
use http::{HeaderValue, Request, Response, StatusCode, header};
use telemetry::Recorder;
use telemetry::event::{ActDone, CallDecided};
use tokio::sync::Notify;
use trust::{Authority, Clock, Decision, DenyReason, Entropy, Fault, SpiffeId, TraceContext, limits};

use crate::authority::{self, Unfit};
use crate::hand::Handed;
use crate::log::{DeadLetter, Ending, Log, OpenError, Settled, Stored, Submission, Way};
use crate::rules::{Ask, Minting, QueueAction, Rulebook, Rules};

/// What a queue is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its folder: database and key. Nobody else's.
    pub folder: PathBuf,
    /// The present rules.
    pub rules: Arc<dyn Rules>,
    /// The key for job tokens.
    pub minting: Arc<dyn Minting>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Where decisions and acts are recorded.
    pub recorder: Recorder,
}

/// The queues of a system. Clones share everything.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) log: Arc<Log>,
    pub(crate) rules: Arc<dyn Rules>,
    pub(crate) minting: Arc<dyn Minting>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    /// Wakes the dispatcher: something may be ready.
    pub(crate) stirred: Arc<Notify>,
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) enum Refusal {
    Denied(DenyReason),
    Fault(Fault),
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Refused(reason) => Self::Denied(reason),
            Unfit::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<state::StateError> for Refusal {
    fn from(error: state::StateError) -> Self {
        Self::Fault(error.into())
    }
}

type Answer = Result<Response<Body>, Refusal>;

impl Queue {
    /// Opens the queues in `parts.folder`. Deliveries that an earlier process left are void, their messages wait again.
    ///
    /// # Errors
    /// `State` when the database or its key cannot be used.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { folder, rules, minting, clock, entropy, recorder } = parts;
        let log = Arc::new(Log::open(&folder, Arc::clone(&clock), entropy).await?);
        Ok(Self { log, rules, minting, clock, recorder, stirred: Arc::new(Notify::new()) })
    }

    /// Wakes the dispatcher: there are other rules, or another key.
    pub fn stir(&self) {
        self.stirred.notify_one();
    }

    /// Dead letters of a queue, oldest first, 1,000 at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, Fault> {
        Ok(self.log.dead_letters(queue).await?)
    }

    async fn route(&self, caller: &Caller, request: Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let Found::Route(route, values) = find(ROUTES, request.method().as_str(), &path) else {
            return Err(Refusal::Denied(DenyReason::RouteUnknown));
        };
        let Some(peer) = caller.workload().filter(|peer| admitted(route, peer)) else {
            return Err(Refusal::Denied(DenyReason::CallerNotAdmitted));
        };
        let name = values.first().map(|(_, value)| value.as_ref()).unwrap_or_default();
        match route.action {
            "queue.publish" => self.publish(caller, peer, name, request).await,
            "queue.lease" => self.lease(caller, peer, name).await,
            "queue.lease.extend" => self.extend(caller, peer, name).await,
            "queue.lease.ack" => self.settle(caller, peer, name, Ending::Ack).await,
            "queue.lease.nack" => self.settle(caller, peer, name, Ending::Nack("the consumer gave it back".to_owned())).await,
            "queue.lease.read" => {
                let (state, ..) = self.log.lease(name).await?.ok_or_else(|| Fault::not_found("there never was such a lease"))?;
                Ok(body::json(StatusCode::OK, &state))
            }
            "queue.stats.read" => Ok(body::json(StatusCode::OK, &self.stats().await?)),
            _ => Err(Refusal::Denied(DenyReason::RouteUnknown)),
        }
    }

    async fn publish(&self, caller: &Caller, publisher: &SpiffeId, queue: &str, request: Request<Body>) -> Answer {
        let rules = self.rules.current().map_err(Refusal::Denied)?;
        let profile = rules.queues.get(queue).ok_or_else(|| Fault::not_found("there is no such queue"))?;
        let (head, content) = request.into_parts();
        let authority = authority::carried(caller, publisher, &head.headers);
        let authority = self.noted(caller, publisher, QueueAction::Publish, queue, authority)?;
        let ask = Ask { principal: publisher, action: QueueAction::Publish, queue, profile, authority: authority.as_ref() };
        self.decide(&rules, &ask, caller.trace)?;
        let data = body::collect(content, limits::MESSAGE_BYTES_MAX).await?;
        let event = Event::from_parts(&head.headers, data.to_vec())?;
        let subject = authority::subject(publisher, authority.as_ref(), &event);
        self.noted(caller, publisher, QueueAction::Publish, queue, subject)?;
        let alive = self.own_job_lives(publisher, authority.as_ref()).await?;
        self.noted(caller, publisher, QueueAction::Publish, queue, alive)?;
        let submission =
            Submission { queue, publisher, authority: authority.as_ref(), trace: caller.trace, event, depth_max: profile.depth_max };
        let (job, duplicate) = match self.log.publish(submission).await? {
            Stored::New(job) => (job, false),
            Stored::Duplicate(job) => (job, true),
            Stored::Conflict => return Err(Fault::conflict("another message with this ce-source and ce-id was published before").into()),
            Stored::Full => {
                let mut full = body::fault(&Fault::unavailable("the queue is full; try again later"));
                full.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return Ok(full);
            }
        };
        self.stirred.notify_one();
        Ok(body::json(StatusCode::ACCEPTED, &Published { job, duplicate }))
    }

    /// A service that publishes on a job's authority still holds that job. (H5)
    async fn own_job_lives(&self, publisher: &SpiffeId, authority: Option<&Authority>) -> Result<Result<(), Unfit>, Refusal> {
        let Some(job) = authority.and_then(|a| a.job.as_ref()).filter(|_| publisher.as_service().is_some()) else { return Ok(Ok(())) };
        let lease = self.log.lease(&job.lease).await?;
        let lives = lease.is_some_and(|(lease, ..)| lease.alive && lease.consumer == *publisher && lease.job == job.id);
        Ok(if lives { Ok(()) } else { Err(Unfit::Refused(DenyReason::LeaseEnded)) })
    }

    async fn lease(&self, caller: &Caller, consumer: &SpiffeId, queue: &str) -> Answer {
        let rules = self.rules.current().map_err(Refusal::Denied)?;
        let profile = rules.queues.get(queue).ok_or_else(|| Fault::not_found("there is no such queue"))?;
        if profile.consumer.as_ref() != Some(consumer) {
            let refused = Err(Unfit::Refused(DenyReason::PolicyDenied));
            self.noted(caller, consumer, QueueAction::Consume, queue, refused)?;
        }
        self.expire(&rules, queue).await?;
        match self.hand(&rules, queue, profile, consumer, Way::Pull).await? {
            Handed::Message(message) => Ok(body::json::<Leased>(StatusCode::OK, &message.leased)),
            Handed::Nothing => Ok(body::plain(StatusCode::NO_CONTENT)),
            Handed::Refused(reason) => Err(Refusal::Denied(reason)),
        }
    }

    async fn extend(&self, caller: &Caller, holder: &SpiffeId, lease: &str) -> Answer {
        let (held, queue) = self.held(caller, holder, lease).await?;
        let rules = self.rules.current().map_err(Refusal::Denied)?;
        let profile = rules.queues.get(&queue).ok_or_else(|| Fault::not_found("there is no such queue"))?;
        let until_ms = self.log.extend(lease, profile.lease_s).await?.ok_or(Refusal::Denied(DenyReason::LeaseEnded))?;
        let token = self.renew(profile, &queue, lease, &held).await?;
        Ok(body::json(StatusCode::OK, &Extended { until_ms, token }))
    }

    async fn settle(&self, caller: &Caller, holder: &SpiffeId, lease: &str, ending: Ending) -> Answer {
        let (_, queue) = self.held(caller, holder, lease).await?;
        let rules = self.rules.current().map_err(Refusal::Denied)?;
        let profile = rules.queues.get(&queue).ok_or_else(|| Fault::not_found("there is no such queue"))?;
        let settled = self.log.settle(lease, profile, ending).await?;
        self.tell(holder, &queue, Some(caller.trace), &settled);
        self.stirred.notify_one();
        match settled {
            Settled::Ended => Err(Refusal::Denied(DenyReason::LeaseEnded)),
            _ => Ok(body::plain(StatusCode::NO_CONTENT)),
        }
    }

    /// A living pull lease of this holder. Another's lease looks like one that never was, and the log says that it was asked for.
    async fn held(&self, caller: &Caller, holder: &SpiffeId, lease: &str) -> Result<(LeaseState, String), Refusal> {
        let unknown = || Refusal::from(Fault::not_found("there never was such a lease"));
        let (state, queue, way) = self.log.lease(lease).await?.ok_or_else(unknown)?;
        let own = way == Way::Pull && state.consumer == *holder;
        if own && state.alive {
            return Ok((state, queue));
        }
        let reason = if own { DenyReason::LeaseEnded } else { DenyReason::PolicyDenied };
        self.record(holder, QueueAction::Consume, &queue, caller.authority(), Decision::deny(reason), caller.trace)?;
        Err(if own { Refusal::Denied(reason) } else { unknown() })
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, Refusal> {
        let rules = self.rules.current().map_err(Refusal::Denied)?;
        let mut all = Vec::with_capacity(rules.queues.len());
        for queue in rules.queues.keys() {
            all.push(self.log.stats(queue).await?);
        }
        Ok(all)
    }

    /// Gives the messages of late pull leases back.
    pub(crate) async fn expire(&self, rules: &Rulebook, queue: &str) -> Result<(), Fault> {
        let Some(profile) = rules.queues.get(queue) else { return Ok(()) };
        for settled in self.log.expire(queue, profile).await? {
            if let Some(consumer) = &profile.consumer {
                self.tell(consumer, queue, None, &settled);
            }
        }
        Ok(())
    }

    /// Asks the policy, and records the answer; a refusal, or a record that could not be kept, ends the act.
    pub(crate) fn decide(&self, rules: &Rulebook, ask: &Ask<'_>, trace: TraceContext) -> Result<(), Refusal> {
        let decision = rules.decide.decide(ask);
        let refused = decision.deny_reason();
        self.record(ask.principal, ask.action, ask.queue, ask.authority, decision, trace)?;
        refused.map_or(Ok(()), |reason| Err(Refusal::Denied(reason)))
    }

    /// Records a refusal that no policy was asked about.
    fn noted<T>(&self, caller: &Caller, who: &SpiffeId, action: QueueAction, queue: &str, checked: Result<T, Unfit>) -> Result<T, Refusal> {
        if let Err(Unfit::Refused(reason)) = &checked {
            self.record(who, action, queue, caller.authority(), Decision::deny(*reason), caller.trace)?;
        }
        checked.map_err(Refusal::from)
    }

    fn record(
        &self,
        who: &SpiffeId,
        action: QueueAction,
        queue: &str,
        authority: Option<&Authority>,
        decision: Decision,
        trace: TraceContext,
    ) -> Result<(), Refusal> {
        let event = CallDecided {
            point: "queue",
            principal: who.to_string(),
            action: action.as_str().to_owned(),
            resource: format!("queue/{queue}"),
            user: authority.map(|a| a.user.clone()).unwrap_or_default(),
            purpose: authority.map(|a| a.purpose.clone()).unwrap_or_default(),
            txn: authority.map(|a| a.txn.clone()).unwrap_or_default(),
            job: authority.and_then(|a| a.job.as_ref()).map(|j| j.id.clone()).unwrap_or_default(),
            decision,
        };
        self.recorder.record(Some(trace), &event).map_err(|_| Refusal::Denied(DenyReason::AuditUnavailable))
    }

    /// Says that a message became a dead letter. The letter itself is on the disk: a record that cannot be kept loses nothing of it.
    pub(crate) fn tell(&self, consumer: &SpiffeId, queue: &str, trace: Option<TraceContext>, settled: &Settled) {
        let Settled::Dead { job, reason } = settled else { return };
        let detail = format!("queue {queue}: {reason}");
        let event = ActDone { act: "queue.dead_letter", by: consumer.to_string(), to: job.clone(), detail };
        if self.recorder.record(trace, &event).is_err() {
            tracing::error!(job, queue, "a dead letter could not be recorded");
        }
    }
}

fn admitted(route: &Route, peer: &SpiffeId) -> bool {
    match route.who {
        Who::Roles(roles) => peer.as_role().is_some_and(|role| roles.contains(&role)),
        Who::Policy => true,
        _ => false,
    }
}

#[async_trait::async_trait]
impl Room for Queue {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        match self.route(&caller, request).await {
            Ok(response) => response,
            Err(Refusal::Denied(reason)) => body::denied(reason),
            Err(Refusal::Fault(fault)) => {
                if let Some(cause) = &fault.cause {
                    tracing::warn!(%cause, status = fault.status(), "a request failed");
                }
                body::fault(&fault)
            }
        }
    }
}
