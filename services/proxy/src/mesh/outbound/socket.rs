//! A WebSocket that the service opens to a peer: upgraded on loopback, a tunnel over the mesh.
//!
//! It lives on somebody's authority, so it ends when the request that brought that authority does (D7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use http::{Request, Response};
use http_body_util::channel::Channel;
use tokio_util::sync::CancellationToken;
use trust::{DenyReason, Fault, SpiffeId, TraceContext};

use super::{Taken, record};
use crate::account::Account;
use crate::client::fault_of;
use crate::enforce::in_origin_form;
use crate::mesh::Guard;
use crate::passage::Passage;
use crate::serve::afterwards::Afterwards;
use crate::tunnel::{self, Bounds, End, Why};
use crate::websocket::{self, Opening};
use crate::{headers, limits};

/// Opens it at the peer, and answers the service's handshake when the peer has accepted.
pub(super) async fn open(
    guard: Arc<Guard>,
    (port, to): (u16, SpiffeId),
    taken: Option<Taken>,
    opening: Opening,
    account: Account,
    request: Request<Body>,
) -> Response<Body> {
    let (sender, channel) = Channel::<Bytes, BoxError>::new(1);
    let request = request.map(|_empty| Passage::new(channel).into_body());
    let answer = call(&guard, &to, taken.as_ref(), account.trace(), request).await;
    let answer = match answer {
        Ok(answer) if websocket::is_tunnel(answer.headers()) => answer,
        Ok(answer) if answer.status().is_success() => {
            return record(account, Err(Fault::unavailable("the peer did not open a WebSocket")));
        }
        answered => return record(account, answered),
    };
    let mut accepted = opening.accepted(answer.headers());
    let status = accepted.status().as_u16();
    let from_peer = answer.into_body();
    Afterwards::attach(&mut accepted, move |stop| async move {
        let Some(caller) = opening.caller().await else { return };
        let ending = ending(&guard, port, taken.as_ref(), stop);
        let summary = tunnel::run(caller, End::bodies(from_peer, sender), Bounds::websocket(), true, ending).await;
        account.tunnel_ended(status, &summary);
    });
    accepted
}

/// Asks the peer's guard for it.
async fn call(
    guard: &Guard,
    peer: &SpiffeId,
    taken: Option<&Taken>,
    trace: TraceContext,
    mut request: Request<Body>,
) -> Result<Response<Body>, Fault> {
    in_origin_form(&mut request)?;
    super::onward(request.headers_mut(), taken, trace);
    websocket::mark(request.headers_mut());
    let mut answer = guard.transport(peer)?.call(request).await.map_err(fault_of)?;
    headers::strip_hop_by_hop(answer.headers_mut());
    Ok(answer)
}

async fn ending(guard: &Guard, port: u16, taken: Option<&Taken>, stop: CancellationToken) -> Why {
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
            if let Err(reason) = look(guard, port, taken) {
                return reason;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Why::Drained,
        reason = look => Why::Revoked(reason),
    }
}

fn look(guard: &Guard, port: u16, taken: Option<&Taken>) -> Result<(), DenyReason> {
    super::match_flow(&*guard.views.fresh()?, port)?;
    match taken {
        Some(taken) if !guard.flight.has(&taken.token) => Err(DenyReason::AuthorityNotInFlight),
        _ => Ok(()),
    }
}
