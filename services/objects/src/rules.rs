//! What the assembly gives: the present rules.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use contract::control::BucketProfile;
use trust::{Decision, DenyReason};

/// The present rules; `objects` asks for them at every act, so a pushed view takes effect with the next one.
pub trait Rules: Send + Sync + fmt::Debug + 'static {
    /// The rules in force.
    ///
    /// # Errors
    /// `ViewStale` when there is no view, or only one past its maximum age: everything is refused.
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason>;
}

/// One view's rules for buckets.
#[derive(Debug, Clone)]
pub struct Rulebook {
    /// The declared buckets. Any other does not exist.
    pub buckets: BTreeMap<String, BucketProfile>,
    /// The policy.
    pub decide: Arc<dyn Decide>,
}

/// The policy, as `objects` asks it.
pub trait Decide: Send + Sync + fmt::Debug {
    /// The answer to one question. Whatever cannot be decided is denied.
    fn decide(&self, question: &policy::Question<'_>) -> Decision;
}

impl Decide for policy::Engine {
    fn decide(&self, question: &policy::Question<'_>) -> Decision {
        let answer = Self::decide(self, question);
        if !answer.errors.is_empty() {
            tracing::error!(errors = ?answer.errors, action = %question.action, "a policy could not be evaluated");
        }
        answer.decision
    }
}
