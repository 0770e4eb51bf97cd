//! The bundle: everything that a manifest means for decisions, checked before anybody gets a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::{PartialEntities, PolicySet, Schema, ValidationMode, Validator};
use manifest::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::Digest;

use crate::cedar::{CedarError, Vocabulary, explained, policy};
use crate::engine::Engine;
use crate::example::Example;
use crate::{generate, schema, world};

/// One policy as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// Cedar text.
    pub text: String,
}

/// A manifest's schema, policies, facts and examples. INVARIANT: strictly valid, every flow usable.
#[derive(Debug)]
pub struct Bundle {
    /// Cedar schema.
    pub schema: String,
    /// Policies in the order of their ids: generated and written by hand.
    pub rules: Vec<Rule>,
    /// The manifest's facts as policies.
    pub world: Vec<Rule>,
    /// The manifest's entities, in Cedar's JSON.
    pub entities: Value,
    /// A request of every flow.
    pub examples: Vec<Example>,
    /// The purposes that there are.
    pub purposes: BTreeSet<String>,
    /// The manifest's digest.
    pub manifest: Digest,
    pub(crate) parsed_schema: Schema,
    pub(crate) parsed: PolicySet,
    pub(crate) vocabulary: Arc<Vocabulary>,
    /// The vocabulary's store, for partial evaluation.
    pub(crate) partial: PartialEntities,
}

/// Why a manifest and its policies cannot be put into force.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A policy file is not Cedar, or breaks a rule for policies written by hand.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Strict validation refused a policy.
    #[error("policy {id}: {why}")]
    Invalid {
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// A declared flow can no longer be used: a policy written by hand forbids its every use, or fails on it.
    #[error("the flow {flow} can no longer be used: its example is answered {answer}; check the policies written by hand")]
    FlowDead {
        /// Which.
        flow: String,
        /// What the example was answered.
        answer: String,
    },
    /// What a flow permits is permitted to everybody.
    #[error("what the flow {flow} permits is permitted to every workload; check the policies written by hand")]
    FlowOpen {
        /// Which.
        flow: String,
    },
    /// The generated parts do not fit together: our defect.
    #[error("internal: {0}")]
    Internal(#[from] CedarError),
}

impl Bundle {
    /// Generates, adds `policies` (text by file name) and checks all of it.
    ///
    /// # Errors
    /// `File` for a policy by hand that does not parse, has an id of the generated ones, names something undeclared, or permits
    /// without `@reason`; `Invalid` when strict validation refuses one; `FlowDead` when a declared flow cannot be used any more.
    pub fn build(manifest: &Manifest, policies: &BTreeMap<String, String>) -> Result<Self, BundleError> {
        let schema = schema::text(manifest);
        let parsed_schema = parse_schema(&schema)?;
        let entities = world::entities(manifest);
        let vocabulary = Arc::new(Vocabulary::new(&entities, &parsed_schema)?);
        let partial = PartialEntities::from_concrete(vocabulary.store.clone(), &parsed_schema).map_err(CedarError::of)?;
        let generated = generate::generate(manifest);
        let mut rules = generated.rules;
        rules.extend(by_hand(policies, &vocabulary)?);
        // Sorted by id: the same system gives the same bytes.
        rules.sort();
        let world = world::facts(manifest);
        let parsed = strictly_valid(&rules, &parsed_schema)?;
        strictly_valid(&world, &parsed_schema)?;
        let (purposes, digest) = (manifest.purposes.clone(), manifest.digest());
        let mut bundle = Self {
            schema,
            rules,
            world,
            entities,
            examples: generated.examples,
            purposes,
            manifest: digest,
            parsed_schema,
            parsed,
            vocabulary,
            partial,
        };
        bundle.prove_alive()?;
        Ok(bundle)
    }

    /// Every flow's example is allowed, by that flow; and there is a workload to which it is denied.
    fn prove_alive(&mut self) -> Result<(), BundleError> {
        let engine = Engine::whole(self, 0)?;
        let everybody = engine.workloads();
        for example in &mut self.examples {
            let answer = engine.decide(&example.question());
            let by_it = matches!(&answer.decision, trust::Decision::Allow { policies, .. } if policies.contains(&example.flow));
            if !by_it {
                return Err(BundleError::FlowDead { flow: example.flow.clone(), answer: format!("{:?}", answer.decision) });
            }
            let denied = |other: &&String| {
                let question = crate::Question { caller: other, ..example.question() };
                !engine.decide(&question).decision.is_allow()
            };
            match everybody.iter().find(denied) {
                Some(other) => example.never = other.clone(),
                None => return Err(BundleError::FlowOpen { flow: example.flow.clone() }),
            }
        }
        Ok(())
    }
}

pub(crate) fn parse_schema(text: &str) -> Result<Schema, CedarError> {
    let (schema, _warnings) = Schema::from_cedarschema_str(text).map_err(|e| CedarError(explained(&e)))?;
    Ok(schema)
}

/// Parses rules and validates them strictly (E1).
pub(crate) fn strictly_valid(rules: &[Rule], schema: &Schema) -> Result<PolicySet, BundleError> {
    let mut set = PolicySet::new();
    for rule in rules {
        let invalid = |why: String| BundleError::Invalid { id: rule.id.clone(), why };
        set.add(policy(&rule.id, &rule.text).map_err(|e| invalid(e.0))?).map_err(|e| invalid(explained(&e)))?;
    }
    validate(&set, schema)?;
    Ok(set)
}

/// Strict validation of a set.
pub(crate) fn validate(set: &PolicySet, schema: &Schema) -> Result<(), BundleError> {
    let result = Validator::new(schema.clone()).validate(set, ValidationMode::Strict);
    match result.validation_errors().next() {
        None => Ok(()),
        Some(error) => Err(BundleError::Invalid { id: error.policy_id().to_string(), why: explained(error) }),
    }
}

/// Policies written by hand: they may narrow; whoever widens says why.
fn by_hand(files: &BTreeMap<String, String>, vocabulary: &Vocabulary) -> Result<Vec<Rule>, BundleError> {
    let mut rules = Vec::new();
    for (file, text) in files {
        let wrong = |why: String| BundleError::File { file: file.clone(), why };
        let set: PolicySet = text.parse().map_err(|e| wrong(explained(&e)))?;
        if set.templates().next().is_some() {
            return Err(wrong("templates are not for files; write a policy".into()));
        }
        let stem = file.strip_suffix(".cedar").unwrap_or(file);
        let mut policies: Vec<_> = set.policies().collect();
        policies.sort_by_key(|p| p.id().to_string());
        for (i, found) in policies.into_iter().enumerate() {
            let id = found.annotation("id").map_or_else(|| format!("{stem}.{i}"), str::to_owned);
            if ["flow.", "never.", "world."].iter().any(|p| id.starts_with(p)) || rules.iter().any(|r: &Rule| r.id == id) {
                return Err(wrong(format!("the id '{id}' is taken; ids of flow., never. and world. are generated")));
            }
            let permits = found.effect() == cedar_policy::Effect::Permit;
            if permits && found.annotation("reason").is_none_or(|r| r.trim().len() < 10) {
                return Err(wrong(format!("the policy '{id}' permits more than the manifest: say why with @reason(\"…\")")));
            }
            if ["needs", "scope", "bucket"].iter().any(|a| found.annotation(a).is_some()) {
                return Err(wrong(format!("the policy '{id}' has an annotation that only generated policies have")));
            }
            for literal in found.entity_literals() {
                let (kind, name) = (literal.type_name().to_string(), literal.id().unescaped().to_owned());
                if !vocabulary.declares(&kind, &name) {
                    return Err(wrong(format!("the policy '{id}' names {kind}::\"{name}\", which the manifest does not declare")));
                }
            }
            let text = found.to_cedar().ok_or_else(|| wrong(format!("the policy '{id}' cannot be written as text")))?;
            rules.push(Rule { id, text });
        }
    }
    Ok(rules)
}
