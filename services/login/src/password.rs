//! Passwords: what is accepted, and how they are kept.
//!
//! Argon2id with 19 MiB, two passes, one lane, a random salt, and a secret of this installation, so that the database alone is no use
//! to a guesser. At most two are computed at a time and 64 wait; a flood of sign-ins is refused instead of filling the memory.
//!
//! Spec:       RFC 9106 (Argon2); OWASP Password Storage (second recommended setting); NIST SP 800-63B, section 5.1.1.2.
//! Guarantees: B12.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use trust::{Entropy, Secret};

use crate::common_passwords::COMMON;

/// Shortest, in characters.
pub(crate) const LENGTH_MIN: usize = 10;
/// Longest, in characters.
pub(crate) const LENGTH_MAX: usize = 128;
const DISTINCT_MIN: usize = 5;
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 64;

/// A password at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) salt: Vec<u8>,
    pub(crate) hash: Vec<u8>,
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// Too short or too long.
    #[error("Use between {LENGTH_MIN} and {LENGTH_MAX} characters.")]
    Length,
    /// Among the first that anybody tries.
    #[error("This password is among the first that anybody would try. Three or four unrelated words make a good one.")]
    Common,
    /// It contains the name.
    #[error("The password must not contain your name.")]
    NameInside,
}

/// Why no hash was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    /// Too many wait.
    #[error("too many passwords are being checked")]
    Busy,
    /// The function refused its parameters, or its thread ended.
    #[error("a password could not be hashed")]
    Failed,
}

/// Whether `password` may be the password of `name`.
pub(crate) fn check(password: &str, name: &str) -> Result<(), Unfit> {
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&password.chars().count()) {
        return Err(Unfit::Length);
    }
    let lower = password.to_lowercase();
    let unmask = |text: &str| text.chars().map(unmasked).collect::<String>();
    let plain = unmask(&lower);
    let core = |text: &str| text.trim_matches(|c: char| !c.is_alphabetic()).to_owned();
    let spaceless: String = plain.chars().filter(|c| c.is_alphanumeric()).collect();
    let guesses = [lower.clone(), core(&lower), plain.clone(), core(&plain), unmask(&core(&lower)), spaceless];
    let few = lower.chars().collect::<BTreeSet<_>>().len() < DISTINCT_MIN;
    if few || guesses.iter().any(|guess| COMMON.contains(&guess.as_str()) || is_doubled(guess)) {
        return Err(Unfit::Common);
    }
    let name = name.to_lowercase();
    if name.chars().count() >= 3 && (lower.contains(&name) || plain.contains(&name)) {
        return Err(Unfit::NameInside);
    }
    Ok(())
}

/// A common one twice in a row.
fn is_doubled(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.split_at_checked(text.len() / 2).is_some_and(|(a, b)| a == b && COMMON.contains(&a))
}

/// The letter that a digit or sign often stands for.
fn unmasked(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

/// Computes hashes, a few at a time.
#[derive(Debug)]
pub(crate) struct Hasher {
    pepper: Secret<Vec<u8>>,
    entropy: Arc<dyn Entropy>,
    turns: Arc<Semaphore>,
    queue: Semaphore,
    computed: AtomicU64,
}

impl Hasher {
    /// A hasher with this installation's secret.
    pub(crate) fn new(pepper: Secret<Vec<u8>>, entropy: Arc<dyn Entropy>) -> Self {
        let (turns, queue) = (Arc::new(Semaphore::new(AT_ONCE)), Semaphore::new(AT_ONCE + WAITING_MAX));
        Self { pepper, entropy, turns, queue, computed: AtomicU64::new(0) }
    }

    /// Hashes a new password.
    pub(crate) async fn keep(&self, password: &str) -> Result<Kept, HashError> {
        let mut salt = vec![0; 16];
        self.entropy.fill(&mut salt);
        let mut kept = Kept { salt, hash: Vec::new(), memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
        kept.hash = self.compute(password, &kept).await?;
        Ok(kept)
    }

    /// Whether `password` is the kept one. Without a kept one the same work is done, and the answer is no.
    pub(crate) async fn verify(&self, password: &str, kept: Option<&Kept>) -> Result<bool, HashError> {
        let nobody = Kept { salt: vec![0; 16], hash: Vec::new(), memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
        let computed = self.compute(password, kept.unwrap_or(&nobody)).await?;
        let expected = kept.map_or(&[][..], |kept| kept.hash.as_slice());
        Ok(bool::from(computed.ct_eq(expected)))
    }

    /// How many were computed so far.
    #[cfg(test)]
    pub(crate) fn computed(&self) -> u64 {
        self.computed.load(Ordering::SeqCst)
    }

    async fn compute(&self, password: &str, as_kept: &Kept) -> Result<Vec<u8>, HashError> {
        let _place = self.queue.try_acquire().map_err(|_| HashError::Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| HashError::Failed)?;
        self.computed.fetch_add(1, Ordering::SeqCst);
        let (password, pepper, kept) = (Secret::new(password.to_owned()), self.pepper.clone(), as_kept.clone());
        let work = move || {
            // Held until the work is done, also when nobody waits for it any more.
            let _turn = turn;
            let params = Params::new(kept.memory_kib, kept.passes, kept.lanes, Some(HASH_BYTES)).map_err(|_| HashError::Failed)?;
            let argon2 =
                Argon2::new_with_secret(pepper.expose(), Algorithm::Argon2id, Version::V0x13, params).map_err(|_| HashError::Failed)?;
            let mut hash = vec![0; HASH_BYTES];
            argon2.hash_password_into(password.expose().as_bytes(), &kept.salt, &mut hash).map_err(|_| HashError::Failed)?;
            Ok(hash)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| HashError::Failed)?
    }
}
