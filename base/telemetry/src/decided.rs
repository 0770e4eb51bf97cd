//! `CallDecided` as a data path says it: in words that stand elsewhere, and written by itself, because it is said with every request.
//!
//! Guarantees: J4, J7: what it writes is what `event::CallDecided` says.

use serde::Serialize;
use trust::Decision;

use crate::event::{CallDecided, Event, Level};
use crate::json::Object;
use crate::metrics::Metrics;
use crate::sink::AuditLost;

/// An enforcement point decided about a request. The fields are those of `CallDecided`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Decided<'a> {
    /// `edge`, `guard`…
    pub point: &'static str,
    /// The caller.
    pub principal: &'a str,
    /// What is done.
    pub action: &'a str,
    /// What it was about.
    pub resource: &'a str,
    /// The person, or empty.
    pub user: &'a str,
    /// The purpose, or empty.
    pub purpose: &'a str,
    /// The transaction, or empty.
    pub txn: &'a str,
    /// The job, or empty.
    pub job: &'a str,
    /// The answer.
    pub decision: &'a Decision,
}

impl Event for Decided<'_> {
    const NAME: &'static str = CallDecided::NAME;
    const AUDITED: bool = CallDecided::AUDITED;

    fn level(&self) -> Level {
        Level::Debug
    }

    fn count(&self, metrics: &Metrics) {
        metrics.decision(self.point, self.action, self.decision.deny_reason());
        if let Some(shadow) = self.decision.shadow() {
            metrics.shadow(self.point, self.action, self.decision.is_allow(), shadow.allow);
        }
    }

    fn refusal(&self) -> Option<(&'static str, &str)> {
        self.decision.deny_reason().map(|_| (self.point, self.principal))
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), AuditLost> {
        let mut fields = Object::begin(out);
        fields.text("point", self.point);
        let said = [
            ("principal", self.principal),
            ("action", self.action),
            ("resource", self.resource),
            ("user", self.user),
            ("purpose", self.purpose),
            ("txn", self.txn),
            ("job", self.job),
        ];
        for (name, value) in said {
            fields.text(name, value);
        }
        decision(self.decision, fields.member("decision"))?;
        fields.end();
        Ok(())
    }
}

fn decision(decision: &Decision, out: &mut Vec<u8>) -> Result<(), AuditLost> {
    let mut outer = Object::begin(out);
    let (name, reason, policies, epoch) = match decision {
        Decision::Allow { policies, epoch, .. } => ("allow", None, policies, epoch),
        Decision::Deny { reason, policies, epoch, .. } => ("deny", Some(reason), policies, epoch),
    };
    let mut answer = Object::begin(outer.member(name));
    if let Some(reason) = reason {
        answer.text("reason", reason.code());
    }
    answer.texts("policies", policies);
    answer.number("epoch", *epoch);
    if let Some(shadow) = decision.shadow() {
        serde_json::to_writer(answer.member("shadow"), shadow).map_err(|_| AuditLost)?;
    }
    answer.end();
    outer.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use trust::DenyReason;

    use super::*;

    // J4, J7: two ways to say the same leave the same record.
    #[test]
    fn it_writes_what_its_longer_form_writes() {
        let policies = vec!["flow.web.service.api".to_owned(), "of \"mine\"".to_owned()];
        let plain = Decision::Allow { policies: policies.clone(), epoch: 7, shadow: None };
        let refused =
            DenyReason::ALL.iter().map(|reason| Decision::Deny { reason: *reason, policies: policies.clone(), epoch: 1, shadow: None });
        let none = Decision::Allow { policies: Vec::new(), epoch: 0, shadow: None };
        for decision in refused.chain([none.clone(), plain.clone(), plain.beside(Decision::deny(DenyReason::PolicyDenied))]) {
            let long = CallDecided {
                point: "guard",
                principal: "spiffe://video.example/service/web".to_owned(),
                action: "call".to_owned(),
                resource: "api:GET /videos/\u{1}\\\"ü".to_owned(),
                user: "ada".to_owned(),
                purpose: String::new(),
                txn: "0123".to_owned(),
                job: String::new(),
                decision: decision.clone(),
            };
            let short = Decided {
                point: long.point,
                principal: &long.principal,
                action: &long.action,
                resource: &long.resource,
                user: &long.user,
                purpose: &long.purpose,
                txn: &long.txn,
                job: &long.job,
                decision: &decision,
            };
            let mut written = Vec::new();
            short.write(&mut written).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&long).unwrap());
            assert_eq!(short.refusal(), long.refusal());
        }
    }
}
