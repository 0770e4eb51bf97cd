//! Transaction tokens that were verified under the view in force, and what its policies said of them.
//!
//! A signature, once verified, stays so under the same keys, and the same question gets the same answer from the same policies: what is
//! kept here belongs to one `Loaded` view and goes with it, so a revocation, a rotated key or an applied manifest forgets all of it.
//! Times are looked at on every use.
//!
//! Guarantees: D6, D7, E4 as without it; the bound on memory is `KNOWN_MAX`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contract::txn_token::{Verified, Verifier};
use trust::{Authority, Clock, Decision, DenyReason, Digest, SpiffeId};

/// Tokens kept. When there are more, the ended ones go, else all of them.
const KNOWN_MAX: usize = 8192;
/// Answers kept of one token: a token serves few routes of one service.
const ANSWERS_MAX: usize = 16;

/// Tokens verified under one view.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Digest, Arc<Token>>>);

/// A verified token.
#[derive(Debug)]
pub struct Token {
    /// Its digest.
    pub digest: Digest,
    /// What it carries.
    pub authority: Arc<Authority>,
    verified: Verified,
    answers: Mutex<Vec<Answered>>,
}

/// Whether that caller may call that route with this token.
#[derive(Debug)]
struct Answered {
    caller: SpiffeId,
    route: Arc<str>,
    answer: Arc<Decision>,
}

impl Known {
    /// The token, verified now or before.
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired` or `AudienceMismatch`.
    pub fn token(&self, text: &str, verifier: &Verifier, clock: &dyn Clock) -> Result<Arc<Token>, DenyReason> {
        let digest = Digest::of(text.as_bytes());
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(token) = found {
            token.verified.alive(clock)?;
            return Ok(token);
        }
        let verified = verifier.genuine(text)?;
        verified.alive(clock)?;
        let authority = Arc::new(verified.authority());
        let token = Arc::new(Token { digest, authority, verified, answers: Mutex::default() });
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, token| token.verified.alive(clock).is_ok());
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(digest, Arc::clone(&token));
        Ok(token)
    }
}

impl Token {
    /// The answer to that question about this token, asked once: whether that caller may call that route.
    pub fn answer(&self, caller: &SpiffeId, route: &Arc<str>, ask: impl FnOnce() -> Decision) -> Arc<Decision> {
        let lock = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().iter().find(|one| one.caller == *caller && one.route == *route) {
            return Arc::clone(&found.answer);
        }
        let answer = Arc::new(ask());
        let mut answers = lock();
        if answers.len() < ANSWERS_MAX {
            answers.push(Answered { caller: caller.clone(), route: Arc::clone(route), answer: Arc::clone(&answer) });
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::tests::world::World;

    // A13: tokens without end make the table no longer, and routes without end make no token's answers longer.
    #[tokio::test]
    async fn the_tables_of_tokens_and_of_their_answers_are_bounded() {
        let world = World::new();
        let holder = world.holder(&world.identity("back"), &world.back_view());
        let loaded = holder.fresh().unwrap();
        let known = Known::default();
        let token = known.token(&world.token("ann", "view"), &loaded.verifier, &*world.clock).unwrap();
        let others = (0..KNOWN_MAX - 1).map(|n| (Digest::of(&n.to_be_bytes()), Arc::clone(&token)));
        known.0.lock().unwrap().extend(others);
        assert_eq!(known.0.lock().unwrap().len(), KNOWN_MAX, "just at the limit");
        known.token(&world.token("ben", "view"), &loaded.verifier, &*world.clock).unwrap();
        assert_eq!(known.0.lock().unwrap().len(), 1, "all alive and no room: all go, and are verified anew when they come");
        let (asked, caller) = (AtomicUsize::new(0), world.service("front"));
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            Decision::Allow { policies: Vec::new(), epoch: 1, shadow: None }
        };
        for _ in 0..2 {
            for route in 0..ANSWERS_MAX {
                token.answer(&caller, &route.to_string().into(), ask);
            }
        }
        assert_eq!(asked.load(Ordering::SeqCst), ANSWERS_MAX, "each asked once");
        for _ in 0..2 {
            token.answer(&caller, &"one more".into(), ask);
        }
        assert_eq!((asked.load(Ordering::SeqCst), token.answers.lock().unwrap().len()), (ANSWERS_MAX + 2, ANSWERS_MAX), "asked each time");
    }
}
