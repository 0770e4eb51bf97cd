//! Seals: MACs over rows, and the secrets of grants, all from one key that lies beside the database.
//!
//! A row whose owner, verdict or digests were edited is found when it is read. A grant's secret is derived from everything that the
//! grant allows: nothing on the disk but the key signs, and a grant row that was widened derives another secret.
//!
//! Spec:       FIPS 198-1 (HMAC) with SHA-256.

use aws_lc_rs::hmac;
use trust::Secret;

/// Seals and derives.
#[derive(Debug)]
pub(crate) struct Sealer(hmac::Key);

impl Sealer {
    pub(crate) fn new(key: &Secret<Vec<u8>>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The seal over `fields` for one `purpose`.
    pub(crate) fn seal(&self, purpose: &str, fields: &[&[u8]]) -> Vec<u8> {
        hmac::sign(&self.0, &framed(purpose, fields)).as_ref().to_vec()
    }

    /// Whether `seal` is the one over `fields`.
    pub(crate) fn holds(&self, purpose: &str, fields: &[&[u8]], seal: &[u8]) -> bool {
        hmac::verify(&self.0, &framed(purpose, fields), seal).is_ok()
    }

    /// A secret that stands for `fields`.
    pub(crate) fn secret(&self, purpose: &str, fields: &[&[u8]]) -> Secret<String> {
        Secret::new(hex::encode(self.seal(purpose, fields)))
    }
}

fn framed(purpose: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in std::iter::once(&purpose.as_bytes()).chain(fields) {
        out.extend_from_slice(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}
