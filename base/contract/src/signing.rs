//! Signatures of Palisade's own statements: JWS (RFC 7515) with ES256 (RFC 7518, section 3.4) and nothing else.
//!
//! The algorithm is fixed by the verifier, never read from what is verified; `typ` is checked exactly and `crit` refused.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trust::{DenyReason, Digest, SpiffeId};

/// Why a signed statement was not accepted, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Not a P-256 private key in PKCS #8.
    #[error("the private key is not P-256 in PKCS #8")]
    Key,
    /// The signature is not that of the key.
    #[error("the signature is not that of the key")]
    Invalid,
    /// Not three parts of base64url in the one spelling that bytes have, or not the JSON that it should be.
    #[error("not a compact JWS, or its parts are not what they should be")]
    Malformed,
    /// Another `typ`.
    #[error("a statement of another type")]
    Type,
    /// Another `alg`.
    #[error("another algorithm than ES256")]
    Algorithm,
    /// A header field that could change how it is verified.
    #[error("a header field that is not admitted")]
    Header,
    /// The claims could not be written.
    #[error("the claims could not be written")]
    Claims,
}

impl SigningError {
    /// Why a token with this defect is refused.
    #[must_use]
    pub fn reason(&self) -> DenyReason {
        match self {
            Self::Key | Self::Claims | Self::Invalid => DenyReason::TokenInvalid,
            Self::Malformed => DenyReason::TokenMalformed,
            Self::Type => DenyReason::TokenTypeMismatch,
            Self::Algorithm => DenyReason::TokenAlgorithmRefused,
            Self::Header => DenyReason::TokenHeaderRefused,
        }
    }
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

/// A JOSE header of ours: these fields, each once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(rename = "alg")]
    _alg: String,
    #[serde(rename = "typ")]
    _typ: String,
    kid: Option<String>,
    x5c: Option<Vec<String>>,
}

/// The `kid` and `x5c` (DER, leaf first) of a compact JWS whose header has this `typ`, ES256 and nothing else. Nothing is verified yet.
///
/// # Errors
/// `Malformed` when it is no compact JWS, or one of its parts has another spelling than the one that its bytes have (RFC 7515,
/// section 2; RFC 4648, sections 3.2 and 3.5); `Header`, `Algorithm`, `Type` for what the header says.
pub fn header_of(jws: &str, typ: &str) -> Result<(Option<String>, Vec<Vec<u8>>), SigningError> {
    let mut parts = jws.split('.');
    let (Some(head), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(SigningError::Malformed);
    };
    // This engine takes neither padding nor white space nor bits that nothing stands for.
    let plain = |part: &str| B64.decode(part).map_err(|_| SigningError::Malformed);
    let (raw, _claims, _signature) = (plain(head)?, plain(claims)?, plain(signature)?);
    let header: serde_json::Value = serde_json::from_slice(&raw).map_err(|_| SigningError::Malformed)?;
    let fields = header.as_object().ok_or(SigningError::Malformed)?;
    if !fields.keys().all(|name| matches!(name.as_str(), "alg" | "typ" | "kid" | "x5c")) {
        return Err(SigningError::Header);
    }
    if fields.get("alg").and_then(|v| v.as_str()) != Some("ES256") {
        return Err(SigningError::Algorithm);
    }
    if fields.get("typ").and_then(|v| v.as_str()) != Some(typ) {
        return Err(SigningError::Type);
    }
    // Unlike the map above this refuses a field that is there twice.
    let head: Head = serde_json::from_slice(&raw).map_err(|_| SigningError::Malformed)?;
    let der = |text: &String| base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| SigningError::Malformed);
    let x5c = head.x5c.unwrap_or_default().iter().map(der).collect::<Result<_, _>>()?;
    Ok((head.kid, x5c))
}

/// Verifies a compact JWS with `key` and gives its claims. Times are the caller's business.
///
/// # Errors
/// As `header_of`; `Invalid` when the signature is wrong, `Malformed` when the claims are not those of `C`.
pub fn verify<C: DeserializeOwned + Clone>(jws: &str, typ: &str, key: &DecodingKey) -> Result<C, SigningError> {
    header_of(jws, typ)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<C>(jws, key, &validation).map(|data| data.claims).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => SigningError::Malformed,
        _ => SigningError::Invalid,
    })
}
