//! Passes: a person's authority for one route and purpose, decided and minted once for some seconds.
//!
//! What a request brings of its own (its trace, its bytes, the channel that it came by) is bound elsewhere; who, what for and where to
//! are the same for the requests that follow each other, and so are the decision and the transaction token. A pass is of one credential,
//! one view and one route; the credential itself is checked with every request, before this.
//!
//! Guarantees: A11, D6 as without it; a pass is used for at most `REUSE`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use trust::{Authority, Decision, Digest};

/// For how long the same pass serves.
const REUSE: Duration = Duration::from_secs(5);
/// Passes kept. When there are more, the old ones go, else all of them.
const PASSES_MAX: usize = 16_384;

/// What was decided, and what goes along.
#[derive(Debug)]
pub struct Pass {
    /// The person's authority.
    pub authority: Authority,
    /// Allow, always.
    pub decision: Arc<Decision>,
    /// The transaction token, with the key that it was minted with.
    pub token: HeaderValue,
}

/// Whose pass, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The credential.
    pub credential: Digest,
    /// Whether the person proved themselves just now.
    pub stepped_up: bool,
    /// The view's epoch, and when it was issued.
    pub view: (u64, u64),
    /// `SERVICE:METHOD /path/{template}`.
    pub route: String,
}

/// Passes by key, with the monotonic time of their making.
#[derive(Debug, Default)]
pub struct Passes(Mutex<HashMap<Key, (Duration, Arc<Pass>)>>);

impl Passes {
    /// One that still serves.
    pub fn find(&self, key: &Key, now: Duration) -> Option<Arc<Pass>> {
        let passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.get(key).filter(|(made, _)| now.saturating_sub(*made) < REUSE).map(|(_, pass)| Arc::clone(pass))
    }

    /// Keeps one.
    pub fn keep(&self, key: Key, pass: &Arc<Pass>, now: Duration) {
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passes.len() >= PASSES_MAX {
            passes.retain(|_, (made, _)| now.saturating_sub(*made) < REUSE);
            if passes.len() >= PASSES_MAX {
                passes.clear();
            }
        }
        passes.insert(key, (now, Arc::clone(pass)));
    }

    /// Forgets those that no longer serve.
    pub fn sweep(&self, now: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (made, _)| now.saturating_sub(*made) < REUSE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    // A13: credentials without end make the table no longer; those that still serve are kept while there is room.
    #[test]
    fn the_table_of_passes_is_bounded() {
        let passes = Passes::default();
        let authority = Authority {
            txn: String::new(),
            user: String::new(),
            purpose: String::new(),
            scopes: BTreeSet::new(),
            roles: BTreeSet::new(),
            step_up: false,
            job: None,
        };
        let decision = Decision::Allow { policies: Vec::new(), epoch: 1, shadow: None };
        let pass = Arc::new(Pass { authority, decision: decision.into(), token: HeaderValue::from_static("t") });
        let key =
            |n: usize| Key { credential: Digest::of(&n.to_be_bytes()), stepped_up: false, view: (1, 1), route: "api:GET /".to_owned() };
        let (early, late) = (Duration::from_secs(10), Duration::from_secs(15));
        for n in 0..PASSES_MAX {
            passes.keep(key(n), &pass, if n == 0 { late } else { early });
        }
        assert_eq!(passes.0.lock().unwrap().len(), PASSES_MAX, "just at the limit");
        passes.keep(key(PASSES_MAX), &pass, late);
        assert_eq!(passes.0.lock().unwrap().len(), 2, "the old ones go");
        assert!(passes.find(&key(0), late).is_some() && passes.find(&key(1), late).is_none());
        for n in 0..2 * PASSES_MAX {
            passes.keep(key(n), &pass, late);
            assert!(passes.0.lock().unwrap().len() <= PASSES_MAX);
        }
    }
}
