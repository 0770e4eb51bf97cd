//! A chain and its key: two PEM files that must fit together, and their hosts.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use telemetry::certificate::CertificateTaken;
use trust::Digest;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use super::CertificateFiles;
use crate::tls;

/// Largest file of a chain or key, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Everybody on this machine.
const OTHERS: u32 = 0o007;

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read.
    #[error("cannot read {path}; the certificate chain and its key must be PEM files that the edge's user may read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than any chain or key.
    #[error("{0} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// Everybody on this machine may read the key.
    #[error("everybody on this machine can read {0}; take that right away (chmod o-rwx) and replace the key")]
    KeyOpen(PathBuf),
    /// A file is not PEM of what it should hold.
    #[error("{0} does not hold a certificate chain or private key in PEM")]
    Pem(PathBuf),
    /// Key and certificate do not belong together, or the key is of no supported kind.
    #[error("the private key does not fit the certificate, or is of no supported kind")]
    Mismatch(#[source] rustls::Error),
    /// It is for other hosts.
    #[error("the certificate is not for the host '{0}'")]
    HostMissing(String),
}

/// A certificate as it is shown.
#[derive(Debug)]
pub struct Shown {
    /// Chain and key.
    pub(crate) certified: Arc<CertifiedKey>,
    /// Its beginning, seconds since the epoch.
    pub(crate) not_before_s: u64,
    /// Its end, seconds since the epoch.
    pub(crate) not_after_s: u64,
    fingerprint: Digest,
}

/// What a look at the files found.
pub(super) enum Change {
    Nothing,
    Taken(Arc<Shown>),
    Broken(CertificateError),
}

/// The files, and what is shown of them.
pub(super) struct Pair {
    pub(super) files: CertificateFiles,
    pub(super) shown: Arc<Shown>,
    seen: Digest,
    /// What could not be taken at the last look, and whether that was said.
    broken: Option<(Digest, bool)>,
}

impl Shown {
    /// Reads chain and key from PEM, for these hosts.
    ///
    /// # Errors
    /// `Pem` (with `path`), `Mismatch`, `HostMissing`.
    pub(crate) fn parse(chain_pem: &[u8], key_pem: &[u8], hosts: &[String], path: &Path) -> Result<Self, CertificateError> {
        let pem = || CertificateError::Pem(path.to_owned());
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().map_err(|_| pem())?;
        let leaf = certificates.first().ok_or_else(pem)?.clone();
        let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| pem())?;
        // `from_der` checks that the key is the certificate's.
        let certified = CertifiedKey::from_der(certificates, private, &tls::provider()).map_err(CertificateError::Mismatch)?;
        let parsed = ParsedCertificate::try_from(&leaf).map_err(CertificateError::Mismatch)?;
        for host in hosts {
            let missing = || CertificateError::HostMissing(host.clone());
            let name = ServerName::try_from(host.as_str()).map_err(|_| missing())?;
            verify_server_name(&parsed, &name).map_err(|_| missing())?;
        }
        let (_, inside) = X509Certificate::from_der(&leaf).map_err(|_| pem())?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Ok(Self {
            certified: Arc::new(certified),
            not_before_s: seconds(inside.validity().not_before),
            not_after_s: seconds(inside.validity().not_after),
            fingerprint: Digest::of(&leaf),
        })
    }

    /// The event that says so.
    pub(crate) fn taken(&self, name: String, hosts: Vec<String>) -> CertificateTaken {
        CertificateTaken { name, hosts, fingerprint: self.fingerprint.to_string(), not_after_s: self.not_after_s }
    }
}

impl Pair {
    pub(super) fn open(files: CertificateFiles) -> Result<Self, CertificateError> {
        let (seen, read) = read(&files);
        let (chain, key) = read?;
        let shown = Shown::parse(&chain, &key, &files.hosts, &files.chain)?;
        Ok(Self { files, shown: Arc::new(shown), seen, broken: None })
    }

    /// Reads the files again.
    pub(super) fn look(&mut self) -> Change {
        let (found, read) = read(&self.files);
        if found == self.seen {
            self.broken = None;
            return Change::Nothing;
        }
        match read.and_then(|(chain, key)| Shown::parse(&chain, &key, &self.files.hosts, &self.files.chain)) {
            Ok(shown) => {
                (self.seen, self.broken, self.shown) = (found, None, Arc::new(shown));
                Change::Taken(Arc::clone(&self.shown))
            }
            Err(error) => match self.broken.replace((found, false)) {
                Some((before, said)) if before == found => {
                    self.broken = Some((found, true));
                    if said { Change::Nothing } else { Change::Broken(error) }
                }
                _ => Change::Nothing,
            },
        }
    }
}

type Contents = Result<(Vec<u8>, Zeroizing<Vec<u8>>), CertificateError>;

/// What the files hold, and a digest that differs whenever that does, errors among it.
fn read(files: &CertificateFiles) -> (Digest, Contents) {
    let (chain, key) = (whole(&files.chain, 0), whole(&files.key, OTHERS).map(Zeroizing::new));
    let digest = |read: Result<&[u8], String>| match read {
        Ok(bytes) => Digest::of(bytes),
        Err(why) => Digest::of(why.as_bytes()),
    };
    let parts = [
        digest(chain.as_deref().map_err(ToString::to_string)),
        digest(key.as_ref().map(|key| key.as_slice()).map_err(ToString::to_string)),
    ];
    let both: Vec<u8> = parts.iter().flat_map(|part| part.as_bytes().iter().copied()).collect();
    (Digest::of(&both), chain.and_then(|chain| key.map(|key| (chain, key))))
}

fn whole(path: &Path, forbidden: u32) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & forbidden != 0 {
        return Err(CertificateError::KeyOpen(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(CertificateError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}
