//! Sealing: small secrets at rest, encrypted under a key-encryption key that is kept elsewhere.
//!
//! A sealed text is bound to its name and its version: put in another's place, edited, or sealed under another key, it does not open.
//! What this cannot see is a whole folder put back as it once was; where that matters, the owner keeps a counter elsewhere.
//!
//! Spec:       AES-256-GCM (NIST SP 800-38D), 96-bit random nonces; a key-encryption key seals far fewer than 2^32 texts.
//! Not here:   where the key-encryption key lives (the assembly), the barrier for people's secrets (`secrets`).

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::clock::Entropy;
use crate::secret::Secret;

const FORM: &str = "sealed1";
/// What lies open, in a throw-away copy of a system.
const DANGEROUS_FORM: &str = "open1";

/// Why a sealed text did not open, or none could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not in the form `sealed1.VERSION.HEX`.
    #[error("'{0}' is not a sealed text")]
    Malformed(String),
    /// Another version than was asked for.
    #[error("'{name}' is sealed as version {found}, version {wanted} was asked for")]
    Version {
        /// Whose.
        name: String,
        /// The one that is there.
        found: u32,
        /// The one asked for.
        wanted: u32,
    },
    /// Edited, swapped with another, or sealed under another key-encryption key.
    #[error(
        "'{0}' does not open: it was edited, put in another's place, or sealed under another key-encryption key; restore both from the same backup"
    )]
    Refused(String),
    /// The cipher refused to work.
    #[error("'{0}' could not be sealed")]
    Failed(String),
}

/// Seals and opens under one key-encryption key.
#[derive(Clone)]
pub struct KeySealer {
    key: Arc<LessSafeKey>,
    entropy: Arc<dyn Entropy>,
    realm: Arc<str>,
    dangerous_open: bool,
}

impl KeySealer {
    /// A sealer for one realm (`identity`, `login`): texts of one realm do not open in another, even under the same key.
    ///
    /// # Errors
    /// `Failed` when the cipher does not take the key.
    pub fn new(realm: &str, key: &Secret<[u8; 32]>, entropy: Arc<dyn Entropy>) -> Result<Self, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| SealError::Failed(realm.to_owned()))?;
        Ok(Self { key: Arc::new(LessSafeKey::new(key)), entropy, realm: realm.into(), dangerous_open: false })
    }

    /// The same, which writes everything down as it is. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_unsealed(self) -> Self {
        Self { dangerous_open: true, ..self }
    }

    /// Seals `plain` as `name`, version `version`.
    ///
    /// # Errors
    /// `Failed` when the cipher refuses to work.
    pub fn seal(&self, name: &str, version: u32, plain: &[u8]) -> Result<String, SealError> {
        if self.dangerous_open {
            return Ok(format!("{DANGEROUS_FORM}.{version}.{}", hex::encode(plain)));
        }
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.bound_to(name, version), &mut sealed)
            .map_err(|_| SealError::Failed(name.to_owned()))?;
        Ok(format!("{FORM}.{version}.{}{}", hex::encode(nonce), hex::encode(sealed)))
    }

    /// Opens what was sealed as `name`, version `version`.
    ///
    /// # Errors
    /// `Malformed`, `Version` or `Refused`: the text is not what was sealed under that name.
    pub fn open(&self, name: &str, version: u32, sealed: &str) -> Result<Secret<Vec<u8>>, SealError> {
        let malformed = || SealError::Malformed(name.to_owned());
        if self.dangerous_open
            && let Some(open) = sealed.strip_prefix(&format!("{DANGEROUS_FORM}.{version}."))
        {
            return hex::decode(open).map(Secret::new).map_err(|_| malformed());
        }
        let (found, body) =
            sealed.strip_prefix(FORM).and_then(|s| s.strip_prefix('.')).and_then(|s| s.split_once('.')).ok_or_else(malformed)?;
        let found: u32 = found.parse().map_err(|_| malformed())?;
        if found != version {
            return Err(SealError::Version { name: name.to_owned(), found, wanted: version });
        }
        let bytes = hex::decode(body).map_err(|_| malformed())?;
        let (nonce, cipher) = bytes.split_at_checked(NONCE_LEN).ok_or_else(malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| malformed())?;
        let mut buffer = cipher.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, self.bound_to(name, version), &mut buffer)
            .map_err(|_| SealError::Refused(name.to_owned()))?
            .len();
        buffer.truncate(plain);
        Ok(Secret::new(buffer))
    }

    /// Lengths go first, so that no two pairs of realm and name read the same.
    fn bound_to(&self, name: &str, version: u32) -> Aad<Vec<u8>> {
        let mut aad = format!("palisade-{FORM}\0{}:{}\0{}:{}\0", self.realm.len(), self.realm, name.len(), name).into_bytes();
        aad.extend_from_slice(&version.to_be_bytes());
        Aad::from(aad)
    }
}

impl std::fmt::Debug for KeySealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySealer({})", self.realm)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::clock::SystemEntropy;

    fn sealer(realm: &str, byte: u8) -> KeySealer {
        KeySealer::new(realm, &Secret::new([byte; 32]), SystemEntropy::shared()).unwrap()
    }

    // C1: keys at rest. A sealed text opens in its own place and nowhere else.
    #[test]
    fn sealed_texts_open_only_in_their_own_place() {
        let own = sealer("identity", 1);
        let sealed = own.seal("root", 1, b"key").unwrap();
        assert_eq!(own.open("root", 1, &sealed).unwrap().expose().as_slice(), b"key");
        assert!(!sealed.contains(&hex::encode("key")));
        let refused = |name: &str| Err(SealError::Refused(name.to_owned()));
        assert_eq!(own.open("intermediate", 1, &sealed).map(|_| ()), refused("intermediate"), "another name");
        assert_eq!(sealer("login", 1).open("root", 1, &sealed).map(|_| ()), refused("root"), "another realm");
        assert_eq!(sealer("identity", 2).open("root", 1, &sealed).map(|_| ()), refused("root"), "another key");
        assert!(matches!(own.open("root", 2, &sealed), Err(SealError::Version { .. })), "another version asked for");
        let relabelled = sealed.replacen("sealed1.1.", "sealed1.2.", 1);
        assert_eq!(own.open("root", 2, &relabelled).map(|_| ()), refused("root"), "version edited");
        for malformed in ["", "sealed1", "sealed1.x.00", "sealed1.1.zz", "sealed1.1.00", "sealed2.1.00"] {
            assert!(matches!(own.open("root", 1, malformed), Err(SealError::Malformed(_))), "{malformed}");
        }
        for at in "sealed1.1.".len()..sealed.len() {
            let mut edited = sealed.clone().into_bytes();
            edited[at] = if edited[at] == b'0' { b'1' } else { b'0' };
            assert!(own.open("root", 1, std::str::from_utf8(&edited).unwrap()).is_err(), "digit {at} edited");
        }
    }
}
