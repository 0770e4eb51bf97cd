//! The account of one request: what is known of it, the decision, and its span; kept by every enforcement point in the same way.
//!
//! The decision is recorded before the request goes on, because a loss must stop it. The span ends with the last byte of the answer,
//! or when the caller goes away.
//!
//! Guarantees: J4, J7 every decision is recorded with its reason, policies and epoch; D11 rate, errors and duration of each hop.

mod words;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use contract::Body;
use contract::body;
use http::{Request, Response};
use serde_json::{Map, Value};
use telemetry::event::{FaultRaised, TunnelEnded};
use telemetry::flows::{self, Outcome};
use telemetry::json::Object;
use telemetry::{Access, AuditLost, Decided, Event, Recorder, Shown, SpanStart};
use trust::{Authority, Clock, Decision, DenyReason, Fault, SpiffeId, TraceContext};

use self::words::{Word, Words};
use crate::access::{Arrival, Watched};
use crate::passage::{AtEnd, Ended, Passage};
use crate::tunnel::Summary;

/// Status of a span whose caller went away before there was an answer (as nginx has it).
const CALLER_GONE: u16 = 499;
const RESOURCE_BYTES_MAX: usize = 512;

/// One request's account. It moves with the request, so it is one pointer.
#[derive(Debug)]
pub struct Account(Box<Told>);

/// What is known of a request.
#[derive(Debug)]
struct Told {
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    start: SpanStart,
    began: Duration,
    point: &'static str,
    kind: &'static str,
    status: u16,
    quiet: bool,
    words: Words,
    principal: Word,
    action: Word,
    resource: Word,
    /// Route template for metrics and the span's name; never a path.
    route: Word,
    user: Word,
    purpose: Word,
    txn: Word,
    job: Word,
    /// The workload that it went to, where that is not the resource.
    forwarded_to: Word,
    answer: Answer,
    notes: Map<String, Value>,
    /// What the access log is told, at doors that have one.
    watched: Option<Box<Watched>>,
}

/// A decision: made for this request, or for one like it.
#[derive(Debug)]
pub enum Answer {
    /// For this one.
    Own(Decision),
    /// Asked and answered before.
    Kept(Arc<Decision>),
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        Self::Own(decision)
    }
}

impl From<Arc<Decision>> for Answer {
    fn from(decision: Arc<Decision>) -> Self {
        Self::Kept(decision)
    }
}

impl Deref for Answer {
    type Target = Decision;
    fn deref(&self) -> &Decision {
        match self {
            Self::Own(decision) => decision,
            Self::Kept(decision) => decision,
        }
    }
}

impl Account {
    /// Begins: at `point`, as a span of `kind` (`server`, `client`, `consumer`) under `parent`. Until more is known the request is
    /// `unauthenticated` and refused.
    #[must_use]
    pub fn begin(
        recorder: &Recorder,
        clock: &Arc<dyn Clock>,
        point: &'static str,
        kind: &'static str,
        parent: Option<TraceContext>,
    ) -> Self {
        Self(Box::new(Told {
            recorder: recorder.clone(),
            clock: Arc::clone(clock),
            start: recorder.start(parent),
            began: clock.monotonic(),
            point,
            kind,
            status: CALLER_GONE,
            quiet: false,
            words: Words::default(),
            principal: Word::Fixed("unauthenticated"),
            action: Word::Fixed("request"),
            resource: Word::default(),
            route: Word::Fixed("unknown"),
            user: Word::default(),
            purpose: Word::default(),
            txn: Word::default(),
            job: Word::default(),
            forwarded_to: Word::default(),
            answer: Answer::Own(Decision::deny(DenyReason::CallerNotAdmitted)),
            notes: Map::new(),
            watched: None,
        }))
    }

    /// Looks at the request for the access log, if this door has one.
    #[must_use]
    pub fn watch(&mut self, request: Request<Body>, arrival: Arrival, shown: Shown) -> Request<Body> {
        if !self.0.recorder.has_access_log() {
            return request;
        }
        let (watched, request) = Watched::begin(request, arrival, shown);
        self.0.watched = Some(watched);
        request
    }

    /// What the caller shows to say who it is.
    pub fn shown(&mut self, shown: Shown) {
        if let Some(watched) = &mut self.0.watched {
            watched.asked.shown = shown;
        }
    }

    /// Who calls.
    pub fn principal(&mut self, principal: impl AsRef<str>) {
        self.0.principal = self.0.words.say(&[principal.as_ref()]);
    }

    /// The workload that calls.
    pub fn caller(&mut self, caller: &SpiffeId) {
        self.0.principal = self.0.words.say(&caller.pieces());
    }

    /// What is done (`call`, `queue.publish`), to what (a path, an object), over which route template.
    pub fn act(&mut self, action: impl AsRef<str>, resource: impl AsRef<str>, route: impl AsRef<str>) {
        self.act_on(action.as_ref(), &[resource.as_ref()], &[route.as_ref()]);
    }

    /// The same, with the resource and the route in pieces.
    pub fn act_on(&mut self, action: &str, resource: &[&str], route: &[&str]) {
        self.0.action = self.0.words.say(&[action]);
        self.resource(resource);
        self.0.route = self.0.words.say(route);
    }

    /// What is done, so far as known.
    #[must_use]
    pub fn action(&self) -> &str {
        self.0.words.said(self.0.action)
    }

    /// To what, in pieces.
    pub fn resource(&mut self, resource: &[&str]) {
        self.0.resource = self.0.words.say_at_most(RESOURCE_BYTES_MAX, resource);
    }

    /// On whose authority.
    pub fn authority(&mut self, authority: &Authority) {
        let told = &mut *self.0;
        told.user = told.words.say(&[&authority.user]);
        told.purpose = told.words.say(&[&authority.purpose]);
        told.txn = told.words.say(&[&authority.txn]);
        told.job = told.words.say(&[authority.job.as_ref().map_or("", |job| &job.id)]);
    }

    /// The person, where no authority is needed.
    pub fn user(&mut self, user: impl AsRef<str>) {
        self.0.user = self.0.words.say(&[user.as_ref()]);
    }

    /// Where it went.
    pub fn forwarded_to(&mut self, peer: &SpiffeId) {
        self.0.forwarded_to = self.0.words.say(&peer.pieces());
    }

    /// Says something more on the span alone.
    pub fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.0.notes.insert(name.to_owned(), value.into());
    }

    /// Telemetry about telemetry: once allowed it leaves no record and no span, or each batch would make the next. Refusals do.
    pub fn quiet(&mut self) {
        self.0.quiet = true;
    }

    /// The span of this request: parent of all that it causes.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.0.start.context
    }

    /// Records the decision.
    ///
    /// # Errors
    /// The reason of a Deny; `AuditUnavailable` when the record could not be kept, also for an Allow.
    pub fn decide(&mut self, answer: impl Into<Answer>) -> Result<(), DenyReason> {
        let told = &mut *self.0;
        told.answer = answer.into();
        let denied = told.answer.deny_reason();
        let decided = told.decided();
        let recorded = if told.quiet && denied.is_none() {
            // Counted all the same.
            decided.count(told.recorder.metrics());
            Ok(())
        } else {
            told.recorder.record(Some(told.start.context), &decided)
        };
        match (recorded, denied) {
            (Err(_), _) => {
                told.answer = Decision::deny(DenyReason::AuditUnavailable).into();
                Err(DenyReason::AuditUnavailable)
            }
            (Ok(()), Some(reason)) => Err(reason),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Records a refusal that no policy was asked about, and answers it.
    #[must_use]
    pub fn refuse(mut self, reason: DenyReason) -> Response<Body> {
        let reason = self.decide(Decision::deny(reason)).err().unwrap_or(reason);
        self.denied(reason)
    }

    /// The answer to a Deny that is recorded already.
    #[must_use]
    pub fn denied(self, reason: DenyReason) -> Response<Body> {
        self.finish(body::denied(reason))
    }

    /// Says for the log why what was allowed could not be done, and gives the caller's half of it.
    #[must_use]
    pub fn failed(&self, fault: &Fault) -> Response<Body> {
        let mut cause = fault.public.clone();
        let mut next = std::error::Error::source(fault);
        while let Some(error) = next {
            cause = format!("{cause}: {error}");
            next = error.source();
        }
        // Not an audited event, so there is nothing to lose.
        let raised = FaultRaised { point: self.0.point, action: self.action().to_owned(), cause };
        let _recorded = self.0.recorder.record(Some(self.0.start.context), &raised);
        body::fault(fault)
    }

    /// Ends the account when the answer's body has ended. `held` is kept as long: permits, tickets.
    #[must_use]
    pub fn finish_holding<H: Send + Unpin + 'static>(self, response: Response<Body>, held: H) -> Response<Body> {
        let end = self.ending(response.status(), held);
        response.map(|body| Passage::new(body).at_end(end).into_body())
    }

    /// What ends the account of an answer with this status, and `held` with it.
    pub fn ending<H: Send + Unpin + 'static>(self, status: http::StatusCode, held: H) -> impl AtEnd {
        Ending { account: self, status: status.as_u16(), held }
    }

    /// Ends the account of a tunnel that has ended, and records how it went.
    pub fn tunnel_ended(mut self, status: u16, summary: &Summary) {
        self.0.status = status;
        if let Some(watched) = &mut self.0.watched {
            watched.tunnelled(summary.bytes_in, summary.bytes_out);
        }
        self.note("bytes_in", summary.bytes_in);
        self.note("bytes_out", summary.bytes_out);
        self.note("ended", summary.why.code());
        let told = &*self.0;
        let said = |word| told.words.said(word).to_owned();
        let ended = TunnelEnded {
            point: told.point,
            principal: said(told.principal),
            resource: said(told.resource),
            user: said(told.user),
            txn: said(told.txn),
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
            seconds: told.clock.monotonic().saturating_sub(told.began).as_secs(),
            why: summary.why.code(),
        };
        // It has ended whether or not this is kept.
        let _recorded = told.recorder.record(Some(told.start.context), &ended);
    }

    /// Ends the account of a question that was answered with that status; what is done with the answer is the asker's.
    pub fn answered(mut self, status: u16) {
        self.0.status = status;
    }

    /// Ends the account when the answer's body has ended.
    #[must_use]
    pub fn finish(self, response: Response<Body>) -> Response<Body> {
        self.finish_holding(response, ())
    }
}

/// The end of an account.
struct Ending<H> {
    account: Account,
    status: u16,
    held: H,
}

impl<H: Send + Unpin + 'static> AtEnd for Ending<H> {
    fn act(mut self, _how: Ended, bytes: u64) {
        let told = &mut *self.account.0;
        told.status = self.status;
        if let Some(watched) = &mut told.watched {
            watched.went = bytes;
        }
        drop(self.account);
        drop(self.held);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let told = &mut *self.0;
        let took_ns = u64::try_from(told.clock.monotonic().saturating_sub(told.began).as_nanos()).unwrap_or(u64::MAX);
        let has_span = !(told.quiet && told.answer.is_allow());
        told.count(took_ns, has_span);
        if has_span {
            let name = [told.point, " ", told.words.said(told.route)];
            told.recorder.end_written(&told.start, &name, told.kind, told.status, &|out| told.attributes(out));
        }
        if let Some(watched) = &told.watched {
            told.tell(watched, took_ns);
        }
    }
}

impl Told {
    /// Counts it for its flow; as an exemplar only where a span tells of it.
    fn count(&self, took_ns: u64, has_span: bool) {
        // What fails before there is a decision was not refused.
        let refusal = self.answer.deny_reason();
        let outcome = match self.status {
            status if refusal.is_some_and(|reason| reason.status() == status || (status < 500 && status != CALLER_GONE)) => {
                Outcome::Refused
            }
            CALLER_GONE => Outcome::Gone,
            500.. => Outcome::Failed,
            _ => Outcome::Answered,
        };
        self.recorder.metrics().request(&flows::Ended {
            point: self.point,
            caller: self.words.said(self.principal),
            route: self.words.said(self.route),
            status: self.status,
            outcome,
            took_ns,
            trace: has_span.then_some((self.start.context, self.start.start_ns)),
        });
    }

    /// Hands what is known of it to the access log.
    fn tell(&self, watched: &Watched, took_ns: u64) {
        self.recorder.access(&Access {
            asked: &watched.asked,
            decided: self.decided(),
            route: self.words.said(self.route),
            status: self.status,
            bytes_in: watched.bytes_in(),
            bytes_out: watched.went,
            began_ns: self.start.start_ns,
            took_ns,
            trace: self.start.context,
        });
    }

    fn decided(&self) -> Decided<'_> {
        Decided {
            point: self.point,
            principal: self.words.said(self.principal),
            action: self.words.said(self.action),
            resource: self.words.said(self.resource),
            user: self.words.said(self.user),
            purpose: self.words.said(self.purpose),
            txn: self.words.said(self.txn),
            job: self.words.said(self.job),
            decision: &self.answer,
        }
    }

    /// What a span says of a request: its notes, and what the decision rests on.
    fn attributes(&self, out: &mut Vec<u8>) -> Result<(), AuditLost> {
        let (decision, reason, policies, epoch) = match &*self.answer {
            Decision::Allow { policies, epoch, .. } => ("allow", "", policies, epoch),
            Decision::Deny { reason, policies, epoch, .. } => ("deny", reason.code(), policies, epoch),
        };
        let decided = self.decided();
        let said = [
            ("point", decided.point),
            ("peer", decided.principal),
            ("action", decided.action),
            ("resource", decided.resource),
            ("user", decided.user),
            ("purpose", decided.purpose),
            ("txn", decided.txn),
            ("job", decided.job),
            ("forwarded_to", self.words.said(self.forwarded_to)),
            ("decision", decision),
            ("reason", reason),
        ];
        let mut attributes = Object::begin(out);
        for (name, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
            attributes.text(name, value);
        }
        if !policies.is_empty() {
            attributes.joined("policy", policies);
        }
        if let Some(shadow) = self.answer.shadow() {
            attributes.text("shadow", if shadow.allow { "allow" } else { "deny" });
        }
        attributes.number("epoch", *epoch);
        for (name, value) in self.notes.iter().filter(|(name, _)| said.iter().all(|(its, _)| its != name)) {
            serde_json::to_writer(attributes.member(name), value).map_err(|_| AuditLost)?;
        }
        attributes.end();
        Ok(())
    }
}
