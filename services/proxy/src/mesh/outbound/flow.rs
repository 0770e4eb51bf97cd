//! A raw flow out of a service: its socket stands for one peer, and what is written to it goes there and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use contract::control::Outbound;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use trust::{Decision, DenyReason, Fault};

use super::{POINT, match_flow};
use crate::account::Account;
use crate::client::fault_of;
use crate::limits;
use crate::mesh::Guard;
use crate::tunnel::{self, Bounds, End, Why};

/// What the account says it was answered with; a raw flow has no status of its own.
const DONE: u16 = 200;

/// Whether the listener at `port` is for raw flows, by the view of now.
pub(in crate::mesh) fn is_raw(guard: &Guard, port: u16) -> bool {
    guard.views.last().is_some_and(|loaded| match_flow(&loaded, port).is_ok_and(|flow| flow.is_tcp()))
}

/// Carries one connection of the service on the listener for `port` until it ends.
pub(in crate::mesh) async fn carry(guard: Arc<Guard>, port: u16, stream: TcpStream, stop: CancellationToken) {
    let mut account = Account::begin(&guard.recorder, &guard.clock, POINT, "client", None);
    account.caller(guard.identity.id());
    let flow = match decide(&guard, port, &mut account) {
        Ok(flow) => flow,
        Err(reason) => return drop(account.refuse(reason)),
    };
    let peer = match connect(&guard, &flow).await {
        Ok(peer) => peer,
        Err(fault) => {
            let answer = account.failed(&fault);
            return drop(account.finish(answer));
        }
    };
    let ending = ending(&guard, port, stop);
    let summary = tunnel::run(End::tcp(stream), End::socket(peer), Bounds::flow(), false, ending).await;
    account.tunnel_ended(DONE, &summary);
}

fn decide(guard: &Guard, port: u16, account: &mut Account) -> Result<Outbound, DenyReason> {
    let loaded = guard.views.fresh()?;
    let flow = match_flow(&loaded, port)?.clone();
    account.act("call", format!("{} tcp", flow.peer), format!("to {}", flow.peer.workload.name()));
    account.decide(Decision::Allow { policies: Vec::new(), epoch: loaded.view.epoch, shadow: None })?;
    Ok(flow)
}

async fn connect(guard: &Guard, flow: &Outbound) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
    guard.transport(&flow.peer)?.raw().await.map_err(fault_of)
}

async fn ending(guard: &Guard, port: u16, stop: CancellationToken) -> Why {
    let look = async {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
            let declared = guard.views.fresh().and_then(|loaded| match_flow(&loaded, port).map(|_| ()));
            if let Err(reason) = declared {
                return reason;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Why::Drained,
        reason = look => Why::Revoked(reason),
    }
}
