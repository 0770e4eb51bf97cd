//! Examples: for every flow a request that it must allow, and near misses that must be denied.
//!
//! They answer "does anything still work?", which no promise about what may *not* happen can (POLICY, trap 5), and they are replayed
//! through a guard's own path when it loads its slice.

use serde::{Deserialize, Serialize};
use trust::Authority;

use crate::question::{Action, Question, Resource};

/// A request of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Id of the flow's policy.
    pub flow: String,
    /// Who acts.
    pub caller: String,
    /// What it does.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// On whose authority.
    pub authority: Option<Authority>,
    /// A workload for which the same request must be denied.
    pub never: String,
}

impl Example {
    /// The request that must be allowed.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question { caller: &self.caller, action: self.action, resource: &self.resource, authority: self.authority.as_ref() }
    }

    /// Requests that must be denied: another workload's, and one without the authority.
    #[must_use]
    pub fn near_misses(&self) -> Vec<Question<'_>> {
        let mut misses = vec![Question { caller: &self.never, ..self.question() }];
        if self.authority.is_some() {
            misses.push(Question { authority: None, ..self.question() });
        }
        misses
    }
}
