//! A WebSocket's way in: a call that was decided like any other, upgraded in the sandbox, and looked at again every second.
//!
//! Guarantees: A18; D6 and C12 for as long as it lives: a revoked caller, a withdrawn flow or a policy that says no ends it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::control::ServiceProfile;
use contract::{Body, BoxError, body};
use http::{Request, Response, StatusCode, Version};
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use trust::{DenyReason, TraceContext};

use super::{Admitted, Verified, Work, introduce};
use crate::account::Account;
use crate::bundle::PeerSvid;
use crate::client::{CallFailed, fault_of};
use crate::enforce::in_origin_form;
use crate::mesh::Guard;
use crate::passage::{Idle, Passage};
use crate::serve::afterwards::Afterwards;
use crate::tunnel::{self, Bounds, End, Why};
use crate::view::Question;
use crate::websocket::{self, Handshake};
use crate::{headers, limits};

/// Opens a WebSocket to the service and answers with its one direction; the request's body is the other.
pub(super) async fn open(
    guard: Arc<Guard>,
    peer: Arc<PeerSvid>,
    admitted: Admitted,
    account: Account,
    request: Request<Body>,
) -> Response<Body> {
    let known = &admitted.verified.known;
    let ticket = guard.flight.deliver(known.digest, &known.authority, account.trace());
    if let Some(idle) = request.extensions().get::<Idle>() {
        idle.extend(limits::TUNNEL_IDLE_MS.saturating_mul(2));
    }
    let (head, from_caller) = request.into_parts();
    let (mut answer, to_service) = match upgrade(&guard, &admitted, account.trace(), Request::from_parts(head, body::empty())).await {
        Ok(Upgraded::Tunnel(answer, end)) => (answer, end),
        Ok(Upgraded::Answer(answer)) => return account.finish_holding(answer, (admitted.place, ticket)),
        Err(failed) => {
            let answer = account.failed(&fault_of(failed));
            return account.finish_holding(answer, (admitted.place, ticket));
        }
    };
    let (sender, to_caller) = Channel::<Bytes, BoxError>::new(1);
    *answer.body_mut() = Passage::new(to_caller).into_body();
    Afterwards::attach(&mut answer, move |stop| async move {
        let caller = End::bodies(from_caller, sender);
        let ending = ending(&guard, &peer, &admitted.verified, stop);
        let summary = tunnel::run(caller, to_service, Bounds::websocket(), true, ending).await;
        account.tunnel_ended(StatusCode::SWITCHING_PROTOCOLS.as_u16(), &summary);
        drop((admitted, ticket));
    });
    answer
}

/// What the service made of it.
enum Upgraded {
    Tunnel(Response<Body>, End),
    /// Its refusal, or an answer without an upgrade.
    Answer(Response<Body>),
}

/// Shakes hands with the service on a connection of its own.
async fn upgrade(guard: &Guard, admitted: &Admitted, trace: TraceContext, mut request: Request<Body>) -> Result<Upgraded, CallFailed> {
    let unusable = |fault| CallFailed::Unreachable(std::io::Error::other(fault));
    in_origin_form(&mut request).map_err(unusable)?;
    *request.version_mut() = Version::HTTP_11;
    headers::strip_hop_by_hop_and(request.headers_mut(), super::is_not_for_the_service);
    introduce(request.headers_mut(), &admitted.verified, trace);
    let nonce = trace.trace_id ^ u128::from(trace.span_id);
    let handshake = Handshake::begin(&mut request, nonce.to_be_bytes()).map_err(unusable)?;
    let mut sender = guard.service.connect_to_upgrade().await?;
    let late = |_| CallFailed::Late(limits::ANSWER_HEAD_MS);
    let answered = tokio::time::timeout(Duration::from_millis(limits::ANSWER_HEAD_MS), sender.send_request(request)).await;
    let mut answer = answered.map_err(late)?.map_err(crate::client::streams::broken)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let mut answer = answer.map(|body| Passage::new(body).within(limits::BODY_IDLE_MS).into_body());
        headers::strip_hop_by_hop(answer.headers_mut());
        headers::strip_identity(answer.headers_mut());
        return Ok(Upgraded::Answer(answer));
    }
    if !handshake.is_answered_by(answer.headers()) {
        return Err(CallFailed::Unreachable(std::io::Error::other("the service's 101 does not answer the handshake")));
    }
    let mut accepted = body::plain(StatusCode::OK);
    websocket::mark(accepted.headers_mut());
    websocket::pass_choice(answer.headers(), accepted.headers_mut());
    let upgraded = hyper::upgrade::on(&mut answer).await.map_err(crate::client::streams::broken)?;
    Ok(Upgraded::Tunnel(accepted, End::socket(TokioIo::new(upgraded))))
}

/// Waits for something that ends it: the drain, or an answer that has changed.
async fn ending(guard: &Guard, peer: &PeerSvid, verified: &Verified, stop: CancellationToken) -> Why {
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
            let undeclared = |service: &ServiceProfile| declared(service, &verified.work);
            if let Err(reason) = look(guard, peer, verified, undeclared) {
                return reason;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Why::Drained,
        reason = look => Why::Revoked(reason),
    }
}

/// Returns once what was verified would no longer be allowed: for answers that last.
pub(super) async fn withdrawn(guard: Arc<Guard>, peer: Arc<PeerSvid>, verified: Verified) -> Why {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
        if let Err(reason) = look(&guard, &peer, &verified, |_| Ok(())) {
            return Why::Revoked(reason);
        }
    }
}

/// The same questions as at the opening, to the view of now. That the caller's SVID has been renewed since is no reason to end.
fn look(
    guard: &Guard,
    peer: &PeerSvid,
    verified: &Verified,
    also: impl Fn(&ServiceProfile) -> Result<(), DenyReason>,
) -> Result<(), DenyReason> {
    guard.identity.bundle().not_revoked(peer)?;
    let loaded = super::declared_caller(guard, peer)?;
    let service = loaded.view.service.as_ref().ok_or(DenyReason::ViewStale)?;
    also(service)?;
    // Asked anew: an answer that was kept is the earlier view's.
    let (name, authority) = (service.name.as_str(), Some(&*verified.known.authority));
    let decision = loaded.engine.decide(&match &verified.work {
        Work::Call(route) => Question::Call { caller: peer.id.workload.name(), service: name, route, authority },
        Work::Delivery(queue) => Question::Consume { service: name, queue, authority },
    });
    decision.deny_reason().map_or(Ok(()), Err)
}

/// The manifest says that this route takes WebSockets.
pub(super) fn declared(service: &ServiceProfile, work: &Work) -> Result<(), DenyReason> {
    match work {
        Work::Call(route) if service.websockets.iter().any(|its| **its == **route) => Ok(()),
        _ => Err(DenyReason::UpgradeUnlisted),
    }
}
