//! A request's way in: accept, verify, admit, authorise, forward, record, in this order (DESIGN, section 5).
//!
//! Each step needs what the one before gave, so none can be left out. The decision is recorded before anything is forwarded.
//!
//! Guarantees: A5 identity headers are ours alone; A6 unlisted routes never reach the service; D4; D6 workload, person and purpose
//!             together; D7 no transaction token, no entry; E17 no fresh view, no entry; H5 a delivery is for the job's consumer alone.

pub(super) mod flow;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use contract::control::{FaultAct, Protocol, ServiceProfile};
use contract::guard::{ATTEMPT_HEADER, JOB_HEADER, PURPOSE_HEADER, QUEUE_HEADER, REPLICA_OUT_HEADER, USER_HEADER};
use contract::{Body, body, txn_token};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use telemetry::Shown;
use tokio::time::Instant;
use trust::{Decision, DenyReason, TraceContext};

use super::Guard;
use super::fault::Chosen;
use super::flight::Place;
use super::health;
use super::service::Given;
use crate::access::Arrival;
use crate::account::{Account, Answer};
use crate::bundle::PeerSvid;
use crate::client::{CallFailed, fault_of};
use crate::enforce::in_origin_form;
use crate::passage::{Idle, Passage};
use crate::serve::broken_off::BrokenOff;
use crate::view::{Loaded, Matched, Question, Token};
use crate::{canonical, events, grpc, headers, limits, websocket};

/// This enforcement point's name.
pub(super) const POINT: &str = "guard";
const DELIVERY_PATH: &str = "/events";

static USER: HeaderName = HeaderName::from_static(USER_HEADER);
static PURPOSE: HeaderName = HeaderName::from_static(PURPOSE_HEADER);

/// What the caller wants of the service.
#[derive(Clone)]
enum Work {
    /// One of its routes, `METHOD /path/{template}`.
    Call(Arc<str>),
    /// A message of this queue.
    Delivery(String),
}

/// A request whose token is genuine.
#[derive(Clone)]
struct Verified {
    work: Work,
    known: Arc<Token>,
}

/// A request that may go on.
struct Admitted {
    verified: Verified,
    wall_s: u64,
    fresh_per_job: bool,
    protocol: Protocol,
    place: Place,
    fault: Option<Chosen>,
    /// Its service is asked whether it is well.
    asked: bool,
}

/// Serves one request from a verified workload.
pub(super) async fn serve(guard: Arc<Guard>, peer: Arc<PeerSvid>, request: Request<Body>) -> Response<Body> {
    let is_grpc = grpc::is_grpc(request.headers());
    let answer = answered(guard, peer, request).await;
    if is_grpc { grpc::answer(answer) } else { answer }
}

async fn answered(guard: Arc<Guard>, peer: Arc<PeerSvid>, request: Request<Body>) -> Response<Body> {
    let parent = request.headers().get(&headers::TRACEPARENT).and_then(|v| v.to_str().ok()).and_then(TraceContext::parse);
    let mut account = Account::begin(&guard.recorder, &guard.clock, POINT, "server", parent);
    account.caller(&peer.id);
    let request = account.watch(request, Arrival::MESH, Shown::Workload);
    let admitted = match decide(&guard, &peer, &request, &mut account) {
        Ok(admitted) => admitted,
        Err(decision) => return refused(account, decision),
    };
    match admitted.fault.as_ref().map(|fault| fault.act) {
        Some(FaultAct::Abort(status)) => {
            return account.finish(body::plain(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)));
        }
        Some(FaultAct::Reset) => return account.finish(BrokenOff::answer()),
        Some(FaultAct::DelayMs(_)) | None => {}
    }
    if websocket::is_tunnel(request.headers()) {
        return Box::pin(socket::open(guard, peer, admitted, account, request)).await;
    }
    if headers::asks_upgrade(request.headers()) {
        return account.finish(body::plain(StatusCode::NOT_IMPLEMENTED));
    }
    let known = &admitted.verified.known;
    let ticket = guard.flight.deliver(known.digest, &known.authority, account.trace());
    let mut answer = forward(&guard, &admitted, account.trace(), request).await;
    if answer.as_ref().is_ok_and(|answer| events::is_event_stream(answer.headers())) {
        let withdrawn = socket::withdrawn(guard, peer, admitted.verified.clone());
        answer = answer.map(|answer| answer.map(|body| whole(events::until(body.into_body(), withdrawn))));
    }
    let is_out = matches!(answer, Err(CallFailed::ReplicaOut));
    let mut answer = record(account, answer, (admitted.place, ticket));
    if is_out {
        health::mark(answer.headers_mut());
    }
    answer
}

/// Accept to authorise, and the record of the answer.
fn decide(guard: &Guard, peer: &PeerSvid, request: &Request<Body>, account: &mut Account) -> Result<Admitted, Answer> {
    account.resource(&[request.method().as_str(), " ", request.uri().path()]);
    let deny = |reason| Answer::from(Decision::deny(reason));
    let loaded = accept(guard, peer).map_err(deny)?;
    let service = loaded.view.service.as_ref().ok_or_else(|| deny(DenyReason::ViewStale))?;
    let verified = verify(guard, &loaded, service, peer, request, account).map_err(deny)?;
    let asked = service.health.is_some();
    let place = admit(guard, service).map_err(deny)?;
    let answer = authorise(&loaded, service, peer, &verified);
    if !answer.is_allow() {
        return Err(answer);
    }
    account.decide(answer).map_err(deny)?;
    let fault = wrong_on_purpose(guard, service, peer, &verified, request, account);
    let (wall_s, fresh_per_job, protocol) = (service.limits.wall_s, service.fresh_per_job, service.protocol);
    Ok(Admitted { verified, wall_s, fresh_per_job, protocol, place, fault, asked })
}

/// The caller's SVID is still good, the view is fresh, and the caller is one of its callers.
fn accept(guard: &Guard, peer: &PeerSvid) -> Result<Arc<Loaded>, DenyReason> {
    guard.identity.bundle().still_good(peer)?;
    declared_caller(guard, peer)
}

fn declared_caller(guard: &Guard, peer: &PeerSvid) -> Result<Arc<Loaded>, DenyReason> {
    let loaded = guard.views.fresh()?;
    if loaded.view.contained {
        return Err(DenyReason::ServiceContained);
    }
    if loaded.view.callers.contains(&peer.id) || guard.dangerous_without.callers { Ok(loaded) } else { Err(DenyReason::PeerUndeclared) }
}

/// The request is unambiguous, its route is listed, and its transaction token is genuine, alive, and made for this.
fn verify(
    guard: &Guard,
    loaded: &Loaded,
    service: &ServiceProfile,
    peer: &PeerSvid,
    request: &Request<Body>,
    account: &mut Account,
) -> Result<Verified, DenyReason> {
    let path = canonical::request(request.method(), request.uri(), request.version(), request.headers())
        .map_err(|_| DenyReason::RequestAmbiguous)?;
    if service.protocol == Protocol::Tcp {
        return Err(DenyReason::RouteUnknown);
    }
    let work = if peer.id.as_role() == Some("queue") { delivery(service, path, request)? } else { call(guard, loaded, path, request)? };
    match &work {
        Work::Call(route) => account.act_on("call", &[&service.name, ":", request.method().as_str(), " ", path], &[route]),
        Work::Delivery(queue) => account.act_on("consume", &[queue], &["deliver ", queue]),
    }
    if websocket::is_tunnel(request.headers()) {
        socket::declared(service, &work)?;
    }
    let token = request.headers().get(&headers::TXN_TOKEN).ok_or(DenyReason::AuthorityMissing)?;
    let text = token.to_str().map_err(|_| DenyReason::TokenInvalid)?;
    let known = loaded.known.token(text, &loaded.verifier, &*guard.clock)?;
    account.authority(&known.authority);
    if let Work::Delivery(queue) = &work {
        let job = known.authority.job.as_ref().ok_or(DenyReason::AuthorityMissing)?;
        if job.consumer != service.name || job.queue != *queue {
            return Err(DenyReason::JobMismatch);
        }
    }
    Ok(Verified { work, known })
}

fn call(guard: &Guard, loaded: &Loaded, path: &str, request: &Request<Body>) -> Result<Work, DenyReason> {
    match loaded.inbound.find(request.method().as_str(), path).map_err(|_| DenyReason::RequestAmbiguous)? {
        Matched::Row(row) => Ok(Work::Call(row.text.clone())),
        _ if guard.dangerous_without.callers => Ok(Work::Call(format!("{} {path}", request.method()).into())),
        Matched::MethodUnlisted => Err(DenyReason::MethodUnlisted),
        Matched::Unknown => Err(DenyReason::RouteUnknown),
    }
}

fn delivery(service: &ServiceProfile, path: &str, request: &Request<Body>) -> Result<Work, DenyReason> {
    if path != DELIVERY_PATH {
        return Err(DenyReason::RouteUnknown);
    }
    if request.method() != http::Method::POST {
        return Err(DenyReason::MethodUnlisted);
    }
    let queue = request.headers().get(QUEUE_HEADER).and_then(|v| v.to_str().ok()).ok_or(DenyReason::RequestAmbiguous)?;
    if service.consumes.iter().any(|consumed| consumed == queue) {
        Ok(Work::Delivery(queue.to_owned()))
    } else {
        Err(DenyReason::PolicyDenied)
    }
}

/// The service is well and has room for one more.
fn admit(guard: &Guard, service: &ServiceProfile) -> Result<Place, DenyReason> {
    if !guard.health.lets_in(service) {
        return Err(DenyReason::ServiceUnhealthy);
    }
    let most = match service.limits.concurrency {
        0 => limits::SERVICE_REQUESTS_MAX,
        stated => usize::try_from(stated).unwrap_or(usize::MAX),
    };
    guard.places.take(most).ok_or(DenyReason::ConcurrencyExceeded)
}

/// The policy's answer: this workload, for this person and purpose, on this route or queue.
fn authorise(loaded: &Loaded, service: &ServiceProfile, peer: &PeerSvid, verified: &Verified) -> Answer {
    let (name, authority) = (service.name.as_str(), Some(&*verified.known.authority));
    match &verified.work {
        Work::Call(route) => {
            let caller = peer.id.workload.name();
            let ask = || loaded.engine.decide(&Question::Call { caller, service: name, route, authority });
            verified.known.answer(&peer.id, route, ask).into()
        }
        // A job's token is for one delivery: there is nothing to keep.
        Work::Delivery(queue) => loaded.engine.decide(&Question::Consume { service: name, queue, authority }).into(),
    }
}

/// What the manifest of a system for tests wants to go wrong with this request, which would be let in.
fn wrong_on_purpose(
    guard: &Guard,
    service: &ServiceProfile,
    peer: &PeerSvid,
    verified: &Verified,
    request: &Request<Body>,
    account: &mut Account,
) -> Option<Chosen> {
    if service.faults.is_empty() {
        return None;
    }
    let route = if let Work::Call(route) = &verified.work { Some(&**route) } else { None };
    let chosen = guard.faults.choose(&service.faults, peer.id.workload.name(), route, request.headers())?;
    account.note("palisade.fault", chosen.name.clone());
    guard.recorder.metrics().act("fault.injected");
    Some(chosen)
}

/// Hands the request to the service and gives its answer; both bodies stream.
async fn forward(
    guard: &Guard,
    admitted: &Admitted,
    trace: TraceContext,
    mut request: Request<Body>,
) -> Result<Response<Passage<Given>>, CallFailed> {
    let attempt = request.headers().get(ATTEMPT_HEADER).cloned();
    let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    in_origin_form(&mut request).map_err(|fault| CallFailed::Unreachable(std::io::Error::other(fault)))?;
    headers::strip_hop_by_hop_and(request.headers_mut(), is_not_for_the_service);
    introduce(request.headers_mut(), &admitted.verified, trace);
    if let (Work::Delivery(_), Some(attempt)) = (&admitted.verified.work, attempt) {
        request.headers_mut().insert(ATTEMPT_HEADER, attempt);
    }
    let is_grpc = grpc::is_grpc(request.headers());
    if is_grpc && let Some(idle) = request.extensions().get::<Idle>() {
        idle.extend(limits::STREAM_IDLE_MS);
    }
    let patience = grpc::timeout(request.headers()).filter(|_| is_grpc);
    let longest = patience.map_or(longest(admitted), |patience| patience.min(longest(admitted)));
    let deadline = Instant::now() + longest;
    let delay = admitted.fault.as_ref().map(|fault| fault.act);
    let sent = async {
        if let Some(FaultAct::DelayMs(ms)) = delay {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        // Whatever such a service is handed is a job (the manifest gives it no routes).
        if admitted.fresh_per_job {
            Ok(Box::pin(guard.service.send_alone(request)).await?.map(Given::Right))
        } else {
            guard.service.send(request, admitted.protocol).await
        }
    };
    let response = tokio::select! {
        response = tokio::time::timeout_at(deadline, sent) => response,
        // What only reads is better asked elsewhere than waited for here.
        failed = guard.health.went_out(admitted.asked && reads) => return Err(failed),
    };
    let mut response = response.map_err(|_| CallFailed::Late(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)))??;
    headers::strip_hop_by_hop(response.headers_mut());
    response.headers_mut().remove(txn_token::HEADER);
    response.headers_mut().remove(REPLICA_OUT_HEADER);
    if events::is_event_stream(response.headers()) {
        return Ok(response.map(Passage::new));
    }
    Ok(response.map(|body| {
        let body = Passage::new(body).by(deadline, longest);
        if is_grpc { whole(grpc::ends_with_deadline(body.into_body())) } else { body }
    }))
}

/// Any body.
fn whole(body: Body) -> Passage<Given> {
    Passage::new(Given::Right(body))
}

/// What nobody may tell the service but this guard. The transaction token stays as it came: it is the one that was verified, and there is
/// no other (`canonical`).
fn is_not_for_the_service(name: &str) -> bool {
    (headers::claims_identity(name) && name != txn_token::HEADER) || headers::names_trace(name)
}

/// Tells the service who asks; the token to pass along is there.
fn introduce(to: &mut HeaderMap, verified: &Verified, trace: TraceContext) {
    headers::put(to, &headers::TRACEPARENT, trace.traceparent().as_str());
    headers::put(to, &headers::B3, trace.b3().as_str());
    headers::put(to, &USER, verified.known.authority.user.as_str());
    headers::put(to, &PURPOSE, verified.known.authority.purpose.as_str());
    if let (Work::Delivery(queue), Some(job)) = (&verified.work, &verified.known.authority.job) {
        headers::set(to, QUEUE_HEADER, queue);
        headers::set(to, JOB_HEADER, &job.id);
    }
}

/// How long this request may take in all.
fn longest(admitted: &Admitted) -> Duration {
    match (admitted.wall_s, &admitted.verified.work) {
        (0, Work::Call(_)) => Duration::from_millis(limits::CALL_MS_MAX),
        (0, Work::Delivery(_)) => Duration::from_millis(limits::DELIVERY_HEAD_MS),
        (wall_s, _) => Duration::from_secs(wall_s),
    }
}

/// Ends the account with the last byte of the answer; until then the token is in flight and the place is taken.
fn record(account: Account, answer: Result<Response<Passage<Given>>, CallFailed>, held: impl Send + Unpin + 'static) -> Response<Body> {
    let response = answer.unwrap_or_else(|failed| account.failed(&fault_of(failed)).map(whole));
    let end = account.ending(response.status(), held);
    response.map(|body| body.at_end(end).into_body())
}

fn refused(mut account: Account, answer: Answer) -> Response<Body> {
    let reason = account.decide(answer).err().unwrap_or(DenyReason::PolicyDenied);
    let mut answer = account.denied(reason);
    if reason == DenyReason::ServiceUnhealthy {
        health::mark(answer.headers_mut());
    }
    answer
}
