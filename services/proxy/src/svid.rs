//! This process's SVID: key, chain, end, and the bundle that came with it; replaced while connections go on.
//!
//! The SVID's key also signs what this workload states (transaction tokens, views). A verifier knows a new key only once `control`
//! has pushed it, and verifiers get their views one after the other; so the keys before it are used until every view that is still in
//! force names the new one.
//!
//! Spec:       SPIFFE X509-SVID; RFC 2986 (signing requests).
//! Guarantees: C9 rotation drops no connection: handshakes read the SVID of the moment, live connections keep theirs.
//! Not here:   asking `identity` (`renewal`), verifying others (`bundle`).

use std::fmt;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::identity::Issued;
use contract::signing::SigningKey;
use contract::txn_token::{Minter, Verifier};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use trust::{Clock, SpiffeId};

use crate::bundle::{BundleError, PeerSvid, Refusal, TrustBundle, Usage};
use crate::tls;

/// Why an SVID could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// A key or signing request could not be made.
    #[error("the key pair could not be made")]
    Key,
    /// What came is not base64 of certificates, or not for our key.
    #[error("what was issued is not a certificate chain for our key")]
    Chain,
    /// It names somebody else.
    #[error("an SVID for {0} was issued to us")]
    Stranger(SpiffeId),
    /// It does not stand up to our own rules.
    #[error("the issued SVID would be refused by every peer: {0}")]
    Refused(#[from] Refusal),
    /// The bundle that came with it is not usable.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A new P-256 key that has no certificate yet.
pub struct PendingKey {
    pkcs8: trust::Secret<Vec<u8>>,
    csr: String,
}

/// Key and chain.
struct Svid {
    peer: PeerSvid,
    chain: Vec<CertificateDer<'static>>,
    certified: Arc<CertifiedKey>,
    signing: SigningKey,
    generation: u64,
}

/// A key that signs statements, since when, and until when.
#[derive(Clone)]
struct Held {
    from_s: u64,
    not_after_s: u64,
    key: SigningKey,
}

impl Held {
    /// When no view that is still in force is from before this key; a short-lived key cannot wait as long.
    fn settled_s(&self) -> u64 {
        let quarter_s = self.not_after_s.saturating_sub(self.from_s) / 4;
        self.from_s.saturating_add(quarter_s.min(trust::limits::VIEW_AGE_S_MAX))
    }
}

/// The identity of this process.
pub struct WorkloadIdentity {
    id: SpiffeId,
    bundle: Arc<TrustBundle>,
    current: ArcSwap<Svid>,
    /// Signing keys of all SVIDs that have not ended, newest first.
    keys: Mutex<Vec<Held>>,
    changed: watch::Sender<u64>,
}

impl PendingKey {
    /// A new key and its signing request.
    ///
    /// # Errors
    /// `Key` when the generator fails.
    pub fn generate() -> Result<Self, SvidError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| SvidError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(|_| SvidError::Key)?;
        Ok(Self { pkcs8: trust::Secret::new(key.serialize_der()), csr: STANDARD.encode(csr.der()) })
    }

    /// The signing request: PKCS #10, DER, base64.
    #[must_use]
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// The key itself: PKCS #8, DER. For whoever hands it on to the process that it is for.
    #[must_use]
    pub(crate) fn pkcs8(&self) -> &trust::Secret<Vec<u8>> {
        &self.pkcs8
    }

    fn certified(&self, issued: &Issued, bundle: &TrustBundle, generation: u64) -> Result<Svid, SvidError> {
        let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from).map_err(|_| SvidError::Chain);
        let chain = issued.chain.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let (leaf, rest) = chain.split_first().ok_or(SvidError::Chain)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(bundle.clock().unix_s()));
        bundle.verify(leaf, rest, Usage::Client, now)?;
        let peer = bundle.verify(leaf, rest, Usage::Server, now)?;
        if peer.id != issued.spiffe_id {
            return Err(SvidError::Stranger(peer.id));
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.expose().clone()));
        let certified = CertifiedKey::from_der(chain.clone(), key, &tls::provider()).map_err(|_| SvidError::Chain)?;
        let signing = SigningKey::from_pkcs8(self.pkcs8.expose()).map_err(|_| SvidError::Key)?;
        Ok(Svid { peer, chain, certified: Arc::new(certified), signing, generation })
    }
}

impl WorkloadIdentity {
    /// The identity that `issued` gives to the holder of `key`. (`identity` itself, which nobody issues to over a socket, begins here too.)
    ///
    /// # Errors
    /// See `SvidError`.
    pub fn adopt(key: &PendingKey, issued: &Issued, clock: Arc<dyn Clock>) -> Result<Arc<Self>, SvidError> {
        let bundle = TrustBundle::new(issued.spiffe_id.trust_domain.clone(), &issued.bundle.roots, clock)?;
        bundle.revoke(&issued.bundle.revoked);
        let svid = key.certified(issued, &bundle, 0)?;
        let from_s = bundle.clock().unix_s();
        let keys = Mutex::new(vec![Held { from_s, not_after_s: svid.peer.not_after_s, key: svid.signing.clone() }]);
        let (changed, _) = watch::channel(0);
        Ok(Arc::new(Self { id: issued.spiffe_id.clone(), bundle, current: ArcSwap::from_pointee(svid), keys, changed }))
    }

    /// Another of the same, which believes what a caller's certificate says, whoever signed it. For a throw-away copy of a system alone, to see
    /// that an attack finds that; it takes the place of this one before anybody has this one.
    #[must_use]
    pub fn dangerous_believing_any_caller(&self) -> Arc<Self> {
        let keys = self.keys.lock().map(|keys| keys.clone()).unwrap_or_default();
        let (bundle, current) = (self.bundle.dangerous_believing_any_caller(), ArcSwap::new(self.current.load_full()));
        let (changed, _) = watch::channel(self.generation());
        Arc::new(Self { id: self.id.clone(), bundle, current, keys: Mutex::new(keys), changed })
    }

    /// Takes a renewed SVID. Live connections keep the one that they began with.
    ///
    /// # Errors
    /// See `SvidError`; then the present one stays.
    pub fn renewed(&self, key: &PendingKey, issued: &Issued) -> Result<(), SvidError> {
        if issued.spiffe_id != self.id {
            return Err(SvidError::Stranger(issued.spiffe_id.clone()));
        }
        self.bundle.replace_roots(&issued.bundle.roots)?;
        self.bundle.revoke(&issued.bundle.revoked);
        let svid = key.certified(issued, &self.bundle, self.generation().saturating_add(1))?;
        let now = self.bundle.clock().unix_s();
        if let Ok(mut keys) = self.keys.lock() {
            keys.insert(0, Held { from_s: now, not_after_s: svid.peer.not_after_s, key: svid.signing.clone() });
            keys.retain(|held| held.not_after_s >= now);
        }
        let generation = svid.generation;
        self.current.store(Arc::new(svid));
        self.changed.send_replace(generation);
        Ok(())
    }

    /// Who this process is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What it trusts.
    #[must_use]
    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// The present SVID's start and end, seconds since the epoch.
    #[must_use]
    pub fn life_s(&self) -> (u64, u64) {
        let svid = self.current.load();
        (svid.peer.not_before_s, svid.peer.not_after_s)
    }

    /// The present SVID, as a peer sees it.
    #[must_use]
    pub fn own(&self) -> PeerSvid {
        self.current.load().peer.clone()
    }

    /// Counts up with each renewal.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// Hears of renewals.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The key of the present SVID, for statements whose reader gets the chain too (a view's `x5c`).
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        self.current.load().signing.clone()
    }

    /// The chain of the present SVID with its key: (key, DER certificates, leaf first), taken together.
    #[must_use]
    pub fn signing_key_and_chain(&self) -> (SigningKey, Vec<Vec<u8>>) {
        let svid = self.current.load();
        (svid.signing.clone(), svid.chain.iter().map(|der| der.to_vec()).collect())
    }

    /// Mints transaction tokens with the newest of our keys that every view in force names: one that `known` (our own view's) has, and
    /// has had for as long as an older view may be in force elsewhere. Where there is none such, the oldest that `known` has. None: nobody
    /// would accept a token yet.
    #[must_use]
    pub fn minter(&self, known: &Verifier) -> Option<Minter> {
        let keys = self.keys.lock().ok()?;
        let now_s = self.bundle.clock().unix_s();
        let mut named = keys.iter().filter(|held| held.not_after_s >= now_s && known.knows(held.key.kid()));
        let oldest = named.clone().next_back();
        let held = named.find(|held| held.settled_s() <= now_s).or(oldest)?;
        Some(Minter { issuer: self.id.clone(), key: held.key.clone() })
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().certified)
    }
}

impl fmt::Debug for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (not_before_s, not_after_s) = self.life_s();
        f.debug_struct("WorkloadIdentity")
            .field("id", &self.id.to_string())
            .field("not_before_s", &not_before_s)
            .field("not_after_s", &not_after_s)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingKey(…)")
    }
}
