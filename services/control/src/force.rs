//! Putting a manifest into force: every check that can be made before anybody sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::control::Apply;
use manifest::{Lock, LockError, Manifest, ManifestError, Search};
use policy::{Bundle, BundleError, Engine, LoadError, PolicySlice, slice_for};
use serde_json::Value;
use trust::{Digest, SpiffeId, TrustDomain};

use crate::profile::ROLES;

/// Why a manifest was not put into force. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyRefused {
    /// The manifest is not valid.
    #[error("{0}")]
    Manifest(#[from] Box<ManifestError>),
    /// The lock is not well-formed or was edited.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Lock, manifest, policies and files do not agree.
    #[error("{}", .0.join("; "))]
    Tampered(Vec<String>),
    /// A running system keeps its trust domain.
    #[error("the trust domain of a running system cannot change from {from} to {to}")]
    TrustDomain {
        /// Present.
        from: TrustDomain,
        /// Wanted.
        to: TrustDomain,
    },
    /// A service of the manifest has no listener in this run.
    #[error("the service {0} is new; services come and go with `palisade up`, not with `palisade apply`")]
    ServiceNew(String),
    /// A service has another number of replicas in this run.
    #[error(
        "the service {service} runs with {running} replicas; their number changes with `palisade up`, not with `palisade apply` (wanted: {wanted})"
    )]
    Replicas {
        /// Which.
        service: String,
        /// Guards that this run has.
        running: usize,
        /// `replicas.max` of the new manifest.
        wanted: u32,
    },
    /// Policies do not build.
    #[error(transparent)]
    Policies(#[from] BundleError),
    /// A workload would refuse its slice.
    #[error("the slice for {workload} is refused: {source}")]
    Slice {
        /// Whose.
        workload: SpiffeId,
        /// Why.
        source: LoadError,
    },
    /// A slice cannot be written: our defect.
    #[error("the slice for {0} cannot be written")]
    Unwritable(SpiffeId),
}

/// A manifest with everything made of it, ready to be seen under an epoch.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) apply: Apply,
    pub(crate) manifest: Manifest,
    pub(crate) lock: Lock,
    /// Policy slices by workload.
    pub(crate) slices: BTreeMap<SpiffeId, Value>,
}

/// What a manifest is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) search: Search,
    pub(crate) palisade: Digest,
    pub(crate) addresses: BTreeMap<SpiffeId, Vec<String>>,
    /// The trust domain of this run, once there is one.
    pub(crate) trust_domain: Option<TrustDomain>,
}

/// Whether the files that a lock pins are digested again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// For a new manifest.
    Digested,
    /// For one that was in force before: `identity` and the guards compare at every start.
    AsLocked,
}

/// Checks `apply` in every point.
pub(crate) fn force(apply: Apply, ground: &Ground, files: Files) -> Result<Arc<InForce>, ApplyRefused> {
    let manifest = Manifest::parse("palisade.toml", &apply.manifest).map_err(Box::new)?;
    let lock = Lock::parse(&apply.lock)?;
    match &ground.trust_domain {
        Some(from) if *from != manifest.trust_domain => {
            return Err(ApplyRefused::TrustDomain { from: from.clone(), to: manifest.trust_domain });
        }
        _ => {}
    }
    let differences = match files {
        Files::Digested => {
            lock.verify(&manifest, &apply.policies, &ground.search, ground.palisade)?.iter().map(ToString::to_string).collect()
        }
        Files::AsLocked => stale_lock(&lock, &manifest, &apply),
    };
    if !differences.is_empty() {
        return Err(ApplyRefused::Tampered(differences));
    }
    for service in manifest.services.keys() {
        let Some(replicas) = ground.addresses.get(&manifest.trust_domain.service(service)) else {
            return Err(ApplyRefused::ServiceNew(service.clone()));
        };
        let wanted = manifest.services.get(service).map_or(1, |s| s.replicas.max);
        if u32::try_from(replicas.len()).ok() != Some(wanted) {
            return Err(ApplyRefused::Replicas { service: service.clone(), running: replicas.len(), wanted });
        }
    }
    let bundle = Bundle::build(&manifest, &apply.policies)?;
    let mut slices = BTreeMap::new();
    let roles = ROLES.iter().map(|r| manifest.trust_domain.role(r));
    for workload in roles.chain(manifest.services.keys().map(|s| manifest.trust_domain.service(s))) {
        let slice: PolicySlice = slice_for(&workload.workload, &bundle)?;
        // What its owner will check, checked before it is in force: an epoch that a guard cannot load would be half applied.
        Engine::load(&slice, 0).map_err(|source| ApplyRefused::Slice { workload: workload.clone(), source })?;
        let value = serde_json::to_value(&slice).map_err(|_| ApplyRefused::Unwritable(workload.clone()))?;
        slices.insert(workload, value);
    }
    Ok(Arc::new(InForce { apply, manifest, lock, slices }))
}

fn stale_lock(lock: &Lock, manifest: &Manifest, apply: &Apply) -> Vec<String> {
    let mut found = Vec::new();
    if lock.manifest != manifest.digest() {
        found.push("the manifest is not the locked one".to_owned());
    }
    let policies: BTreeMap<String, Digest> = apply.policies.iter().map(|(n, t)| (n.clone(), Digest::of(t.as_bytes()))).collect();
    if lock.policies != policies {
        found.push("the policies are not the locked ones".to_owned());
    }
    found
}
