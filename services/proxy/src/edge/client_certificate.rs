//! Certificates of clients: asked for where the manifest names authorities for them, never required of anybody.
//!
//! A client that shows one has proven its key in the handshake. What its requests carry on is the certificate's thumbprint, for tokens
//! that are bound to it, and its DNS names, for the applications that `login` knows by them. Browsers that have none go on as before.
//!
//! Spec:       RFC 8705, sections 2.1, 3 and 3.1; RFC 5280, section 4.2.1.12 (clientAuth).
//! Guarantees: A10. A certificate that does not end in a named authority ends its handshake; one that has ended counts for nothing,
//!             also on a connection that was made before, or resumed.
//! Not here:   SVIDs (`tls`), what a token is bound to (`possession`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use trust::{Clock, Digest};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls;

/// DNS names taken of one certificate.
const NAMES_MAX: usize = 16;

/// Why the authorities of clients' certificates were not taken.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthoritiesError {
    /// The file could not be read.
    #[error("cannot read {path}, the authorities of clients' certificates (client_ca)")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not PEM of certificates, or one is of no authority.
    #[error("{path} does not hold certificates of authorities in PEM (client_ca)")]
    Unusable {
        /// Which.
        path: PathBuf,
    },
}

/// Whose certificates clients may show.
pub struct ClientAuthorities(Arc<dyn ClientCertVerifier>);

impl ClientAuthorities {
    /// Nobody's: none is asked for.
    #[must_use]
    pub fn none() -> Self {
        Self(WebPkiClientVerifier::no_client_auth())
    }

    /// Those of the authorities in a PEM file.
    ///
    /// # Errors
    /// See `ClientAuthoritiesError`.
    pub fn load(path: &Path) -> Result<Self, ClientAuthoritiesError> {
        let unusable = || ClientAuthoritiesError::Unusable { path: path.to_owned() };
        let pem = std::fs::read(path).map_err(|source| ClientAuthoritiesError::File { path: path.to_owned(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).allow_unauthenticated();
        verifier.build().map(Self).map_err(|_| unusable())
    }

    /// For the handshake.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").field("asks", &self.0.offer_client_auth()).finish()
    }
}

/// A certificate that a client has shown, and proven its key of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of it, base64url (RFC 8705, section 3.1: `x5t#S256`).
    thumbprint: String,
    /// Its DNS names.
    names: Vec<String>,
    /// It counts until then, seconds since the epoch.
    not_after_s: u64,
}

impl ClientCertificate {
    /// What the handshake's verified certificates (leaf first) say.
    #[must_use]
    pub(super) fn of(shown: Option<&[CertificateDer<'_>]>) -> Option<Arc<Self>> {
        let leaf = shown?.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                match name {
                    GeneralName::DNSName(name) if is_plain(name) && names.len() < NAMES_MAX => names.push(name.to_ascii_lowercase()),
                    _ => {}
                }
            }
        }
        let not_after_s = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        Some(Arc::new(Self { thumbprint: B64.encode(Digest::of(leaf).as_bytes()), names, not_after_s }))
    }

    /// Its thumbprint, while it counts.
    #[must_use]
    pub fn thumbprint(&self, clock: &dyn Clock) -> Option<&str> {
        (clock.unix_s() <= self.not_after_s).then_some(&self.thumbprint)
    }

    /// Its DNS names, in lower case.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// A name that can stand in a list between commas.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}
