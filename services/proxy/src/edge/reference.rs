//! References: opaque tokens and API keys, exchanged for the claims that they stand for (the phantom token pattern).
//!
//! What a reference stands for is `login`'s to say, and may end at any moment, so `login` is asked, and its answer serves for half a
//! second: what was revoked is refused within a second, however busy the key. Without `login` nothing that is shown by reference passes;
//! access tokens that are signed go on.
//!
//! Spec:       RFC 7662, sections 2 and 4 (caching).
//! Guarantees: A8, A12 a revoked one is refused in a second at most; one question at a time for each; the table is bounded.
//! Not here:   what a reference is made of (`contract::opaque`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::login::AccessClaims;
use contract::opaque;
use tokio::sync::Mutex as Turn;
use trust::{Clock, DenyReason, Digest, TraceContext};

use super::oidc::Login;

/// An answer serves so long.
const ANSWER_LIFE: Duration = Duration::from_millis(500);
/// An answer that takes longer is none.
const ASK_MS_MAX: u64 = 2_000;
/// Answers kept. When there are more, the old ones go, else all of them.
const ANSWERS_MAX: usize = 16_384;
/// Questions under way at the same time; those about one reference wait for each other.
const TURNS: usize = 64;

type Answer = Result<Arc<AccessClaims>, DenyReason>;

/// Answers, and when they were asked for.
#[derive(Debug, Default)]
struct Answers(HashMap<Digest, (Duration, Answer)>);

impl Answers {
    fn fresh(&self, credential: &Digest, now: Duration) -> Option<Answer> {
        self.0.get(credential).filter(|(asked, _)| now.saturating_sub(*asked) < ANSWER_LIFE).map(|(_, answer)| answer.clone())
    }

    fn keep(&mut self, credential: Digest, (asked, now): (Duration, Duration), answer: Answer) {
        if self.0.len() >= ANSWERS_MAX {
            self.0.retain(|_, (asked, _)| now.saturating_sub(*asked) < ANSWER_LIFE);
            if self.0.len() >= ANSWERS_MAX {
                self.0.clear();
            }
        }
        self.0.insert(credential, (asked, answer));
    }
}

/// What references stand for.
#[derive(Debug)]
pub struct References {
    login: Arc<Login>,
    clock: Arc<dyn Clock>,
    answers: Mutex<Answers>,
    turns: Vec<Turn<()>>,
}

impl References {
    /// That `login` knows.
    #[must_use]
    pub fn new(login: Arc<Login>, clock: Arc<dyn Clock>) -> Self {
        Self { login, clock, answers: Mutex::default(), turns: (0..TURNS).map(|_| Turn::default()).collect() }
    }

    /// What this one stands for; `credential` names it and the origin that it is shown at.
    ///
    /// # Errors
    /// `TokenMalformed`, `TokenInactive`, `TokenExpired`, `IssuerMismatch`, `AudienceMismatch`; `DependencyDown` when `login` cannot say.
    pub async fn claims(&self, reference: &str, credential: Digest, origin: &str, trace: TraceContext) -> Answer {
        if opaque::kind_of(reference).is_none() {
            return Err(DenyReason::TokenMalformed);
        }
        if let Some(answer) = self.fresh(&credential) {
            return self.alive(answer);
        }
        let stripe = credential.as_bytes().first().map_or(0, |byte| usize::from(*byte) % TURNS);
        let turn = self.turns.get(stripe).ok_or(DenyReason::DependencyDown)?;
        let _turn = turn.lock().await;
        if let Some(answer) = self.fresh(&credential) {
            return self.alive(answer);
        }
        // Its age counts from the question, since the answer may be as old as that.
        let asked = self.clock.monotonic();
        let asking = self.login.introspect(reference, origin, trace);
        let answer = tokio::time::timeout(Duration::from_millis(ASK_MS_MAX), asking).await.unwrap_or(Err(DenyReason::DependencyDown));
        let answer = answer.map(Arc::new);
        if !matches!(answer, Err(DenyReason::DependencyDown)) {
            self.keep(credential, asked, answer.clone());
        }
        self.alive(answer)
    }

    fn alive(&self, answer: Answer) -> Answer {
        answer.and_then(|claims| if claims.exp <= self.clock.unix_s() { Err(DenyReason::TokenExpired) } else { Ok(claims) })
    }

    fn fresh(&self, credential: &Digest) -> Option<Answer> {
        self.lock().fresh(credential, self.clock.monotonic())
    }

    fn keep(&self, credential: Digest, asked: Duration, answer: Answer) {
        self.lock().keep(credential, (asked, self.clock.monotonic()), answer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Digest {
        Digest::of(&n.to_be_bytes())
    }

    // A13
    #[test]
    fn the_table_of_answers_is_bounded() {
        let (second, refused) = (Duration::from_secs(1), || Err(DenyReason::TokenInactive));
        let mut answers = Answers::default();
        for n in 0..ANSWERS_MAX {
            answers.keep(key(n), (second, second), refused());
        }
        assert!((0..ANSWERS_MAX).all(|n| answers.fresh(&key(n), second).is_some()), "as many as that are all kept");
        // All of them are old by now.
        answers.keep(key(ANSWERS_MAX), (second * 2, second * 2), refused());
        assert_eq!(answers.0.len(), 1);
        for n in 1..ANSWERS_MAX {
            answers.keep(key(n), (second * 2, second * 2), refused());
        }
        assert_eq!(answers.0.len(), ANSWERS_MAX);
        answers.keep(key(0), (second * 2, second * 2), refused());
        assert_eq!(answers.0.len(), 1, "none of them is old: they are asked for anew");
        assert!(answers.fresh(&key(0), second * 2).is_some());
    }
}
