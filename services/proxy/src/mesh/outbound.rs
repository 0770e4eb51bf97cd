//! A request's way out of the service: accept, match the flow, take the authority, admit, forward, record (DESIGN, section 5).
//!
//! The socket says which flow it is: it exists because the flow is declared. The service proves nothing and claims nothing; a token
//! that it passes along counts only if this guard delivered it and it is still in flight. Without one, no person's authority goes along.
//!
//! Guarantees: D7 on the way out; D10 (no other destination exists; those outside the system are `egress`); J2, J5 for services: they cannot join others' traces.

pub(super) mod egress;
pub(super) mod flow;
mod socket;

use std::sync::Arc;

use contract::control::Outbound;
use contract::{Body, Found, Who, body};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use trust::{Decision, DenyReason, Fault, SpiffeId, TraceContext};

use super::Guard;
use super::flight::Delivered;
use crate::account::Account;
use crate::client::fault_of;
use crate::enforce::in_origin_form;
use crate::passage::Idle;
use crate::view::{Loaded, Matched};
use crate::websocket::Opening;
use crate::{canonical, grpc, headers, limits};

/// This enforcement point's name.
pub(super) const POINT: &str = "guard.out";

/// Authority that goes along.
struct Taken {
    token: HeaderValue,
    delivered: Delivered,
}

/// Serves one request of the service on the listener for `port`.
pub(super) async fn serve(guard: Arc<Guard>, port: u16, request: Request<Body>) -> Response<Body> {
    let is_grpc = grpc::is_grpc(request.headers());
    if is_grpc && let Some(idle) = request.extensions().get::<Idle>() {
        idle.extend(limits::STREAM_IDLE_MS);
    }
    let answer = answered(guard, port, request).await;
    if is_grpc { grpc::answer(answer) } else { answer }
}

async fn answered(guard: Arc<Guard>, port: u16, mut request: Request<Body>) -> Response<Body> {
    let taken = take(&guard, &request);
    let parent = parent(&guard, &request, taken.as_ref().ok().and_then(Option::as_ref));
    let mut account = Account::begin(&guard.recorder, &guard.clock, POINT, "client", parent);
    account.caller(guard.identity.id());
    account.resource(&[request.method().as_str(), " ", request.uri().path()]);
    let opening = Opening::take(&mut request);
    let decided = decide(&guard, port, &request, taken, &mut account).and_then(|decided| Ok((decided, opening?)));
    let ((to, taken), opening) = match decided {
        Ok(decided) => decided,
        Err(reason) => return account.refuse(reason),
    };
    if let Some(opening) = opening {
        return Box::pin(socket::open(guard, (port, to), taken, opening, account, request)).await;
    }
    if headers::asks_upgrade(request.headers()) {
        return account.finish(body::plain(StatusCode::NOT_IMPLEMENTED));
    }
    let answer = forward(&guard, &to, taken.as_ref(), account.trace(), request).await;
    record(account, answer)
}

/// Accept to admit, and the record of the answer. Who may do what at the other end is decided there, by the same policies.
fn decide(
    guard: &Guard,
    port: u16,
    request: &Request<Body>,
    taken: Result<Option<Taken>, DenyReason>,
    account: &mut Account,
) -> Result<(SpiffeId, Option<Taken>), DenyReason> {
    let loaded = accept(guard, request)?;
    let flow = match_flow(&loaded, port)?;
    let [scheme, domain, kind, name] = flow.peer.pieces();
    account.act_on(
        "call",
        &[scheme, domain, kind, name, " ", request.method().as_str(), " ", request.uri().path()],
        &["to ", flow.peer.workload.name()],
    );
    if flow.peer.as_role() == Some("evidence") {
        account.quiet();
    }
    let taken = taken?;
    if let Some(taken) = &taken {
        account.authority(&taken.delivered.authority);
    }
    match admit(&loaded, flow, port, request) {
        Err(DenyReason::RouteUnknown | DenyReason::MethodUnlisted) if guard.dangerous_without.routes => {}
        admitted => admitted?,
    }
    account.decide(Decision::Allow { policies: Vec::new(), epoch: loaded.view.epoch, shadow: None })?;
    Ok((flow.peer.clone(), taken))
}

/// The request is unambiguous and the view is fresh.
fn accept(guard: &Guard, request: &Request<Body>) -> Result<Arc<Loaded>, DenyReason> {
    canonical::request(request.method(), request.uri(), request.version(), request.headers()).map_err(|_| DenyReason::RequestAmbiguous)?;
    guard.views.fresh()
}

/// The flow that this socket stands for, if it is still declared and the service is not contained.
fn match_flow(loaded: &Loaded, port: u16) -> Result<&Outbound, DenyReason> {
    if loaded.view.contained {
        return Err(DenyReason::ServiceContained);
    }
    let flows = loaded.view.service.as_ref().map_or(&[][..], |service| service.outbound.as_slice());
    flows.iter().find(|flow| flow.port == port).ok_or(DenyReason::PeerUndeclared)
}

/// The transaction token that the service passed along.
fn take(guard: &Guard, request: &Request<Body>) -> Result<Option<Taken>, DenyReason> {
    let Some(token) = request.headers().get(&headers::TXN_TOKEN) else { return Ok(None) };
    let text = token.to_str().map_err(|_| DenyReason::AuthorityNotInFlight)?;
    let delivered = match guard.flight.find(text, headers::trace(request.headers())) {
        Some(delivered) => delivered,
        None => dangerous_never_delivered(guard, text)?,
    };
    Ok(Some(Taken { token: token.clone(), delivered }))
}

/// What a genuine token carries that is not in flight here: nothing, but where a copy of a system goes without that check.
fn dangerous_never_delivered(guard: &Guard, text: &str) -> Result<Delivered, DenyReason> {
    if !guard.dangerous_without.flight {
        return Err(DenyReason::AuthorityNotInFlight);
    }
    let loaded = guard.views.fresh()?;
    let known = loaded.known.token(text, &loaded.verifier, &*guard.clock)?;
    let trace = guard.recorder.start(None).context;
    Ok(Delivered { authority: Arc::clone(&known.authority), trace })
}

/// Towards another service only the declared routes exist; towards a role only those of its contract that are for services.
fn admit(loaded: &Loaded, flow: &Outbound, port: u16, request: &Request<Body>) -> Result<(), DenyReason> {
    if flow.peer.as_service().is_none() {
        return admit_to_role(flow, request);
    }
    let table = loaded.outbound.iter().find(|(of, _)| *of == port).map(|(_, table)| table).ok_or(DenyReason::PeerUndeclared)?;
    match table.find(request.method().as_str(), request.uri().path()).map_err(|_| DenyReason::RequestAmbiguous)? {
        Matched::Row(_) => Ok(()),
        Matched::MethodUnlisted => Err(DenyReason::MethodUnlisted),
        Matched::Unknown => Err(DenyReason::RouteUnknown),
    }
}

/// The call goes in the guard's name, so what a role offers to guards alone, such as taking audit records, must not be had by asking it
/// from inside. What the service then may do there, the policy decides.
fn admit_to_role(flow: &Outbound, request: &Request<Body>) -> Result<(), DenyReason> {
    let routes = match flow.peer.as_role() {
        Some("evidence") => contract::evidence::ROUTES,
        Some("objects") => contract::objects::ROUTES,
        Some("queue") => contract::queue::ROUTES,
        _ => return Err(DenyReason::PeerUndeclared),
    };
    match canonical::find(routes, request.method().as_str(), request.uri().path()).map_err(|_| DenyReason::RequestAmbiguous)? {
        Found::Route(route, _) if route.who == Who::Policy && route.action != "evidence.append" => Ok(()),
        Found::MethodUnlisted => Err(DenyReason::MethodUnlisted),
        Found::Route(..) | Found::Unknown => Err(DenyReason::RouteUnknown),
    }
}

/// Calls the peer in the guard's name; both bodies stream.
async fn forward(
    guard: &Guard,
    peer: &SpiffeId,
    taken: Option<&Taken>,
    trace: TraceContext,
    mut request: Request<Body>,
) -> Result<Response<Body>, Fault> {
    in_origin_form(&mut request)?;
    onward(request.headers_mut(), taken, trace);
    let mut response = guard.transport(peer)?.call(request).await.map_err(fault_of)?;
    headers::strip_hop_by_hop(response.headers_mut());
    Ok(response)
}

/// What the peer gets of the service's headers, and what the guard says in its own name.
fn onward(to: &mut HeaderMap, taken: Option<&Taken>, trace: TraceContext) {
    headers::strip_hop_by_hop_and(to, |name| {
        headers::claims_identity(name) || headers::is_credential(name) || headers::names_trace(name) || name == "host"
    });
    if let Some(taken) = taken {
        to.insert(&headers::TXN_TOKEN, taken.token.clone());
    }
    headers::put(to, &headers::TRACEPARENT, trace.traceparent().as_str());
}

/// Ends the account with the last byte of the answer.
fn record(account: Account, answer: Result<Response<Body>, Fault>) -> Response<Body> {
    let response = answer.unwrap_or_else(|fault| account.failed(&fault));
    account.finish(response)
}

/// The span that this call belongs to: the service's own word counts only within traces that are in flight here.
fn parent(guard: &Guard, request: &Request<Body>, taken: Option<&Taken>) -> Option<TraceContext> {
    match taken {
        Some(taken) => Some(taken.delivered.trace),
        None => headers::trace(request.headers()).filter(|said| guard.flight.has_trace(said.trace_id)),
    }
}
