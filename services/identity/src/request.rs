//! What is believed of a certificate signing request: its public key, because its signature proves possession. Names, usages and
//! every other wish in it are never looked at.
//!
//! Spec:       RFC 2986, sections 3 and 4.
//! Guarantees: C1 a caller cannot choose what its SVID says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::signing::PublicKey;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// Longest request, in base64: a P-256 request with some names has below 1 KiB.
const BYTES_MAX: usize = 8 * 1024;

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not base64 of one PKCS #10 structure of at most 8 KiB.
    #[error("the request is not base64 of one DER certificate signing request")]
    Malformed,
    /// Another key than P-256.
    #[error("the request's key is not P-256")]
    KeyUnsuited,
    /// Its signature is not by its key.
    #[error("the request's signature does not match its key")]
    Unsigned,
}

/// A public key whose owner has shown that it holds the private one.
#[derive(Debug, Clone)]
pub(crate) struct ProvenKey {
    /// As certificates carry it.
    pub(crate) spki: SubjectPublicKeyInfo,
    /// As verifiers of transaction tokens know it.
    pub(crate) public: PublicKey,
}

impl ProvenKey {
    /// Parses a request in base64 and checks its signature.
    ///
    /// # Errors
    /// As `RequestError` says.
    pub(crate) fn parse(request: &str) -> Result<Self, RequestError> {
        if request.len() > BYTES_MAX {
            return Err(RequestError::Malformed);
        }
        let der = STANDARD.decode(request).map_err(|_| RequestError::Malformed)?;
        let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let key = Self::of(parsed.certification_request_info.subject_pki.raw)?;
        parsed.verify_signature().map_err(|_| RequestError::Unsigned)?;
        Ok(key)
    }

    /// The key of a `SubjectPublicKeyInfo` in DER; the caller holds the private one.
    ///
    /// # Errors
    /// `KeyUnsuited` unless it is an uncompressed point of P-256.
    pub(crate) fn of(spki: &[u8]) -> Result<Self, RequestError> {
        let spki = SubjectPublicKeyInfo::from_der(spki).map_err(|_| RequestError::KeyUnsuited)?;
        let point = rcgen::PublicKeyData::der_bytes(&spki);
        let suited =
            rcgen::PublicKeyData::algorithm(&spki) == &rcgen::PKCS_ECDSA_P256_SHA256 && point.len() == 65 && point.first() == Some(&4);
        if !suited {
            return Err(RequestError::KeyUnsuited);
        }
        let public = PublicKey::from_point(point);
        Ok(Self { spki, public })
    }
}
