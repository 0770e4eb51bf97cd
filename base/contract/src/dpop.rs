//! DPoP: a token that is of use only to who has a key, shown anew with each request.
//!
//! A client makes a key, and signs for each request a short statement about it: method, address, time, the token's hash. `login` puts
//! the key's thumbprint into the token (`cnf.jkt`), the edge asks for the statement. One that was seen is not taken again.
//!
//! What was seen is in memory, so a process that has just started does not know what its predecessor saw: it asks for a nonce of its
//! own in any statement that is older than itself (RFC 9449, sections 8 and 9), which standard clients answer by themselves.
//!
//! Spec:       RFC 9449, sections 4.2, 4.3, 8, 9 and 11.1; RFC 7638 (thumbprints); RFC 7518, sections 3.4 and 6.2; RFC 8037.
//! Guarantees: A9, B10 each way in which a proof can be wrong has its own reason; a table that is full lets nothing pass.
//! Not here:   whether the token itself is good (`signing`), whose it is.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::Uri;
use serde::Deserialize;
use trust::{DenyReason, Digest, Entropy, limits};

/// Header of a proof.
pub const HEADER: &str = "dpop";
/// Header of a nonce for the next proof.
pub const NONCE_HEADER: &str = "dpop-nonce";
/// What a proof may be signed with, as metadata say it.
pub const ALGORITHMS: &[&str] = &["ES256", "EdDSA"];
/// A proof counts for so long after its `iat`, in seconds.
pub const PROOF_LIFE_S: u64 = 60;

const TYP: &str = "dpop+jwt";
/// Longest proof read, in bytes.
const PROOF_BYTES_MAX: usize = 4096;
/// Longest `jti`, in bytes.
const JTI_BYTES_MAX: usize = 256;
/// A nonce is accepted in the period that it is given in and in the next, each of so many seconds.
const NONCE_PERIOD_S: u64 = 120;
/// No proof is looked at again after so long: its life, and what clocks may differ by, at both ends.
const REMEMBERED_S: u64 = PROOF_LIFE_S + 2 * limits::CLOCK_SKEW_S_MAX;
/// Proofs remembered of one key in a period of `REMEMBERED_S`: some 230 a second.
pub const SEEN_OF_KEY_MAX: u32 = 16_384;
/// Proofs remembered in all in such a period. Two periods are held, of 40 bytes each.
pub const SEEN_MAX: usize = 131_072;

/// A key's name: the SHA-256 of its public JWK (RFC 7638), base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// As `cnf.jkt` has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` has the form of a thumbprint: the base64url of 32 bytes, in the one spelling that they have.
#[must_use]
pub fn is_thumbprint(text: &str) -> bool {
    text.len() == 43 && B64.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// What a proof must be about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Where it was made to: `https://HOST[:PORT]`.
    pub origin: &'a str,
    /// Its path, canonical.
    pub path: &'a str,
    /// The access token that comes with it, if one does.
    pub token: Option<&'a str>,
}

/// A proof that is genuine and about this request; whether it was seen before is asked by `Proofs::spend`.
#[derive(Debug)]
pub struct Proof {
    /// The key that it was signed with.
    pub key: Thumbprint,
    jti: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(rename = "typ")]
    _typ: String,
    alg: String,
    jwk: Jwk,
}

/// A public key. `d` and the other private members are unknown here, and so refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default)]
    y: Option<String>,
    #[serde(default, rename = "kid")]
    _kid: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "use")]
    _use: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "alg")]
    _alg: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "key_ops")]
    _key_ops: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "ext")]
    _ext: Option<serde::de::IgnoredAny>,
}

/// What is read of a proof's claims; it may have others (RFC 9449, section 4.2).
#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: u64,
    #[serde(default)]
    ath: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
}

enum Key {
    P256([u8; 65]),
    Ed25519([u8; 32]),
}

/// Takes proofs, each once.
#[derive(Debug)]
pub struct Proofs {
    nonces: hmac::Key,
    started_s: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    begun_s: u64,
    now: Period,
    before: Period,
}

#[derive(Debug, Default)]
struct Period {
    proofs: HashSet<Digest>,
    of_key: HashMap<Thumbprint, u32>,
}

impl Proofs {
    /// Has seen nothing yet, and therefore wants a nonce in what is older than `now_s`.
    #[must_use]
    pub fn new(entropy: &dyn Entropy, now_s: u64) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self { nonces: hmac::Key::new(hmac::HMAC_SHA256, &key), started_s: now_s, seen: Mutex::default() }
    }

    /// A nonce for the next proof.
    #[must_use]
    pub fn nonce(&self, now_s: u64) -> String {
        self.nonce_of(now_s / NONCE_PERIOD_S)
    }

    fn nonce_of(&self, period: u64) -> String {
        let tag = hmac::sign(&self.nonces, &period.to_be_bytes());
        B64.encode(tag.as_ref().get(..16).unwrap_or_default())
    }

    /// Reads a proof: is it genuine, of now, and about this request?
    ///
    /// # Errors
    /// `ProofMalformed`, `ProofTypeMismatch`, `ProofAlgorithmRefused`, `ProofKeyRefused`, `ProofInvalid` for its form and signature;
    /// `ProofMethodMismatch`, `ProofTargetMismatch`, `ProofTokenMismatch`, `ProofStale` for what it says; `ProofNonceWanted` when it has
    /// none where one is needed, or one that is not of now.
    pub fn verify(&self, proof: &str, about: &About<'_>, now_s: u64) -> Result<Proof, DenyReason> {
        let (claims, key) = genuine(proof)?;
        if claims.jti.is_empty() || claims.jti.len() > JTI_BYTES_MAX {
            return Err(DenyReason::ProofMalformed);
        }
        if claims.htm != about.method {
            return Err(DenyReason::ProofMethodMismatch);
        }
        if !is_target(&claims.htu, about.origin, about.path) {
            return Err(DenyReason::ProofTargetMismatch);
        }
        let hash = about.token.map(|token| B64.encode(Digest::of(token.as_bytes()).as_bytes()));
        let same = |(said, hash): (&String, &String)| constant_time::verify_slices_are_equal(said.as_bytes(), hash.as_bytes()).is_ok();
        if hash.is_some() && !claims.ath.as_ref().zip(hash.as_ref()).is_some_and(same) {
            return Err(DenyReason::ProofTokenMismatch);
        }
        let skew = limits::CLOCK_SKEW_S_MAX;
        if claims.iat > now_s.saturating_add(skew) || claims.iat.saturating_add(PROOF_LIFE_S) < now_s {
            return Err(DenyReason::ProofStale);
        }
        let of_now = match &claims.nonce {
            Some(nonce) => {
                let period = now_s / NONCE_PERIOD_S;
                [period, period.saturating_sub(1)]
                    .into_iter()
                    .any(|period| constant_time::verify_slices_are_equal(nonce.as_bytes(), self.nonce_of(period).as_bytes()).is_ok())
            }
            // One of the time before this process could have been seen by the process before.
            None => claims.iat > self.started_s.saturating_add(skew),
        };
        if !of_now {
            return Err(DenyReason::ProofNonceWanted);
        }
        Ok(Proof { jti: Digest::of(&[key.as_str().as_bytes(), b" ", claims.jti.as_bytes()].concat()), key })
    }

    /// Uses a proof up. The last step, so that nobody without a good token fills the table.
    ///
    /// # Errors
    /// `ProofReplayed` when it was used before; `Overloaded` when no more can be remembered.
    pub fn spend(&self, proof: Proof, now_s: u64) -> Result<Thumbprint, DenyReason> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now_s >= seen.begun_s.saturating_add(REMEMBERED_S) {
            let now = std::mem::take(&mut seen.now);
            seen.before = if now_s >= seen.begun_s.saturating_add(2 * REMEMBERED_S) { Period::default() } else { now };
            seen.begun_s = now_s;
        }
        if seen.now.proofs.contains(&proof.jti) || seen.before.proofs.contains(&proof.jti) {
            return Err(DenyReason::ProofReplayed);
        }
        let of_key = seen.now.of_key.get(&proof.key).copied().unwrap_or_default();
        if of_key >= SEEN_OF_KEY_MAX || seen.now.proofs.len() >= SEEN_MAX {
            return Err(DenyReason::Overloaded);
        }
        seen.now.of_key.insert(proof.key.clone(), of_key.saturating_add(1));
        seen.now.proofs.insert(proof.jti);
        Ok(proof.key)
    }
}

/// Whether a refusal is about a proof, and not about what it goes with.
#[must_use]
pub fn is_about_proof(reason: DenyReason) -> bool {
    matches!(
        reason,
        DenyReason::ProofMalformed
            | DenyReason::ProofTypeMismatch
            | DenyReason::ProofAlgorithmRefused
            | DenyReason::ProofKeyRefused
            | DenyReason::ProofInvalid
            | DenyReason::ProofMethodMismatch
            | DenyReason::ProofTargetMismatch
            | DenyReason::ProofTokenMismatch
            | DenyReason::ProofKeyMismatch
            | DenyReason::ProofStale
            | DenyReason::ProofReplayed
    )
}

fn genuine(proof: &str) -> Result<(Claims, Thumbprint), DenyReason> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(DenyReason::ProofMalformed);
    }
    let malformed = DenyReason::ProofMalformed;
    let (signed, signature) = proof.rsplit_once('.').ok_or(malformed)?;
    let (head, claims) = signed.split_once('.').ok_or(malformed)?;
    let plain = |part: &str| B64.decode(part).map_err(|_| malformed);
    let (head, claims, signature) = (plain(head)?, plain(claims)?, plain(signature)?);
    let said: serde_json::Value = serde_json::from_slice(&head).map_err(|_| malformed)?;
    if said.get("typ").and_then(|v| v.as_str()) != Some(TYP) {
        return Err(DenyReason::ProofTypeMismatch);
    }
    if !said.get("alg").and_then(|v| v.as_str()).is_some_and(|alg| ALGORITHMS.contains(&alg)) {
        return Err(DenyReason::ProofAlgorithmRefused);
    }
    if said.get("jwk").is_none_or(|jwk| serde_json::from_value::<Jwk>(jwk.clone()).is_err()) {
        return Err(DenyReason::ProofKeyRefused);
    }
    // Unlike the map above this refuses a field that is there twice, and fields that could change how it is verified.
    let head: Head = serde_json::from_slice(&head).map_err(|_| malformed)?;
    let (key, name) = head.jwk.key(&head.alg).ok_or(DenyReason::ProofKeyRefused)?;
    let verified = match &key {
        Key::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_slice()).verify(signed.as_bytes(), &signature),
        Key::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point.as_slice()).verify(signed.as_bytes(), &signature),
    };
    verified.map_err(|_| DenyReason::ProofInvalid)?;
    Ok((serde_json::from_slice(&claims).map_err(|_| malformed)?, name))
}

impl Jwk {
    /// The key and its thumbprint, if it is one for that algorithm.
    fn key(&self, alg: &str) -> Option<(Key, Thumbprint)> {
        let bytes = |text: &str| -> Option<[u8; 32]> { B64.decode(text).ok()?.try_into().ok() };
        let x = bytes(&self.x)?;
        let (key, canonical) = match (alg, self.kty.as_str(), self.crv.as_str(), &self.y) {
            ("ES256", "EC", "P-256", Some(y)) => {
                let mut point = [4; 65];
                point.get_mut(1..33)?.copy_from_slice(&x);
                point.get_mut(33..65)?.copy_from_slice(&bytes(y)?);
                (Key::P256(point), format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{y}"}}"#, self.x))
            }
            ("EdDSA", "OKP", "Ed25519", None) => (Key::Ed25519(x), format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x)),
            _ => return None,
        };
        Some((key, Thumbprint(B64.encode(Digest::of(canonical.as_bytes()).as_bytes()))))
    }
}

/// Whether `htu` is the address that the request was made to, without query and fragment (RFC 9449, section 4.3, number 9), in any of
/// the spellings that RFC 3986, sections 6.2.2.1, 6.2.2.2 and 6.2.3, hold for the same.
fn is_target(htu: &str, origin: &str, path: &str) -> bool {
    let Ok(said) = htu.parse::<Uri>() else { return false };
    let (Some("https"), Some(authority)) = (said.scheme_str(), said.authority()) else { return false };
    let Some(meant) = origin.strip_prefix("https://") else { return false };
    let plain = |authority: &str| authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase();
    plain(authority.as_str()) == plain(meant) && spelt(said.path()) == spelt(path)
}

/// A path with needless percent-encodings taken away, and the needed ones in capitals.
fn spelt(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let Some(byte) = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            plain.push('%');
            rest = after;
            continue;
        };
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("%{byte:02X}"));
        }
        rest = after.get(2..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests;
