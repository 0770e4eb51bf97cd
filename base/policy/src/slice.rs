//! Slices: what one workload needs of the bundle, partially evaluated.
//!
//! For each (caller, action, resource) that some permit could apply to there is a cell with the residuals of typed partial evaluation
//! (Cedar `tpe`): groups are gone, facts are folded in, only what depends on the request is left. What is constant false is dropped;
//! a constant-true forbid is kept. Where no cell is, nothing permits, and the answer is known without Cedar. Cedar itself has no
//! index, so cells are also what keeps a decision fast (POLICY, sections 5 and 7, trap 4).

use std::collections::{BTreeSet, HashSet};

use cedar_policy::{
    ActionConstraint, Effect, EntityId, EntityTypeName, PartialEntities, PartialEntityUid, PartialRequest, Policy, PolicyId,
    PrincipalConstraint, ResourceConstraint,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::{Digest, Workload};

use crate::bundle::{Bundle, BundleError, Rule};
use crate::cedar::{CedarError, Vocabulary, explained};
use crate::example::Example;
use crate::question::Action;

/// What one workload decides with. Travels inside the signed view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySlice {
    /// Whose.
    pub subject: String,
    /// Digest of the manifest that it comes from.
    pub manifest: Digest,
    /// Cedar schema.
    pub schema: String,
    /// Purposes that there are.
    pub purposes: BTreeSet<String>,
    /// The manifest's entities, in Cedar's JSON.
    pub entities: Value,
    /// The manifest's facts as policies; none may fire on the entities.
    pub world: Vec<Rule>,
    /// Residual policies.
    pub cells: Vec<Cell>,
    /// Examples of the flows within the cells.
    pub examples: Vec<Example>,
}

/// The residuals for one caller and action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Who acts.
    pub caller: String,
    /// What it does.
    pub action: Action,
    /// To which resources; for objects the buckets.
    pub resources: Vec<String>,
    /// Policies by id, in Cedar's JSON.
    pub policies: Vec<(String, Value)>,
}

/// The slice of `workload`.
///
/// A service's guard gets what the service does and what others do to its routes; `edge` what comes from the internet; `objects`,
/// `queue`, `secrets`, `console`, `evidence` and `control` what is done with what they keep.
///
/// # Errors
/// `Internal` when a policy cannot be partially evaluated or written down.
pub fn slice_for(workload: &Workload, bundle: &Bundle) -> Result<PolicySlice, BundleError> {
    let (vocabulary, store) = (&bundle.vocabulary, &bundle.partial);
    let mut cells = Vec::new();
    for caller in vocabulary.declared_ids("Workload") {
        for action in Action::ALL.iter().copied() {
            let kind = action.resource_type();
            let indexes = vocabulary.declared_ids(if kind == "Object" { "Bucket" } else { kind });
            let wanted: Vec<String> = indexes.into_iter().filter(|index| concerns(workload, &caller, action, index)).collect();
            if kind == "Object" && !wanted.is_empty() {
                cells.extend(cell(bundle, vocabulary, store, &caller, action, None, wanted)?);
                continue;
            }
            for index in wanted {
                cells.extend(cell(bundle, vocabulary, store, &caller, action, Some(&index), vec![index.clone()])?);
            }
        }
    }
    let within = |e: &&Example| {
        let index = e.resource.index();
        cells.iter().any(|c| c.caller == e.caller && c.action == e.action && c.resources.contains(&index))
    };
    Ok(PolicySlice {
        subject: workload.name().to_owned(),
        manifest: bundle.manifest,
        schema: bundle.schema.clone(),
        purposes: bundle.purposes.clone(),
        entities: bundle.entities.clone(),
        world: bundle.world.clone(),
        examples: bundle.examples.iter().filter(within).cloned().collect(),
        cells,
    })
}

/// Whether `workload` ever decides this.
fn concerns(workload: &Workload, caller: &str, action: Action, index: &str) -> bool {
    use Action as A;
    match workload {
        Workload::Service(name) => caller == name || (action == A::Call && index.split(':').next() == Some(name)),
        Workload::Role(role) => match role.as_str() {
            "edge" => action == A::Enter || caller == "edge",
            "objects" => matches!(action.resource_type(), "Object" | "Bucket") || caller == "objects",
            "queue" => matches!(action, A::Publish | A::Consume),
            "secrets" => matches!(action, A::SecretRead | A::SecretSign),
            "console" | "evidence" | "control" => action.resource_type() == "Plane",
            _ => false,
        },
    }
}

fn cell(
    bundle: &Bundle,
    vocabulary: &Vocabulary,
    store: &PartialEntities,
    caller: &str,
    action: Action,
    resource: Option<&str>,
    resources: Vec<String>,
) -> Result<Option<Cell>, BundleError> {
    let could = |p: &Policy| p.effect() == Effect::Permit && may_apply(p, caller, action, resource);
    if !bundle.parsed.policies().any(could) {
        return Ok(None);
    }
    let kind: EntityTypeName = action.resource_type().parse().map_err(CedarError::of)?;
    let request = PartialRequest::new(
        PartialEntityUid::from_concrete(vocabulary.uid("Workload", caller)?),
        vocabulary.action(action)?,
        PartialEntityUid::new(kind, resource.map(EntityId::new)),
        None,
        &bundle.parsed_schema,
    )
    .map_err(CedarError::of)?;
    let response = bundle.parsed.tpe(&request, store, &bundle.parsed_schema).map_err(CedarError::of)?;
    if let Some(id) = response.error_permits().chain(response.error_forbids()).next() {
        return Err(BundleError::Invalid { id: id.to_string(), why: format!("it fails for every {action} by {caller}") });
    }
    let never: HashSet<PolicyId> = response.false_permits().chain(response.false_forbids()).cloned().collect();
    let mut policies: Vec<(String, Value)> = Vec::new();
    let mut permits = false;
    for policy in response.policies().filter(|p| !never.contains(p.id())) {
        permits |= policy.effect() == Effect::Permit;
        policies.push((policy.id().to_string(), policy.to_json().map_err(|e| CedarError(explained(&e)))?));
    }
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(permits.then(|| Cell { caller: caller.to_owned(), action, resources, policies }))
}

/// Whether a policy's scope could fit; `resource` is unknown for objects.
pub(crate) fn may_apply(policy: &Policy, caller: &str, action: Action, resource: Option<&str>) -> bool {
    let is = |uid: &cedar_policy::EntityUid, kind: &str, id: &str| uid.id().unescaped() == id && uid.type_name().to_string() == kind;
    let names = |uid: &cedar_policy::EntityUid| {
        let id = uid.id().unescaped();
        id == action.as_str() || action.groups().contains(&id)
    };
    let by = match policy.principal_constraint() {
        PrincipalConstraint::Eq(uid) => is(&uid, "Workload", caller),
        _ => true,
    };
    let does = match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => names(&uid),
        ActionConstraint::In(uids) => uids.iter().any(names),
    };
    let to = match policy.resource_constraint() {
        ResourceConstraint::Eq(uid) => resource.is_none_or(|id| is(&uid, action.resource_type(), id)),
        ResourceConstraint::Is(kind) => kind.to_string() == action.resource_type(),
        _ => true,
    };
    by && does && to
}
