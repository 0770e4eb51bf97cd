//! The view: what `control` says this enforcement point may decide on, verified, loaded, and never older than its maximum age.
//!
//! Guarantees: E16 a tampered, foreign or rolled-back view is refused; E17 past its age every question is answered with `ViewStale`.
//! Not here:   how it comes (`view::subscription`), what is asked of it (`enforce`, `mesh`).

mod decide;
mod issuer;
mod kept;
mod known;
mod subscription;
mod table;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use contract::control::{SignedView, VIEW_TYP, View};
use contract::signing;
use contract::txn_token::Verifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use telemetry::Recorder;
use telemetry::event::{FaultRaised, TamperingFound};
use tokio::sync::watch;
use trust::{Clock, DenyReason, Digest, SpiffeId, limits};

#[cfg(test)]
pub use decide::Decide;
pub use decide::{Engine, Question};
pub use issuer::Issuers;
pub use known::{Known, Token};
pub use subscription::subscribe;
pub use table::{Matched, Row, Table, TableError};

use crate::bundle::{BundleError, Usage};
use crate::svid::WorkloadIdentity;

/// Why a view was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ViewRefused {
    /// Signature, chain or signer is wrong.
    #[error("the view is not signed by control")]
    NotControls,
    /// It is somebody else's view.
    #[error("the view is for {0}")]
    Foreign(SpiffeId),
    /// Older than one that was already taken.
    #[error("the view is older (epoch {epoch}) than the one in force (epoch {seen})")]
    RolledBack {
        /// Its epoch.
        epoch: u64,
        /// That of the view in force.
        seen: u64,
    },
    /// It says that it was issued later than now.
    #[error("the view comes from the future")]
    FromTheFuture,
    /// Its policies or tables do not load.
    #[error("the view does not load: {0}")]
    Unusable(String),
    /// Its roots do not load.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A view in force.
#[derive(Debug)]
pub struct Loaded {
    /// What it says, but for its slice of the policies: that one is in `engine`, and of its text only the digest is kept.
    pub view: View,
    /// Verifies transaction tokens under its keys.
    pub verifier: Verifier,
    /// Transaction tokens that were verified under it.
    pub known: Known,
    /// Answers questions under its policies.
    pub engine: Engine,
    /// For the edge: identity providers besides `login`.
    pub issuers: Issuers,
    /// For a guard: routes that its service serves.
    pub inbound: Table,
    /// For a guard: routes that each of its listeners may call, by port; empty where the peer is a role.
    pub outbound: Vec<(u16, Table)>,
    /// Digest of the slice that `engine` was loaded from, without the manifest that it comes from.
    slice: Digest,
    /// Age when it was taken, and when that was on the monotonic clock: setting the wall clock back makes no view younger.
    age_ms: u64,
    taken: Duration,
}

/// Holds the view in force.
pub struct ViewHolder {
    identity: Arc<WorkloadIdentity>,
    load_engine: fn(&View) -> Result<Engine, String>,
    recorder: Recorder,
    kept: Option<PathBuf>,
    current: ArcSwapOption<Loaded>,
    taking: Mutex<()>,
    changed: watch::Sender<u64>,
}

impl ViewHolder {
    /// A holder without a view; or with the one that `kept` (a file that it will keep the last view in) holds, if that is genuine.
    #[must_use]
    pub fn open(identity: Arc<WorkloadIdentity>, recorder: Recorder, kept: Option<PathBuf>) -> Arc<Self> {
        Self::open_with(identity, Engine::load, recorder, kept)
    }

    /// `open`, but for the policies: whatever is declared is permitted. For a throw-away copy of a system alone, to see that an attack finds
    /// that.
    #[must_use]
    pub fn dangerous_open_without_policy(identity: Arc<WorkloadIdentity>, recorder: Recorder, kept: Option<PathBuf>) -> Arc<Self> {
        Self::open_with(identity, Engine::dangerous_open_to_all, recorder, kept)
    }

    /// `open`, but for what keeps a job to its input and its folder. As `dangerous_open_without_policy`.
    #[must_use]
    pub fn dangerous_open_without_jobs(identity: Arc<WorkloadIdentity>, recorder: Recorder, kept: Option<PathBuf>) -> Arc<Self> {
        Self::open_with(identity, Engine::dangerous_without_jobs, recorder, kept)
    }

    /// `open`, but for what keeps anybody from what nobody has looked at yet. As `dangerous_open_without_policy`.
    #[must_use]
    pub fn dangerous_open_without_quarantine(identity: Arc<WorkloadIdentity>, recorder: Recorder, kept: Option<PathBuf>) -> Arc<Self> {
        Self::open_with(identity, Engine::dangerous_without_quarantine, recorder, kept)
    }

    /// `open` with another way to load policies.
    pub(crate) fn open_with(
        identity: Arc<WorkloadIdentity>,
        load_engine: fn(&View) -> Result<Engine, String>,
        recorder: Recorder,
        kept: Option<PathBuf>,
    ) -> Arc<Self> {
        let (changed, _) = watch::channel(0);
        let holder = Self { identity, load_engine, recorder, kept, current: ArcSwapOption::empty(), taking: Mutex::new(()), changed };
        if let Some(path) = &holder.kept {
            holder.restore(path);
        }
        Arc::new(holder)
    }

    fn restore(&self, path: &std::path::Path) {
        let found = match kept::load(path) {
            Ok(None) => return,
            Ok(Some(signed)) => self.take(&signed, false).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(detail) = found {
            self.report(&path.display().to_string(), detail);
        }
    }

    /// The view is not used either way; losing this record must not keep the process from getting a good one.
    fn report(&self, which: &str, detail: String) {
        let _recorded = self.recorder.record(None, &TamperingFound { what: "view", which: which.to_owned(), detail });
    }

    fn report_away(&self, fault: &trust::Fault) {
        let cause = fault.cause.as_ref().map_or_else(|| fault.public.clone(), |cause| format!("{}: {cause}", fault.public));
        let _recorded = self.recorder.record(None, &FaultRaised { point: "view", action: "control.view.stream".to_owned(), cause });
    }

    /// Verifies a view and puts it in force.
    ///
    /// # Errors
    /// See `ViewRefused`; the view in force stays.
    pub fn accept(&self, signed: &SignedView) -> Result<(), ViewRefused> {
        self.take(signed, true)?;
        if let Some(path) = &self.kept {
            // A view that cannot be kept still counts: after a restart the process asks for a new one.
            let _kept = kept::store(path, signed);
        }
        Ok(())
    }

    fn take(&self, signed: &SignedView, fresh_roots: bool) -> Result<(), ViewRefused> {
        let view = self.genuine(signed)?;
        let _taking = self.taking.lock().map_err(|_| ViewRefused::Unusable("an earlier view could not be loaded".to_owned()))?;
        if let Some(present) = self.current.load().as_ref() {
            let older = (view.epoch, view.issued_at_ms) < (present.view.epoch, present.view.issued_at_ms);
            if older {
                return Err(ViewRefused::RolledBack { epoch: view.epoch, seen: present.view.epoch });
            }
        }
        let loaded = self.load(view)?;
        if fresh_roots {
            self.identity.bundle().replace_roots(&loaded.view.roots)?;
        }
        self.identity.bundle().revoke(&loaded.view.revoked);
        let epoch = loaded.view.epoch;
        self.current.store(Some(Arc::new(loaded)));
        self.changed.send_replace(epoch);
        Ok(())
    }

    /// The claims, once the chain in the header ends in the bundle, its leaf is `control`'s, and the signature is that leaf's.
    fn genuine(&self, signed: &SignedView) -> Result<View, ViewRefused> {
        let bundle = self.identity.bundle();
        let (_, chain) = signing::header_of(&signed.view, VIEW_TYP).map_err(|_| ViewRefused::NotControls)?;
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let (leaf, rest) = chain.split_first().ok_or(ViewRefused::NotControls)?;
        let now_ms = bundle.clock().unix_ms();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
        let signer = bundle.verify(leaf, rest, Usage::Server, now).map_err(|_| ViewRefused::NotControls)?;
        if signer.id.as_role() != Some("control") {
            return Err(ViewRefused::NotControls);
        }
        let key = public_key(leaf).ok_or(ViewRefused::NotControls)?;
        let decoding = key.decoding().map_err(|_| ViewRefused::NotControls)?;
        let view: View = signing::verify(&signed.view, VIEW_TYP, &decoding).map_err(|_| ViewRefused::NotControls)?;
        if view.subject != *self.identity.id() || view.trust_domain != *bundle.domain() {
            return Err(ViewRefused::Foreign(view.subject));
        }
        if view.issued_at_ms > now_ms.saturating_add(limits::CLOCK_SKEW_S_MAX * 1000) {
            return Err(ViewRefused::FromTheFuture);
        }
        Ok(view)
    }

    fn load(&self, mut view: View) -> Result<Loaded, ViewRefused> {
        let clock = self.clock();
        // Most views only renew the one in force, and most manifests change others' flows: the slice is the same to the byte but for
        // the manifest's digest, and so is what was checked when it was loaded.
        let slice = rules_of(&view).map_err(ViewRefused::Unusable)?;
        let present = self.current.load();
        let engine = match present.as_ref().filter(|p| p.slice == slice) {
            Some(present) => present.engine.under(view.epoch),
            None => (self.load_engine)(&view).map_err(ViewRefused::Unusable)?,
        };
        view.policy = serde_json::Value::Null;
        let table = |rows: &[String]| Table::parse(rows).map_err(|error| ViewRefused::Unusable(error.to_string()));
        let (inbound, outbound) = match &view.service {
            Some(service) => {
                let outbound = service.outbound.iter().map(|o| Ok((o.port, table(&o.routes)?))).collect::<Result<_, ViewRefused>>()?;
                (table(&service.routes)?, outbound)
            }
            None => (Table::default(), Vec::new()),
        };
        let verifier = Verifier::new(view.trust_domain.clone(), &view.authority_keys);
        let issuers = Issuers::new(view.edge.as_ref().map_or(&[], |edge| edge.issuers.as_slice()));
        let age_ms = clock.unix_ms().saturating_sub(view.issued_at_ms);
        Ok(Loaded { verifier, known: Known::default(), engine, issuers, inbound, outbound, slice, age_ms, taken: clock.monotonic(), view })
    }

    /// The view in force.
    ///
    /// # Errors
    /// `ViewStale` when there is none, or it is past its maximum age.
    pub fn fresh(&self) -> Result<Arc<Loaded>, DenyReason> {
        let loaded = self.current.load_full().ok_or(DenyReason::ViewStale)?;
        let since_taken = self.clock().monotonic().saturating_sub(loaded.taken).as_millis();
        let by_monotonic = u128::from(loaded.age_ms).saturating_add(since_taken);
        let by_wall = u128::from(self.clock().unix_ms().saturating_sub(loaded.view.issued_at_ms));
        if by_monotonic.max(by_wall) > u128::from(loaded.view.age_s_max).saturating_mul(1000) {
            return Err(DenyReason::ViewStale);
        }
        Ok(loaded)
    }

    /// The last view, however old: for what is not a decision, such as a service's limits.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    /// Hears of each view taken; the value is its epoch.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whose views these are.
    #[must_use]
    pub fn identity(&self) -> &Arc<WorkloadIdentity> {
        &self.identity
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.identity.bundle().clock()
    }
}

impl std::fmt::Debug for ViewHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let epoch = self.last().map(|loaded| loaded.view.epoch);
        f.debug_struct("ViewHolder").field("subject", &self.identity.id().to_string()).field("epoch", &epoch).finish_non_exhaustive()
    }
}

/// Digest of a view's slice without its manifest, once that is the view's.
fn rules_of(view: &View) -> Result<Digest, String> {
    let of = view.policy.get("manifest").and_then(|of| of.as_str()).and_then(|of| of.parse::<Digest>().ok());
    if of != Some(view.manifest) {
        return Err("the slice is another manifest's".to_owned());
    }
    let mut rules = view.policy.clone();
    rules.as_object_mut().and_then(|fields| fields.remove("manifest"));
    serde_json::to_vec(&rules).map(|text| Digest::of(&text)).map_err(|error| error.to_string())
}

fn public_key(leaf: &CertificateDer<'_>) -> Option<signing::PublicKey> {
    let (_, cert) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(signing::PublicKey::from_point(cert.public_key().subject_public_key.as_ref()))
}
