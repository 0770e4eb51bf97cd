//! Signed notes: a text, and signatures under it that anybody can check with one line of a verifier key.
//!
//! Spec:       C2SP signed-note (note text, blank line, `— name base64(key hash ‖ signature)`); Ed25519 is signature type 0x01, its
//!             key hash the first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key); RFC 8032 for the signature.
//! Guarantees: J8 in part: a checkpoint signed by another key is not a checkpoint.
//! Not here:   what a checkpoint says (`log::checkpoint`), where the key is sealed (the assembly).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as B64;
use sha2::{Digest, Sha256};

const ED25519_TYPE: u8 = 0x01;
const ED25519_PUBLIC_BYTES: usize = 32;
const KEY_HASH_BYTES: usize = 4;
const DASH: &str = "\u{2014} ";

/// Why a note was not accepted, or a key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not `NAME+HASH+KEY`, or the hash does not belong to the key.
    #[error("a verifier key is written NAME+HASH+BASE64, as `palisade audit key` prints it")]
    VerifierKey,
    /// Not 32 bytes of seed, or a name with spaces or '+'.
    #[error("a signing key needs a seed of 32 bytes and a name without spaces and '+'")]
    SigningKey,
    /// No text, blank line and signature lines.
    #[error("it is not a signed note")]
    Form,
    /// No signature of the key that was asked for.
    #[error("it is not signed by the key given; another key signed it")]
    ForeignKey,
    /// The signature is not of this text.
    #[error("its signature does not fit its text")]
    Signature,
}

/// Signs notes with Ed25519, under a name.
pub struct NoteSigner {
    name: String,
    pair: Ed25519KeyPair,
}

impl NoteSigner {
    /// A signer from 32 bytes of seed, which the assembly keeps sealed.
    ///
    /// # Errors
    /// `SigningKey`.
    pub fn from_seed(name: &str, seed: &[u8]) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
            return Err(NoteError::SigningKey);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::SigningKey)?;
        Ok(Self { name: name.to_owned(), pair })
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        let mut public = [0; ED25519_PUBLIC_BYTES];
        for (to, from) in public.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        VerifierKey { name: self.name.clone(), public }
    }

    /// The note: `text` (lines, each ended) with its signature.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut blob = self.verifier().hash().to_vec();
        blob.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{DASH}{} {}\n", self.name, B64.encode(blob))
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A key that verifies notes, written `NAME+HASH+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; ED25519_PUBLIC_BYTES],
}

impl VerifierKey {
    /// Its name: the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First four bytes of SHA-256 over name and key.
    #[must_use]
    pub fn hash(&self) -> [u8; KEY_HASH_BYTES] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519_TYPE])
            .chain_update(self.public)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }

    /// The text of `note`, if this key signed it. Signatures of other keys beside it are ignored (they may be witnesses').
    ///
    /// # Errors
    /// `Form`, `ForeignKey`, `Signature`.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, signatures) = note.split_at_checked(split.saturating_add(1)).ok_or(NoteError::Form)?;
        let signatures = signatures.strip_prefix('\n').and_then(|s| s.strip_suffix('\n')).ok_or(NoteError::Form)?;
        if signatures.is_empty() || text.contains(|c: char| c.is_control() && c != '\n') {
            return Err(NoteError::Form);
        }
        let mut answer = Err(NoteError::ForeignKey);
        for line in signatures.split('\n') {
            let (name, blob) = line.strip_prefix(DASH).and_then(|l| l.split_once(' ')).ok_or(NoteError::Form)?;
            let blob = B64.decode(blob).map_err(|_| NoteError::Form)?;
            let (hash, signature) = blob.split_at_checked(KEY_HASH_BYTES).ok_or(NoteError::Form)?;
            if name == self.name && hash == self.hash() {
                let verified = UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature);
                verified.map_err(|_| NoteError::Signature)?;
                answer = Ok(text);
            }
        }
        answer
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash()), B64.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(NoteError::VerifierKey) };
        let key = B64.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let public = key.strip_prefix(&[ED25519_TYPE]).and_then(|k| k.try_into().ok()).ok_or(NoteError::VerifierKey)?;
        let this = Self { name: name.to_owned(), public };
        if this.name.is_empty() || hex::encode(this.hash()) != hash {
            return Err(NoteError::VerifierKey);
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // J8: the example of C2SP signed-note and of Go's golang.org/x/mod/sumdb/note, made by others.
    #[test]
    fn the_published_example_verifies_and_a_changed_one_does_not() {
        let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        assert_eq!(key.open(&note), Ok(text));
        assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        assert_eq!(key.open(&note.replace("answer", "Answer")), Err(NoteError::Signature));
    }

    #[test]
    fn a_note_of_another_key_or_with_any_byte_changed_is_refused() {
        let signer = NoteSigner::from_seed("video.example/audit", &[7; 32]).unwrap();
        let other = NoteSigner::from_seed("video.example/audit", &[8; 32]).unwrap();
        let note = signer.sign("video.example/audit\n3\nabc=\n");
        assert_eq!(signer.verifier().open(&note).unwrap(), "video.example/audit\n3\nabc=\n");
        assert_eq!(other.verifier().open(&note), Err(NoteError::ForeignKey));
        assert_eq!(signer.verifier().to_string().parse(), Ok(signer.verifier()));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8_lossy(&bytes);
            assert!(signer.verifier().open(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn keys_with_a_wrong_hash_or_name_are_no_keys() {
        let key = NoteSigner::from_seed("a", &[7; 32]).unwrap().verifier().to_string();
        for bad in [key.replacen('a', "b", 1), key.replace('+', "-"), String::new(), "a+00000000+AQ==".to_owned()] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
        }
        assert!(NoteSigner::from_seed("a b", &[7; 32]).is_err());
        assert!(NoteSigner::from_seed("a", &[7; 31]).is_err());
    }
}
