//! Signatures of Palisade's own statements: JWS (RFC 7515) with ES256 (RFC 7518, section 3.4) and nothing else.
//!
//! The algorithm is fixed by the verifier, never read from what is verified; `typ` is checked exactly and `crit` refused.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::{Digest, SpiffeId};

/// Why a signed statement was not accepted, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Not a P-256 private key in PKCS #8.
    #[error("the private key is not P-256 in PKCS #8")]
    Key,
    /// Signature, algorithm, `typ` or form is wrong.
    #[error("signature, algorithm, type or form is wrong")]
    Invalid,
    /// The claims could not be written.
    #[error("the claims could not be written")]
    Claims,
}

/// A P-256 key that signs, and the name that verifiers know it by.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    public: PublicKey,
    encoding: EncodingKey,
}

/// The public half: an uncompressed P-256 point (65 bytes), base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(String);

impl SigningKey {
    /// Takes a private key in PKCS #8 DER.
    ///
    /// # Errors
    /// `Key` when it is not P-256.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SigningError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| SigningError::Key)?;
        let public = PublicKey::from_point(pair.public_key().as_ref());
        Ok(Self { kid: public.kid(), public, encoding: EncodingKey::from_ec_der(der) })
    }

    /// Its name: the first 16 bytes of the SHA-256 of the public point, base64url.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `claims` under that `typ`; `x5c` is a certificate chain (DER, leaf first) to put into the header, or empty.
    ///
    /// # Errors
    /// `Claims` when they cannot be written as JSON.
    pub fn sign<C: Serialize>(&self, typ: &str, x5c: &[Vec<u8>], claims: &C) -> Result<String, SigningError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.clone());
        if !x5c.is_empty() {
            header.x5c = Some(x5c.iter().map(|der| base64::engine::general_purpose::STANDARD.encode(der)).collect());
        }
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|_| SigningError::Claims)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

impl PublicKey {
    /// From an uncompressed point.
    #[must_use]
    pub fn from_point(point: &[u8]) -> Self {
        Self(B64.encode(point))
    }

    /// Its name, as `SigningKey::kid`.
    #[must_use]
    pub fn kid(&self) -> String {
        let point = B64.decode(&self.0).unwrap_or_default();
        B64.encode(Digest::of(&point).as_bytes().get(..16).unwrap_or_default())
    }

    /// The key that verifies.
    ///
    /// # Errors
    /// `Key` when it is not base64url of a 65-byte uncompressed point.
    pub fn decoding(&self) -> Result<DecodingKey, SigningError> {
        let point = B64.decode(&self.0).map_err(|_| SigningError::Key)?;
        if point.len() != 65 || point.first() != Some(&4) {
            return Err(SigningError::Key);
        }
        Ok(DecodingKey::from_ec_der(&point))
    }
}

/// A key whose signatures on transaction tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// Its name, in the token's header.
    pub kid: String,
    /// Whose it is: the `iss` of its tokens.
    pub owner: SpiffeId,
    /// The public point.
    pub public: PublicKey,
    /// Not accepted after this (seconds since the epoch).
    pub not_after_s: u64,
}

/// The `kid` and `x5c` (DER, leaf first) of a compact JWS whose header has this `typ`, ES256 and no `crit`. Nothing is verified yet.
///
/// # Errors
/// `Invalid` when the header is anything else.
pub fn header_of(jws: &str, typ: &str) -> Result<(Option<String>, Vec<Vec<u8>>), SigningError> {
    let raw = jws.split('.').next().and_then(|part| B64.decode(part).ok()).ok_or(SigningError::Invalid)?;
    let header: serde_json::Value = serde_json::from_slice(&raw).map_err(|_| SigningError::Invalid)?;
    let fields = header.as_object().ok_or(SigningError::Invalid)?;
    let known = fields.keys().all(|name| matches!(name.as_str(), "alg" | "typ" | "kid" | "x5c"));
    let exact = fields.get("typ").and_then(|v| v.as_str()) == Some(typ) && fields.get("alg").and_then(|v| v.as_str()) == Some("ES256");
    if !known || !exact {
        return Err(SigningError::Invalid);
    }
    let kid = fields.get("kid").and_then(|v| v.as_str()).map(str::to_owned);
    let chain = fields.get("x5c").and_then(|v| v.as_array()).map_or(&[][..], Vec::as_slice);
    let x5c = chain
        .iter()
        .map(|v| v.as_str().and_then(|s| base64::engine::general_purpose::STANDARD.decode(s).ok()).ok_or(SigningError::Invalid))
        .collect::<Result<_, _>>()?;
    Ok((kid, x5c))
}

/// Verifies a compact JWS with `key` and gives its claims. Times are the caller's business.
///
/// # Errors
/// `Invalid` when signature, algorithm, `typ` or form is wrong.
pub fn verify<C: DeserializeOwned + Clone>(jws: &str, typ: &str, key: &DecodingKey) -> Result<C, SigningError> {
    header_of(jws, typ)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<C>(jws, key, &validation).map(|data| data.claims).map_err(|_| SigningError::Invalid)
}
