//! Heard: what the last answer of this thread told of its refusal, so that a note and the audit log's record of it can be put together.
//!
//! A technique asks and then notes how that ended, one after the other on one thread. What stands here lies between the two: the reason that
//! a refusal tells, and the trace that the edge names in its answers. Each answer is told of once.
//!
//! Guarantees: J11: whether a try was seen is judged by its own record, not by what happened around it.

use std::cell::RefCell;

use super::http::Answer;
use crate::Control;

/// Header of the edge's answers with the trace's id.
const TRACE: &str = "palisade-trace";
/// Longest body that is looked at for a reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// What was sent since the last note, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Requests that were sent.
    pub sent: u64,
    /// The reason that the last refusal told, by its code.
    pub reason: Option<String>,
    /// The last answer was a refusal, and told no reason.
    pub unsaid: bool,
    /// The trace that the last answer belongs to, where the edge named it.
    pub trace: Option<String>,
}

thread_local! {
    static HEARD: RefCell<Heard> = const { RefCell::new(Heard { sent: 0, reason: None, unsaid: false, trace: None }) };
}

/// A request was sent, and this is its answer, if there was one. Who makes a way to ask (`Ask`) tells so.
pub fn hear(answer: Option<&Answer>) {
    let (reason, trace) = answer.map_or((None, None), |answer| (reason(answer), answer.header(TRACE).map(str::to_owned)));
    let unsaid = reason.is_none() && answer.is_some_and(|answer| matches!(answer.status, 401 | 403));
    HEARD.with_borrow_mut(|heard| *heard = Heard { sent: heard.sent.saturating_add(1), reason, unsaid, trace });
}

/// What was heard since this was asked last.
pub(crate) fn take() -> Heard {
    HEARD.take()
}

fn reason(answer: &Answer) -> Option<String> {
    if answer.is_success() || answer.body.len() > REASON_BYTES_MAX {
        return None;
    }
    // A refusal of a gRPC call tells its reason here (docs/protocols.md).
    if let Some(reason) = answer.header("grpc-message") {
        return Some(reason.to_owned());
    }
    let said: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    Some(said.get("reason")?.as_str()?.to_owned())
}

/// The control that refuses for this reason.
#[must_use]
pub fn control(reason: &str) -> Option<Control> {
    Some(match reason {
        "policy_denied" => Control::Policy,
        "job_mismatch" => Control::JobToken,
        "lease_ended" => Control::Lease,
        "authority_not_in_flight" | "authority_missing" | "authority_ended" => Control::TransactionToken,
        "route_unknown" | "method_unlisted" | "host_unknown" | "request_ambiguous" => Control::GuardOut,
        "peer_undeclared" => Control::GuardIn,
        "client_certificate_missing" | "svid_untrusted" | "svid_malformed" => Control::Mtls,
        "credential_missing" | "session_ended" | "token_invalid" | "token_malformed" | "token_inactive" | "token_key_unknown" => {
            Control::SignIn
        }
        "scope_missing" => Control::Scope,
        "rate_exceeded" => Control::Limits,
        "role_missing" => Control::Role,
        "step_up_missing" => Control::StepUp,
        other if other.starts_with("token_") || other.starts_with("proof_") => Control::SignIn,
        other if other.contains("quarantine") || other.contains("verdict") => Control::Quarantine,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str, trace: Option<&str>) -> Answer {
        let headers = trace.map(|trace| (TRACE.to_owned(), trace.to_owned())).into_iter().collect();
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    // J11
    #[test]
    fn what_the_last_answer_told_is_heard_once() {
        hear(Some(&answer(403, "{\"error\":\"refused\",\"reason\":\"policy_denied\"}", Some("t1"))));
        let heard = take();
        assert_eq!((heard.sent, heard.reason.as_deref(), heard.trace.as_deref()), (1, Some("policy_denied"), Some("t1")));
        assert_eq!(take(), Heard::default());
        let refused = vec![("grpc-status".to_owned(), "7".to_owned()), ("grpc-message".to_owned(), "policy_denied".to_owned())];
        hear(Some(&Answer { status: 200, headers: refused, body: Vec::new() }));
        assert_eq!(take().reason.as_deref(), Some("policy_denied"));
        hear(Some(&answer(403, "<Error/>", None)));
        hear(None);
        let heard = take();
        assert_eq!((heard.sent, heard.reason, heard.unsaid), (2, None, false), "of the last one nothing was heard");
        hear(Some(&answer(403, "<Error/>", None)));
        assert!(take().unsaid);
        hear(Some(&answer(200, "{\"reason\":\"policy_denied\"}", None)));
        assert_eq!(take().reason, None, "what is done is no refusal");
    }
}
