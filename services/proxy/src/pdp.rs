//! The decision point of an enforcement point that is not ours: an Envoy, or whatever speaks its protocol or AuthZEN.
//!
//! The proxy asks about each request that it has, over a UNIX socket of its own, and is answered after the same steps that the edge takes:
//! accept, identify, admit, authorise, mint, record. What goes on is the proxy's work; what it is given for it is a transaction token, so
//! that the guard behind it can ask again who, what for and where to. Beside decisions it is handed its identity,
//! and told where the guards are.
//!
//! The proxy is believed in what it alone can know: the bytes of the request, and, where it has verified a workload's SVID, which one that
//! was. It is never believed about a person: their token is verified here. It is believed at all because the kernel says that it is run by
//! the user whom the manifest names, and as long as its identity is not revoked.
//!
//! Spec:       envoy.service.auth.v3.Authorization; OpenID AuthZEN Authorization API 1.0; envoy.service.secret.v3 and endpoint.v3; docs/adr/0012.
//! Guarantees: E21; A4 A6 A7 A8 A13 A17, E4 J7 at this point; C12 a revoked enforcement point is refused.
//! Not here:   WebSockets, cookies and sessions, CORS, bodies: those stay with the edge, or with the proxy.

mod asked;
mod authzen;
mod check;
mod discovery;
mod door;
mod message;
mod proxy_svid;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use contract::Client;
use contract::control::{EdgeProfile, PublicRoute};
use http::{HeaderValue, header};
use telemetry::Recorder;
use telemetry::event::FaultRaised;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trust::{Clock, Decision, DenyReason, Entropy, Fault, TraceContext};

use self::asked::{Asked, Claim};
use crate::account::Account;
use crate::canonical;
use crate::edge::DangerousWithout;
use crate::edge::admission::{Admission, Limits};
use crate::edge::bearer::Bearers;
use crate::edge::destination::{self, Destination};
use crate::edge::entry::{self, Entry};
use crate::edge::oidc::Login;
use crate::edge::pass::{Key, Pass, Passes};
use crate::edge::person::Person;
use crate::edge::stop::{Refusal, Stop};
use crate::headers;
use crate::limits;
use crate::view::{Loaded, Question, ViewHolder};

pub use self::proxy_svid::{ProxyIdentity, ProxySvid};

/// This enforcement point's name in records.
pub(crate) const POINT: &str = "pdp";
/// How often what is no longer needed is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a decision point is made of.
#[derive(Debug)]
pub struct Parts {
    /// What it decides by.
    pub views: Arc<ViewHolder>,
    /// The identity of its enforcement point.
    pub proxy: Arc<ProxyIdentity>,
    /// The user that the enforcement point runs as.
    pub uid: u32,
    /// The user that runs Palisade.
    pub own_uid: u32,
    /// The way to `login`.
    pub login: Client,
    /// The origin that people sign in at, and that access tokens are for.
    pub origin: String,
    /// What one person may ask for.
    pub limits: Limits,
    /// Says what happened.
    pub recorder: Recorder,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Cancelled when the process is to drain.
    pub stop: CancellationToken,
}

/// The decision point.
#[derive(Debug)]
pub struct DecisionPoint {
    views: Arc<ViewHolder>,
    proxy: Arc<ProxyIdentity>,
    uid: u32,
    own_uid: u32,
    bearers: Bearers,
    origin: String,
    admission: Admission,
    passes: Passes,
    places: Semaphore,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stop: CancellationToken,
}

/// What a question was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The span of the question: its trace names the decision in the audit log.
    pub(crate) trace: TraceContext,
    /// Go on, or why not.
    pub(crate) outcome: Result<Allowed, Refusal>,
}

/// A request that may go on.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// The transaction token that goes along; nothing where the request brought its own.
    pub(crate) token: Option<HeaderValue>,
    /// Epoch of the view that decided.
    pub(crate) epoch: u64,
}

/// What one question was decided to be.
struct Authorised {
    decision: Arc<Decision>,
    token: Option<HeaderValue>,
    epoch: u64,
}

impl DecisionPoint {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let login = Arc::new(Login::new(parts.login, POINT, Arc::clone(&parts.clock), parts.recorder.clone()));
        Arc::new(Self {
            bearers: Bearers::new(login, Arc::clone(&parts.clock)),
            admission: Admission::new(parts.limits, Arc::clone(&parts.clock)),
            passes: Passes::default(),
            places: Semaphore::new(limits::PEP_CHECKS_MAX),
            views: parts.views,
            proxy: parts.proxy,
            uid: parts.uid,
            own_uid: parts.own_uid,
            origin: parts.origin,
            recorder: parts.recorder,
            clock: parts.clock,
            entropy: parts.entropy,
            stop: parts.stop,
        })
    }

    /// Answers a question; one that cannot be read is refused for the reason that comes in its place. The decision is on record before
    /// this returns.
    pub(crate) async fn decide(&self, asked: Result<Asked, DenyReason>) -> Answered {
        let mut account = Account::begin(&self.recorder, &self.clock, POINT, "server", None);
        account.principal(self.proxy.id().to_string());
        account.act("enter", "unknown", "unknown");
        let trace = account.trace();
        let outcome = match asked {
            Err(reason) => Err(reason.into()),
            Ok(asked) => {
                let whole = Duration::from_millis(limits::PEP_CHECK_MS);
                let steps = tokio::time::timeout(whole, self.steps(&asked, &mut account)).await;
                steps.unwrap_or_else(|_late| Err(DenyReason::DependencyDown.into()))
            }
        };
        let outcome = self.record(&mut account, outcome);
        account.answered(outcome.as_ref().map_or_else(|refusal| refusal.reason.status(), |_| 200));
        Answered { trace, outcome }
    }

    /// The steps before anything takes effect.
    async fn steps(&self, asked: &Asked, account: &mut Account) -> Result<Authorised, Stop> {
        let _place = self.places.try_acquire().map_err(|_| DenyReason::Overloaded)?;
        let view = self.in_force()?;
        let route = Self::accept(&view, asked, account)?;
        match asked.claim() {
            Claim::Workload(principal) => self.passed_on(&view, &route, asked, principal, account),
            Claim::Person(token) => {
                let person = self.identify(&view, asked, token?, account).await?;
                self.admit(asked, &route, &person)?;
                self.authorise(&view, &route, &person, account)
            }
        }
    }

    /// The view, while both this process and its enforcement point are who they were.
    fn in_force(&self) -> Result<Arc<Loaded>, DenyReason> {
        let view = self.views.fresh()?;
        let identity = self.views.identity();
        identity.bundle().still_good(&identity.own())?;
        self.proxy.standing()?;
        let named = view.view.pep.as_ref().filter(|pep| pep.spiffe_id == *self.proxy.id());
        named.map(|_| ()).ok_or(DenyReason::PeerUndeclared)?;
        Ok(view)
    }

    /// Whether a process of that user may ask: the one that the manifest names, which is the one that this process was started for.
    pub(crate) fn admits(&self, uid: u32) -> bool {
        // Without a view nothing is decided in any case.
        let named = self.views.last().is_none_or(|view| view.view.pep.as_ref().map(|pep| pep.uid.unwrap_or(self.own_uid)) == Some(uid));
        uid == self.uid && named
    }

    /// Reads the request in the one way that it can be read, and finds the route that it goes to.
    fn accept(view: &Loaded, asked: &Asked, account: &mut Account) -> Result<Arc<PublicRoute>, Stop> {
        let head = &asked.head;
        account.resource(&[head.method.as_str(), " ", head.uri.path()]);
        let path = canonical::request(&head.method, &head.uri, head.version, &head.headers).map_err(|_| DenyReason::RequestAmbiguous)?;
        let profile: &EdgeProfile = view.view.edge.as_ref().ok_or(DenyReason::ViewStale)?;
        let has_own_routes = profile.routes.iter().any(|route| route.host.as_deref() == Some(asked.host.as_str()));
        let by = destination::Asked { host: has_own_routes.then_some(asked.host.as_str()), fields: &head.headers };
        let found = destination::service(profile, by, &head.method, path)?;
        let name = found.name(&head.method);
        account.act("enter", name.clone(), name);
        let Destination::Service(route) = found else { return Err(DenyReason::RouteUnknown.into()) };
        if headers::asks_upgrade(&head.headers) {
            return Err(DenyReason::UpgradeUnlisted.into());
        }
        Ok(route)
    }

    /// The person whose token came along.
    async fn identify(&self, view: &Loaded, asked: &Asked, token: &str, account: &mut Account) -> Result<Person, Stop> {
        let person = self.bearers.person(view, token, &self.origin, account.trace()).await?;
        account.user(person.claims.sub.clone());
        if person.claims.cnf.is_some() {
            // Whoever sends it would have to prove a key, to the proxy's address or over its connection: the edge asks for that.
            return Err(DenyReason::ProofMissing.into());
        }
        if asked.subject.as_ref().is_some_and(|subject| *subject != person.claims.sub) {
            return Err(DenyReason::SubjectMismatch.into());
        }
        Ok(person)
    }

    /// Checks rates and the announced size.
    fn admit(&self, asked: &Asked, route: &PublicRoute, person: &Person) -> Result<(), Stop> {
        let announced = asked.head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > route.body_bytes_max) {
            return Err(DenyReason::BodyTooLarge.into());
        }
        // Addresses are the proxy's to count: what it says of them may be another proxy's.
        let from = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.admission.request(from, Some(&person.claims.sub), Some(route)).map(drop)
    }

    /// Asks whether the person may come in there, and whether the proxy may call it for them; then mints, as the edge does.
    fn authorise(&self, view: &Loaded, route: &PublicRoute, person: &Person, account: &mut Account) -> Result<Authorised, Stop> {
        let epoch = view.view.epoch;
        let service = route.service.as_service().ok_or(DenyReason::RouteUnknown)?;
        let line = format!("{} {}", route.method, route.path);
        let key = Key {
            credential: person.credential,
            stepped_up: person.stepped_up(&*self.clock),
            view: (epoch, view.view.issued_at_ms),
            route: format!("{service}:{line}"),
        };
        if let Some(pass) = self.passes.find(&key, self.clock.monotonic()) {
            account.authority(&pass.authority);
            return Ok(Authorised { decision: Arc::clone(&pass.decision), token: Some(pass.token.clone()), epoch });
        }
        let Entry { decision, authority } = entry::service(view, route, person, &*self.clock, &*self.entropy, DangerousWithout::default())?;
        let authority = authority.ok_or(DenyReason::AuthorityMissing)?;
        account.authority(&authority);
        let caller = self.proxy.id().workload.name();
        let call = view.engine.decide(&Question::Call { caller, service, route: &line, authority: Some(&authority) });
        let decision = Arc::new(both(decision, call)?);
        let minter = self.views.identity().minter(&view.verifier).ok_or(DenyReason::ViewStale)?;
        let text = minter.mint(&authority, trust::limits::TXN_TOKEN_LIFE_S, &*self.clock).map_err(Fault::internal)?;
        let token = HeaderValue::try_from(text).map_err(Fault::internal)?;
        let pass = Arc::new(Pass { authority, decision: Arc::clone(&decision), token: token.clone() });
        self.passes.keep(key, &pass, self.clock.monotonic());
        Ok(Authorised { decision, token: Some(token), epoch })
    }

    /// A workload calls by way of the proxy, on authority that it brings: the same question as at a guard.
    fn passed_on(
        &self,
        view: &Loaded,
        route: &PublicRoute,
        asked: &Asked,
        principal: &str,
        account: &mut Account,
    ) -> Result<Authorised, Stop> {
        let id: trust::SpiffeId = principal.parse().map_err(|_| DenyReason::SvidMalformed)?;
        if id.trust_domain != view.view.trust_domain {
            return Err(DenyReason::TrustDomainForeign.into());
        }
        account.principal(id.to_string());
        // The proxy does not say how old the SVID is: whoever was revoked within the life of one stays out for so long.
        let oldest = crate::bundle::PeerSvid { id: id.clone(), not_before_s: 0, not_after_s: u64::MAX };
        self.views.identity().bundle().not_revoked(&oldest)?;
        let token = asked.txn_token().ok_or(DenyReason::AuthorityMissing)?;
        let authority = view.verifier.verify(token, &*self.clock)?;
        account.authority(&authority);
        let caller = policy::caller_name(&id).ok_or(DenyReason::CallerNotAdmitted)?;
        let service = route.service.as_service().ok_or(DenyReason::RouteUnknown)?;
        let line = format!("{} {}", route.method, route.path);
        let decision = view.engine.decide(&Question::Call { caller, service, route: &line, authority: Some(&authority) });
        if let Decision::Deny { reason, policies, epoch, shadow } = decision {
            return Err(Stop::Refused(Refusal { policies, epoch, shadow, ..Refusal::from(reason) }));
        }
        Ok(Authorised { decision: Arc::new(decision), token: None, epoch: view.view.epoch })
    }

    /// Keeps the decision, which counts only then.
    fn record(&self, account: &mut Account, outcome: Result<Authorised, Stop>) -> Result<Allowed, Refusal> {
        let refusal = match outcome {
            Ok(Authorised { decision, token, epoch }) => {
                return account.decide(decision).map(|()| Allowed { token, epoch }).map_err(Refusal::from);
            }
            Err(Stop::Refused(refusal)) => refusal,
            // Nobody is redirected here.
            Err(Stop::Redirected { reason, .. }) => reason.into(),
            Err(Stop::Failed(fault)) => {
                let cause = fault.cause.as_ref().map_or_else(|| fault.public.clone(), |cause| format!("{}: {cause}", fault.public));
                // The refusal is recorded in any case.
                let _recorded =
                    self.recorder.record(Some(account.trace()), &FaultRaised { point: POINT, action: account.action().to_owned(), cause });
                DenyReason::DependencyDown.into()
            }
        };
        match account.decide(refusal.decision()) {
            Err(lost @ DenyReason::AuditUnavailable) => Err(lost.into()),
            _ => Err(refusal),
        }
    }

    /// Forgets what is no longer needed, until the end.
    pub(crate) async fn look_after(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.admission.sweep();
            self.passes.sweep(self.clock.monotonic());
        }
    }
}

/// Two answers that must both be yes, as one.
fn both(first: Decision, second: Decision) -> Result<Decision, Stop> {
    match (first, second) {
        (Decision::Allow { mut policies, epoch, shadow }, Decision::Allow { policies: more, shadow: other, .. }) => {
            policies.extend(more);
            let denies = other.as_ref().is_some_and(|would| !would.allow);
            Ok(Decision::Allow { policies, epoch, shadow: if denies { other } else { shadow.or(other) } })
        }
        (Decision::Deny { reason, policies, epoch, shadow }, _) | (_, Decision::Deny { reason, policies, epoch, shadow }) => {
            Err(Stop::Refused(Refusal { policies, epoch, shadow, ..Refusal::from(reason) }))
        }
    }
}

#[cfg(test)]
mod tests;
