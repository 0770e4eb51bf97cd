//! The view, as the rooms of `objects` and `queue` want it: their profiles, and the policy engine.

use std::sync::{Arc, Mutex, PoisonError};

use contract::txn_token::Minter;
use proxy::svid::WorkloadIdentity;
use proxy::view::{Loaded, ViewHolder};
use trust::{DenyReason, Fault};

/// Rules made of the view in force; made anew only when the view changes.
#[derive(Debug)]
pub struct FromView<B> {
    view: Arc<ViewHolder>,
    make: fn(&Arc<Loaded>) -> B,
    made: Mutex<Option<(Arc<Loaded>, Arc<B>)>>,
}

impl<B> FromView<B> {
    /// Rules that `make` makes of a view.
    pub fn new(view: Arc<ViewHolder>, make: fn(&Arc<Loaded>) -> B) -> Self {
        Self { view, make, made: Mutex::new(None) }
    }

    /// The rules in force.
    ///
    /// # Errors
    /// `ViewStale`.
    pub fn current(&self) -> Result<Arc<B>, DenyReason> {
        let loaded = self.view.fresh()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, rules)) = &*made
            && Arc::ptr_eq(of, &loaded)
        {
            return Ok(rules.clone());
        }
        let rules = Arc::new((self.make)(&loaded));
        *made = Some((loaded, rules.clone()));
        Ok(rules)
    }
}

/// Mints with the newest of our keys that the view already names, so that every guard knows it.
#[derive(Debug)]
pub struct MintFromView {
    /// Our SVID's keys.
    pub identity: Arc<WorkloadIdentity>,
    /// The view.
    pub view: Arc<ViewHolder>,
}

impl MintFromView {
    /// The minter of now.
    ///
    /// # Errors
    /// `Unavailable` while the view names none of our keys.
    pub fn minter(&self) -> Result<Minter, Fault> {
        let loaded = self.view.fresh().map_err(|reason| Fault::unavailable(reason.code()))?;
        self.identity.minter(&loaded.verifier).ok_or_else(|| Fault::unavailable("the view does not name our key yet"))
    }
}
