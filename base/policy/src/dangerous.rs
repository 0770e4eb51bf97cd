//! Slices with a part left out: for engines of a throw-away copy of a system alone, to see that an attack finds that (docs/adr/0014).
//!
//! A slice's policies are residuals, so that what asks about a job is a conjunct in each of them and no policy of its own. Nothing here is
//! part of a decision: it changes what an engine is made of, once.
//!
//! Guarantees: L13.
//! Not here:   who may have such an engine (the assembly), an engine that permits everything (`Engine::dangerous_open_to_all`).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::bundle::parse_schema;
use crate::cedar::Vocabulary;
use crate::engine::{Engine, LoadError};
use crate::slice::PolicySlice;

/// The rule that keeps everybody but its validator from an object without a verdict.
const QUARANTINE: &str = "never.unclean-read";
/// The rule that keeps everybody from a job that is made out to another.
const FOREIGN_JOB: &str = "never.foreign-job";

impl Engine {
    /// An engine of this slice that asks nothing about a job: not whose it is, nor for its input, nor for its folder.
    ///
    /// # Errors
    /// As `load`.
    pub fn dangerous_without_jobs(mut slice: PolicySlice, epoch: u64) -> Result<Self, LoadError> {
        forget(&mut slice, FOREIGN_JOB);
        for (_, policy) in slice.cells.iter_mut().flat_map(|cell| &mut cell.policies) {
            let conditions = policy.get_mut("conditions").and_then(Value::as_array_mut);
            for body in conditions.into_iter().flatten().filter_map(|condition| condition.get_mut("body")) {
                about_no_job(body);
            }
        }
        unchecked(&slice, epoch)
    }

    /// An engine of this slice that asks for nobody's verdict on an object.
    ///
    /// # Errors
    /// As `load`.
    pub fn dangerous_without_quarantine(mut slice: PolicySlice, epoch: u64) -> Result<Self, LoadError> {
        forget(&mut slice, QUARANTINE);
        unchecked(&slice, epoch)
    }
}

/// Without the examples: what they must be refused is what is left out.
fn unchecked(slice: &PolicySlice, epoch: u64) -> Result<Engine, LoadError> {
    let schema = parse_schema(&slice.schema)?;
    let vocabulary = Arc::new(Vocabulary::new(&slice.entities, &schema)?);
    Engine::unchecked(slice, &schema, vocabulary, epoch)
}

fn forget(slice: &mut PolicySlice, rule: &str) {
    for cell in &mut slice.cells {
        cell.policies.retain(|(id, _)| id != rule);
    }
}

/// Puts `true` in the place of each conjunct that asks about the job.
fn about_no_job(expression: &mut Value) {
    if let Some(both) = expression.get_mut("&&").and_then(Value::as_object_mut) {
        both.values_mut().for_each(about_no_job);
    } else if asks_about_job(expression) {
        *expression = json!({ "Value": true });
    }
}

fn asks_about_job(expression: &Value) -> bool {
    match expression {
        Value::Object(fields) => {
            let is_job = fields.get("attr").is_some_and(|attr| attr == "job");
            (is_job && fields.get("left").is_some_and(|left| *left == json!({ "Var": "context" }))) || fields.values().any(asks_about_job)
        }
        Value::Array(all) => all.iter().any(asks_about_job),
        _ => false,
    }
}
