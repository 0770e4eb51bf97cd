//! The binding of a message: a MAC over everything that says who published what for whom.
//!
//! The key lies beside the database, not in it: a row that was edited, or whose payload or authority was swapped for another row's, is
//! found at delivery.
//!
//! Spec:       FIPS 198-1 (HMAC) with SHA-256.
//! Guarantees: H4 a swapped payload or token is refused.

use aws_lc_rs::hmac;
use trust::{Digest, Secret};

/// Binds and checks.
#[derive(Debug)]
pub(crate) struct Binder(hmac::Key);

impl Binder {
    pub(crate) fn new(key: &Secret<Vec<u8>>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The MAC over `fields`, of which none can flow into its neighbour.
    pub(crate) fn bind(&self, fields: &[&[u8]]) -> Vec<u8> {
        hmac::sign(&self.0, &framed(fields)).as_ref().to_vec()
    }

    /// Whether `mac` is the one over `fields`; takes the same time for every wrong one.
    pub(crate) fn holds(&self, fields: &[&[u8]], mac: &[u8]) -> bool {
        hmac::verify(&self.0, &framed(fields), mac).is_ok()
    }
}

/// What two publishes with the same id must share to be the same.
pub(crate) fn fingerprint(fields: &[&[u8]]) -> Digest {
    Digest::of(&framed(fields))
}

fn framed(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|f| f.len().saturating_add(8)).sum());
    for field in fields {
        out.extend_from_slice(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}
