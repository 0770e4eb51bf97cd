//! Who a guard shows itself to be at a destination, and whom it takes the destination for: certificate, roots, credential.
//!
//! All of it is files of the operator's. What is secret is its owner's alone (0600), or it is not used. Files are read for each new
//! connection, a credential once a second at most, so what is replaced counts at once and what is taken away ends.
//!
//! Guarantees: D10 each destination has an identity of its own, which no service ever sees.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::control::Outside;
use http::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use trust::Clock;
use zeroize::Zeroizing;

use crate::roots::{self, RootsError};
use crate::tls::{self, Clocked};

/// Largest file of a chain, a key or a credential, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Longest credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;
/// Everybody but the owner.
const OTHERS: u32 = 0o077;
/// A credential is read again after this.
const CREDENTIAL_AGE_MAX: Duration = Duration::from_secs(1);

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// A file could not be read.
    #[error("cannot read {0}; it must be a file that the user who runs Palisade may read")]
    File(PathBuf, #[source] std::io::Error),
    /// A file is larger than any of its kind.
    #[error("{0} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// Others may read a secret.
    #[error("others than its owner can read {0}; take that right away (chmod 600) and replace the secret")]
    Open(PathBuf),
    /// Not PEM of what it should be.
    #[error("{0} does not hold a certificate chain or private key in PEM")]
    Pem(PathBuf),
    /// Key and certificate do not belong together.
    #[error("the private key does not fit the certificate, or is of no supported kind")]
    Mismatch(#[source] rustls::Error),
    /// Not one line that can be a field's value.
    #[error("{0} does not hold one line of 1 to {CREDENTIAL_BYTES_MAX} visible characters")]
    Credential(PathBuf),
    /// The roots.
    #[error("{0}")]
    Roots(String),
    /// TLS could not be configured.
    #[error("TLS could not be configured")]
    Tls(#[source] rustls::Error),
    /// The files could not be looked at.
    #[error("the files could not be read")]
    Ended(#[source] tokio::task::JoinError),
}

impl From<RootsError> for ProofError {
    fn from(error: RootsError) -> Self {
        Self::Roots(format!("{error}: {}", error.source))
    }
}

/// TLS towards a destination, as the files are now.
pub(super) async fn config(to: &Arc<Outside>, clock: &Arc<dyn Clock>) -> Result<Arc<ClientConfig>, ProofError> {
    let (to, clock) = (Arc::clone(to), Arc::clone(clock));
    tokio::task::spawn_blocking(move || read_config(&to, clock)).await.map_err(ProofError::Ended)?
}

fn read_config(to: &Outside, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, ProofError> {
    let roots = roots::read(to.root.as_deref().map(Path::new))?;
    let builder = ClientConfig::builder_with_details(tls::provider(), Arc::new(Clocked(clock)))
        .with_safe_default_protocol_versions()
        .map_err(ProofError::Tls)?
        .with_root_certificates(roots);
    let mut config = match &to.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let (chain, key) = (Path::new(chain), Path::new(key));
            let pem = whole(chain, 0)?;
            let certificates: Vec<_> =
                CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| ProofError::Pem(chain.to_owned()))?;
            let pem = Zeroizing::new(whole(key, OTHERS)?);
            let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| ProofError::Pem(key.to_owned()))?;
            builder.with_client_auth_cert(certificates, private).map_err(ProofError::Mismatch)?
        }
    };
    config.alpn_protocols = vec![tls::H2.to_vec(), tls::HTTP1.to_vec()];
    // A resumed session would skip the check of the certificate.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A field and its value.
type Field = (HeaderName, HeaderValue);

/// The credential of a destination, as it was read last.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    last: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    at: Instant,
    /// Field and file, as they were declared.
    declared: (String, String),
    field: Field,
}

impl Credentials {
    /// What goes along to `to`, read again when it is old.
    pub(super) async fn of(&self, to: &Outside) -> Result<Option<Field>, ProofError> {
        let Some(declared) = &to.credential else { return Ok(None) };
        let now = Instant::now();
        {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let young = |known: &&Known| now.saturating_duration_since(known.at) < CREDENTIAL_AGE_MAX;
            if let Some(known) = last.as_ref().filter(|known| known.declared == *declared).filter(young) {
                return Ok(Some(known.field.clone()));
            }
        }
        let (header, file) = declared.clone();
        let read = tokio::task::spawn_blocking(move || read_credential(&header, Path::new(&file))).await;
        let field = read.map_err(ProofError::Ended)??;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Known { at: now, declared: declared.clone(), field: field.clone() });
        Ok(Some(field))
    }
}

fn read_credential(header: &str, file: &Path) -> Result<Field, ProofError> {
    let wrong = || ProofError::Credential(file.to_owned());
    let bytes = Zeroizing::new(whole(file, OTHERS)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fits = (1..=CREDENTIAL_BYTES_MAX).contains(&line.len()) && line.trim() == line && line.bytes().all(|b| (0x20..0x7f).contains(&b));
    if !fits {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(line).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((header.parse().map_err(|_| wrong())?, value))
}

fn whole(path: &Path, forbidden: u32) -> Result<Vec<u8>, ProofError> {
    let failed = |source| ProofError::File(path.to_owned(), source);
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file")));
    }
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & forbidden != 0 {
        return Err(ProofError::Open(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(ProofError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}
