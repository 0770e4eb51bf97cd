//! What the assembly gives: the present rules, and the means to mint job tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use contract::control::QueueProfile;
use contract::txn_token::Minter;
use trust::{Authority, Decision, DenyReason, Fault, SpiffeId};

/// The present rules; `queue` asks for them at every act, so a pushed view takes effect with the next one.
pub trait Rules: Send + Sync + fmt::Debug + 'static {
    /// The rules in force.
    ///
    /// # Errors
    /// `ViewStale` when there is no view, or only one past its maximum age: everything is refused.
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason>;
}

/// One view's rules for queues.
#[derive(Debug, Clone)]
pub struct Rulebook {
    /// The declared queues. Any other does not exist.
    pub queues: BTreeMap<String, QueueProfile>,
    /// The policy.
    pub decide: Arc<dyn Decide>,
}

/// The policy, as `queue` asks it.
pub trait Decide: Send + Sync + fmt::Debug {
    /// The answer to one question. Whatever cannot be decided is denied.
    fn decide(&self, ask: &Ask<'_>) -> Decision;
}

/// What is done with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueAction {
    /// Putting a message in.
    Publish,
    /// Taking messages out.
    Consume,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The workload that publishes or consumes.
    pub principal: &'a SpiffeId,
    /// Which of the two.
    pub action: QueueAction,
    /// The queue.
    pub queue: &'a str,
    /// Its profile.
    pub profile: &'a QueueProfile,
    /// The person's authority that comes along.
    pub authority: Option<&'a Authority>,
}

/// Gives the key that signs job tokens; it changes as keys rotate.
pub trait Minting: Send + Sync + fmt::Debug + 'static {
    /// The minter to use now.
    ///
    /// # Errors
    /// `Unavailable` while there is none; messages with authority then wait.
    fn current(&self) -> Result<Minter, Fault>;
}

impl Decide for policy::Engine {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let action = match ask.action {
            QueueAction::Publish => policy::Action::Publish,
            QueueAction::Consume => policy::Action::Consume,
        };
        let resource = policy::Resource::Queue(ask.queue.to_owned());
        let question = policy::Question { caller: ask.principal.workload.name(), action, resource: &resource, authority: ask.authority };
        let answer = Self::decide(self, &question);
        if !answer.errors.is_empty() {
            tracing::error!(errors = ?answer.errors, queue = ask.queue, "a policy could not be evaluated");
        }
        answer.decision
    }
}

impl QueueAction {
    /// As the policy and audit records name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}
