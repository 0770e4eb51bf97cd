//! The public gateway. A request's life is `serve`: accept, identify, admit, authorise, mint, forward, record, in this order.
//!
//! Each step can only stop the request or give the next one what it needs, so none can be left out: there is nothing to forward
//! without an entry, no entry without an answer of the policy, and the record of the decision is kept before the decision takes effect.
//!
//! Spec:       DESIGN section 5.
//! Guarantees: A1 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A17 A18, J5, J7 at this point.
//! Not here:   who may (the view's policies), who is who (`login`), bytes of objects (`objects`).

mod acme;
pub(crate) mod admission;
mod answer;
pub(crate) mod bearer;
mod certificates;
mod client_certificate;
mod cookie;
mod cors;
pub(crate) mod destination;
pub(crate) mod entry;
mod known;
mod limit;
mod listen;
pub(crate) mod oidc;
mod onward;
pub(crate) mod pass;
pub(crate) mod person;
mod possession;
mod proxied;
mod reference;
mod session;
mod sign_in;
mod socket;
pub(crate) mod stop;
mod visit;

use std::net::IpAddr;
use std::sync::Arc;

use contract::control::EdgeProfile;
use contract::{Body, Client, Transport, dpop};
use http::{HeaderValue, Method, Request, Response, header};
use telemetry::event::FaultRaised;
use telemetry::{Recorder, Shown};
use trust::{Clock, Decision, DenyReason, Entropy, Fault, SpiffeId, TraceContext};

use self::admission::{Admission, Permit};
use self::answer::Apart;
use self::destination::{Destination, SessionPage};
use self::entry::Entry;
use self::oidc::Login;
use self::pass::{Key, Pass, Passes};
use self::person::{People, Person};
use self::possession::Possession;
use self::stop::{Refusal, Stop};
use self::visit::Visit;
use crate::access::Arrival;
use crate::account::Account;
use crate::passage::Idle;
use crate::view::{Loaded, ViewHolder};
use crate::{events, grpc, headers, limits};

pub use self::acme::{Acme, AcmeError, AcmeSettings};
pub use self::admission::Limits;
pub use self::answer::TRACE_HEADER;
pub use self::certificates::{CertificateError, CertificateFiles, Certificates, Looked};
pub use self::client_certificate::{ClientAuthorities, ClientAuthoritiesError, ClientCertificate};
pub use self::listen::Entrance;
pub use self::proxied::Balancers;
pub use self::session::Sessions;
pub use self::visit::Place;

/// The enforcement point's name.
const POINT: &str = "edge";

/// Ways to the peers that the edge may call: services' guards and the roles `login`, `objects` and `evidence`.
pub trait Peers: Send + Sync + std::fmt::Debug + 'static {
    /// The way to that workload, whose identity it verifies. Calls are refused while the view names no such peer.
    ///
    /// # Errors
    /// When there can be none.
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault>;
}

/// What an edge is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where it is, as browsers write it.
    pub place: Place,
    /// What one may ask for.
    pub limits: Limits,
    /// Whose certificates clients may show.
    pub clients: ClientAuthorities,
    /// What it may decide on; its identity mints the transaction tokens.
    pub views: Arc<ViewHolder>,
    /// Its own database.
    pub sessions: Sessions,
    /// Ways to its peers.
    pub peers: Arc<dyn Peers>,
    /// Says what happened.
    pub recorder: Recorder,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
}

/// The gateway.
#[derive(Debug)]
pub struct Edge {
    place: Place,
    /// What pages may load.
    csp: HeaderValue,
    limits: Limits,
    clients: ClientAuthorities,
    views: Arc<ViewHolder>,
    sessions: Sessions,
    people: People,
    possession: Possession,
    login: Arc<Login>,
    peers: Arc<dyn Peers>,
    admission: Admission,
    passes: Passes,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    dangerous_without: DangerousWithout,
}

/// What a gateway does not ask. In a throw-away copy of a system alone, to see that an attack finds that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DangerousWithout {
    /// Who signed a token: what it says is believed.
    pub signature: bool,
    /// Whether a person's token has the scope of a route.
    pub scope: bool,
    /// Whether a person has proved themselves a second time just now.
    pub step_up: bool,
    /// Whether a person has the role that a page of the console is for.
    pub role: bool,
}

/// How a request left the steps: with an answer, or stopped.
type Outcome = Result<Response<Body>, Stop>;

impl Edge {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When there can be no way to `login`.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Fault> {
        Self::made(parts, DangerousWithout::default())
    }

    /// The same without a part of its checks. For a throw-away copy of a system alone, to see that an attack finds that.
    ///
    /// # Errors
    /// As `new`.
    pub fn dangerous_new(parts: Parts, without: DangerousWithout) -> Result<Arc<Self>, Fault> {
        Self::made(parts, without)
    }

    fn made(parts: Parts, dangerous_without: DangerousWithout) -> Result<Arc<Self>, Fault> {
        let login = parts.peers.transport(&parts.views.identity().id().trust_domain.role("login"))?;
        let login = Login::new(Client::new(login), POINT, Arc::clone(&parts.clock), parts.recorder.clone());
        let login = Arc::new(if dangerous_without.signature { login.dangerous_unsigned() } else { login });
        Ok(Arc::new(Self {
            people: People::new(parts.sessions.clone(), Arc::clone(&login), Arc::clone(&parts.clock)),
            admission: Admission::new(parts.limits, Arc::clone(&parts.clock)),
            passes: Passes::default(),
            possession: Possession::new(&*parts.entropy, &*parts.clock),
            login,
            csp: answer::policy(parts.place.origin_of_content().as_deref()),
            place: parts.place,
            limits: parts.limits,
            clients: parts.clients,
            views: parts.views,
            sessions: parts.sessions,
            peers: parts.peers,
            recorder: parts.recorder,
            clock: parts.clock,
            entropy: parts.entropy,
            dangerous_without,
        }))
    }

    /// Answers a request that came from that address, over that version of TLS.
    pub async fn serve(&self, from: IpAddr, tls: &'static str, request: Request<Body>) -> Response<Body> {
        let mut account = self.account();
        let request = account.watch(request, Arrival { address: Some(from), tls }, Shown::Nothing);
        let (mut page, is_grpc) = (visit::wants_page(request.headers()), grpc::is_grpc(request.headers()));
        let (outcome, permit) = match self.decide(from, request, &mut account, &mut page).await {
            Ok((admitted, permit)) => (self.forward(admitted, &mut account).await, Some(permit)),
            Err(stop) => (Err(stop), None),
        };
        let answer = self.record(account, outcome, page, permit);
        if is_grpc { grpc::answer(answer) } else { answer }
    }

    /// The steps before anything takes effect.
    async fn decide(
        &self,
        from: IpAddr,
        request: Request<Body>,
        account: &mut Account,
        page: &mut bool,
    ) -> Result<(Admitted, Permit), Stop> {
        let view = self.views.fresh()?;
        let (visit, body) = self.accept(&view, from, request, account)?;
        *page = visit.destination.is_page();
        let person = self.identify(&view, &visit, account).await?;
        let permit = self.admit(&visit, person.as_ref())?;
        let entry = self.authorise(&view, &visit, person.as_ref(), account)?;
        let Minted { decision, token } = self.mint(&view, entry)?;
        account.decide(decision)?;
        Ok((Admitted { visit, body, person, view, token }, permit))
    }

    /// Reads the request in the one way that it can be read, and finds where it goes.
    fn accept(&self, view: &Loaded, from: IpAddr, request: Request<Body>, account: &mut Account) -> Result<(Visit, Body), Stop> {
        self.admission.address(from)?;
        let (visit, body) = Visit::read(&self.place, profile(view)?, from, request, account)?;
        account.shown(visit.shown());
        Ok((visit, body))
    }

    /// Finds out who it is, where that matters.
    async fn identify(&self, view: &Loaded, visit: &Visit, account: &mut Account) -> Result<Option<Person>, Stop> {
        match &visit.destination {
            Destination::Login { .. } | Destination::Presigned { .. } | Destination::Preflight(_) => return Ok(None),
            Destination::Session(page) if *page != SessionPage::Me => return Ok(None),
            _ => {}
        }
        match self.people.identify(view, visit, account.trace()).await {
            Ok(person) => {
                account.user(&person.claims.sub);
                self.possession.check(visit, &person, &*self.clock)?;
                Ok(Some(person))
            }
            Err(Stop::Refused(Refusal { reason: reason @ (DenyReason::CredentialMissing | DenyReason::SessionEnded), .. }))
                if visit.destination.is_page() && visit.head.method == Method::GET =>
            {
                Err(Stop::Redirected { reason, to: sign_in::address(visit.target(), false) })
            }
            Err(stop) => Err(stop),
        }
    }

    /// Checks rate, concurrency and announced size.
    fn admit(&self, visit: &Visit, person: Option<&Person>) -> Result<Permit, Stop> {
        let announced = visit.head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > visit.destination.body_bytes_max()) {
            return Err(DenyReason::BodyTooLarge.into());
        }
        if matches!(visit.destination, Destination::Session(SessionPage::SignIn | SessionPage::Callback)) {
            self.admission.sign_in(visit.from)?;
        }
        self.admission.request(visit.from, person.map(|p| p.claims.sub.as_str()), visit.destination.route())
    }

    /// Asks whether this person may go there, and with which authority; or finds that it was answered a moment ago.
    fn authorise(&self, view: &Loaded, visit: &Visit, person: Option<&Person>, account: &mut Account) -> Result<Authorised, Stop> {
        entry::same_site(visit, person)?;
        let key = entry::pass_key(view, visit, person, &*self.clock);
        if let Some(pass) = key.as_ref().and_then(|key| self.passes.find(key, self.clock.monotonic())) {
            account.authority(&pass.authority);
            return Ok(Authorised::Before(pass));
        }
        let entry = entry::decide(view, visit, person, &*self.clock, &*self.entropy, self.dangerous_without);
        let entry = entry.map_err(|stop| sign_in::led(stop, visit, person))?;
        if let Some(authority) = &entry.authority {
            account.authority(authority);
        }
        Ok(Authorised::Now(Box::new(entry), key))
    }

    /// Puts the authority into a transaction token of minutes' life, which then serves for some seconds.
    fn mint(&self, view: &Loaded, authorised: Authorised) -> Result<Minted, Stop> {
        let (Entry { decision, authority }, key) = match authorised {
            Authorised::Before(pass) => return Ok(Minted { decision: Arc::clone(&pass.decision), token: Some(pass.token.clone()) }),
            Authorised::Now(entry, key) => (*entry, key),
        };
        let decision = Arc::new(decision);
        let Some(authority) = authority else { return Ok(Minted { decision, token: None }) };
        // Without a key that the view knows, no guard would accept what we mint: better to say so here.
        let minter = self.views.identity().minter(&view.verifier).ok_or(DenyReason::ViewStale)?;
        let text = minter.mint(&authority, trust::limits::TXN_TOKEN_LIFE_S, &*self.clock).map_err(Fault::internal)?;
        let token = HeaderValue::try_from(text).map_err(Fault::internal)?;
        if let Some(key) = key {
            let pass = Pass { authority, decision: Arc::clone(&decision), token: token.clone() };
            self.passes.keep(key, &Arc::new(pass), self.clock.monotonic());
        }
        Ok(Minted { decision, token: Some(token) })
    }

    /// Sends it on, or answers it here where it is about the session itself.
    async fn forward(&self, admitted: Admitted, account: &mut Account) -> Outcome {
        let Admitted { mut visit, body, person, view, token } = admitted;
        if grpc::is_grpc(&visit.head.headers)
            && let Some(idle) = visit.head.extensions.get::<Idle>()
        {
            idle.extend(limits::STREAM_IDLE_MS);
        }
        let trace = account.trace();
        let role = |name: &str| view.view.trust_domain.role(name);
        let peer = match &visit.destination {
            // Rare ways are boxed, so that every request's future, which moves as it begins, is not as large as theirs.
            Destination::Session(page) => return Box::pin(self.session_page(*page, profile(&view)?, &visit, person, trace)).await,
            Destination::Preflight(preflight) => return Ok(preflight.answer()),
            Destination::Login { .. } => {
                return Box::pin(onward::pass(self.login.client(), &mut visit, body, None, trace, (&*self.clock, &self.csp))).await;
            }
            Destination::Presigned { .. } => {
                account.note("object", visit.head.uri.path().trim_start_matches('/').to_owned());
                role("objects")
            }
            Destination::Console { .. } => role("evidence"),
            Destination::Service(route) => match visit.opening.clone() {
                Some(opening) => {
                    account.forwarded_to(&route.service);
                    let route = route.clone();
                    let admitted = Admitted { visit, body, person, view, token };
                    return Box::pin(self.open_socket(&route, opening, admitted, trace)).await;
                }
                None => route.service.clone(),
            },
        };
        account.forwarded_to(&peer);
        let transport = self.peers.transport(&peer)?;
        let answer = onward::pass(&Client::new(transport), &mut visit, body, token.as_ref(), trace, (&*self.clock, &self.csp)).await?;
        if let (Destination::Service(route), true) = (&visit.destination, events::is_event_stream(answer.headers())) {
            let ending = self.watch(&visit, person.as_ref(), route, trace).withdrawn();
            return Ok(answer.map(|events| events::until(events, ending)));
        }
        Ok(answer)
    }

    async fn session_page(
        &self,
        page: SessionPage,
        profile: &EdgeProfile,
        visit: &Visit,
        person: Option<Person>,
        trace: TraceContext,
    ) -> Outcome {
        match page {
            SessionPage::SignIn => sign_in::begin(&self.sessions, visit, profile, &*self.entropy).await,
            SessionPage::Callback => sign_in::complete(&self.sessions, &self.login, &self.recorder, visit, trace).await,
            SessionPage::SignOut => sign_in::end(&self.sessions, &self.login, &self.recorder, visit, trace).await,
            SessionPage::Me => person.map(|person| sign_in::me(&person)).ok_or_else(|| DenyReason::CredentialMissing.into()),
        }
    }

    /// Makes the answer, and closes the account with its last byte.
    fn record(&self, mut account: Account, outcome: Outcome, page: bool, permit: Option<Permit>) -> Response<Body> {
        let trace = account.trace();
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(stop) => match self.refuse(&mut account, stop, page) {
                Ok(answer) => answer,
                Err(lost) => answer::refusal(&lost.into(), page, trace),
            },
        };
        let apart = answer.extensions_mut().remove::<Apart>();
        answer::harden(answer.headers_mut(), trace, &self.csp, apart);
        answer::quotas(answer.headers_mut(), permit.as_ref().map_or(&[], Permit::standings));
        match socket::Opened::begin(&mut answer, account, permit) {
            Some((account, permit)) => account.finish_holding(answer, permit),
            None => answer,
        }
    }

    fn refuse(&self, account: &mut Account, stop: Stop, page: bool) -> Result<Response<Body>, DenyReason> {
        let trace = account.trace();
        match stop {
            Stop::Refused(refusal) => {
                Self::keep(account, refusal.decision())?;
                let mut answer = answer::refusal(&refusal, page, trace);
                match refusal.reason {
                    DenyReason::SessionEnded => forget_session(&mut answer),
                    DenyReason::ProofNonceWanted => {
                        headers::set(answer.headers_mut(), dpop::NONCE_HEADER, &self.possession.nonce(&*self.clock))
                    }
                    _ => {}
                }
                Ok(answer)
            }
            Stop::Redirected { reason, to } => {
                Self::keep(account, Decision::deny(reason))?;
                Ok(answer::redirect(&to))
            }
            Stop::Failed(fault) => {
                let cause = fault.cause.as_ref().map_or_else(|| fault.public.clone(), |cause| format!("{}: {cause}", fault.public));
                account.note("fault", fault.public.clone());
                let raised = FaultRaised { point: POINT, action: account.action().to_owned(), cause };
                self.recorder.record(Some(trace), &raised).map_err(|_| DenyReason::AuditUnavailable)?;
                Ok(answer::failure(&fault, page, trace))
            }
        }
    }

    /// Keeps a refusal in the audit log; an error only when it could not be kept.
    fn keep(account: &mut Account, decision: Decision) -> Result<(), DenyReason> {
        let meant = decision.deny_reason();
        match account.decide(decision) {
            Err(reason) if Some(reason) != meant => Err(reason),
            _ => Ok(()),
        }
    }

    /// Opens the account of a request from outside, with a trace of its own (J5).
    fn account(&self) -> Account {
        let mut account = Account::begin(&self.recorder, &self.clock, POINT, "server", None);
        account.principal("internet");
        account.act("enter", "unknown", "unknown");
        account
    }
}

/// What the fourth step gives the fifth.
enum Authorised {
    /// Decided now; kept under the key, if it may be.
    Now(Box<Entry>, Option<Key>),
    /// Decided and minted a moment ago.
    Before(Arc<Pass>),
}

/// What the fifth step gives.
struct Minted {
    decision: Arc<Decision>,
    token: Option<HeaderValue>,
}

/// What the first five steps give the sixth.
struct Admitted {
    visit: Visit,
    body: Body,
    person: Option<Person>,
    view: Arc<Loaded>,
    token: Option<HeaderValue>,
}

fn profile(view: &Loaded) -> Result<&EdgeProfile, DenyReason> {
    view.view.edge.as_ref().ok_or(DenyReason::ViewStale)
}

fn forget_session(answer: &mut Response<Body>) {
    if let Some(cookie) = cookie::clear(cookie::SESSION) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
pub(crate) mod tests;
