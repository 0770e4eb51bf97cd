//! Passwords: Argon2id with the parameters that the reference system's `login` uses, two at a time.
//!
//! Spec:       RFC 9106; OWASP Password Storage (19 MiB, t = 2, p = 1).
//! Guarantees: whether a person exists cannot be told by how long an answer takes.

use argon2::password_hash::rand_core::{OsRng, RngCore};
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Shortest, in characters.
pub(crate) const CHARS_MIN: usize = 10;
/// Longest, in characters.
pub(crate) const CHARS_MAX: usize = 128;
/// How many are computed at once: each takes 19 MiB.
const AT_ONCE: usize = 2;

/// Why no hash was computed.
#[derive(Debug, thiserror::Error)]
#[error("a password could not be hashed: {0}")]
pub(crate) struct HashFault(String);

/// Computes and compares.
pub(crate) struct Passwords {
    benches: Semaphore,
    /// Compared with where there is no such person.
    decoy: String,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, HashFault> {
        Ok(Self { benches: Semaphore::new(AT_ONCE), decoy: hash("nobody has this password")? })
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, HashFault> {
        let _bench = self.benches.acquire().await;
        tokio::task::spawn_blocking(move || hash(&password)).await.map_err(|error| HashFault(error.to_string()))?
    }

    /// Whether it is the password that was kept; where nobody is, as much work is done for a no.
    pub(crate) async fn fits(&self, password: String, kept: Option<String>) -> bool {
        let _bench = self.benches.acquire().await;
        let (known, kept) = (kept.is_some(), kept.unwrap_or_else(|| self.decoy.clone()));
        let compared = tokio::task::spawn_blocking(move || verifies(&password, &kept)).await;
        compared.unwrap_or(false) && known
    }
}

fn argon2() -> Result<Argon2<'static>, HashFault> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|error| HashFault(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, HashFault> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon2()?.hash_password(password.as_bytes(), &salt).map_err(|error| HashFault(error.to_string()))?;
    Ok(hash.to_string())
}

fn verifies(password: &str, kept: &str) -> bool {
    PasswordHash::new(kept).is_ok_and(|kept| argon2().is_ok_and(|argon2| argon2.verify_password(password.as_bytes(), &kept).is_ok()))
}

/// 256 random bits, in hexadecimal.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}
