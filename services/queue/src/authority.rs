//! Whose authority a message carries, and which object it may name.
//!
//! The subject of an event becomes the input of the job that consumes it: whoever names a subject hands out access to that object. So
//! a service names only what its own job named; `objects` names what it stored itself; a person's request names nothing.
//!
//! Guarantees: H3, H4, H5 at the publisher's side; H11: a consumer cannot widen what it was given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::Caller;
use contract::queue::{AUTHORITY_HEADER, Event};
use http::HeaderMap;
use trust::{Authority, DenyReason, Fault, ObjectRef, SpiffeId};

/// Why a publish is not taken.
#[derive(Debug)]
pub(crate) enum Unfit {
    Refused(DenyReason),
    Fault(Fault),
}

/// The authority that comes with a publish: the caller's token, or, from `objects` alone, the one that it verified when it granted an
/// upload. (The token of that request may have ended by the time the bytes arrive; `objects` keeps what it said with the grant.)
pub(crate) fn carried(caller: &Caller, publisher: &SpiffeId, headers: &HeaderMap) -> Result<Option<Authority>, Unfit> {
    let Some(value) = headers.get(AUTHORITY_HEADER) else { return Ok(caller.authority().cloned()) };
    if publisher.as_role() != Some("objects") {
        return Err(Unfit::Refused(DenyReason::CallerNotAdmitted));
    }
    let bad = || Unfit::Fault(Fault::bad_request(format!("{AUTHORITY_HEADER} is not base64 of an authority")));
    let bytes = STANDARD.decode(value).map_err(|_| bad())?;
    let authority: Authority = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    Ok(Some(authority))
}

/// The object that the message may name as its job's input.
pub(crate) fn subject(publisher: &SpiffeId, authority: Option<&Authority>, event: &Event) -> Result<Option<ObjectRef>, Unfit> {
    let named = match &event.subject {
        None => None,
        Some(text) => Some(text.parse::<ObjectRef>().map_err(|error| Unfit::Fault(Fault::bad_request(format!("ce-subject: {error}"))))?),
    };
    if publisher.as_role() == Some("objects") {
        return Ok(named);
    }
    let job = authority.and_then(|a| a.job.as_ref());
    match (&named, job) {
        (_, Some(job)) if Some(job.consumer.as_str()) != publisher.as_service() => Err(Unfit::Refused(DenyReason::JobMismatch)),
        (Some(object), Some(job)) if !job.inputs.contains(object) => Err(Unfit::Refused(DenyReason::JobMismatch)),
        (Some(_), None) => Err(Unfit::Refused(DenyReason::JobMismatch)),
        _ => Ok(named),
    }
}
