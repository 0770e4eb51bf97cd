//! Credentials that are handed out: 256 random bits in hexadecimal, of which only a digest is kept.
//!
//! Random as they are, a plain SHA-256 is enough: there is nothing to guess.

use trust::{Digest, Entropy, Secret, clock};

const BYTES: usize = 32;

/// A new credential, to be shown once.
#[derive(Debug)]
pub(crate) struct Credential(Secret<String>);

impl Credential {
    /// Draws one.
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        Self(Secret::new(clock::random_hex(entropy, BYTES)))
    }
    /// For the one answer that hands it out.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
    /// What is kept.
    pub(crate) fn digest(&self) -> String {
        digest_of(self.expose())
    }
}

/// What is kept of a credential.
pub(crate) fn digest_of(credential: &str) -> String {
    Digest::of(credential.as_bytes()).to_hex()
}

/// A new public id: 128 random bits, no secret.
pub(crate) fn new_id(entropy: &dyn Entropy) -> String {
    clock::random_hex(entropy, 16)
}
