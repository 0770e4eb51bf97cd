//! For tools: SARIF, so that a finding is shown beside the line of the manifest that it is about.
//!
//! Spec: Static Analysis Results Interchange Format (SARIF) 2.1.0, sections 3.13 (log), 3.14 (run), 3.27 (result), 3.28 (location).

use serde_json::{Value, json};

use crate::compare::{Change, Comparison};
use crate::report::Profile;

/// What each rule means.
const RULES: &[(&str, &str)] = &[
    ("reached-not-predicted", "An attack reached something that the manifest does not give."),
    ("predicted-not-reached", "The manifest gives something that an attack did not reach."),
    ("widened", "An attacker reaches more than with the revision before."),
    ("narrowed", "An attacker reaches less than with the revision before."),
];

/// What differs, as SARIF; `file` is the manifest's path and `text` what is in it.
#[must_use]
pub fn sarif(comparison: &Comparison, file: &str, text: &str) -> Value {
    let rules: Vec<Value> = RULES.iter().map(|(id, text)| json!({ "id": id, "shortDescription": { "text": text } })).collect();
    let results: Vec<Value> = comparison
        .differences
        .iter()
        .map(|difference| {
            let rule = difference.rule(comparison.between);
            // What is gone from a revision is good to know and no failure.
            let level = if rule == "narrowed" {
                "note"
            } else if difference.change == Change::Added {
                "error"
            } else {
                "warning"
            };
            json!({
                "ruleId": rule,
                "level": level,
                "message": { "text": difference.sentence(comparison.between) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": file },
                    "region": { "startLine": line(text, &difference.profile) },
                } }],
                "properties": { "attacker": difference.profile, "by": difference.by },
            })
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "palisade breach", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": results,
        }],
    })
}

/// The line at which the manifest declares what was taken over, from 1.
fn line(text: &str, profile: &Profile) -> usize {
    let heading = match profile {
        Profile::Service(name) => format!("[service.{name}]"),
        _ => "[edge]".to_owned(),
    };
    text.lines().position(|line| line.trim_start().starts_with(&heading)).map_or(1, |at| at.saturating_add(1))
}
