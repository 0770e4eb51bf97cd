//! The bridge to Cedar: names, requests and entity stores.
//!
//! INVARIANT: every store that a decision uses holds the request's action entity with its groups. Without it `action in group` is
//! false and a forbid over a group silently does nothing (POLICY, trap 1).

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, Request, RestrictedExpression, Schema,
};
use serde_json::Value;
use trust::{Authority, ObjectRef};

use crate::question::{Action, ObjectFacts, Question, Resource};

/// Something that Cedar did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CedarError(pub(crate) String);

impl CedarError {
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Names and static entities, parsed once.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    types: HashMap<&'static str, EntityTypeName>,
    actions: HashMap<Action, EntityUid>,
    /// For each action: its own entity and those of its groups.
    action_entities: HashMap<Action, Vec<Entity>>,
    /// Every entity of the manifest, by type and id.
    statics: HashMap<&'static str, HashMap<String, Entity>>,
    /// The statics and the action entities in one store.
    pub(crate) store: Entities,
}

const TYPES: &[&str] = &[
    "Action",
    "Team",
    "Class",
    "Purpose",
    "Verdict",
    "Workload",
    "User",
    "Route",
    "Bucket",
    "Object",
    "Queue",
    "Secret",
    "Destination",
    "Outside",
    "Plane",
];

impl Vocabulary {
    /// Takes the entities in Cedar's JSON, checked against the schema.
    pub(crate) fn new(entities: &Value, schema: &Schema) -> Result<Self, CedarError> {
        let mut types = HashMap::new();
        for name in TYPES {
            types.insert(*name, name.parse::<EntityTypeName>().map_err(CedarError::of)?);
        }
        // With a schema, this adds every action entity with its hierarchy.
        let store = Entities::from_json_value(entities.clone(), Some(schema)).map_err(CedarError::of)?;
        let (mut actions, mut action_entities) = (HashMap::new(), HashMap::new());
        let action_type = types.get("Action").ok_or_else(|| CedarError::of("no type Action"))?;
        for action in Action::ALL {
            let uid = |name: &str| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(name));
            let mut found = Vec::new();
            for name in std::iter::once(&action.as_str()).chain(action.groups()) {
                found.push(store.get(&uid(name)).cloned().ok_or_else(|| CedarError(format!("the action {name} is not in the schema")))?);
            }
            actions.insert(*action, uid(action.as_str()));
            action_entities.insert(*action, found);
        }
        let mut statics: HashMap<&'static str, HashMap<String, Entity>> = HashMap::new();
        for entity in store.iter() {
            let uid = entity.uid();
            let name = uid.type_name().to_string();
            if let Some(name) = TYPES.iter().find(|t| **t == name) {
                statics.entry(name).or_default().insert(uid.id().unescaped().to_owned(), entity.clone());
            }
        }
        Ok(Self { types, actions, action_entities, statics, store })
    }

    pub(crate) fn uid(&self, kind: &'static str, id: &str) -> Result<EntityUid, CedarError> {
        let name = self.types.get(kind).ok_or_else(|| CedarError(format!("no type {kind}")))?;
        Ok(EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id)))
    }

    pub(crate) fn action(&self, action: Action) -> Result<EntityUid, CedarError> {
        self.actions.get(&action).cloned().ok_or_else(|| CedarError(format!("no action {action}")))
    }

    /// Whether the manifest declares this.
    pub(crate) fn declares(&self, kind: &str, id: &str) -> bool {
        match kind {
            "Action" | "User" | "Object" | "Purpose" | "Verdict" => true,
            kind => self.statics.get(kind).is_some_and(|all| all.contains_key(id)),
        }
    }

    fn declared(&self, kind: &'static str, id: &str) -> Result<&Entity, CedarError> {
        self.statics.get(kind).and_then(|all| all.get(id)).ok_or_else(|| CedarError(format!("{kind}::\"{id}\" is not declared")))
    }

    /// The ids of a type's declared entities.
    pub(crate) fn declared_ids(&self, kind: &str) -> Vec<String> {
        let mut ids: Vec<String> = self.statics.get(kind).into_iter().flat_map(|all| all.keys().cloned()).collect();
        ids.sort();
        ids
    }

    /// The request that a question is.
    pub(crate) fn request(&self, question: &Question<'_>) -> Result<Request, CedarError> {
        let principal = self.uid("Workload", question.caller)?;
        let resource = self.uid(question.resource.type_name(), &question.resource.id())?;
        let context = match question.authority {
            None => Context::empty(),
            Some(authority) => Context::from_pairs(self.carried(authority)?).map_err(CedarError::of)?,
        };
        Request::new(principal, self.action(question.action)?, resource, context, None).map_err(CedarError::of)
    }

    fn carried(&self, authority: &Authority) -> Result<Vec<(String, RestrictedExpression)>, CedarError> {
        let text = |s: &String| RestrictedExpression::new_string(s.clone());
        let entity = |kind, id: &str| self.uid(kind, id).map(RestrictedExpression::new_entity_uid);
        let record = |pairs: Vec<(&str, RestrictedExpression)>| {
            RestrictedExpression::new_record(pairs.into_iter().map(|(k, v)| (k.to_owned(), v))).map_err(CedarError::of)
        };
        let person = record(vec![
            ("user", entity("User", &authority.user)?),
            ("purpose", entity("Purpose", &authority.purpose)?),
            ("scopes", RestrictedExpression::new_set(authority.scopes.iter().map(text))),
            ("step_up", RestrictedExpression::new_bool(authority.step_up)),
        ])?;
        let mut pairs = vec![("authority".to_owned(), person)];
        if let Some(job) = &authority.job {
            let inputs: Vec<_> = job.inputs.iter().map(|o: &ObjectRef| entity("Object", &o.to_string())).collect::<Result<_, _>>()?;
            let job = record(vec![
                ("consumer", entity("Workload", &job.consumer)?),
                ("inputs", RestrictedExpression::new_set(inputs)),
                ("folder", RestrictedExpression::new_string(job.folder.clone())),
            ])?;
            pairs.push(("job".to_owned(), job));
        }
        Ok(pairs)
    }

    /// The entities that a question needs and the prepared store does not have: an object with its bucket, a person with roles.
    /// `None`: the prepared store is enough.
    pub(crate) fn entities(&self, question: &Question<'_>, reads_roles: bool) -> Result<Option<Entities>, CedarError> {
        let person = question.authority.filter(|_| reads_roles);
        let object = match question.resource {
            Resource::Object(facts) => Some(facts),
            _ => None,
        };
        if object.is_none() && person.is_none() {
            return Ok(None);
        }
        let mut all: Vec<Entity> = self.action_entities.get(&question.action).cloned().unwrap_or_default();
        all.push(self.declared("Workload", question.caller)?.clone());
        let classed = match question.resource {
            Resource::Object(facts) => self.declared("Bucket", &facts.reference.bucket)?,
            other => self.declared(other.type_name(), &other.id())?,
        };
        all.push(classed.clone());
        if let Some(Ok(cedar_policy::EvalResult::EntityUid(class))) = classed.attr("class") {
            all.push(self.declared("Class", class.id().unescaped())?.clone());
        }
        if let Some(authority) = person {
            let roles = RestrictedExpression::new_set(authority.roles.iter().map(|r| RestrictedExpression::new_string(r.clone())));
            let uid = self.uid("User", &authority.user)?;
            all.push(Entity::new(uid, HashMap::from([("roles".to_owned(), roles)]), HashSet::new()).map_err(CedarError::of)?);
        }
        if let Some(facts) = object {
            all.push(self.object(facts)?);
        }
        Entities::from_entities(all, None).map(Some).map_err(CedarError::of)
    }

    fn object(&self, facts: &ObjectFacts) -> Result<Entity, CedarError> {
        let entity = |kind, id: &str| self.uid(kind, id).map(RestrictedExpression::new_entity_uid);
        let friends: Vec<_> = facts.shared_with.iter().map(|u| entity("User", u)).collect::<Result<_, _>>()?;
        let mut attrs = HashMap::from([
            ("bucket".to_owned(), entity("Bucket", &facts.reference.bucket)?),
            ("folder".to_owned(), RestrictedExpression::new_string(facts.reference.folder().to_owned())),
            ("verdict".to_owned(), entity("Verdict", facts.verdict.as_str())?),
            ("shared_with".to_owned(), RestrictedExpression::new_set(friends)),
        ]);
        if let Some(owner) = &facts.owner {
            attrs.insert("owner".to_owned(), entity("User", owner)?);
        }
        let uid = self.uid("Object", &facts.reference.to_string())?;
        Entity::new(uid, attrs, HashSet::new()).map_err(CedarError::of)
    }
}

/// Parses one policy's text under that id.
pub(crate) fn policy(id: &str, text: &str) -> Result<Policy, CedarError> {
    Policy::parse(Some(PolicyId::new(id)), text).map_err(|e| CedarError(explained(&e)))
}

/// An error with its causes and help, in one line.
pub(crate) fn explained(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        source = cause.source();
    }
    out
}

/// A JSON policy with its scope narrowed to what it was partially evaluated for, so that strict validation sees only that.
pub(crate) fn scoped(json: &Value, caller: &str, action: Action, resource: &str, index: &str) -> Value {
    let mut out = json.clone();
    let entity = |kind: &str, id: &str| serde_json::json!({ "op": "==", "entity": { "type": kind, "id": id } });
    let resource = match resource {
        "Object" => serde_json::json!({ "op": "is", "entity_type": "Object" }),
        kind => entity(kind, index),
    };
    if let Some(fields) = out.as_object_mut() {
        let parts = BTreeMap::from([
            ("principal", entity("Workload", caller)),
            ("action", entity("Action", action.as_str())),
            ("resource", resource),
        ]);
        for (name, value) in parts {
            fields.insert(name.to_owned(), value);
        }
    }
    out
}
