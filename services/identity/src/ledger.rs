//! The ledger: what `identity` must not forget. Revocations, the keys that may sign authority, and the sequence of the bundle.
//!
//! One sealed file (a few kilobytes, so a database would be more to carry and more to trust), replaced whole and flushed before anything rests on it. Sealed, not for secrecy but so that a revocation cannot
//! be edited away. Small by nature: revocations are rare, and the keys of `edge` and `queue` leave with their SVIDs.
//!
//! Guarantees: revoked stays revoked, and issued authority stays verifiable, over any restart (C12 and B9 rest on it).

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::identity::{Bundle, Revocation};
use contract::signing::AuthorityKey;
use serde::{Deserialize, Serialize};
use trust::{KeySealer, SpiffeId};

use crate::ca::CaError;
use crate::durable::Folder;

const FILE: &str = "ledger.sealed";
const NAME: &str = "ledger";
const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    sequence: u64,
    authority_keys: Vec<AuthorityKey>,
    /// INVARIANT: one for each identity, the latest.
    revoked: BTreeMap<SpiffeId, u64>,
    /// Revoked identities that were attested anew: when (seconds since the epoch).
    readmitted: BTreeMap<SpiffeId, u64>,
}

/// The ledger, in memory as it is on disk.
#[derive(Debug)]
pub(crate) struct Ledger {
    folder: Arc<Folder>,
    sealer: KeySealer,
    page: Page,
}

impl Ledger {
    /// Loads the ledger, or begins one.
    pub(crate) fn load(folder: Arc<Folder>, sealer: KeySealer) -> Result<Self, CaError> {
        let page = match folder.read(FILE)? {
            Some(sealed) => {
                let plain = sealer.open(NAME, VERSION, sealed.trim_end())?;
                serde_json::from_slice(plain.expose()).map_err(|_| CaError::Broken(NAME))?
            }
            None => Page { sequence: 1, ..Page::default() },
        };
        Ok(Self { folder, sealer, page })
    }

    /// Grows with every change of the bundle.
    pub(crate) fn sequence(&self) -> u64 {
        self.page.sequence
    }

    /// The bundle, with these roots.
    pub(crate) fn bundle(&self, roots: Vec<String>) -> Bundle {
        let revoked = self.page.revoked.iter().map(|(id, before_s)| Revocation { spiffe_id: id.clone(), before_s: *before_s }).collect();
        Bundle { sequence: self.page.sequence, roots, authority_keys: self.page.authority_keys.clone(), revoked }
    }

    /// SVIDs of `id` that began before this are refused; 0 when none are.
    pub(crate) fn revoked_before(&self, id: &SpiffeId) -> u64 {
        self.page.revoked.get(id).copied().unwrap_or(0)
    }

    /// Whether `id` was revoked and has not been attested anew since.
    pub(crate) fn is_shut_out(&self, id: &SpiffeId) -> bool {
        let readmitted = self.page.readmitted.get(id).copied().unwrap_or(0);
        self.page.revoked.get(id).is_some_and(|before_s| readmitted < *before_s)
    }

    /// Notes that `id` was attested at `now_s`; nothing to keep unless it was revoked before.
    pub(crate) fn attested(&mut self, id: &SpiffeId, now_s: u64) -> Result<(), CaError> {
        if !self.is_shut_out(id) {
            return Ok(());
        }
        let mut page = self.page.clone();
        page.readmitted.insert(id.clone(), now_s);
        self.keep(page)
    }

    /// Adds a key that signs authority; those whose end has passed leave.
    pub(crate) fn add_key(&mut self, key: AuthorityKey, now_s: u64) -> Result<(), CaError> {
        let mut page = self.page.clone();
        page.authority_keys.retain(|kept| kept.not_after_s > now_s && kept.kid != key.kid);
        page.authority_keys.push(key);
        page.sequence = page.sequence.saturating_add(1);
        self.keep(page)
    }

    /// Drops keys whose end has passed.
    pub(crate) fn prune(&mut self, now_s: u64) -> Result<(), CaError> {
        if self.page.authority_keys.iter().all(|kept| kept.not_after_s > now_s) {
            return Ok(());
        }
        let mut page = self.page.clone();
        page.authority_keys.retain(|kept| kept.not_after_s > now_s);
        page.sequence = page.sequence.saturating_add(1);
        self.keep(page)
    }

    /// Refuses what `id` was issued before `before_s`, and the keys of those SVIDs; a later mark is never moved back.
    pub(crate) fn revoke(&mut self, id: &SpiffeId, before_s: u64) -> Result<(), CaError> {
        if self.revoked_before(id) >= before_s {
            return Ok(());
        }
        let mut page = self.page.clone();
        page.revoked.insert(id.clone(), before_s);
        page.authority_keys.retain(|kept| kept.owner != *id);
        page.sequence = page.sequence.saturating_add(1);
        self.keep(page)
    }

    fn keep(&mut self, page: Page) -> Result<(), CaError> {
        let plain = serde_json::to_vec(&page).map_err(|_| CaError::Broken(NAME))?;
        self.folder.write(FILE, &self.sealer.seal(NAME, VERSION, &plain)?)?;
        self.page = page;
        Ok(())
    }
}
