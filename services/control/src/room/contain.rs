//! Containing a service: nothing goes to it, nothing comes from it, and its guard freezes it, from one epoch on.
//!
//! It is a property of the views: everybody's names it no more, its own says that it is contained. So it needs no message that somebody
//! could miss, holds at the moment in which a view is taken, survives a restart of anybody, and is undone by the next epoch. Whoever
//! keeps its records (`evidence`), renews its guard (`identity`) or tells it of its release (`control`) still hears its guard, which is
//! not what was taken over; everybody else refuses what its identity was issued until now, also where it was copied.
//!
//! Guarantees: L15.
//! Not here:   freezing and keeping the evidence (the guard's process), who may ask (contract).

use std::sync::Arc;

use contract::Caller;
use contract::control::{Contain, Contained, Release, View};
use contract::identity::Revocation;
use trust::{Fault, SpiffeId};

use super::{Outcome, Shared, Snapshot};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// Roles that a contained service's guard still talks to.
const KEEPERS: [&str; 3] = ["control", "identity", "evidence"];

/// Takes a contained service out of a view; in its own view, everybody but those who keep its records.
pub(super) fn confine<P>(view: &mut View<P>, service: &SpiffeId, since_s: u64) {
    if view.subject == *service {
        view.contained = true;
        view.callers.clear();
        view.peers.retain(|peer, _| is_keeper(peer));
        return;
    }
    if is_keeper(&view.subject) {
        return;
    }
    view.callers.remove(service);
    // Named without an address: a call fails at once as one to a peer that is down, and not as one that nobody declared.
    if let Some(addresses) = view.peers.get_mut(service) {
        addresses.clear();
    }
    if let Some(addresses) = view.pep.as_mut().and_then(|pep| pep.services.get_mut(service)) {
        addresses.clear();
    }
    // Messages wait, and no delivery is counted.
    for queue in view.queues.values_mut().filter(|queue| queue.consumer.as_ref() == Some(service)) {
        queue.consumer = None;
    }
    view.revoked.push(Revocation { spiffe_id: service.clone(), before_s: since_s });
}

fn is_keeper(id: &SpiffeId) -> bool {
    id.as_role().is_some_and(|role| KEEPERS.contains(&role))
}

impl Shared {
    pub(super) async fn contain(self: &Arc<Self>, asked: Contain, caller: &Caller) -> Result<Contained, Outcome> {
        let _making = self.making.lock().await;
        if asked.reason.len() > REASON_BYTES_MAX || asked.reason.chars().any(char::is_control) {
            return Err(Fault::bad_request(format!("the reason must be one line of at most {REASON_BYTES_MAX} bytes")).into());
        }
        let present = self.current.borrow().clone();
        if !present.in_force.manifest.services.contains_key(&asked.service) {
            let known: Vec<&str> = present.in_force.manifest.services.keys().map(String::as_str).collect();
            return Err(Fault::not_found(format!("there is no service {:?}; there are {}", asked.service, known.join(", "))).into());
        }
        if present.contained.contains_key(&asked.service) {
            // Asked twice is done once: who asks again hears since when.
            return Ok(answer(&present, &asked.service));
        }
        let since_s = self.parts.clock.unix_s();
        let detail = format!("{}: {}", asked.service, if asked.reason.is_empty() { "no reason given" } else { &asked.reason });
        let service = asked.service.clone();
        let insert = |next: &mut Snapshot| {
            next.contained.insert(service, since_s);
        };
        self.new_epoch(caller, ("contain", "control.contain", detail), insert).await?;
        let now = self.current.borrow().clone();
        Ok(answer(&now, &asked.service))
    }

    pub(super) async fn release(self: &Arc<Self>, asked: &Release, caller: &Caller) -> Result<Contained, Outcome> {
        let _making = self.making.lock().await;
        let present = self.current.borrow().clone();
        if !present.contained.contains_key(&asked.service) {
            return Err(Fault::not_found(format!("{:?} is not contained", asked.service)).into());
        }
        let id = present.in_force.manifest.trust_domain.service(&asked.service);
        // What it was issued while it was contained ends too: its guard is started anew and gets an SVID that begins now.
        let bundle = self.end(&id).await?;
        let change = |next: &mut Snapshot| {
            next.contained.remove(&asked.service);
            next.bundle = Some(Arc::new(bundle));
        };
        self.new_epoch(caller, ("release", "control.release", asked.service.clone()), change).await?;
        let now = self.current.borrow().clone();
        Ok(answer(&now, &asked.service))
    }
}

fn answer(snapshot: &Snapshot, service: &str) -> Contained {
    let replicas = snapshot.in_force.manifest.services.get(service).map_or(0, |service| service.replicas.max.max(1));
    Contained {
        epoch: snapshot.epoch,
        since_s: snapshot.contained.get(service).copied(),
        replicas,
        contained: snapshot.contained.keys().cloned().collect(),
    }
}
