//! Verdicts: the one act that makes an upload readable, done once, by the bucket's validator, about the bytes that it has read.
//!
//! The validator's job must name the object, and that very lease must have read exactly the version that is there now: bytes that
//! were put in their place meanwhile keep waiting.
//!
//! Guarantees: G11.

use std::sync::PoisonError;

use contract::objects::VerdictKind;
use contract::{Body, body};
use http::{Request, Response, StatusCode};
use manifest::Verdict;
use policy::Action;
use telemetry::event::ActDone;
use trust::{DenyReason, ObjectRef};

use crate::gate::Visitor;
use crate::ledger::{Object, Ruling};
use crate::refusal::Refusal;
use crate::room::Shelf;

/// Leases whose reads are remembered; past it all are forgotten, and their jobs have to read again.
const READS_MAX: usize = 10_000;
const REASON_BYTES_MAX: usize = 1024;
const MEDIA_TYPE_BYTES_MAX: usize = 128;

impl Shelf {
    /// Remembers which version a job's lease has read, as far as a verdict may follow.
    pub(crate) fn note_read(&self, visitor: &Visitor, object: &Object) {
        let Some(job) = visitor.job().filter(|_| object.verdict == Verdict::Untyped) else { return };
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() >= READS_MAX {
            reads.clear();
        }
        let read = reads.entry((job.lease.clone(), object.at.clone())).or_insert_with(|| Some(object.version.clone()));
        if read.as_ref() != Some(&object.version) {
            *read = None;
        }
    }

    /// `POST /BUCKET/KEY?verdict`.
    pub(crate) async fn verdict(&self, visitor: &Visitor, at: &ObjectRef, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let profile = self.gate.bucket(&at.bucket)?;
        let object = self.look(visitor, Action::ObjectVerdict, at).await?;
        let refuse = |reason| self.gate.refuse(visitor, Action::ObjectVerdict.as_str(), &at.to_string(), reason);
        let validator = profile.quarantine_until.as_deref();
        if validator.is_none() || validator != visitor.principal.as_service() {
            return Err(refuse(DenyReason::PolicyDenied));
        }
        let Some(job) = visitor.job().filter(|job| job.inputs.contains(at)) else { return Err(refuse(DenyReason::JobMismatch)) };
        let said: contract::objects::Verdict = body::parse_json(request.into_body()).await?;
        let fits = said.reason.len() <= REASON_BYTES_MAX
            && said.media_type.as_ref().is_none_or(|m| m.len() <= MEDIA_TYPE_BYTES_MAX && m.bytes().all(|b| b.is_ascii_graphic()));
        if !fits {
            return Err(Refusal::Invalid(format!(
                "a reason has at most {REASON_BYTES_MAX} bytes, a media type {MEDIA_TYPE_BYTES_MAX} visible ones"
            )));
        }
        let verdict = match said.verdict {
            VerdictKind::Clean => Verdict::Clean,
            VerdictKind::Rejected => Verdict::Rejected,
        };
        if object.verdict == verdict {
            return Ok(body::plain(StatusCode::NO_CONTENT));
        }
        if object.verdict != Verdict::Untyped {
            return Err(Refusal::Conflict("the object has another verdict, for good".to_owned()));
        }
        let key = (job.lease.clone(), at.clone());
        let read = self.reads.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned().flatten();
        if read.as_ref() != Some(&object.version) {
            return Err(Refusal::Conflict("this job has not read the object that is there now".to_owned()));
        }
        let by = visitor.principal.to_string();
        let ruling = Ruling {
            verdict,
            media_type: said.media_type.as_deref(),
            reason: &said.reason,
            by: &by,
            job: &job.id,
            now_ms: self.clock.unix_ms(),
        };
        let detail = format!("{:?} on {} ({}) for job {}: {}", said.verdict, object.digest, object.version, job.id, said.reason);
        let event = ActDone { act: "objects.verdict", by: by.clone(), to: at.to_string(), detail };
        self.gate.recorder.record(Some(visitor.trace), &event).map_err(|_| Refusal::Denied(DenyReason::AuditUnavailable))?;
        self.ledger.rule(&object, &ruling).await?;
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(body::plain(StatusCode::NO_CONTENT))
    }
}
