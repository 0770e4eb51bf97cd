//! One order: for one host, proved by tls-alpn-01, with a new key.
//!
//! Spec: RFC 8555 section 7.4; RFC 8737 section 3.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize, Serializer};
use trust::Secret;

use super::AcmeError;
use crate::edge::certificates::Certificates;
use crate::tls;

/// How often it is asked how far the order is.
const ASKING: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(200)).backoff(1.5).timeout(Duration::from_secs(120));

/// A certificate's chain and key.
#[derive(Serialize, Deserialize)]
pub(super) struct Pems {
    pub(super) chain: String,
    #[serde(serialize_with = "exposed", deserialize_with = "secret")]
    pub(super) key: Secret<String>,
}

/// Only into what is sealed.
fn exposed<S: Serializer>(key: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose())
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Orders a certificate for `host`, whose challenge `certificates` answers meanwhile.
pub(super) async fn run(account: &Account, host: &str, certificates: &Arc<Certificates>) -> Result<Pems, AcmeError> {
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut answered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(AcmeError::Unproved),
        }
        let mut challenge = authorization.challenge(ChallengeType::TlsAlpn01).ok_or(AcmeError::ChallengeUnoffered)?;
        let digest = challenge.key_authorization().digest();
        answered.push(certificates.challenge(host, answer(host, digest.as_ref())?));
        challenge.set_ready().await?;
    }
    if order.poll_ready(&ASKING).await? != OrderStatus::Ready {
        return Err(AcmeError::Unproved);
    }
    drop(answered);

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut wanted = CertificateParams::new(vec![host.to_owned()])?;
    wanted.distinguished_name = DistinguishedName::new();
    order.finalize_csr(wanted.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&ASKING).await?;
    Ok(Pems { chain, key: Secret::new(key.serialize_pem()) })
}

/// The certificate that answers a challenge: self-signed, with the digest of what was asked in an extension that only this protocol knows.
fn answer(host: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, AcmeError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let private = tls::provider().key_provider.load_private_key(private)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], private)))
}
