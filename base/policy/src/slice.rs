//! Slices: what one workload needs of the bundle, partially evaluated.
//!
//! For each (caller, action, resource) that some permit could apply to there is a cell with the residuals of typed partial evaluation
//! (Cedar `tpe`): groups are gone, facts are folded in, only what depends on the request is left. What is constant false is dropped;
//! a constant-true forbid is kept. Where no cell is, nothing permits, and the answer is known without Cedar. Cedar itself has no
//! index, so cells are also what keeps a decision fast (POLICY, sections 5 and 7, trap 4).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use cedar_policy::{
    ActionConstraint, Effect, EntityId, EntityTypeName, PartialEntityUid, PartialRequest, Policy, PolicyId, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::{Digest, Workload};

use crate::bundle::{Bundle, BundleError, Rule};
use crate::cedar::{CedarError, explained};
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

impl PolicySlice {
    /// Whether this decides as `other` does, whatever manifest the two come from.
    #[must_use]
    pub fn decides_as(&self, other: &Self) -> bool {
        let Self { subject, manifest: _, schema, purposes, entities, world, cells, examples } = self;
        (subject, schema, purposes, entities, world, cells, examples)
            == (&other.subject, &other.schema, &other.purposes, &other.entities, &other.world, &other.cells, &other.examples)
    }
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

/// The slice of `workload`; when several are wanted, a `Slicer` evaluates what they share once.
///
/// # Errors
/// `Internal` when a policy cannot be partially evaluated or written down.
pub fn slice_for(workload: &Workload, bundle: &Bundle) -> Result<PolicySlice, BundleError> {
    Slicer::new(bundle).slice(workload)
}

/// What a cell is for; without a resource: objects, of any bucket.
type Key = (String, Action, Option<String>);

/// Cuts the slices of a bundle. A flow between two workloads is a cell of both: it is evaluated once.
#[derive(Debug)]
pub struct Slicer<'b> {
    bundle: &'b Bundle,
    /// Policies whose scope names this caller, and those that name none.
    by_caller: HashMap<String, Vec<&'b Policy>>,
    by_anybody: Vec<&'b Policy>,
    /// Every key that some permit could apply to, in order.
    keys: BTreeSet<Key>,
    residuals: HashMap<Key, Option<Residuals>>,
}

/// Policies by id, in Cedar's JSON.
type Residuals = Vec<(String, Value)>;

impl<'b> Slicer<'b> {
    /// Looks at the scope of every policy.
    #[must_use]
    pub fn new(bundle: &'b Bundle) -> Self {
        let mut by_caller: HashMap<String, Vec<&Policy>> = HashMap::new();
        let mut by_anybody = Vec::new();
        for policy in bundle.parsed.policies() {
            match policy.principal_constraint() {
                PrincipalConstraint::Eq(uid) => by_caller.entry(uid.id().unescaped().to_owned()).or_default().push(policy),
                _ => by_anybody.push(policy),
            }
        }
        let mut slicer = Self { bundle, by_caller, by_anybody, keys: BTreeSet::new(), residuals: HashMap::new() };
        slicer.keys = slicer.keys();
        slicer
    }

    fn policies(&self, caller: &str) -> impl Iterator<Item = &'b Policy> {
        self.by_caller.get(caller).into_iter().flatten().chain(&self.by_anybody).copied()
    }

    fn keys(&self) -> BTreeSet<Key> {
        let vocabulary = &self.bundle.vocabulary;
        let kinds: BTreeSet<&str> = Action::ALL.iter().map(|action| action.resource_type()).collect();
        let ids: HashMap<&str, Vec<String>> = kinds.into_iter().map(|kind| (kind, vocabulary.declared_ids(kind))).collect();
        let mut keys = BTreeSet::new();
        for caller in vocabulary.declared_ids("Workload") {
            for permit in self.policies(&caller).filter(|p| p.effect() == Effect::Permit) {
                for action in Action::ALL.iter().copied().filter(|action| may_apply(permit, &caller, *action, None)) {
                    let kind = action.resource_type();
                    let mut add = |resource: Option<&str>| {
                        keys.insert((caller.clone(), action, resource.map(str::to_owned)));
                    };
                    match permit.resource_constraint() {
                        _ if kind == "Object" => add(None),
                        // An action of several types: the scope's resource may be of another one.
                        ResourceConstraint::Eq(uid) if uid.type_name().to_string() == kind => add(Some(uid.id().unescaped())),
                        ResourceConstraint::Eq(_) => {}
                        _ => ids.get(kind).into_iter().flatten().for_each(|id| add(Some(id))),
                    }
                }
            }
        }
        keys
    }

    /// The slice of `workload`.
    ///
    /// A service's guard gets what the service does and what others do to its routes; `edge` what comes from the internet; `objects`,
    /// `queue`, `secrets`, `console`, `evidence` and `control` what is done with what they keep; a decision point whatever is done on the
    /// routes that its enforcement point offers. Of entities and facts a guard gets
    /// those that its cells can meet: what changes elsewhere does not change its slice.
    ///
    /// # Errors
    /// `Internal` when a policy cannot be partially evaluated or written down.
    pub fn slice(&mut self, workload: &Workload) -> Result<PolicySlice, BundleError> {
        let bundle = self.bundle;
        let buckets = bundle.vocabulary.declared_ids("Bucket");
        let mut cells = Vec::new();
        let offered: BTreeSet<&str> = match workload {
            Workload::Pdp(name) => {
                self.keys.iter().filter(|k| k.0 == *name && k.1 == Action::Call).filter_map(|k| k.2.as_deref()).collect()
            }
            _ => BTreeSet::new(),
        };
        let concerned = |(caller, action, resource): &&Key| match resource {
            Some(index) if matches!(workload, Workload::Pdp(_)) => {
                matches!(action, Action::Enter | Action::Call) && caller != "edge" && offered.contains(index.as_str())
            }
            Some(index) => concerns(workload, caller, *action, index),
            // Which bucket makes no difference to whom it concerns.
            None => buckets.first().is_some_and(|any| concerns(workload, caller, *action, any)),
        };
        let keys: Vec<Key> = self.keys.iter().filter(concerned).cloned().collect();
        for key in keys {
            let Some(policies) = self.residuals(&key)?.clone() else { continue };
            let (caller, action, resource) = key;
            cells.push(Cell { caller, action, resources: resource.map_or_else(|| buckets.clone(), |one| vec![one]), policies });
        }
        let within = |e: &&Example| {
            let index = e.resource.index();
            cells.iter().any(|c| c.caller == e.caller && c.action == e.action && c.resources.contains(&index))
        };
        let examples = bundle.examples.iter().filter(within).cloned().collect();
        let (entities, world) = match workload {
            Workload::Service(name) | Workload::Pdp(name) => needed(bundle, name, &cells),
            Workload::Role(_) | Workload::Pep(_) => (bundle.entities.clone(), bundle.world.clone()),
        };
        Ok(PolicySlice {
            subject: workload.name().to_owned(),
            manifest: bundle.manifest,
            schema: bundle.schema.clone(),
            purposes: bundle.purposes.clone(),
            entities,
            world,
            examples,
            cells,
        })
    }

    /// What partial evaluation leaves for a key; nothing when no permit is left.
    fn residuals(&mut self, key: &Key) -> Result<&Option<Residuals>, BundleError> {
        if !self.residuals.contains_key(key) {
            let (caller, action, resource) = key;
            let fits = |p: &&Policy| may_apply(p, caller, *action, resource.as_deref());
            let set = PolicySet::from_policies(self.policies(caller).filter(fits).cloned()).map_err(CedarError::of)?;
            let left = evaluated(self.bundle, &set, caller, *action, resource.as_deref())?;
            self.residuals.insert(key.clone(), left);
        }
        self.residuals.get(key).ok_or_else(|| CedarError("a cell was not kept".to_owned()).into())
    }
}

/// Of routes, services and what is outside, what a guard's cells can meet, with their facts; of the rest everything.
fn needed(bundle: &Bundle, own: &str, cells: &[Cell]) -> (Value, Vec<Rule>) {
    let mut text = String::new();
    for cell in cells {
        let _ = write!(text, "\"{}\" {}", cell.caller, serde_json::Value::from_iter(cell.policies.iter().map(|(_, json)| json.clone())));
        cell.resources.iter().for_each(|resource| text.extend(["\"", resource.as_str(), "\""]));
    }
    let met = |id: &str| text.contains(&format!("\"{id}\""));
    let owner = |route: &str| route.split(':').next().unwrap_or_default().to_owned();
    let routes: BTreeSet<String> =
        bundle.vocabulary.declared_ids("Route").into_iter().filter(|route| owner(route) == own || met(route)).collect();
    let owners: BTreeSet<String> = routes.iter().map(|route| owner(route)).collect();
    let kept = |kind: &str, id: &str| match kind {
        "Route" => routes.contains(id),
        "Outside" => met(id),
        "Workload" => id == own || manifest::ROLE_NAMES.contains(&id) || owners.contains(id) || met(id),
        _ => true,
    };
    let fields = |entity: &Value| -> Option<(String, String)> {
        let uid = entity.get("uid")?;
        Some((uid.get("type")?.as_str()?.to_owned(), uid.get("id")?.as_str()?.to_owned()))
    };
    let all = bundle.entities.as_array().map_or(&[][..], Vec::as_slice);
    let entities = all.iter().filter(|one| fields(one).is_some_and(|(kind, id)| kept(&kind, &id))).cloned().collect();
    let fact = |rule: &&Rule| {
        let about = rule.id.strip_prefix("world.").and_then(|rest| rest.split_once('.'));
        about.is_some_and(|(kind, id)| match kind {
            "route" => kept("Route", id),
            "outside" => kept("Outside", id),
            "workload" => kept("Workload", id),
            _ => true,
        })
    };
    (Value::Array(entities), bundle.world.iter().filter(fact).cloned().collect())
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
        // A decision point's cells are those of its routes; the proxy itself decides nothing.
        Workload::Pep(_) | Workload::Pdp(_) => false,
    }
}

fn evaluated(
    bundle: &Bundle,
    set: &PolicySet,
    caller: &str,
    action: Action,
    resource: Option<&str>,
) -> Result<Option<Residuals>, BundleError> {
    let kind: EntityTypeName = action.resource_type().parse().map_err(CedarError::of)?;
    let request = PartialRequest::new(
        PartialEntityUid::from_concrete(bundle.vocabulary.uid("Workload", caller)?),
        bundle.vocabulary.action(action)?,
        PartialEntityUid::new(kind, resource.map(EntityId::new)),
        None,
        &bundle.parsed_schema,
    )
    .map_err(CedarError::of)?;
    let response = set.tpe(&request, &bundle.partial, &bundle.parsed_schema).map_err(CedarError::of)?;
    if let Some(id) = response.error_permits().chain(response.error_forbids()).next() {
        return Err(BundleError::Invalid { id: id.to_string(), why: format!("it fails for every {action} by {caller}") });
    }
    let never: HashSet<PolicyId> = response.false_permits().chain(response.false_forbids()).cloned().collect();
    let mut policies: Residuals = Vec::new();
    let mut permits = false;
    for policy in response.policies().filter(|p| !never.contains(p.id())) {
        permits |= policy.effect() == Effect::Permit;
        policies.push((policy.id().to_string(), policy.to_json().map_err(|e| CedarError(explained(&e)))?));
    }
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(permits.then_some(policies))
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
