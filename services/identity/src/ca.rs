//! The certificate authority: a root that signs intermediates, an intermediate that signs SVIDs.
//!
//! The root's key is opened only to sign an intermediate. An intermediate lives 90 days and is replaced 30 days before its end, at
//! the first issue that sees it; SVIDs carry their intermediate along, so nobody is told. All keys are P-256 and sealed at rest.
//!
//! Spec:       SPIFFE X509-SVID, sections 2 (the SPIFFE ID), 3 (hierarchy), 4 (constraints and usage); RFC 5280, section 4.2.
//! Guarantees: C1; C9 an SVID lives one hour at most.
//! Not here:   rotation of the root (C10).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::identity::{Bundle, Issued, Revocation};
use contract::signing::AuthorityKey;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use trust::{Clock, Entropy, KeySealer, SealError, SpiffeId, TrustDomain, limits};

use crate::certificate::{self, AtRest, AtWork, DAY_S, SKEW_S, encoded};
use crate::durable::Folder;
use crate::ledger::Ledger;
use crate::request::{ProvenKey, RequestError};

const FILE: &str = "ca.json";
const ROOT_LIFE_S: u64 = 3652 * DAY_S;
const INTERMEDIATE_LIFE_S: u64 = 90 * DAY_S;
const INTERMEDIATE_LEFT_S_MIN: u64 = 30 * DAY_S;
/// The roles whose keys sign transaction tokens; so do those of decision points.
const MINTERS: &[&str] = &["edge", "queue"];

/// What an authority is opened with.
#[derive(Debug)]
pub struct CaConfig {
    /// Its folder; made at first start (mode 0700), owned by this process alone.
    pub folder: PathBuf,
    /// The trust domain that it speaks for.
    pub trust_domain: TrustDomain,
    /// Seals its keys at rest.
    pub sealer: KeySealer,
    /// Life of an SVID in seconds; more than `limits::SVID_LIFE_S_MAX` is cut to that. It begins a minute before it is made, for clocks that are
    /// behind, or a tenth of its life if that is less, so that half of its life is never over at once.
    pub svid_life_s: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Serial numbers and nonces. Keys come from the cryptographic library's own generator.
    pub entropy: Arc<dyn Entropy>,
}

/// Why an authority could not be opened, or something not be issued.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The folder cannot be read or written.
    #[error("the authority's folder cannot be used")]
    Folder(#[from] io::Error),
    /// A sealed key or the ledger does not open.
    #[error("the authority's keys cannot be opened")]
    Seal(#[from] SealError),
    /// A file is there but says something that no authority wrote: a key that is not its certificate's, a broken chain.
    #[error("'{0}' in the authority's folder is not as it was left; restore the folder from a backup")]
    Broken(&'static str),
    /// The folder belongs to another trust domain.
    #[error("the folder holds the authority of '{found}', not of '{wanted}'; give each trust domain a folder of its own")]
    Foreign {
        /// What is there.
        found: TrustDomain,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The root ends before an intermediate could live.
    #[error("the root certificate is at its end; a new root is needed")]
    RootEnding,
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The request for one is not acceptable.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The identity was revoked and has not been attested anew.
    #[error("the identity was revoked")]
    Revoked,
    /// A name that is not of this trust domain, or not of this machine.
    #[error("'{0}' is not a name that this authority may certify")]
    NameRefused(String),
}

/// The authority's file: certificates in the open, keys sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    trust_domain: TrustDomain,
    root: AtRest,
    intermediate: AtRest,
}

#[derive(Debug)]
struct Inner {
    kept: Kept,
    intermediate: AtWork,
    ledger: Ledger,
}

/// The authority. Its methods write to disk: call them where blocking is allowed.
#[derive(Debug)]
pub struct Ca {
    config: CaConfig,
    folder: Arc<Folder>,
    inner: Mutex<Inner>,
    sequence: watch::Sender<u64>,
}

impl Ca {
    /// Opens the authority of a folder, or creates it there.
    ///
    /// # Errors
    /// `Folder`, `Seal`, `Broken` or `Foreign`: what is there cannot be used as it is. `RootEnding` after ten years.
    pub fn open(config: CaConfig) -> Result<Self, CaError> {
        let folder = Arc::new(Folder::open(&config.folder)?);
        let kept = match folder.read(FILE)? {
            Some(text) => load(&text, &config)?,
            None => create(&config, &folder)?,
        };
        let intermediate = kept.intermediate.open("intermediate", &config.sealer)?;
        let ledger = Ledger::load(Arc::clone(&folder), config.sealer.clone())?;
        let (sequence, _) = watch::channel(ledger.sequence());
        Ok(Self { config, folder, inner: Mutex::new(Inner { kept, intermediate, ledger }), sequence })
    }

    /// The trust domain that it speaks for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.config.trust_domain
    }

    /// The first SVID of a process that was attested as `id` just now; `request` is a certificate signing request (DER, base64).
    ///
    /// # Errors
    /// `Request` for an unusable request; `NameRefused` for another trust domain; what keeping and signing may fail with.
    pub fn admit(&self, id: &SpiffeId, request: &str) -> Result<Issued, CaError> {
        let key = ProvenKey::parse(request)?;
        self.change(|inner, now_s| {
            inner.ledger.attested(id, now_s)?;
            if let Some(pep) = id.as_pdp() {
                // An enforcement point is who its decision point says that it is: a new start of the one readmits the other.
                inner.ledger.attested(&id.trust_domain.pep(pep), now_s)?;
            }
            self.issue(inner, id, &key, now_s)
        })
    }

    /// The next SVID of `id`, which proved the present one.
    ///
    /// # Errors
    /// As `admit`, and `Revoked` until it was attested anew.
    pub fn renew(&self, id: &SpiffeId, request: &str) -> Result<Issued, CaError> {
        let key = ProvenKey::parse(request)?;
        self.change(|inner, now_s| {
            if inner.ledger.is_shut_out(id) {
                return Err(CaError::Revoked);
            }
            self.issue(inner, id, &key, now_s)
        })
    }

    /// The SVID of the enforcement point whose decision point `pdp` is and proved to be. Its key is no minter's: what leaves Palisade
    /// signs nothing.
    ///
    /// # Errors
    /// As `admit`; `Revoked` when either was revoked and the decision point has not been attested anew; `NameRefused` for whoever is no
    /// decision point.
    pub fn issue_pep(&self, pdp: &SpiffeId, request: &str) -> Result<Issued, CaError> {
        let key = ProvenKey::parse(request)?;
        let name = pdp.as_pdp().ok_or_else(|| CaError::NameRefused(pdp.to_string()))?;
        let pep = pdp.trust_domain.pep(name);
        self.change(|inner, now_s| {
            if inner.ledger.is_shut_out(pdp) || inner.ledger.is_shut_out(&pep) {
                return Err(CaError::Revoked);
            }
            self.issue(inner, &pep, &key, now_s)
        })
    }

    /// An SVID for `role/identity` itself, which is the process that holds the authority: before it serves, and whenever half of the
    /// last one's life is over.
    ///
    /// # Errors
    /// As `admit`.
    pub fn issue_self(&self, request: &str) -> Result<Issued, CaError> {
        self.admit(&self.config.trust_domain.role("identity"), request)
    }

    /// Refuses what `revocation.spiffe_id` was issued before `before_s`, or before now if that is earlier.
    ///
    /// # Errors
    /// What keeping may fail with: then nothing is revoked.
    pub fn revoke(&self, revocation: &Revocation) -> Result<Bundle, CaError> {
        self.change(|inner, now_s| {
            inner.ledger.revoke(&revocation.spiffe_id, revocation.before_s.min(now_s))?;
            Ok(bundle_of(inner))
        })
    }

    /// The trust bundle of now.
    ///
    /// # Errors
    /// What keeping may fail with, when a key's end has passed.
    pub fn bundle(&self) -> Result<Bundle, CaError> {
        self.change(|inner, now_s| {
            inner.ledger.prune(now_s)?;
            Ok(bundle_of(inner))
        })
    }

    /// Follows the bundle's sequence.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }

    fn change<T>(&self, act: impl FnOnce(&mut Inner, u64) -> Result<T, CaError>) -> Result<T, CaError> {
        let mut inner = self.lock();
        let outcome = act(&mut inner, self.config.clock.unix_s());
        let sequence = inner.ledger.sequence();
        drop(inner);
        self.sequence.send_if_modified(|seen| std::mem::replace(seen, sequence) != sequence);
        outcome
    }

    /// A poisoned lock holds whole values: each change replaces them at its end.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, inner: &mut Inner, id: &SpiffeId, key: &ProvenKey, now_s: u64) -> Result<Issued, CaError> {
        if id.trust_domain != self.config.trust_domain {
            return Err(CaError::NameRefused(id.to_string()));
        }
        self.replace_intermediate_if_due(inner, now_s)?;
        // Never before a revocation's mark: whoever is attested after it gets an SVID that is not refused by it.
        let skew_s = SKEW_S.min(self.config.svid_life_s / 10);
        let not_before_s = now_s.saturating_sub(skew_s).max(inner.ledger.revoked_before(id)).min(now_s);
        let not_after_s = now_s
            .saturating_add(self.config.svid_life_s)
            .min(not_before_s.saturating_add(limits::SVID_LIFE_S_MAX))
            .min(inner.intermediate.not_after_s);
        let mut params = certificate::blank(&*self.config.clock, &*self.config.entropy, not_before_s, not_after_s);
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key.spki, &inner.intermediate.issuer)?;
        if id.as_pdp().is_some() || id.as_role().is_some_and(|role| MINTERS.contains(&role)) {
            let minter = AuthorityKey { kid: key.public.kid(), owner: id.clone(), public: key.public.clone(), not_after_s };
            inner.ledger.add_key(minter, now_s)?;
        }
        let chain = vec![encoded(leaf.der()), encoded(&inner.intermediate.der)];
        Ok(Issued { spiffe_id: id.clone(), chain, not_after_s, bundle: bundle_of(inner) })
    }

    fn replace_intermediate_if_due(&self, inner: &mut Inner, now_s: u64) -> Result<(), CaError> {
        if inner.intermediate.not_after_s > now_s.saturating_add(INTERMEDIATE_LEFT_S_MIN) {
            return Ok(());
        }
        let root = inner.kept.root.open("root", &self.config.sealer)?;
        if root.not_after_s <= now_s.saturating_add(limits::SVID_LIFE_S_MAX) {
            return Err(CaError::RootEnding);
        }
        let generation = inner.kept.intermediate.generation.saturating_add(1);
        let kept = Kept { intermediate: new_intermediate(&self.config, &root, generation)?, ..inner.kept.clone() };
        let intermediate = kept.intermediate.open("intermediate", &self.config.sealer)?;
        keep(&self.folder, &kept)?;
        inner.kept = kept;
        inner.intermediate = intermediate;
        Ok(())
    }
}

fn bundle_of(inner: &Inner) -> Bundle {
    inner.ledger.bundle(vec![inner.kept.root.certificate.clone()])
}

fn load(text: &str, config: &CaConfig) -> Result<Kept, CaError> {
    let kept: Kept = serde_json::from_str(text).map_err(|_| CaError::Broken(FILE))?;
    if kept.trust_domain != config.trust_domain {
        return Err(CaError::Foreign { found: kept.trust_domain, wanted: config.trust_domain.clone() });
    }
    let (root, intermediate) = (kept.root.open("root", &config.sealer)?, kept.intermediate.open("intermediate", &config.sealer)?);
    let whole = certificate::is_signed_by(&root.der, &root.der) && certificate::is_signed_by(&intermediate.der, &root.der);
    if whole { Ok(kept) } else { Err(CaError::Broken(FILE)) }
}

fn create(config: &CaConfig, folder: &Folder) -> Result<Kept, CaError> {
    let now_s = config.clock.unix_s();
    let key = certificate::new_key()?;
    let mut params = certificate::blank(&*config.clock, &*config.entropy, now_s.saturating_sub(SKEW_S), now_s.saturating_add(ROOT_LIFE_S));
    certificate::as_authority(&mut params, format!("Palisade root of {}", config.trust_domain), 1);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{}", config.trust_domain).try_into()?)];
    let root = AtRest::new("root", 1, params.self_signed(&key)?.der(), &key, &config.sealer)?;
    let intermediate = new_intermediate(config, &root.open("root", &config.sealer)?, 1)?;
    let kept = Kept { trust_domain: config.trust_domain.clone(), root, intermediate };
    keep(folder, &kept)?;
    Ok(kept)
}

fn new_intermediate(config: &CaConfig, root: &AtWork, generation: u32) -> Result<AtRest, CaError> {
    let now_s = config.clock.unix_s();
    let key = certificate::new_key()?;
    let end_s = now_s.saturating_add(INTERMEDIATE_LIFE_S).min(root.not_after_s);
    let mut params = certificate::blank(&*config.clock, &*config.entropy, now_s.saturating_sub(SKEW_S), end_s);
    certificate::as_authority(&mut params, format!("Palisade intermediate {generation} of {}", config.trust_domain), 0);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{}", config.trust_domain).try_into()?)];
    let signed = params.signed_by(&key, &root.issuer)?;
    AtRest::new("intermediate", generation, signed.der(), &key, &config.sealer)
}

fn keep(folder: &Folder, kept: &Kept) -> Result<(), CaError> {
    let text = serde_json::to_string_pretty(kept).map_err(|_| CaError::Broken(FILE))?;
    Ok(folder.write(FILE, &text)?)
}
