//! Join tokens: a process that the supervisor is about to start is told a secret; whoever shows it first is asked who it is.
//!
//! Only digests are kept, and only in memory: after a restart the supervisor registers anew. A token is gone once it was shown,
//! also when what followed was a refusal; one that nobody shows ends after a minute.
//!
//! Guarantees: C7 a token works once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use contract::identity::RegisterToken;
use trust::Digest;

/// A token that nobody shows ends after this.
const UNUSED_LIFE: Duration = Duration::from_secs(60);
/// Tokens that wait at the same time: the supervisor starts processes by the dozen, not by the thousand.
const WAITING_MAX: usize = 4096;
/// Tokens shown of late, to tell "used" from "never heard of" in the audit log.
const SPENT_MAX: usize = 1024;

/// Why a token was not taken; callers are not told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// Nobody registered it, or it ended long ago.
    Unknown,
    /// It was shown before.
    Used,
    /// It waited too long.
    Expired,
}

impl TokenRefusal {
    /// For the audit log.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }
}

/// The tokens that wait.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    waiting: HashMap<Digest, (RegisterToken, Duration)>,
    spent: VecDeque<Digest>,
}

impl Tokens {
    /// Takes a token in at `now` (monotonic); whether there was room for it, and it is new.
    pub(crate) fn register(&mut self, token: RegisterToken, now: Duration) -> bool {
        self.waiting.retain(|_, (_, since)| now.saturating_sub(*since) < UNUSED_LIFE);
        let new = !self.waiting.contains_key(&token.token_digest) && !self.spent.contains(&token.token_digest);
        let room = self.waiting.len() < WAITING_MAX;
        if new && room {
            self.waiting.insert(token.token_digest, (token, now));
        }
        new && room
    }

    /// Gives what was registered for a token, once.
    pub(crate) fn spend(&mut self, token: &str, now: Duration) -> Result<RegisterToken, TokenRefusal> {
        let digest = Digest::of(token.as_bytes());
        let Some((registered, since)) = self.waiting.remove(&digest) else {
            return Err(if self.spent.contains(&digest) { TokenRefusal::Used } else { TokenRefusal::Unknown });
        };
        if self.spent.len() >= SPENT_MAX {
            self.spent.pop_front();
        }
        self.spent.push_back(digest);
        if now.saturating_sub(since) >= UNUSED_LIFE {
            return Err(TokenRefusal::Expired);
        }
        Ok(registered)
    }
}
