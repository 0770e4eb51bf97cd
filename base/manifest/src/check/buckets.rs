//! Buckets: where verdicts come from, and that nothing is readable without one (G11).

use std::collections::BTreeMap;

use super::{Buckets, Check, LIST_MAX};
use crate::flow::BucketOperation;
use crate::model::{Bucket, Service};
use crate::problem::suggestion;

impl Check<'_, '_, '_> {
    pub(super) fn buckets(&mut self, services: &BTreeMap<String, Service>) -> Buckets {
        let names: Vec<_> = services.keys().map(String::as_str).collect();
        let queues: Vec<_> = self.written.queue.keys().map(String::as_str).collect();
        let mut buckets = BTreeMap::new();
        for (name, w) in &self.written.bucket {
            self.class(&["bucket", name, "data"], &w.data);
            if w.types.is_empty() || w.types.len() > LIST_MAX || !w.types.iter().all(|t| is_media_type(t)) {
                self.document.problem(&["bucket", name, "types"], "list media types, as in [\"video/mp4\"]", None);
            }
            if w.quarantine_until.is_some() != w.clean_from.is_empty() {
                let help = "quarantine_until = \"SERVICE\" for what people upload, clean_from = [\"SERVICE\"] for the system's own results";
                let message = "say where verdicts come from: exactly one of 'quarantine_until' and 'clean_from'";
                self.document.problem(&["bucket", name], message, Some(help.to_owned()));
            }
            for service in w.quarantine_until.iter().chain(&w.clean_from) {
                if !services.contains_key(service) {
                    let key = if w.quarantine_until.is_some() { "quarantine_until" } else { "clean_from" };
                    let help = suggestion(service, names.iter().copied());
                    self.document.problem(&["bucket", name, key], format!("there is no service '{service}'"), Some(help));
                }
            }
            let created = w.events.created.as_deref();
            let created = created.and_then(|text| self.reference(&["bucket", name, "events", "created"], "queue", text, &queues));
            buckets.insert(
                name.clone(),
                Bucket {
                    data: w.data.clone(),
                    quarantine_until: w.quarantine_until.clone(),
                    clean_from: w.clean_from.iter().cloned().collect(),
                    max_object_bytes: w.max_object.map_or(64 << 20, |s| s.0),
                    types: w.types.iter().cloned().collect(),
                    created: created.map(str::to_owned),
                },
            );
        }
        for (name, bucket) in &buckets {
            self.verdicts(name, bucket, services);
        }
        buckets
    }

    /// The validator can say its verdict and nobody else can; clean writers are the only writers.
    fn verdicts(&mut self, name: &str, bucket: &Bucket, services: &BTreeMap<String, Service>) {
        for (service, value) in services {
            let can = |operation| value.bucket_flows().any(|(b, o, _)| b == name && o == operation);
            let validator = bucket.quarantine_until.as_deref() == Some(service.as_str());
            let at: &[&str] = &["service", service, "calls"];
            if validator && !can(BucketOperation::Verdict) {
                let help = Some(format!("add \"bucket.{name}:verdict\""));
                self.document.problem(at, format!("'{service}' ends the quarantine of '{name}' but has no flow to say so"), help);
            }
            if !validator && can(BucketOperation::Verdict) {
                self.document.problem(at, format!("only the service in quarantine_until of '{name}' may say verdicts there"), None);
            }
            if !bucket.clean_from.is_empty() && can(BucketOperation::PresignPut) {
                let message = format!("'{name}' has no quarantine, so uploads into it would be readable unseen");
                self.document.problem(at, message, Some(format!("give bucket '{name}' a quarantine_until")));
            }
            if !bucket.clean_from.is_empty() && can(BucketOperation::Write) && !bucket.clean_from.contains(service) {
                let message = format!("'{service}' writes into '{name}' but is not in its clean_from: what it writes could never be read");
                self.document.problem(at, message, None);
            }
            if bucket.clean_from.contains(service) && !can(BucketOperation::Write) {
                let message = format!("'{service}' is in clean_from but has no flow bucket.{name}:write");
                self.document.problem(&["bucket", name, "clean_from"], message, None);
            }
        }
    }
}

/// RFC 6838, section 4.2, without parameters, lower case.
fn is_media_type(text: &str) -> bool {
    let part = |p: &str| {
        (1..=127).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&-^_.+".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, sub)| part(kind) && part(sub))
}
