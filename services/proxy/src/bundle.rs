//! The trust bundle: which roots are trusted now, which identities are revoked, and whether a certificate is a good SVID under them.
//!
//! Spec:       SPIFFE X509-SVID sections 2 to 5; RFC 5280 section 6.
//! Guarantees: C1 in part, C12 in part (a revocation once known is never forgotten), D1: each refusal has its own reason.
//! Not here:   the TLS callbacks (`tls`), whether a flow is declared (`enforce`, `mesh`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::identity::Revocation;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use trust::{Clock, DenyReason, SpiffeId, TrustDomain};
use x509_parser::extensions::GeneralName;

use crate::tls;

/// A certificate that was verified as an SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSvid {
    /// Whom it names.
    pub id: SpiffeId,
    /// Its start, seconds since the epoch.
    pub not_before_s: u64,
    /// Its end, seconds since the epoch.
    pub not_after_s: u64,
}

/// A certificate that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The one reason.
    pub reason: DenyReason,
    /// What the certificate claimed to be; empty when it could not be read.
    pub peer: String,
}

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The accepting side of a connection, or a signed statement.
    Server,
    /// The calling side.
    Client,
}

/// Roots that are no roots.
#[derive(Debug, thiserror::Error)]
#[error("the trust bundle is not usable: {0}")]
pub struct BundleError(pub String);

/// Roots and revocations as they are now; replaced while connections go on.
pub struct TrustBundle {
    domain: TrustDomain,
    clock: Arc<dyn Clock>,
    roots: ArcSwap<Roots>,
    revoked: ArcSwap<BTreeMap<SpiffeId, u64>>,
    writing: Mutex<()>,
    dangerous_any_caller: bool,
}

struct Roots {
    text: Vec<String>,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl TrustBundle {
    /// A bundle of these roots (DER, base64), with nothing revoked.
    ///
    /// # Errors
    /// When there is no root, or one is not a certificate.
    pub fn new(domain: TrustDomain, roots: &[String], clock: Arc<dyn Clock>) -> Result<Arc<Self>, BundleError> {
        let roots = ArcSwap::from_pointee(Roots::parse(roots)?);
        Ok(Arc::new(Self { domain, clock, roots, revoked: ArcSwap::default(), writing: Mutex::new(()), dangerous_any_caller: false }))
    }

    /// Another of the same, which believes what a caller's certificate says, whoever signed it. For a throw-away copy of a system alone, to see
    /// that an attack finds that.
    pub(crate) fn dangerous_believing_any_caller(&self) -> Arc<Self> {
        Arc::new(Self {
            domain: self.domain.clone(),
            clock: Arc::clone(&self.clock),
            roots: ArcSwap::new(self.roots.load_full()),
            revoked: ArcSwap::new(self.revoked.load_full()),
            writing: Mutex::new(()),
            dangerous_any_caller: true,
        })
    }

    /// The trust domain.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Trusts these roots from now on, and no others.
    ///
    /// # Errors
    /// As `new`; then nothing changes.
    pub fn replace_roots(&self, roots: &[String]) -> Result<(), BundleError> {
        if self.roots.load().text != roots {
            self.roots.store(Arc::new(Roots::parse(roots)?));
        }
        Ok(())
    }

    /// The roots that it trusts now; DER, base64.
    #[must_use]
    pub fn roots(&self) -> Vec<String> {
        self.roots.load().text.clone()
    }

    /// Adds revocations. None is ever taken back; those of SVIDs that have ended anyway are dropped.
    pub fn revoke(&self, more: &[Revocation]) {
        let Ok(_writing) = self.writing.lock() else { return };
        let mut all = BTreeMap::clone(&self.revoked.load());
        for one in more {
            let before = all.entry(one.spiffe_id.clone()).or_default();
            *before = one.before_s.max(*before);
        }
        let ended = self.clock.unix_s().saturating_sub(2 * trust::limits::SVID_LIFE_S_MAX);
        all.retain(|_, before| *before > ended);
        self.revoked.store(Arc::new(all));
    }

    /// Verifies a chain (leaf first) as an SVID of this trust domain.
    ///
    /// # Errors
    /// `SvidMalformed`, `TrustDomainForeign`, `SvidExpired`, `SvidUntrusted` or `SvidRevoked`, with what it claimed to be.
    pub fn verify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], usage: Usage, now: UnixTime) -> Result<PeerSvid, Refusal> {
        let svid = read(leaf, &self.domain)?;
        let refuse = |reason| Refusal { reason, peer: svid.id.to_string() };
        let roots = self.roots.load();
        let verified = match usage {
            Usage::Client if self.dangerous_any_caller => Ok(()),
            Usage::Client => roots.clients.verify_client_cert(leaf, rest, now).map(drop),
            Usage::Server => ParsedCertificate::try_from(leaf).and_then(|cert| {
                verify_server_cert_signed_by_trust_anchor(
                    &cert,
                    &roots.store,
                    rest,
                    now,
                    tls::provider().signature_verification_algorithms.all,
                )
            }),
        };
        verified.map_err(|error| refuse(reason_of(&error)))?;
        self.still_good_at(&svid, now.as_secs()).map_err(refuse)?;
        Ok(svid)
    }

    /// Whether an SVID that was good when its connection began still is.
    ///
    /// # Errors
    /// `SvidExpired` or `SvidRevoked`; `TrustDomainForeign` for one that no handshake with this bundle let in.
    pub fn still_good(&self, svid: &PeerSvid) -> Result<(), DenyReason> {
        self.still_good_at(svid, self.clock.unix_s())
    }

    fn still_good_at(&self, svid: &PeerSvid, now_s: u64) -> Result<(), DenyReason> {
        if svid.id.trust_domain != self.domain {
            return Err(DenyReason::TrustDomainForeign);
        }
        if svid.not_after_s < now_s {
            return Err(DenyReason::SvidExpired);
        }
        self.not_revoked(svid)
    }

    /// Whether an SVID was revoked since: for what was begun with one and outlives it.
    ///
    /// # Errors
    /// `SvidRevoked`.
    pub fn not_revoked(&self, svid: &PeerSvid) -> Result<(), DenyReason> {
        match self.revoked.load().get(&svid.id) {
            Some(before) if svid.not_before_s < *before => Err(DenyReason::SvidRevoked),
            _ => Ok(()),
        }
    }

    /// The clock that it goes by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Roots {
    fn parse(text: &[String]) -> Result<Self, BundleError> {
        let mut store = RootCertStore::empty();
        for root in text {
            let der = STANDARD.decode(root).map_err(|_| BundleError("a root is not base64".to_owned()))?;
            store.add(CertificateDer::from(der)).map_err(|error| BundleError(error.to_string()))?;
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), tls::provider())
            .build()
            .map_err(|error| BundleError(error.to_string()))?;
        Ok(Self { text: text.to_vec(), store, clients })
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle").field("domain", &self.domain).field("roots", &self.roots.load().text.len()).finish_non_exhaustive()
    }
}

/// Reads what a leaf claims, by the rules of SPIFFE X509-SVID: exactly one URI name, a SPIFFE ID of ours, no authority to sign others.
fn read(leaf: &CertificateDer<'_>, domain: &TrustDomain) -> Result<PeerSvid, Refusal> {
    let malformed = |peer: &str| Refusal { reason: DenyReason::SvidMalformed, peer: peer.to_owned() };
    let (rest, cert) = x509_parser::parse_x509_certificate(leaf).map_err(|_| malformed(""))?;
    let names = cert.subject_alternative_name().map_err(|_| malformed(""))?.ok_or_else(|| malformed(""))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None, true) = (uris.next(), uris.next(), rest.is_empty()) else { return Err(malformed("")) };
    let claimed: String = uri.chars().filter(|c| c.is_ascii_graphic()).take(256).collect();
    let theirs = uri.strip_prefix("spiffe://").and_then(|rest| TrustDomain::parse(rest.split('/').next().unwrap_or_default()).ok());
    if theirs.is_some_and(|theirs| theirs != *domain) {
        return Err(Refusal { reason: DenyReason::TrustDomainForeign, peer: claimed });
    }
    let id: SpiffeId = uri.parse().map_err(|_| malformed(&claimed))?;
    let usage = cert.key_usage().map_err(|_| malformed(&claimed))?.ok_or_else(|| malformed(&claimed))?.value;
    let signs_others = cert.is_ca() || usage.key_cert_sign() || usage.crl_sign();
    if signs_others || !usage.digital_signature() {
        return Err(malformed(&claimed));
    }
    let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp()).unwrap_or_default();
    Ok(PeerSvid { id, not_before_s: seconds(cert.validity().not_before), not_after_s: seconds(cert.validity().not_after) })
}

fn reason_of(error: &rustls::Error) -> DenyReason {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => DenyReason::SvidExpired,
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => DenyReason::SvidMalformed,
        _ => DenyReason::SvidUntrusted,
    }
}
