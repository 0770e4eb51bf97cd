//! A raw flow's way in: decided on connect, by the caller's SVID and the declared flow alone; then a tunnel into the sandbox.
//!
//! No person's authority comes with it, so it is for what a service does in its own name, such as its database; the policy has a permit
//! of its own for it, and nothing that needs a person's authority can be reached this way.
//!
//! Guarantees: D4, D8, D13; C12 for as long as it lives.

use std::sync::Arc;
use std::time::Duration;

use contract::control::{Protocol, ServiceProfile, TCP_ROUTE};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use trust::{Decision, DenyReason};

use super::{POINT, accept, admit, declared_caller, refused};
use crate::account::Account;
use crate::bundle::PeerSvid;
use crate::client::fault_of;
use crate::limits;
use crate::mesh::Guard;
use crate::mesh::flight::Place;
use crate::tunnel::{self, Bounds, End, Why};
use crate::view::{Loaded, Question};

/// What the account says it was answered with; a raw flow has no status of its own.
const DONE: u16 = 200;

/// Carries one flow of a verified workload until it ends.
pub(in crate::mesh) async fn carry(guard: Arc<Guard>, peer: PeerSvid, stream: TlsStream<TcpStream>, stop: CancellationToken) {
    let mut account = Account::begin(&guard.recorder, &guard.clock, POINT, "server", None);
    account.caller(&peer.id);
    let place = match decide(&guard, &peer, &mut account) {
        Ok(place) => place,
        // Nothing is said to a caller of another protocol; its connection is cut.
        Err(decision) => return drop(refused(account, decision.into())),
    };
    let service = match guard.service.stream().await {
        Ok(service) => service,
        Err(failed) => {
            let answer = account.failed(&fault_of(failed));
            return drop(account.finish(answer));
        }
    };
    let ending = ending(&guard, &peer, stop);
    let summary = tunnel::run(End::socket(stream), End::tcp(service), Bounds::flow(), false, ending).await;
    account.tunnel_ended(DONE, &summary);
    drop(place);
}

fn decide(guard: &Guard, peer: &PeerSvid, account: &mut Account) -> Result<Place, Decision> {
    let loaded = accept(guard, peer).map_err(Decision::deny)?;
    let service = loaded.view.service.as_ref().ok_or_else(|| Decision::deny(DenyReason::ViewStale))?;
    account.act_on("call", &[&service.name, ":tcp"], &[TCP_ROUTE]);
    let decision = authorise(&loaded, service, peer);
    if !decision.is_allow() {
        return Err(decision);
    }
    let place = admit(guard, service).map_err(Decision::deny)?;
    account.decide(decision).map_err(Decision::deny)?;
    Ok(place)
}

/// The service takes raw flows, and the policy lets this workload open one.
fn authorise(loaded: &Loaded, service: &ServiceProfile, peer: &PeerSvid) -> Decision {
    if service.protocol != Protocol::Tcp {
        return Decision::deny(DenyReason::RouteUnknown);
    }
    loaded.engine.decide(&Question::Call { caller: peer.id.workload.name(), service: &service.name, route: TCP_ROUTE, authority: None })
}

async fn ending(guard: &Guard, peer: &PeerSvid, stop: CancellationToken) -> Why {
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
            if let Err(reason) = look(guard, peer) {
                return reason;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Why::Drained,
        reason = look => Why::Revoked(reason),
    }
}

fn look(guard: &Guard, peer: &PeerSvid) -> Result<(), DenyReason> {
    guard.identity.bundle().not_revoked(peer)?;
    let loaded = declared_caller(guard, peer)?;
    let service = loaded.view.service.as_ref().ok_or(DenyReason::ViewStale)?;
    authorise(&loaded, service, peer).deny_reason().map_or(Ok(()), Err)
}
