//! Access tokens that were verified a moment ago, so that a signature is checked once and not with every request that brings it.
//!
//! An entry counts under the view and the keys that it was verified with: an applied manifest, a revocation and a fetched set of keys
//! forget it. A token's end is looked at on every use.
//!
//! Guarantees: A7 as without it; the bound on memory is `KNOWN_MAX`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::login::AccessClaims;
use trust::{Clock, DenyReason, Digest};

/// Tokens kept. When there are more, the ended ones go, else all of them.
const KNOWN_MAX: usize = 16_384;

/// What a token was verified under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Under {
    /// Epoch of the view.
    pub epoch: u64,
    /// When `login`'s keys were fetched; nothing for another provider's, which come with the view.
    pub keys: Option<Duration>,
}

/// Verified tokens, by the digest of token and origin.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Digest, (Under, Arc<AccessClaims>)>>);

impl Known {
    /// The claims, if the token was verified under that and has not ended.
    ///
    /// # Errors
    /// `TokenExpired`.
    pub fn find(&self, token: &Digest, holds: impl Fn(&Under) -> bool, clock: &dyn Clock) -> Result<Option<Arc<AccessClaims>>, DenyReason> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(token).filter(|(under, _)| holds(under)) {
            Some((_, claims)) if claims.exp <= clock.unix_s() => Err(DenyReason::TokenExpired),
            found => Ok(found.map(|(_, claims)| Arc::clone(claims))),
        }
    }

    /// Keeps a verified token.
    pub fn keep(&self, token: Digest, under: Under, claims: &Arc<AccessClaims>, clock: &dyn Clock) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (its, claims)| its.epoch == under.epoch && claims.exp > clock.unix_s());
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(token, (under, Arc::clone(claims)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use trust::SystemClock;

    use super::*;

    // A13: tokens without end make the table no longer; those of the present view that have not ended are kept while there is room.
    #[test]
    fn the_table_of_verified_tokens_is_bounded() {
        let (known, clock) = (Known::default(), SystemClock::shared());
        let claims = |exp: u64| {
            Arc::new(AccessClaims {
                iss: String::new(),
                sub: String::new(),
                aud: String::new(),
                client_id: String::new(),
                exp,
                iat: 0,
                auth_time: 0,
                acr: String::new(),
                jti: String::new(),
                sid: String::new(),
                scope: String::new(),
                roles: BTreeSet::new(),
                cnf: None,
            })
        };
        let (alive, under) = (claims(u64::MAX), |epoch| Under { epoch, keys: None });
        let token = |n: usize| Digest::of(&n.to_be_bytes());
        for n in 0..KNOWN_MAX {
            known.keep(token(n), under(if n < 3 { 2 } else { 1 }), &if n == 0 { claims(1) } else { Arc::clone(&alive) }, &*clock);
        }
        assert_eq!(known.0.lock().unwrap().len(), KNOWN_MAX, "just at the limit");
        known.keep(token(KNOWN_MAX), under(2), &alive, &*clock);
        assert_eq!(known.0.lock().unwrap().len(), 3, "those of another view and the ended one go");
        for n in 0..2 * KNOWN_MAX {
            known.keep(token(n), under(2), &alive, &*clock);
            assert!(known.0.lock().unwrap().len() <= KNOWN_MAX);
        }
    }
}
