//! The routes of `contract::identity`.
//!
//! Guarantees: C5, C6 what a process runs is compared before it is named; C7 a token works once, whatever the outcome; every answer
//!             and every refusal is in the audit log before the caller has it.
//! Not here:   the caller's handshake (`proxy`).

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::identity::{Artefact, Issued, Join, ROUTES, RegisterToken, Renew, Revocation, TokenRegistered};
use contract::{Body, Caller, Found, LocalPeer, Peer, Room, Route, body, find};
use http::{Request, Response, StatusCode};
use serde::Serialize;
use telemetry::Recorder;
use telemetry::event::{ActDone, CallDecided, CredentialReplayed, FaultRaised};
use trust::{Clock, Decision, DenyReason, Fault, SpiffeId, TraceContext};

use crate::attest;
use crate::ca::{Ca, CaError};
use crate::tokens::{TokenRefusal, Tokens};

/// How long `/bundle?after=N` waits for a newer one.
const BUNDLE_WAIT: Duration = Duration::from_secs(25);

/// The room. Its work hashes files and flushes, so it runs on threads that may block: hence shared.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    ca: Arc<Ca>,
    tokens: Mutex<Tokens>,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    programs: attest::Programs,
}

/// What a route comes to when it is not what was asked for.
#[derive(Debug)]
enum Outcome {
    Denied(DenyReason, &'static str),
    Fault(Fault),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CaError> for Outcome {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request(error) => Self::Fault(Fault::bad_request(error.to_string())),
            CaError::Revoked => Self::Denied(DenyReason::SvidRevoked, "revoked"),
            CaError::NameRefused(_) => Self::Denied(DenyReason::TrustDomainForeign, "name"),
            other => Self::Fault(Fault::internal(other)),
        }
    }
}

impl From<telemetry::AuditLost> for Outcome {
    fn from(_: telemetry::AuditLost) -> Self {
        Self::Denied(DenyReason::AuditUnavailable, "audit")
    }
}

impl Identity {
    /// The room over an authority.
    #[must_use]
    pub fn new(ca: Arc<Ca>, recorder: Recorder, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Parts { ca, tokens: Mutex::default(), recorder, clock, programs: attest::Programs::default() }))
    }
}

impl Parts {
    async fn answer(self: Arc<Self>, route: &Route, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Outcome> {
        match (route.action, &caller.peer) {
            ("identity.token.register", Peer::Supervisor) => {
                let token = body::parse_json(request.into_body()).await?;
                self.blocking(move |room| room.register(token)).await.map(|answer| ok(&answer))
            }
            ("identity.join", Peer::Local(peer)) => {
                let (peer, trace) = (peer.clone(), caller.trace);
                let join = body::parse_json(request.into_body()).await?;
                self.blocking(move |room| room.join(&peer, &join, trace)).await.map(|answer| ok(&answer))
            }
            ("identity.pep.issue", Peer::Workload(id)) if id.as_pdp().is_some() => {
                let (id, trace) = (id.clone(), caller.trace);
                let renew: Renew = body::parse_json(request.into_body()).await?;
                self.blocking(move |room| {
                    let issued = room.ca.issue_pep(&id, &renew.csr)?;
                    room.issued("identity.pep.issue", &id.to_string(), &issued, trace)
                })
                .await
                .map(|answer| ok(&answer))
            }
            // Its decision point alone asks for it, by the route above: whoever has its key cannot live on it.
            ("identity.renew", Peer::Workload(id)) if id.as_pep().is_none() => {
                let (id, trace) = (id.clone(), caller.trace);
                let renew: Renew = body::parse_json(request.into_body()).await?;
                self.blocking(move |room| {
                    let issued = room.ca.renew(&id, &renew.csr)?;
                    room.issued("identity.renew", &id.to_string(), &issued, trace)
                })
                .await
                .map(|answer| ok(&answer))
            }
            ("identity.bundle.read", Peer::Workload(id)) if id.as_role() == Some("control") => self.bundle(request.uri().query()).await,
            ("identity.revoke", Peer::Workload(id)) if id.as_role() == Some("control") => {
                let (by, trace) = (id.to_string(), caller.trace);
                let revocation = body::parse_json(request.into_body()).await?;
                self.blocking(move |room| room.revoke(&by, &revocation, trace)).await.map(|answer| ok(&answer))
            }
            _ => Err(Outcome::Denied(DenyReason::CallerNotAdmitted, "caller")),
        }
    }

    fn register(&self, token: RegisterToken) -> Result<TokenRegistered, Outcome> {
        if token.spiffe_id.trust_domain != *self.ca.trust_domain() {
            return Err(Outcome::Denied(DenyReason::TrustDomainForeign, "name"));
        }
        let bundle = self.ca.bundle()?;
        let taken = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).register(token, self.clock.monotonic());
        if taken { Ok(TokenRegistered { bundle }) } else { Err(Fault::conflict("the token is not new, or too many wait").into()) }
    }

    fn join(&self, peer: &LocalPeer, join: &Join, trace: TraceContext) -> Result<Issued, Outcome> {
        let spent = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).spend(&join.token, self.clock.monotonic());
        let registered = match spent {
            Ok(registered) => registered,
            Err(why) => {
                if why == TokenRefusal::Used {
                    let replayed = CredentialReplayed { what: "join_token", user: String::new(), client: format!("pid {}", peer.pid) };
                    self.recorder.record(Some(trace), &replayed)?;
                }
                return Err(Outcome::Denied(DenyReason::JoinTokenInvalid, why.code()));
            }
        };
        if peer.uid != registered.uid {
            return Err(Outcome::Denied(DenyReason::AttestationFailed, "uid"));
        }
        let program = self.programs.of(peer, self.clock.unix_ms()).map_err(|error| {
            self.note("identity.join", &error);
            Outcome::Denied(DenyReason::AttestationFailed, "program unknown")
        })?;
        if program != registered.binary {
            return Err(Outcome::Denied(DenyReason::AttestationFailed, "program"));
        }
        if !same_artefacts(&join.artefacts, &registered.artefacts) {
            return Err(Outcome::Denied(DenyReason::ArtefactMismatch, "artefacts"));
        }
        let issued = self.ca.admit(&registered.spiffe_id, &join.csr)?;
        self.issued("identity.join", &format!("uid {} pid {}", peer.uid, peer.pid), &issued, trace)
    }

    fn revoke(&self, by: &str, revocation: &Revocation, trace: TraceContext) -> Result<contract::identity::Bundle, Outcome> {
        if revocation.spiffe_id.trust_domain != *self.ca.trust_domain() {
            return Err(Outcome::Denied(DenyReason::TrustDomainForeign, "name"));
        }
        // Written down first: a revocation that cannot be recorded afterwards must not be undone, so its intent is.
        self.act("identity.revoke", by, &revocation.spiffe_id, format!("before {}", revocation.before_s), trace)?;
        Ok(self.ca.revoke(revocation)?)
    }

    async fn bundle(self: Arc<Self>, query: Option<&str>) -> Result<Response<Body>, Outcome> {
        let after = match query {
            None => 0,
            Some(query) => {
                let number = query.strip_prefix("after=").and_then(|n| n.parse::<u64>().ok());
                number.ok_or_else(|| Fault::bad_request("the query is after=NUMBER, or nothing"))?
            }
        };
        let mut sequence = self.ca.watch();
        // Past the wait the present bundle is the answer; a closed channel cannot be, the authority lives as long as the room.
        let _ = tokio::time::timeout(BUNDLE_WAIT, sequence.wait_for(|now| *now > after)).await;
        self.blocking(|room| Ok(room.ca.bundle()?)).await.map(|bundle| ok(&bundle))
    }

    fn issued(&self, act: &'static str, by: &str, issued: &Issued, trace: TraceContext) -> Result<Issued, Outcome> {
        self.act(act, by, &issued.spiffe_id, format!("until {}", issued.not_after_s), trace)?;
        Ok(issued.clone())
    }

    fn act(&self, act: &'static str, by: &str, to: &SpiffeId, detail: String, trace: TraceContext) -> Result<(), Outcome> {
        Ok(self.recorder.record(Some(trace), &ActDone { act, by: by.to_owned(), to: to.to_string(), detail })?)
    }

    fn note(&self, action: &str, error: &(dyn Error + 'static)) {
        let (mut cause, mut source) = (error.to_string(), error.source());
        while let Some(deeper) = source {
            cause = format!("{cause}: {deeper}");
            source = deeper.source();
        }
        // Not audited, so it cannot be lost: a log line and a count.
        let _ = self.recorder.record(None, &FaultRaised { point: "identity", action: action.to_owned(), cause });
    }

    /// Hashing and flushing block.
    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        act: impl FnOnce(&Self) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<T, Outcome> {
        tokio::task::spawn_blocking(move || act(&self)).await.map_err(|error| Outcome::Fault(Fault::internal(error)))?
    }

    fn refuse(&self, action: &str, caller: &Caller, reason: DenyReason, detail: &str) -> Response<Body> {
        let decided = CallDecided {
            point: "identity",
            principal: principal(&caller.peer),
            action: action.to_owned(),
            resource: detail.to_owned(),
            user: String::new(),
            purpose: String::new(),
            txn: String::new(),
            job: String::new(),
            decision: Decision::deny(reason),
        };
        match self.recorder.record(Some(caller.trace), &decided) {
            Ok(()) => body::denied(reason),
            Err(_) => body::denied(DenyReason::AuditUnavailable),
        }
    }
}

#[async_trait]
impl Room for Identity {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let route = match find(ROUTES, method.as_str(), &path) {
            Found::Route(route, _) => route,
            Found::MethodUnlisted => return self.0.refuse("", &caller, DenyReason::MethodUnlisted, &path),
            Found::Unknown => return self.0.refuse("", &caller, DenyReason::RouteUnknown, &path),
        };
        match Arc::clone(&self.0).answer(route, &caller, request).await {
            Ok(response) => response,
            Err(Outcome::Denied(reason, detail)) => self.0.refuse(route.action, &caller, reason, detail),
            Err(Outcome::Fault(fault)) => {
                if fault.kind == trust::FaultKind::Internal {
                    self.0.note(route.action, &fault);
                }
                body::fault(&fault)
            }
        }
    }
}

/// The same files with the same digests, in any order; none twice.
fn same_artefacts(measured: &[Artefact], registered: &[Artefact]) -> bool {
    let sorted = |artefacts: &[Artefact]| {
        let mut pairs: Vec<_> = artefacts.iter().map(|a| (a.path.clone(), a.digest)).collect();
        pairs.sort();
        pairs
    };
    sorted(measured) == sorted(registered)
}

fn principal(peer: &Peer) -> String {
    match peer {
        Peer::Workload(id) => id.to_string(),
        Peer::Local(local) => format!("uid {} pid {}", local.uid, local.pid),
        Peer::Operator(_) => "operator".to_owned(),
        Peer::Supervisor => "supervisor".to_owned(),
    }
}

fn ok<T: Serialize>(answer: &T) -> Response<Body> {
    body::json(StatusCode::OK, answer)
}
