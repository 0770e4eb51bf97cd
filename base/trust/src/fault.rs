//! Faults: what a service answers when it could not do what was allowed.
//!
//! `public` is for the caller; `cause` is for the log and never leaves the process.

use std::error::Error;
use std::fmt;

/// What kind of failure, in HTTP's terms (RFC 9110, section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// 400: the request makes no sense.
    BadRequest,
    /// 403: a refusal by the peer.
    Refused,
    /// 404.
    NotFound,
    /// 409: it conflicts with what is there.
    Conflict,
    /// 413.
    TooLarge,
    /// 422: well-formed, but not acceptable.
    Unprocessable,
    /// 502: a peer was reached, and broke off before it had answered. Whatever it was asked may have been done, or have killed it.
    Broken,
    /// 503: nobody was reached; try again later.
    Unavailable,
    /// 504: a peer took too long.
    TimedOut,
    /// 500: our defect.
    Internal,
}

/// Whose doing it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The caller's.
    Caller,
    /// That of a service we depend on.
    Peer,
    /// Ours.
    Ours,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// At once, on a new connection.
    Fresh,
    /// After a while.
    Later,
}

/// A failure at a service's border.
#[derive(Debug)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// For the caller.
    pub public: String,
    /// For the log.
    pub cause: Option<Box<dyn Error + Send + Sync>>,
    /// Whose doing.
    pub origin: Origin,
    /// Whether to try again.
    pub retry: Retry,
}

impl Fault {
    fn new(kind: FaultKind, public: impl Into<String>, origin: Origin, retry: Retry) -> Self {
        Self { kind, public: public.into(), cause: None, origin, retry }
    }
    /// The request makes no sense; `public` says what to change.
    #[must_use]
    pub fn bad_request(public: impl Into<String>) -> Self {
        Self::new(FaultKind::BadRequest, public, Origin::Caller, Retry::Never)
    }
    /// There is no such thing.
    #[must_use]
    pub fn not_found(public: impl Into<String>) -> Self {
        Self::new(FaultKind::NotFound, public, Origin::Caller, Retry::Never)
    }
    /// It conflicts with what is there.
    #[must_use]
    pub fn conflict(public: impl Into<String>) -> Self {
        Self::new(FaultKind::Conflict, public, Origin::Caller, Retry::Never)
    }
    /// Larger than the stated limit.
    #[must_use]
    pub fn too_large(public: impl Into<String>) -> Self {
        Self::new(FaultKind::TooLarge, public, Origin::Caller, Retry::Never)
    }
    /// A peer refused; the reason stays with it.
    #[must_use]
    pub fn refused(public: impl Into<String>) -> Self {
        Self::new(FaultKind::Refused, public, Origin::Caller, Retry::Never)
    }
    /// A part that is needed cannot be reached now.
    #[must_use]
    pub fn unavailable(public: impl Into<String>) -> Self {
        Self::new(FaultKind::Unavailable, public, Origin::Peer, Retry::Later)
    }
    /// A peer broke off before it had answered.
    #[must_use]
    pub fn broken(public: impl Into<String>) -> Self {
        Self::new(FaultKind::Broken, public, Origin::Peer, Retry::Later)
    }
    /// A peer took too long.
    #[must_use]
    pub fn timed_out(public: impl Into<String>) -> Self {
        Self::new(FaultKind::TimedOut, public, Origin::Peer, Retry::Later)
    }
    /// Our defect; the caller learns no more than that.
    #[must_use]
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Internal, "internal error", Origin::Ours, Retry::Later).because(cause)
    }
    /// Adds the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
    /// The HTTP status that stands for it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.kind {
            FaultKind::BadRequest => 400,
            FaultKind::Refused => 403,
            FaultKind::NotFound => 404,
            FaultKind::Conflict => 409,
            FaultKind::TooLarge => 413,
            FaultKind::Unprocessable => 422,
            FaultKind::Broken => 502,
            FaultKind::Unavailable => 503,
            FaultKind::TimedOut => 504,
            FaultKind::Internal => 500,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|c| c as &(dyn Error + 'static))
    }
}
