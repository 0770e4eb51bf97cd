//! Putting a manifest into force: every check that can be made before anybody sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::control::{Apply, View};
use manifest::{Lock, LockError, Manifest, ManifestError, Search};
use policy::{Bundle, BundleError, LoadError, Loader, PolicySlice, Slicer};
use serde_json::value::RawValue;
use trust::{Digest, SpiffeId, TrustDomain};

use crate::profile;

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
    /// An enforcement point of the manifest has no decision point in this run.
    #[error("the enforcement point {0} is new; they come and go with `palisade up`, not with `palisade apply`")]
    PepNew(String),
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
    /// By workload.
    pub(crate) shares: BTreeMap<SpiffeId, Share>,
}

/// Everybody who has an identity in a manifest.
pub(crate) fn identities(manifest: &Manifest) -> Vec<SpiffeId> {
    profile::workloads(manifest).into_iter().chain(profile::proxies(manifest)).collect()
}

impl InForce {
    /// Everybody who has an identity.
    pub(crate) fn identities(&self) -> Vec<SpiffeId> {
        identities(&self.manifest)
    }

    /// Whether somebody with that identity is in the manifest.
    pub(crate) fn names(&self, id: &SpiffeId) -> bool {
        self.shares.contains_key(id) || profile::proxies(&self.manifest).any(|proxy| proxy == *id)
    }
}

/// What a workload gets of a manifest.
#[derive(Debug)]
pub(crate) struct Share {
    slice: PolicySlice,
    /// Its view, but for what every issue of it says anew: epoch, time, roots, keys, revocations.
    pub(crate) view: View<Arc<RawValue>>,
}

/// What a manifest is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) search: Search,
    pub(crate) palisade: Digest,
    pub(crate) addresses: BTreeMap<SpiffeId, Vec<String>>,
    /// Maximum age of a view, seconds.
    pub(crate) age_s_max: u64,
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

/// Checks `apply` in every point. A slice that decides as the one of `present` does has passed its checks already.
pub(crate) fn force(apply: Apply, ground: &Ground, files: Files, present: Option<&InForce>) -> Result<Arc<InForce>, ApplyRefused> {
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
    let stranger = manifest.peps.keys().find(|pep| !ground.addresses.contains_key(&manifest.trust_domain.pdp(pep)));
    if let Some(pep) = stranger {
        return Err(ApplyRefused::PepNew(pep.clone()));
    }
    let bundle = Bundle::build(&manifest, &apply.policies)?;
    let (mut slicer, mut loader) = (Slicer::new(&bundle), Loader::default());
    let connections = profile::connections(&manifest);
    let mut shares = BTreeMap::new();
    for workload in profile::workloads(&manifest) {
        let slice: PolicySlice = slicer.slice(&workload.workload)?;
        let passed = present.and_then(|p| p.shares.get(&workload)).is_some_and(|before| before.slice.decides_as(&slice));
        if !passed {
            // What its owner will check, checked before it is in force: an epoch that a guard cannot load would be half applied.
            loader.load(&slice, 0).map_err(|source| ApplyRefused::Slice { workload: workload.clone(), source })?;
        }
        let text = serde_json::value::to_raw_value(&slice).map_err(|_| ApplyRefused::Unwritable(workload.clone()))?;
        let view = view_of(&workload, &manifest, &lock, ground, &connections, text.into());
        shares.insert(workload, Share { slice, view });
    }
    Ok(Arc::new(InForce { apply, manifest, lock, shares }))
}

fn view_of(
    id: &SpiffeId,
    manifest: &Manifest,
    lock: &Lock,
    ground: &Ground,
    connections: &profile::Connections,
    policy: Arc<RawValue>,
) -> View<Arc<RawValue>> {
    let callees = connections.callees.get(id).into_iter().flatten();
    let peers = callees.filter_map(|peer| ground.addresses.get(peer).map(|at| (peer.clone(), at.clone())));
    let is_role = |name: &str| id.as_role() == Some(name);
    View {
        subject: id.clone(),
        system: manifest.name.clone(),
        trust_domain: manifest.trust_domain.clone(),
        manifest: manifest.digest(),
        epoch: 0,
        issued_at_ms: 0,
        age_s_max: ground.age_s_max,
        policy,
        roots: Vec::new(),
        authority_keys: Vec::new(),
        revoked: Vec::new(),
        callers: connections.callers.get(id).cloned().unwrap_or_default(),
        peers: peers.collect(),
        contained: false,
        service: id.as_service().and_then(|name| profile::service(manifest, lock, &ground.search, name)),
        edge: match id.as_pdp() {
            Some(name) => profile::door(manifest, name),
            None => is_role("edge").then(|| profile::edge(manifest)),
        },
        pep: id.as_pdp().and_then(|name| profile::pep(manifest, name, &ground.addresses)),
        buckets: if is_role("objects") { profile::buckets(manifest) } else { BTreeMap::new() },
        queues: if is_role("queue") { profile::queues(manifest) } else { BTreeMap::new() },
    }
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
