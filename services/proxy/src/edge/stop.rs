//! Why a request went no further.

use trust::{Decision, DenyReason, Fault, Shadow};

use super::admission::Standing;

/// How a step ends a request.
#[derive(Debug)]
pub enum Stop {
    /// Refused: recorded, never detailed to the caller.
    Refused(Refusal),
    /// A page that is not for the browser as it comes: it is sent to sign in, or to the host that people sign in at.
    Redirected {
        /// Why it was not let in.
        reason: DenyReason,
        /// Where it goes.
        to: String,
    },
    /// Allowed, but it could not be done.
    Failed(Fault),
}

/// A refusal and what the answer says about it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reason.
    pub reason: DenyReason,
    /// Policies that forbade it.
    pub policies: Vec<String>,
    /// Epoch of the view that decided.
    pub epoch: u64,
    /// What policies in shadow would have made of it.
    pub shadow: Option<Box<Shadow>>,
    /// Seconds after which another attempt makes sense.
    pub retry_after_s: Option<u64>,
    /// Methods that the path has.
    pub allow: Option<Box<str>>,
    /// The quota that is used up, by its name.
    pub standing: Option<(&'static str, Standing)>,
}

impl Refusal {
    /// As an answer of an enforcement point.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision::Deny { reason: self.reason, policies: self.policies.clone(), epoch: self.epoch, shadow: self.shadow.clone() }
    }
}

impl From<DenyReason> for Refusal {
    fn from(reason: DenyReason) -> Self {
        let retry_after_s = matches!(
            reason,
            DenyReason::RateExceeded
                | DenyReason::ConcurrencyExceeded
                | DenyReason::Overloaded
                | DenyReason::ViewStale
                | DenyReason::DependencyDown
                | DenyReason::AuditUnavailable
        );
        Self {
            reason,
            policies: Vec::new(),
            epoch: 0,
            shadow: None,
            retry_after_s: retry_after_s.then_some(1),
            allow: None,
            standing: None,
        }
    }
}

impl From<DenyReason> for Stop {
    fn from(reason: DenyReason) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}
