//! What all certificates here have in common: P-256 keys, random serial numbers, times from the clock, sealed keys of authorities.
//!
//! Spec: RFC 5280, sections 4.1.2.2 (serial numbers), 4.2.1.9 (basic constraints), 4.2.1.3 (key usage).

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trust::{Clock, Entropy, KeySealer};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use crate::ca::CaError;

/// A certificate begins this long before it is made, for clocks that are behind.
pub(crate) const SKEW_S: u64 = 60;
/// One day.
pub(crate) const DAY_S: u64 = 24 * 3600;

/// An authority at rest: its certificate in the open, its key sealed as (`name`, `generation`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AtRest {
    /// Counts up with each successor.
    pub(crate) generation: u32,
    /// DER, base64.
    pub(crate) certificate: String,
    /// PKCS #8, sealed.
    pub(crate) key: String,
}

/// An authority at work.
#[derive(Debug)]
pub(crate) struct AtWork {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
    pub(crate) not_after_s: u64,
}

impl AtRest {
    /// Seals a new authority's key.
    pub(crate) fn new(name: &str, generation: u32, der: &[u8], key: &KeyPair, sealer: &KeySealer) -> Result<Self, CaError> {
        let key = sealer.seal(name, generation, key.serialized_der())?;
        Ok(Self { generation, certificate: encoded(der), key })
    }

    /// Opens the key, and checks that it is this certificate's.
    pub(crate) fn open(&self, name: &'static str, sealer: &KeySealer) -> Result<AtWork, CaError> {
        let der = decoded(&self.certificate).ok_or(CaError::Broken(name))?;
        let sealed = sealer.open(name, self.generation, &self.key)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(sealed.expose().as_slice()), &PKCS_ECDSA_P256_SHA256)?;
        let not_after_s = {
            let certificate = parsed(&der).ok_or(CaError::Broken(name))?;
            if certificate.public_key().raw != key.subject_public_key_info() || !certificate.is_ca() {
                return Err(CaError::Broken(name));
            }
            u64::try_from(certificate.validity().not_after.timestamp()).map_err(|_| CaError::Broken(name))?
        };
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(der.as_slice()), key)?;
        Ok(AtWork { issuer, der, not_after_s })
    }
}

/// Parameters with nothing in them but a serial number (127 random bits, never 0), times and key identifiers.
pub(crate) fn blank(clock: &dyn Clock, entropy: &dyn Entropy, not_before_s: u64, not_after_s: u64) -> CertificateParams {
    debug_assert!(not_before_s <= clock.unix_s(), "a certificate is valid when it is made");
    let mut serial = [0_u8; 16];
    entropy.fill(&mut serial);
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = at(not_before_s);
    params.not_after = at(not_after_s);
    params.use_authority_key_identifier_extension = true;
    params
}

/// Makes `params` those of an authority called `name`, with at most `below` authorities under it.
pub(crate) fn as_authority(params: &mut CertificateParams, name: String, below: u8) {
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

/// A new P-256 key.
pub(crate) fn new_key() -> Result<KeyPair, CaError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// A certificate, if `der` is exactly one.
pub(crate) fn parsed(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// Whether `der` is signed by the key of `by`.
pub(crate) fn is_signed_by(der: &[u8], by: &[u8]) -> bool {
    let (Some(certificate), Some(issuer)) = (parsed(der), parsed(by)) else { return false };
    let key: &SubjectPublicKeyInfo<'_> = issuer.public_key();
    certificate.issuer() == issuer.subject() && certificate.verify_signature(Some(key)).is_ok()
}

/// Standard base64.
pub(crate) fn encoded(der: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok()
}

fn at(unix_s: u64) -> OffsetDateTime {
    i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
