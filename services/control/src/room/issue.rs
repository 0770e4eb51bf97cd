//! Issuing a view: signed now, and sent as a change of the one that its owner holds where that is shorter.
//!
//! Guarantees: E16 signed, versioned, delta; the signature is over the whole view, however it travels.

use std::sync::{Arc, PoisonError};

use contract::control::{HELD, SignedView, VIEW_TYP, ViewLine};
use contract::delta::{ViewDelta, digest_of};
use trust::{Digest, Fault, SpiffeId};

use super::{Shared, Snapshot, contain};

impl Shared {
    /// A view for `id`, signed now.
    fn view(&self, snapshot: &Snapshot, id: &SpiffeId) -> Result<SignedView, Fault> {
        let bundle = snapshot.bundle.as_ref().ok_or_else(|| Fault::unavailable("the trust bundle has not come yet"))?;
        let share = snapshot.in_force.shares.get(id).ok_or_else(|| Fault::not_found("no workload of this system"))?;
        let mut view = share.view.clone();
        view.epoch = snapshot.epoch;
        view.issued_at_ms = self.issue_time();
        view.roots.clone_from(&bundle.roots);
        view.authority_keys.clone_from(&bundle.authority_keys);
        view.revoked.clone_from(&bundle.revoked);
        for (service, since_s) in &snapshot.contained {
            contain::confine(&mut view, &id.trust_domain.service(service), *since_s);
        }
        let (key, chain) = self.parts.signer.current();
        key.sign(VIEW_TYP, &chain, &view).map(|view| SignedView { view }).map_err(Fault::internal)
    }

    /// A view for `id` as it travels: its change on `held`, if that is shorter; and the view itself.
    pub(super) fn line(&self, snapshot: &Snapshot, id: &SpiffeId, held: Option<&SignedView>) -> Result<(ViewLine, Arc<SignedView>), Fault> {
        let view = Arc::new(self.view(snapshot, id)?);
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::clone(&view));
        let line = match held.and_then(|held| ViewDelta::between(held, &view)) {
            Some(delta) => ViewLine::Delta { delta },
            None => ViewLine::Whole(SignedView::clone(&view)),
        };
        Ok((line, view))
    }

    /// The view that the caller says it holds, if it is the last that was sent to it.
    pub(super) fn held(&self, id: &SpiffeId, query: Option<&str>) -> Option<Arc<SignedView>> {
        let digest: Digest = query?.strip_prefix(HELD)?.parse().ok()?;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        sent.filter(|view| digest_of(view) == digest)
    }

    /// Now; never earlier than what an earlier view said, so that a later view never looks rolled back.
    fn issue_time(&self) -> u64 {
        let mut last = self.issued_ms.lock().unwrap_or_else(PoisonError::into_inner);
        *last = self.parts.clock.unix_ms().max(*last);
        *last
    }
}
