//! Enforcement before a room: nothing reaches it that its contract does not list, from nobody whom the route does not admit.
//!
//! The steps, in order: accept (the peer is still good), canonical, route, verify (the transaction token, when there is one), admit
//! (`Who`, the view's callers, concurrency), record, and only then the room.
//!
//! Guarantees: A6 deny by default; A17 no view, no audit: no request; D6 in part; E17; J7.
//! Not here:   questions to the policy, which the room asks for its `Who::Policy` routes.

use std::sync::Arc;

use contract::body;
use contract::{Body, Caller, Found, LocalPeer, Peer, Room, Route, VerifiedAuthority, Who};
use http::{Request, Response, Uri, header};
use telemetry::Recorder;
use tokio::sync::Semaphore;
use trust::{Clock, Decision, DenyReason, Fault, SpiffeId, TraceContext};

use crate::account::Account;
use crate::bundle::{PeerSvid, TrustBundle};
use crate::view::{Loaded, ViewHolder};
use crate::{canonical, headers, limits};

/// What a connection proved about its other end.
#[derive(Debug, Clone)]
pub enum Proof {
    /// An SVID.
    Svid(PeerSvid),
    /// The kernel's word on a process without an identity.
    Local(LocalPeer),
    /// The kernel's word that it is run by the user that runs Palisade.
    Operator(LocalPeer),
    /// It is the other end of the socket pair that the supervisor made.
    Supervisor,
}

/// Where a room's enforcement point takes its decisions from.
#[derive(Debug, Clone)]
pub enum Views {
    /// `control` and `identity`, which views come from: the bundle and the contract decide.
    Unneeded,
    /// Everyone else.
    Held(Arc<ViewHolder>),
}

/// A room behind its enforcement.
pub struct Enforcement {
    room: Arc<dyn Room>,
    point: &'static str,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    bundle: Option<Arc<TrustBundle>>,
    views: Views,
    places: Arc<Semaphore>,
    dangerous_without_roles: bool,
}

/// A request that may go to the room.
struct Admitted {
    caller: Caller,
    epoch: u64,
    place: tokio::sync::OwnedSemaphorePermit,
}

/// Appending telemetry is not worth telemetry; nor is the operator's reading of figures, which a scraper does all day and which shows
/// nobody's data. Refusals of both are.
const QUIET: &[&str] = &["evidence.append", "evidence.otlp.traces", "evidence.otlp.logs", "evidence.otlp.metrics", "evidence.metrics.read"];

impl Enforcement {
    /// Puts `room` behind enforcement. `point` names it in records; `bundle` is absent only where no SVID can be shown.
    #[must_use]
    pub fn new(
        room: Arc<dyn Room>,
        point: &'static str,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        bundle: Option<Arc<TrustBundle>>,
        views: Views,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits::ROOM_REQUESTS_MAX));
        Self { room, point, recorder, clock, bundle, views, places, dangerous_without_roles: false }
    }

    /// The same, which asks for nobody's role. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_without_roles(self) -> Self {
        Self { dangerous_without_roles: true, ..self }
    }

    /// The recorder, for what happens before there is a request.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The room's name in records.
    #[must_use]
    pub fn point(&self) -> &'static str {
        self.point
    }

    /// Answers one request.
    pub async fn answer(&self, proof: &Proof, mut request: Request<Body>) -> Response<Body> {
        let parent = match proof {
            Proof::Svid(_) | Proof::Supervisor => {
                request.headers().get(&headers::TRACEPARENT).and_then(|v| v.to_str().ok()).and_then(TraceContext::parse)
            }
            Proof::Local(_) | Proof::Operator(_) => None,
        };
        let mut account = Account::begin(&self.recorder, &self.clock, self.point, "server", parent);
        match proof {
            Proof::Svid(svid) => account.caller(&svid.id),
            Proof::Local(_) => account.principal("unauthenticated"),
            Proof::Operator(_) => account.principal("operator"),
            Proof::Supervisor => account.principal("supervisor"),
        }
        account.resource(&[request.method().as_str(), " ", request.uri().path()]);
        let admitted = match self.admit(proof, &request, &mut account) {
            Ok(admitted) => admitted,
            Err(reason) => return account.refuse(reason),
        };
        if let Err(reason) = account.decide(Decision::Allow { policies: Vec::new(), epoch: admitted.epoch, shadow: None }) {
            return account.denied(reason);
        }
        if let Err(fault) = in_origin_form(&mut request) {
            return account.finish(body::fault(&fault));
        }
        headers::strip_hop_by_hop(request.headers_mut());
        if matches!(&admitted.caller.peer, Peer::Workload(id) if id.as_service().is_some()) {
            // Headers of ours mean something among roles only; who asks is in `Caller`.
            headers::strip_identity(request.headers_mut());
        }
        let response = self.room.call(admitted.caller, request).await;
        account.finish_holding(response, admitted.place)
    }

    fn admit(&self, proof: &Proof, request: &Request<Body>, account: &mut Account) -> Result<Admitted, DenyReason> {
        if let (Proof::Svid(svid), Some(bundle)) = (proof, &self.bundle) {
            bundle.still_good(svid)?;
        }
        let path = canonical::request(request.method(), request.uri(), request.version(), request.headers())
            .map_err(|_| DenyReason::RequestAmbiguous)?;
        let found = canonical::find(self.room.routes(), request.method().as_str(), path).map_err(|_| DenyReason::RequestAmbiguous)?;
        let route = match found {
            Found::Route(route, _) => route,
            Found::MethodUnlisted => return Err(DenyReason::MethodUnlisted),
            Found::Unknown => return Err(DenyReason::RouteUnknown),
        };
        account.act_on(route.action, &[request.method().as_str(), " ", path], &[route.method, " ", route.path]);
        if QUIET.contains(&route.action) {
            account.quiet();
        }
        let loaded = self.view_for(proof, route)?;
        if let (Proof::Svid(svid), Some(loaded)) = (proof, &loaded)
            && !loaded.view.callers.contains(&svid.id)
        {
            return Err(DenyReason::PeerUndeclared);
        }
        let authority = self.verify(request, loaded.as_deref(), account)?;
        let peer = self.who(route, proof, authority.as_ref())?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| DenyReason::ConcurrencyExceeded)?;
        let caller = Caller { peer, authority, trace: account.trace() };
        Ok(Admitted { caller, epoch: loaded.map_or(0, |l| l.view.epoch), place })
    }

    /// The view to decide by. Before a process has its first view, its fellow roles may reach the routes that name them, by the bundle
    /// alone: that is how the first views come about.
    fn view_for(&self, proof: &Proof, route: &Route) -> Result<Option<Arc<Loaded>>, DenyReason> {
        let Views::Held(holder) = &self.views else { return Ok(None) };
        let by_workload = matches!(proof, Proof::Svid(_));
        match holder.fresh() {
            Ok(loaded) => Ok(Some(loaded)),
            Err(_) if !by_workload => Ok(None),
            Err(_) if matches!(route.who, Who::Roles(_)) && holder.last().is_none() => Ok(None),
            Err(reason) => Err(reason),
        }
    }

    /// The transaction token, if one came: it is good, or the request is refused.
    fn verify(
        &self,
        request: &Request<Body>,
        loaded: Option<&Loaded>,
        account: &mut Account,
    ) -> Result<Option<VerifiedAuthority>, DenyReason> {
        let Some(token) = request.headers().get(&headers::TXN_TOKEN) else { return Ok(None) };
        let token = token.to_str().map_err(|_| DenyReason::TokenInvalid)?;
        let loaded = loaded.ok_or(DenyReason::ViewStale)?;
        let authority = loaded.verifier.verify(token, &*self.clock)?;
        account.authority(&authority);
        Ok(Some(VerifiedAuthority { authority, token: token.into() }))
    }

    fn who(&self, route: &Route, proof: &Proof, authority: Option<&VerifiedAuthority>) -> Result<Peer, DenyReason> {
        let workload = |svid: &PeerSvid| Ok(Peer::Workload(svid.id.clone()));
        let is_role = |id: &SpiffeId, names: &[&str]| id.as_role().is_some_and(|name| names.contains(&name));
        match (route.who, proof) {
            (Who::Roles(names), Proof::Svid(svid)) if is_role(&svid.id, names) => workload(svid),
            (Who::Doors, Proof::Svid(svid)) if is_role(&svid.id, &["edge"]) || svid.id.as_pdp().is_some() => workload(svid),
            (Who::Policy, Proof::Svid(svid)) => workload(svid),
            (Who::Person(role), Proof::Svid(svid)) if is_role(&svid.id, &["edge"]) => match authority {
                Some(verified) if verified.authority.roles.contains(role) || self.dangerous_without_roles => workload(svid),
                Some(_) => Err(DenyReason::CallerNotAdmitted),
                None => Err(DenyReason::AuthorityMissing),
            },
            (Who::Joining, Proof::Local(local)) => Ok(Peer::Local(local.clone())),
            (Who::Operator, Proof::Operator(local)) => Ok(Peer::Operator(local.clone())),
            (Who::Supervisor, Proof::Supervisor) => Ok(Peer::Supervisor),
            (Who::Roles(_) | Who::Policy | Who::Doors | Who::Person(_), Proof::Local(_)) => Err(DenyReason::ClientCertificateMissing),
            _ => Err(DenyReason::CallerNotAdmitted),
        }
    }
}

/// A room sees a path and a query, and `Host`, whatever the version of HTTP was.
pub(crate) fn in_origin_form(request: &mut Request<Body>) -> Result<(), Fault> {
    if let Some(authority) = request.uri().authority() {
        let host = http::HeaderValue::from_str(authority.as_str())
            .map_err(|error| Fault::bad_request("the host is not a header value").because(error))?;
        request.headers_mut().insert(header::HOST, host);
    }
    let target = request.uri().path_and_query().cloned().ok_or_else(|| Fault::bad_request("the target has no path"))?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}
