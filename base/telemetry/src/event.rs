//! The events. Each says what it is, how loud it is, whether the audit log must have it, and what it counts.
//!
//! Names are noun and past verb. Fields hold ids and reasons, never payloads, tokens or secrets.

use serde::Serialize;
use trust::{Decision, DenyReason};

use crate::metrics::Metrics;
use crate::sink::AuditLost;

/// How loud (STYLE: INFO an operator's act took effect; WARN recovered by itself; ERROR a person must act).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For those who look for it.
    Debug,
    /// An operator's act took effect.
    Info,
    /// Recovered by itself.
    Warn,
    /// A person must act.
    Error,
}

/// Something that happened.
pub trait Event: Serialize {
    /// Noun and past verb.
    const NAME: &'static str;
    /// Whether the audit log must have it.
    const AUDITED: bool;
    /// How loud.
    fn level(&self) -> Level;
    /// Counts it.
    fn count(&self, metrics: &Metrics);
    /// Writes its fields as a JSON object at the end of `out`.
    ///
    /// # Errors
    /// `AuditLost` when that is not possible.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), AuditLost> {
        serde_json::to_writer(out, self).map_err(|_| AuditLost)
    }
    /// For a refusal: where, and whose request was refused. Floods of one are gathered (`gather`).
    fn refusal(&self) -> Option<(&'static str, &str)> {
        None
    }
}

/// An enforcement point decided about a request.
#[derive(Debug, Clone, Serialize)]
pub struct CallDecided {
    /// `edge`, `guard`, `objects`, `queue`…
    pub point: &'static str,
    /// The caller: SPIFFE ID, `internet`, `operator`, or `unauthenticated`.
    pub principal: String,
    /// `enter`, `call`, `objectRead`, or the contract's action.
    pub action: String,
    /// What it was about: route, object, queue.
    pub resource: String,
    /// The person, or empty.
    pub user: String,
    /// The purpose, or empty.
    pub purpose: String,
    /// The transaction, or empty.
    pub txn: String,
    /// The job, or empty.
    pub job: String,
    /// The answer.
    pub decision: Decision,
}

impl Event for CallDecided {
    const NAME: &'static str = "CallDecided";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Debug
    }
    fn count(&self, metrics: &Metrics) {
        metrics.decision(self.point, &self.action, self.decision.deny_reason());
        if let Some(shadow) = self.decision.shadow() {
            metrics.shadow(self.point, &self.action, self.decision.is_allow(), shadow.allow);
        }
    }
    fn refusal(&self) -> Option<(&'static str, &str)> {
        self.decision.deny_reason().map(|_| (self.point, self.principal.as_str()))
    }
}

/// A tunnel (a WebSocket, a raw flow) ended; its opening was a `CallDecided`.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelEnded {
    /// `edge`, `guard`, `guard.out`.
    pub point: &'static str,
    /// Who opened it.
    pub principal: String,
    /// To what.
    pub resource: String,
    /// The person, or empty.
    pub user: String,
    /// The transaction, or empty.
    pub txn: String,
    /// Bytes from the caller to the service.
    pub bytes_in: u64,
    /// Bytes from the service to the caller.
    pub bytes_out: u64,
    /// How long it lived.
    pub seconds: u64,
    /// `closed`, `broken`, `idle`, `total_time`, `drained`, or the reason of the refusal that ended it.
    pub why: &'static str,
}

impl Event for TunnelEnded {
    const NAME: &'static str = "TunnelEnded";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Debug
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("tunnel.ended");
    }
}

/// A connection was refused before any request was read.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionRefused {
    /// `edge`, `guard`, a role's name.
    pub point: &'static str,
    /// What the peer claimed to be, or empty.
    pub peer: String,
    /// Why.
    pub reason: DenyReason,
}

impl Event for ConnectionRefused {
    const NAME: &'static str = "ConnectionRefused";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Warn
    }
    fn count(&self, metrics: &Metrics) {
        metrics.decision(self.point, "connect", Some(self.reason));
    }
    fn refusal(&self) -> Option<(&'static str, &str)> {
        Some((self.point, self.peer.as_str()))
    }
}

/// A principal was refused more, and faster, than is recorded singly: the rest as a number.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalsGathered {
    /// Where: `edge`, `guard`, `guard.out`, a role's name.
    pub point: &'static str,
    /// Whose requests were refused, as the single records say it; `(others)` for all those who claim one name too many.
    pub principal: String,
    /// Name of the event that was gathered: `CallDecided`, `ConnectionRefused`, `SignInRefused`.
    pub of: &'static str,
    /// How many, each counted in no other record.
    pub count: u64,
}

impl Event for RefusalsGathered {
    const NAME: &'static str = "RefusalsGathered";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Warn
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("refusals.gathered");
    }
}

/// An act that changed something took effect: an SVID issued, a person invited, a manifest applied, a verdict recorded.
#[derive(Debug, Clone, Serialize)]
pub struct ActDone {
    /// `identity.join`, `control.apply`, `objects.verdict`…
    pub act: &'static str,
    /// Who did it.
    pub by: String,
    /// To what.
    pub to: String,
    /// What else is worth keeping; no secrets.
    pub detail: String,
}

impl Event for ActDone {
    const NAME: &'static str = "ActDone";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Info
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act(self.act);
    }
}

/// Something that must be as it was left is not: a view, a lock, an artefact, a stored object, a log.
#[derive(Debug, Clone, Serialize)]
pub struct TamperingFound {
    /// `view`, `lock`, `artefact`, `object`, `audit`, `manifest`.
    pub what: &'static str,
    /// Which one.
    pub which: String,
    /// How it was seen.
    pub detail: String,
}

impl Event for TamperingFound {
    const NAME: &'static str = "TamperingFound";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Error
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("tampering.found");
    }
}

/// A service made a system call that its sandbox denies, or tried to reach what is not declared.
#[derive(Debug, Clone, Serialize)]
pub struct SyscallDenied {
    /// The service.
    pub service: String,
    /// The call, as `ptrace`, `socket inet raw`, `connect 10.0.0.1:80`.
    pub call: String,
    /// How often since it was told last.
    pub count: u64,
    /// Its process was ended for it.
    pub killed: bool,
}

impl Event for SyscallDenied {
    const NAME: &'static str = "SyscallDenied";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Warn
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("sandbox.syscall_denied");
    }
    fn refusal(&self) -> Option<(&'static str, &str)> {
        Some(("sandbox", &self.service))
    }
}

/// A room could not do what was allowed; the caller was told no more than that.
#[derive(Debug, Clone, Serialize)]
pub struct FaultRaised {
    /// The room's name.
    pub point: &'static str,
    /// The contract's action.
    pub action: String,
    /// The cause, with its sources.
    pub cause: String,
}

impl Event for FaultRaised {
    const NAME: &'static str = "FaultRaised";
    const AUDITED: bool = false;
    fn level(&self) -> Level {
        Level::Error
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("fault.raised");
    }
}

/// A person signed in.
#[derive(Debug, Clone, Serialize)]
pub struct SignInSucceeded {
    /// The person (`sub`).
    pub user: String,
    /// The session that began (its public id, not its cookie).
    pub session: String,
}

impl Event for SignInSucceeded {
    const NAME: &'static str = "SignInSucceeded";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Debug
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("sign_in.succeeded");
    }
}

/// A sign-in was refused; which part was wrong is not said, here neither.
#[derive(Debug, Clone, Serialize)]
pub struct SignInRefused {
    /// A keyed digest of the name that was typed, to tell a hunt on one account from a spray over many. Names typed are not kept: some are
    /// passwords in the wrong field.
    pub account: String,
    /// Why: `SignInFailed`, `RateExceeded`, or `SecondFactorFailed` after the right password.
    pub reason: DenyReason,
}

impl Event for SignInRefused {
    const NAME: &'static str = "SignInRefused";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Debug
    }
    fn count(&self, metrics: &Metrics) {
        metrics.decision("login", "sign_in", Some(self.reason));
    }
    fn refusal(&self) -> Option<(&'static str, &str)> {
        // Whoever guesses chooses the name: all strangers are one.
        Some(("login", "internet"))
    }
}

/// A credential that works once was shown again: whoever has it, two have it. All that came from it has ended.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialReplayed {
    /// `code`, `refresh_token`, `link`, `join_token`.
    pub what: &'static str,
    /// Whose, or empty.
    pub user: String,
    /// The client that it was for, or empty.
    pub client: String,
}

impl Event for CredentialReplayed {
    const NAME: &'static str = "CredentialReplayed";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Warn
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("credential.replayed");
    }
}
