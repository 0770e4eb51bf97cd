//! The account of one request: what is known of it, the decision, and its span; kept by every enforcement point in the same way.
//!
//! The decision is recorded before the request goes on, because a loss must stop it. The span ends with the last byte of the answer,
//! or when the caller goes away.
//!
//! Guarantees: J4, J7 every decision is recorded with its reason, policies and epoch; D11 rate, errors and duration of each hop.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use contract::Body;
use contract::body;
use http::{Request, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use telemetry::event::{CallDecided, Event, FaultRaised, TunnelEnded};
use telemetry::flows::{self, Outcome};
use telemetry::{Access, Recorder, Shown, SpanStart};
use trust::{Authority, Clock, Decision, DenyReason, Fault, TraceContext};

use crate::access::{Arrival, Watched};
use crate::passage::Passage;
use crate::tunnel::Summary;

/// Status of a span whose caller went away before there was an answer (as nginx has it).
const CALLER_GONE: u16 = 499;
const RESOURCE_BYTES_MAX: usize = 512;

/// One request's account.
#[derive(Debug)]
pub struct Account {
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    start: SpanStart,
    began: Duration,
    kind: &'static str,
    status: u16,
    quiet: bool,
    /// Route template for metrics and the span's name; never a path.
    route: String,
    event: CallDecided,
    notes: Map<String, Value>,
    /// What the access log is told, at doors that have one.
    watched: Option<Box<Watched>>,
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
        let event = CallDecided {
            point,
            principal: "unauthenticated".to_owned(),
            action: "request".to_owned(),
            resource: String::new(),
            user: String::new(),
            purpose: String::new(),
            txn: String::new(),
            job: String::new(),
            decision: Decision::deny(DenyReason::CallerNotAdmitted),
        };
        let start = recorder.start(parent);
        Self {
            recorder: recorder.clone(),
            clock: Arc::clone(clock),
            start,
            began: clock.monotonic(),
            kind,
            status: CALLER_GONE,
            quiet: false,
            route: "unknown".to_owned(),
            event,
            notes: Map::new(),
            watched: None,
        }
    }

    /// Looks at the request for the access log, if this door has one.
    #[must_use]
    pub fn watch(&mut self, request: Request<Body>, arrival: Arrival, shown: Shown) -> Request<Body> {
        if !self.recorder.has_access_log() {
            return request;
        }
        let (watched, request) = Watched::begin(request, arrival, shown);
        self.watched = Some(watched);
        request
    }

    /// What the caller shows to say who it is.
    pub fn shown(&mut self, shown: Shown) {
        if let Some(watched) = &mut self.watched {
            watched.asked.shown = shown;
        }
    }

    /// Who calls.
    pub fn principal(&mut self, principal: impl Into<String>) {
        self.event.principal = principal.into();
    }

    /// What is done (`call`, `queue.publish`), to what (a path, an object), over which route template.
    pub fn act(&mut self, action: impl Into<String>, resource: impl Into<String>, route: impl Into<String>) {
        self.event.action = action.into();
        self.resource(resource);
        self.route = route.into();
    }

    /// What is done, so far as known.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.event.action
    }

    /// To what.
    pub fn resource(&mut self, resource: impl Into<String>) {
        let mut resource = resource.into();
        if resource.len() > RESOURCE_BYTES_MAX {
            let end = (0..=RESOURCE_BYTES_MAX).rev().find(|end| resource.is_char_boundary(*end)).unwrap_or_default();
            resource.truncate(end);
        }
        self.event.resource = resource;
    }

    /// On whose authority.
    pub fn authority(&mut self, authority: &Authority) {
        self.event.user.clone_from(&authority.user);
        self.event.purpose.clone_from(&authority.purpose);
        self.event.txn.clone_from(&authority.txn);
        self.event.job = authority.job.as_ref().map(|job| job.id.clone()).unwrap_or_default();
    }

    /// The person, where no authority is needed.
    pub fn user(&mut self, user: impl Into<String>) {
        self.event.user = user.into();
    }

    /// Says something more on the span alone.
    pub fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.notes.insert(name.to_owned(), value.into());
    }

    /// Telemetry about telemetry: once allowed it leaves no record and no span, or each batch would make the next. Refusals do.
    pub fn quiet(&mut self) {
        self.quiet = true;
    }

    /// The span of this request: parent of all that it causes.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.start.context
    }

    /// Records the decision.
    ///
    /// # Errors
    /// The reason of a Deny; `AuditUnavailable` when the record could not be kept, also for an Allow.
    pub fn decide(&mut self, decision: Decision) -> Result<(), DenyReason> {
        let denied = decision.deny_reason();
        self.event.decision = decision;
        let recorded = if self.quiet && denied.is_none() {
            // Counted all the same.
            self.event.count(self.recorder.metrics());
            Ok(())
        } else {
            self.recorder.record(Some(self.start.context), &self.event)
        };
        match (recorded, denied) {
            (Err(_), _) => {
                self.event.decision = Decision::deny(DenyReason::AuditUnavailable);
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
        let _recorded = self
            .recorder
            .record(Some(self.start.context), &FaultRaised { point: self.event.point, action: self.event.action.clone(), cause });
        body::fault(fault)
    }

    /// Ends the account when the answer's body has ended. `held` is kept as long: permits, tickets.
    #[must_use]
    pub fn finish_holding<H: Send + 'static>(mut self, response: Response<Body>, held: H) -> Response<Body> {
        let status = response.status().as_u16();
        response.map(|body| {
            Passage::new(body)
                .at_end_counted(move |_ended, bytes| {
                    self.status = status;
                    if let Some(watched) = &mut self.watched {
                        watched.went = bytes;
                    }
                    drop(self);
                    drop(held);
                })
                .into_body()
        })
    }

    /// Ends the account of a tunnel that has ended, and records how it went.
    pub fn tunnel_ended(mut self, status: u16, summary: &Summary) {
        self.status = status;
        if let Some(watched) = &mut self.watched {
            watched.tunnelled(summary.bytes_in, summary.bytes_out);
        }
        self.note("bytes_in", summary.bytes_in);
        self.note("bytes_out", summary.bytes_out);
        self.note("ended", summary.why.code());
        let ended = TunnelEnded {
            point: self.event.point,
            principal: self.event.principal.clone(),
            resource: self.event.resource.clone(),
            user: self.event.user.clone(),
            txn: self.event.txn.clone(),
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
            seconds: self.clock.monotonic().saturating_sub(self.began).as_secs(),
            why: summary.why.code(),
        };
        // It has ended whether or not this is kept.
        let _recorded = self.recorder.record(Some(self.start.context), &ended);
    }

    /// Ends the account when the answer's body has ended.
    #[must_use]
    pub fn finish(self, response: Response<Body>) -> Response<Body> {
        self.finish_holding(response, ())
    }
}

impl Account {
    /// Counts it for its flow; as an exemplar only where a span tells of it.
    fn count(&self, took_ns: u64, has_span: bool) {
        // What fails before there is a decision was not refused.
        let refusal = self.event.decision.deny_reason();
        let outcome = match self.status {
            status if refusal.is_some_and(|reason| reason.status() == status || (status < 500 && status != CALLER_GONE)) => {
                Outcome::Refused
            }
            CALLER_GONE => Outcome::Gone,
            500.. => Outcome::Failed,
            _ => Outcome::Answered,
        };
        self.recorder.metrics().request(&flows::Ended {
            point: self.event.point,
            caller: &self.event.principal,
            route: &self.route,
            status: self.status,
            outcome,
            took_ns,
            trace: has_span.then_some((self.start.context, self.start.start_ns)),
        });
    }

    /// Hands what is known of it to the access log.
    fn tell(&mut self, watched: Watched, took_ns: u64) {
        let event = &mut self.event;
        let decision = std::mem::replace(&mut event.decision, Decision::deny(DenyReason::CallerNotAdmitted));
        let access = Access {
            event: CallDecided {
                point: event.point,
                principal: take(&mut event.principal),
                action: take(&mut event.action),
                resource: take(&mut event.resource),
                user: take(&mut event.user),
                purpose: take(&mut event.purpose),
                txn: take(&mut event.txn),
                job: take(&mut event.job),
                decision,
            },
            route: take(&mut self.route),
            status: self.status,
            bytes_in: watched.bytes_in(),
            bytes_out: watched.went,
            began_ns: self.start.start_ns,
            took_ns,
            trace: self.start.context,
            asked: watched.asked,
        };
        self.recorder.access(access);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took_ns = u64::try_from(self.clock.monotonic().saturating_sub(self.began).as_nanos()).unwrap_or(u64::MAX);
        let has_span = !(self.quiet && self.event.decision.is_allow());
        self.count(took_ns, has_span);
        if has_span {
            let name = format!("{} {}", self.event.point, self.route);
            self.recorder.end(&self.start, &name, self.kind, self.status, &Attributes(self));
        }
        if let Some(watched) = self.watched.take() {
            self.tell(*watched, took_ns);
        }
    }
}

/// What a span says of a request: its notes, and what the decision rests on.
struct Attributes<'a>(&'a Account);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, notes) = (&self.0.event, &self.0.notes);
        let (decision, reason, policies, epoch) = match &event.decision {
            Decision::Allow { policies, epoch, .. } => ("allow", "", policies, epoch),
            Decision::Deny { reason, policies, epoch, .. } => ("deny", reason.code(), policies, epoch),
        };
        let said = [
            ("point", event.point),
            ("peer", &event.principal),
            ("action", &event.action),
            ("resource", &event.resource),
            ("user", &event.user),
            ("purpose", &event.purpose),
            ("txn", &event.txn),
            ("job", &event.job),
            ("decision", decision),
            ("reason", reason),
        ];
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in notes.iter().filter(|(name, _)| said.iter().all(|(its, _)| its != name)) {
            map.serialize_entry(name, value)?;
        }
        for (name, value) in said.iter().filter(|(_, value)| !value.is_empty()) {
            map.serialize_entry(name, value)?;
        }
        if !policies.is_empty() {
            map.serialize_entry("policy", &policies.join(" "))?;
        }
        if let Some(shadow) = event.decision.shadow() {
            map.serialize_entry("shadow", if shadow.allow { "allow" } else { "deny" })?;
        }
        map.serialize_entry("epoch", epoch)?;
        map.end()
    }
}
