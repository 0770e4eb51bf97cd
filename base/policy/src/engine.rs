//! The engine: the one function that every enforcement point asks.
//!
//! A slice is believed only after it has passed: strict validation, the manifest's facts on its own entities, a probe that action
//! groups work in its stores, and every flow's example with its near misses. Then `decide`: undeclared names are refused before
//! Cedar is asked; any evaluation error is a denial (POLICY, trap 2); what is left is Cedar's answer, with one exact reason.
//!
//! A policy with `@shadow` takes no part in the decision. Where one could apply the question is asked once more with it, and both
//! answers are recorded (A16, E12, D12); to put it into force, take the word away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{Authorizer, Decision as Cedar, Effect, Policy, PolicyId, PolicySet, Schema};
use trust::{Authority, Decision, DenyReason};

use crate::bundle::{Bundle, BundleError, parse_schema, strictly_valid, validate};
use crate::cedar::{CedarError, Vocabulary, explained, scoped};
use crate::loader::Loader;
use crate::question::{Action, ObjectFacts, Question, Resource};
use crate::slice::{Cell, PolicySlice, may_apply};

/// Annotation of a policy that is tried out: it is evaluated, recorded, and has no effect.
const SHADOW: &str = "shadow";

/// The policy of an engine that permits everything.
pub const DANGEROUS_OPEN: &str = "dangerous-open-to-all";

/// Decides. Cheap to share, without interior state.
#[derive(Debug)]
pub struct Engine {
    vocabulary: Arc<Vocabulary>,
    authorizer: Authorizer,
    purposes: Arc<BTreeSet<String>>,
    rules: Arc<Rules>,
    epoch: u64,
}

/// An answer and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The decision, with determining policies and epoch.
    pub decision: Decision,
    /// What failed to evaluate, for the log; never for the caller.
    pub errors: Vec<String>,
}

/// Why a slice was not believed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Schema or entities are not well-formed, or do not fit each other.
    #[error("the slice is not well-formed: {0}")]
    Malformed(#[from] CedarError),
    /// A policy is not strictly valid.
    #[error("a policy of the slice is refused: {0}")]
    Invalid(#[from] BundleError),
    /// The entities contradict the manifest's facts.
    #[error("the slice's entities contradict the manifest's fact {0}")]
    FactBroken(String),
    /// Action groups do not work in the engine's own stores.
    #[error("self-test: the forbid over a group of actions does not hold for {0}")]
    GroupsBroken(Action),
    /// An example is not answered as it must be.
    #[error("self-test: the example of {flow} is answered {answer}")]
    ExampleBroken {
        /// Whose example.
        flow: String,
        /// What it was answered.
        answer: String,
    },
}

#[derive(Debug)]
enum Rules {
    /// Cells by caller, action, and resource or bucket.
    Sliced(HashMap<String, HashMap<Action, HashMap<String, Arc<Prepared>>>>),
    /// Every policy, for every question.
    Whole(Box<Prepared>),
}

/// Policies, ready.
#[derive(Debug)]
struct Prepared {
    set: PolicySet,
    permits: Vec<Need>,
    /// What a forbid means to the caller.
    denies: BTreeMap<PolicyId, DenyReason>,
    reads_roles: bool,
    /// All of them with those in shadow, where there are such.
    shadow: Option<Box<Prepared>>,
}

/// What a permit needs, from its annotations, to explain why it did not apply.
#[derive(Debug)]
struct Need {
    policy: Policy,
    needs: Vec<String>,
    scope: Option<String>,
    /// The only bucket that it is about.
    bucket: Option<String>,
}

impl Engine {
    /// Checks a slice and takes it. When several slices of one bundle are loaded, a `Loader` checks once what they share.
    ///
    /// # Errors
    /// See `LoadError`: a slice that fails in any point is not used at all.
    pub fn load(slice: &PolicySlice, epoch: u64) -> Result<Self, LoadError> {
        Loader::default().load(slice, epoch)
    }

    /// An engine that permits whatever is declared, over a slice's vocabulary. For a throw-away copy of a system alone, to see that an attack
    /// finds that: its answers name `DANGEROUS_OPEN`, which is no policy of any manifest.
    ///
    /// # Errors
    /// The slice's schema or entities are not well-formed.
    pub fn dangerous_open_to_all(slice: &PolicySlice, epoch: u64) -> Result<Self, LoadError> {
        let schema = parse_schema(&slice.schema)?;
        let vocabulary = Arc::new(Vocabulary::new(&slice.entities, &schema)?);
        let open = crate::cedar::policy(DANGEROUS_OPEN, "permit(principal, action, resource);")?;
        let set = PolicySet::from_policies([open]).map_err(CedarError::of)?;
        let rules = Arc::new(Rules::Whole(Box::new(prepared(set)?)));
        Ok(Self { vocabulary, authorizer: Authorizer::new(), purposes: Arc::new(slice.purposes.clone()), rules, epoch })
    }

    /// The slice's cells over a vocabulary that fits it; nothing of it is checked yet but that they are strictly valid.
    pub(crate) fn unchecked(slice: &PolicySlice, schema: &Schema, vocabulary: Arc<Vocabulary>, epoch: u64) -> Result<Self, LoadError> {
        let mut index: HashMap<String, HashMap<Action, HashMap<String, Arc<Prepared>>>> = HashMap::new();
        for cell in &slice.cells {
            let prepared = Arc::new(prepared_cell(cell, schema)?);
            let by_action = index.entry(cell.caller.clone()).or_default().entry(cell.action).or_default();
            for resource in &cell.resources {
                by_action.insert(resource.clone(), Arc::clone(&prepared));
            }
        }
        let (purposes, rules) = (Arc::new(slice.purposes.clone()), Arc::new(Rules::Sliced(index)));
        Ok(Self { vocabulary, authorizer: Authorizer::new(), purposes, rules, epoch })
    }

    /// Every example of the slice's flows is allowed, and its near misses are not.
    pub(crate) fn check_examples(&self, slice: &PolicySlice) -> Result<(), LoadError> {
        for example in &slice.examples {
            let broken = |answer: &Answer| LoadError::ExampleBroken { flow: example.flow.clone(), answer: format!("{answer:?}") };
            let answer = self.decide(&example.question());
            if !answer.decision.is_allow() {
                return Err(broken(&answer));
            }
            for miss in example.near_misses() {
                let answer = self.decide(&miss);
                if answer.decision.is_allow() || !answer.errors.is_empty() {
                    return Err(broken(&answer));
                }
            }
        }
        Ok(())
    }

    /// An engine over the whole bundle, unsliced: what slices are compared with, and what answers `why`.
    ///
    /// # Errors
    /// When the bundle's parts do not fit together.
    pub fn whole(bundle: &Bundle, epoch: u64) -> Result<Self, CedarError> {
        let vocabulary = Arc::clone(&bundle.vocabulary);
        let rules = Arc::new(Rules::Whole(Box::new(prepared(bundle.parsed.clone())?)));
        Ok(Self { vocabulary, authorizer: Authorizer::new(), purposes: Arc::new(bundle.purposes.clone()), rules, epoch })
    }

    /// The same rules under another epoch, for a view that brings the slice that is loaded already. Nothing is checked again: a slice
    /// that has passed does not change.
    #[must_use]
    pub fn under(&self, epoch: u64) -> Self {
        let (vocabulary, purposes, rules) = (Arc::clone(&self.vocabulary), Arc::clone(&self.purposes), Arc::clone(&self.rules));
        Self { vocabulary, authorizer: Authorizer::new(), purposes, rules, epoch }
    }

    /// The epoch of the view that this engine decides under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Every declared workload.
    #[must_use]
    pub fn workloads(&self) -> Vec<String> {
        self.vocabulary.declared_ids("Workload")
    }

    /// Answers. The same question gets the same answer wherever it is asked (E4).
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Answer {
        match self.prepared_for(question) {
            Err(reason) => self.denied(reason, Vec::new(), Vec::new()),
            Ok(rules) => {
                let Answer { decision, errors } = self.under_rules(question, rules);
                let decision = match &rules.shadow {
                    Some(shadow) => decision.beside(self.under_rules(question, shadow).decision),
                    None => decision,
                };
                Answer { decision, errors }
            }
        }
    }

    fn under_rules(&self, question: &Question<'_>, rules: &Prepared) -> Answer {
        match self.ask(question, rules) {
            Ok(response) => self.answer(question, rules, &response),
            Err(error) => self.denied(DenyReason::PolicyFailed, Vec::new(), vec![error.0]),
        }
    }

    /// Refuses what is not declared; finds the policies that could apply.
    fn prepared_for(&self, question: &Question<'_>) -> Result<&Prepared, DenyReason> {
        let Question { caller, action, resource, authority } = question;
        if !self.vocabulary.declares("Workload", caller) {
            return Err(DenyReason::PeerUndeclared);
        }
        let index = resource.index();
        let kind = if let Resource::Object(_) = resource { "Bucket" } else { resource.type_name() };
        if action.resource_type() != resource.type_name() || !self.vocabulary.declares(kind, &index) {
            return Err(DenyReason::PolicyDenied);
        }
        if authority.is_some_and(|a| !self.purposes.contains(&a.purpose)) {
            return Err(DenyReason::PolicyDenied);
        }
        match &*self.rules {
            Rules::Whole(rules) => Ok(rules),
            Rules::Sliced(cells) => {
                let cell = cells.get(*caller).and_then(|c| c.get(action)).and_then(|c| c.get(&index));
                let nothing = if *action == Action::Call { DenyReason::PeerUndeclared } else { DenyReason::PolicyDenied };
                cell.map(AsRef::as_ref).ok_or(nothing)
            }
        }
    }

    fn ask(&self, question: &Question<'_>, rules: &Prepared) -> Result<cedar_policy::Response, CedarError> {
        let request = self.vocabulary.request(question)?;
        let built = self.vocabulary.entities(question, rules.reads_roles)?;
        Ok(self.authorizer.is_authorized(&request, &rules.set, built.as_ref().unwrap_or(&self.vocabulary.store)))
    }

    fn answer(&self, question: &Question<'_>, rules: &Prepared, response: &cedar_policy::Response) -> Answer {
        let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        let errors: Vec<String> = response.diagnostics().errors().map(explained).collect();
        // Cedar skips a policy that fails, a forbid too. Here a failure is a denial, whatever the rest says.
        if !errors.is_empty() {
            return self.denied(DenyReason::PolicyFailed, policies, errors);
        }
        if response.decision() == Cedar::Allow {
            return Answer { decision: Decision::Allow { policies, epoch: self.epoch, shadow: None }, errors };
        }
        let meant = response.diagnostics().reason().filter_map(|id| rules.denies.get(id)).min().copied();
        let reason = match meant {
            Some(reason) => reason,
            None if policies.is_empty() => rules.missing(question),
            None => DenyReason::PolicyDenied,
        };
        self.denied(reason, policies, errors)
    }

    fn denied(&self, reason: DenyReason, policies: Vec<String>, errors: Vec<String>) -> Answer {
        Answer { decision: Decision::Deny { reason, policies, epoch: self.epoch, shadow: None }, errors }
    }

    /// The manifest's facts hold on the entities that came along.
    pub(crate) fn check_facts(&self, slice: &PolicySlice, schema: &Schema) -> Result<(), LoadError> {
        let facts = strictly_valid(&slice.world, schema)?;
        let resource = Resource::Plane(crate::PLANES.first().map_or_else(String::new, |p| (*p).to_owned()));
        let question = Question { caller: "internet", action: Action::AdminView, resource: &resource, authority: None };
        let request = self.vocabulary.request(&question)?;
        let response = self.authorizer.is_authorized(&request, &facts, &self.vocabulary.store);
        let fired = response.diagnostics().reason().map(ToString::to_string);
        let failed = response.diagnostics().errors().map(explained);
        match fired.chain(failed).min() {
            Some(id) => Err(LoadError::FactBroken(id)),
            None => Ok(()),
        }
    }

    /// A forbid over a group of actions fires in the very stores that `decide` builds (POLICY, trap 1).
    pub(crate) fn check_groups(&self) -> Result<(), LoadError> {
        let Some(bucket) = self.vocabulary.declared_ids("Bucket").into_iter().next() else { return Ok(()) };
        let reference = trust::ObjectRef::new(bucket, "probe/probe").map_err(CedarError::of)?;
        let facts = ObjectFacts { reference, verdict: manifest::Verdict::Untyped, owner: None, shared_with: BTreeSet::new() };
        let resource = Resource::Object(facts);
        for action in Action::ALL.iter().copied().filter(|a| a.resource_type() == "Object") {
            for group in action.groups() {
                let text = format!("forbid(principal, action in Action::\"{group}\", resource);");
                let probe = crate::cedar::policy("probe", &text)?;
                let set = prepared(PolicySet::from_policies([probe]).map_err(CedarError::of)?)?;
                let question = Question { caller: "internet", action, resource: &resource, authority: None };
                if self.ask(&question, &set)?.diagnostics().reason().next().is_none() {
                    return Err(LoadError::GroupsBroken(action));
                }
            }
        }
        Ok(())
    }
}

fn prepared_cell(cell: &Cell, schema: &Schema) -> Result<Prepared, LoadError> {
    let (mut set, mut narrowed) = (PolicySet::new(), PolicySet::new());
    for (id, json) in &cell.policies {
        let parse = |json| Policy::from_json(Some(PolicyId::new(id)), json).map_err(|e| CedarError(explained(&e)));
        set.add(parse(json.clone())?).map_err(CedarError::of)?;
        let index = cell.resources.first().map_or("", String::as_str);
        narrowed.add(parse(scoped(json, &cell.caller, cell.action, cell.action.resource_type(), index))?).map_err(CedarError::of)?;
    }
    validate(&narrowed, schema)?;
    Ok(prepared(set)?)
}

/// Takes the policies in shadow apart.
fn prepared(all: PolicySet) -> Result<Prepared, CedarError> {
    if !all.policies().any(|policy| policy.annotation(SHADOW).is_some()) {
        return Ok(prepared_set(all));
    }
    let in_force = all.policies().filter(|policy| policy.annotation(SHADOW).is_none()).cloned();
    let in_force = prepared_set(PolicySet::from_policies(in_force).map_err(CedarError::of)?);
    Ok(Prepared { shadow: Some(Box::new(prepared_set(all))), ..in_force })
}

fn prepared_set(set: PolicySet) -> Prepared {
    let (mut permits, mut denies, mut reads_roles) = (Vec::new(), BTreeMap::new(), false);
    for policy in set.policies() {
        // Over-approximated on purpose: a person that is not needed costs time, a person that is missing an error, which is a denial.
        reads_roles |= policy.to_json().is_ok_and(|json| json.to_string().contains("roles"));
        if policy.effect() == Effect::Permit {
            let needs = policy.annotation("needs").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
            let said = |name| policy.annotation(name).map(str::to_owned);
            permits.push(Need { needs, scope: said("scope"), bucket: said("bucket"), policy: policy.clone() });
        } else if let Some(reason) = policy.annotation("deny").and_then(|code| DenyReason::ALL.iter().copied().find(|r| r.code() == code)) {
            denies.insert(policy.id().clone(), reason);
        }
    }
    Prepared { set, permits, denies, reads_roles, shadow: None }
}

impl Prepared {
    /// Nothing permitted and nothing forbade: what was missing, if it was the same for every permit that could have applied.
    fn missing(&self, question: &Question<'_>) -> DenyReason {
        let index = question.resource.index();
        let resource = if let Resource::Object(_) = question.resource { None } else { Some(index.as_str()) };
        let about = |n: &&Need| n.bucket.as_ref().is_none_or(|bucket| *bucket == index);
        let fits = |n: &&Need| may_apply(&n.policy, question.caller, question.action, resource);
        let near: Vec<&Need> = self.permits.iter().filter(about).filter(fits).collect();
        let all = |what: &dyn Fn(&Need) -> bool| !near.is_empty() && near.iter().all(|n| what(n));
        let needs = |word: &'static str| move |n: &Need| n.needs.iter().any(|w| w == word);
        let Some(authority) = question.authority else {
            return if all(&needs("authority")) { DenyReason::AuthorityMissing } else { DenyReason::PolicyDenied };
        };
        if all(&needs("job")) && !job_fits(authority, question, all(&needs("input")), all(&needs("folder"))) {
            return DenyReason::JobMismatch;
        }
        if all(&|n| n.scope.as_ref().is_some_and(|s| !authority.scopes.contains(s))) {
            return DenyReason::ScopeMissing;
        }
        if all(&needs("step_up")) && !authority.step_up {
            return DenyReason::StepUpMissing;
        }
        DenyReason::PolicyDenied
    }
}

fn job_fits(authority: &Authority, question: &Question<'_>, input: bool, folder: bool) -> bool {
    let Some(job) = authority.job.as_ref().filter(|j| j.consumer == question.caller) else { return false };
    match question.resource {
        Resource::Object(facts) if input => job.inputs.contains(&facts.reference),
        Resource::Object(facts) if folder => job.folder == facts.reference.folder(),
        _ => true,
    }
}
