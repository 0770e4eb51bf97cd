//! Roots: in what the certificates of others than our own workloads must end.
//!
//! Not here: the mesh's own roots (`bundle`).

use std::path::{Path, PathBuf};

use contract::BoxError;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Where Debian and its relatives keep the roots that the machine trusts.
const MACHINE_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why there are none.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the roots in {path}")]
pub(crate) struct RootsError {
    /// The file.
    pub(crate) path: PathBuf,
    /// Why not.
    #[source]
    pub(crate) source: BoxError,
}

/// Those of that PEM file, or the machine's.
///
/// # Errors
/// When the file cannot be read or there is no certificate in it.
pub(crate) fn read(file: Option<&Path>) -> Result<RootCertStore, RootsError> {
    let path = file.map_or_else(|| PathBuf::from(MACHINE_ROOTS), Path::to_owned);
    let failed = |source: BoxError| RootsError { path: path.clone(), source };
    let pem = std::fs::read(&path).map_err(|error| failed(error.into()))?;
    let mut roots = RootCertStore::empty();
    let (taken, _unreadable) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if taken == 0 {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(roots)
}
