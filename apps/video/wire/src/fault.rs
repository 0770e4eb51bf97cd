//! A call to a neighbour that did not succeed.
//!
//! Guarantees: each fault says which neighbour, and whether trying again can help.
//! Not here:   how often to try again; the queue decides that.

use http::StatusCode;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection, or it broke.
    #[error("{peer} cannot be reached: {cause}")]
    Unreachable {
        /// The neighbour's address.
        peer: String,
        /// What the transport said.
        cause: String,
    },
    /// No answer in time.
    #[error("{peer} gave no answer within {limit_s} s")]
    TimedOut {
        /// The neighbour's address.
        peer: String,
        /// The limit in seconds.
        limit_s: u64,
    },
    /// An answer other than success.
    #[error("{peer} answered {status}: {detail}")]
    Refused {
        /// The neighbour's address.
        peer: String,
        /// Its answer.
        status: StatusCode,
        /// The first bytes of the answer's body.
        detail: String,
    },
    /// An answer that does not follow the contract.
    #[error("{peer} sent an answer that cannot be used: {problem}")]
    Garbled {
        /// The neighbour's address.
        peer: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Fault {
    /// The status that the neighbour answered, if it did.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Garbled { .. } => None,
        }
    }

    /// Whether the thing asked for is not there, and will not be.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE))
    }
}
