//! From flows to policies: one permit for each declared flow, and forbids that hold whatever is permitted.
//!
//! Ids are stable and readable: `flow.CALLER.RESOURCE.OPERATION`, `never.WHAT`. Annotations say what a permit needs (`@needs`,
//! `@scope`) and what a forbid means to the caller (`@deny`), so that a refusal can name its exact reason.

use std::collections::BTreeSet;

use manifest::{BucketOperation, Flow, Manifest, PURPOSE_OPERATE, Route, SecretOperation, Service, Verdict};
use trust::{Authority, Job, ObjectRef};

use crate::bundle::Rule;
use crate::example::Example;
use crate::question::{Action, ObjectFacts, Resource};
use crate::{ADMIN_ROLE, PLANES};

const AUTHORITY: &str = "context has authority";
const JOB: &str = "context has job && context.job.consumer == principal";
const INPUT: &str = "context.job.inputs.contains(resource)";
const FOLDER: &str = "resource.folder == context.job.folder";
const OWNER: &str = "resource has owner && resource.owner == context.authority.user";
const READER: &str =
    "resource has owner && (resource.owner == context.authority.user || resource.shared_with.contains(context.authority.user))";

/// A permit before it is text.
struct Permit<'a> {
    id: String,
    caller: &'a str,
    action: Action,
    /// Cedar text of the scope's resource: `resource == …` or `resource`.
    scope: String,
    needs: Vec<&'static str>,
    oauth_scope: Option<&'a str>,
    /// For objects: the bucket, which the scope does not say.
    bucket: Option<&'a str>,
    conditions: Vec<String>,
    example: (Resource, Option<Authority>),
}

/// Collects rules and examples.
pub(crate) struct Generated {
    pub(crate) rules: Vec<Rule>,
    pub(crate) examples: Vec<Example>,
}

/// All policies of a manifest, with the examples of its flows.
pub(crate) fn generate(manifest: &Manifest) -> Generated {
    let mut out = Generated { rules: Vec::new(), examples: Vec::new() };
    for (name, service) in &manifest.services {
        for route in service.routes.iter().filter(|r| r.public) {
            out.push(entry("internet", Action::Enter, name, route, true));
            out.push(entry("edge", Action::Call, name, route, true));
        }
        for flow in &service.flows {
            if let Some(permit) = flow_permit(manifest, name, service, flow) {
                out.push(permit);
            }
        }
        for queue in &service.consumes {
            out.push(consume(manifest, name, queue));
        }
    }
    for (name, pep) in &manifest.peps {
        for (service, route) in manifest.offered(pep) {
            out.push(entry(name, Action::Call, service, route, true));
        }
    }
    for (name, bucket) in &manifest.buckets {
        out.push_all(bucket.created.as_ref().and_then(|queue| event(manifest, name, queue)));
    }
    for action in Action::ALL.iter().copied().filter(|a| a.resource_type() == "Plane") {
        out.push(administration("console", action));
        out.push(administration("operator", action));
    }
    out.rules.extend(forbids(manifest));
    out
}

impl Generated {
    fn push_all<'a>(&mut self, permits: impl IntoIterator<Item = Permit<'a>>) {
        permits.into_iter().for_each(|p| self.push(p));
    }

    fn push(&mut self, permit: Permit<'_>) {
        let Permit { id, caller, action, scope, needs, oauth_scope, bucket, conditions, example: (resource, authority) } = permit;
        let mut text = format!("@id(\"{id}\")\n");
        if !needs.is_empty() {
            text.push_str(&format!("@needs(\"{}\")\n", needs.join(" ")));
        }
        if let Some(scope) = oauth_scope {
            text.push_str(&format!("@scope(\"{scope}\")\n"));
        }
        if let Some(bucket) = bucket {
            text.push_str(&format!("@bucket(\"{bucket}\")\n"));
        }
        text.push_str(&format!("permit(principal == Workload::\"{caller}\", action == Action::\"{action}\", {scope})"));
        if !conditions.is_empty() {
            text.push_str(&format!("\nwhen {{ {} }}", conditions.join(" && ")));
        }
        text.push(';');
        self.examples.push(Example { flow: id.clone(), caller: caller.to_owned(), action, resource, authority, never: String::new() });
        self.rules.push(Rule { id, text });
    }
}

fn person(purpose: &str, scope: Option<&str>) -> Authority {
    Authority {
        txn: "example".into(),
        user: "someone".into(),
        purpose: purpose.to_owned(),
        scopes: scope.into_iter().map(str::to_owned).collect(),
        roles: BTreeSet::new(),
        step_up: false,
        job: None,
    }
}

fn purposes_are(purposes: &BTreeSet<String>) -> String {
    let all: Vec<String> = purposes.iter().map(|p| format!("Purpose::\"{p}\"")).collect();
    match all.as_slice() {
        [one] => format!("context.authority.purpose == {one}"),
        many => format!("[{}].contains(context.authority.purpose)", many.join(", ")),
    }
}

/// A person on a route. Scope and second proof are asked where the person's own token comes in: from the internet, from the edge, and from an
/// enforcement point of somebody else's making.
fn entry<'a>(caller: &'a str, action: Action, service: &str, route: &'a Route, with_scope: bool) -> Permit<'a> {
    let scope = route.scope.as_deref().filter(|_| with_scope);
    let mut conditions = vec![AUTHORITY.to_owned(), format!("context.authority.purpose == Purpose::\"{}\"", route.purpose)];
    conditions.extend(scope.map(|s| format!("context.authority.scopes.contains(\"{s}\")")));
    let (mut needs, mut example) = (vec!["authority"], person(&route.purpose, scope));
    if with_scope && route.step_up {
        conditions.push("context.authority.step_up".to_owned());
        needs.push("step_up");
        example.step_up = true;
    }
    Permit {
        id: format!("flow.{caller}.service.{service}.{} {}", route.method, route.path),
        caller,
        action,
        scope: format!("resource == Route::\"{}\"", route.id(service)),
        needs,
        oauth_scope: scope,
        bucket: None,
        conditions,
        example: (Resource::route(service, &route.method, &route.path), Some(example)),
    }
}

fn flow_permit<'a>(manifest: &'a Manifest, name: &'a str, service: &Service, flow: &'a Flow) -> Option<Permit<'a>> {
    Some(match flow {
        Flow::Call { service, method, path } => {
            let route = manifest.services.get(service)?.routes.iter().find(|r| r.method == *method && r.path == *path)?;
            if route.is_tcp() {
                // A raw flow: a workload's own, on nobody's authority.
                let resource = Resource::route(service, &route.method, &route.path);
                return Some(standing(format!("flow.{name}.{flow}"), name, Action::Call, resource));
            }
            entry(name, Action::Call, service, route, false)
        }
        Flow::Bucket { bucket, operation, purposes } => bucket_permit(name, service.untrusted_input, bucket, *operation, purposes)?,
        Flow::Publish { queue, purposes } => {
            let mut authority = person(purposes.first()?, None);
            let mut conditions = vec![AUTHORITY.to_owned(), purposes_are(purposes)];
            let mut needs = vec!["authority"];
            if service.untrusted_input {
                conditions.push(JOB.to_owned());
                needs.push("job");
                authority.job = Some(job(name, Vec::new()));
            }
            publish(name, queue, needs, conditions, authority)
        }
        Flow::Secret { secret, operation } => {
            let action = match operation {
                SecretOperation::Read => Action::SecretRead,
                SecretOperation::Sign => Action::SecretSign,
            };
            standing(format!("flow.{name}.{flow}"), name, action, Resource::Secret(secret.clone()))
        }
        Flow::Egress { destination, method, path, purposes } => {
            let resource = Resource::outside(destination, method, path);
            outward(name, format!("flow.{name}.egress.{destination}.{method} {path}"), resource, purposes)?
        }
    })
}

fn job(consumer: &str, inputs: Vec<ObjectRef>) -> Job {
    let (id, lease, queue) = ("example".into(), "example".into(), "example".into());
    Job { id, lease, queue, consumer: consumer.to_owned(), inputs, folder: "folder".into() }
}

/// A flow that needs nobody's authority: the workload's own secret.
fn standing(id: String, caller: &str, action: Action, resource: Resource) -> Permit<'_> {
    Permit {
        id: id.replace(':', "."),
        caller,
        action,
        scope: format!("resource == {resource}"),
        needs: Vec::new(),
        oauth_scope: None,
        bucket: None,
        conditions: Vec::new(),
        example: (resource, None),
    }
}

/// A call of a destination outside, on a person's authority.
fn outward<'a>(caller: &'a str, id: String, resource: Resource, purposes: &BTreeSet<String>) -> Option<Permit<'a>> {
    Some(Permit {
        id,
        caller,
        action: Action::Egress,
        scope: format!("resource == {resource}"),
        needs: vec!["authority"],
        oauth_scope: None,
        bucket: None,
        conditions: vec![AUTHORITY.to_owned(), purposes_are(purposes)],
        example: (resource, Some(person(purposes.first()?, None))),
    })
}

fn bucket_permit<'a>(
    name: &'a str,
    untrusted: bool,
    bucket: &'a str,
    operation: BucketOperation,
    purposes: &BTreeSet<String>,
) -> Option<Permit<'a>> {
    use BucketOperation as B;
    let action = match operation {
        B::Read => Action::ObjectRead,
        B::Write => Action::ObjectWrite,
        B::Delete => Action::ObjectDelete,
        B::List => Action::BucketList,
        B::Share => Action::ObjectShare,
        B::Verdict => Action::ObjectVerdict,
        B::PresignGet => Action::ObjectPresignGet,
        B::PresignPut => Action::ObjectPresignPut,
    };
    let mut authority = person(purposes.first()?, None);
    let key = ObjectRef::new(bucket, "folder/object").ok()?;
    let clean = operation == B::Read || operation == B::PresignGet;
    let facts = ObjectFacts {
        reference: key.clone(),
        verdict: if clean { Verdict::Clean } else { Verdict::Untyped },
        owner: Some(authority.user.clone()),
        shared_with: BTreeSet::new(),
    };
    let id = format!("flow.{name}.bucket.{bucket}.{}", operation.as_str());
    let mut conditions = vec![AUTHORITY.to_owned(), purposes_are(purposes)];
    let mut needs = vec!["authority"];
    if operation == B::List {
        let (scope, example) = (format!("resource == Bucket::\"{bucket}\""), (Resource::Bucket(bucket.to_owned()), Some(authority)));
        return Some(Permit { id, caller: name, action, scope, needs, oauth_scope: None, bucket: None, conditions, example });
    }
    conditions.insert(0, format!("resource.bucket == Bucket::\"{bucket}\""));
    if untrusted {
        conditions.push(JOB.to_owned());
        needs.push("job");
        if matches!(operation, B::Read | B::Verdict) {
            conditions.push(INPUT.to_owned());
            needs.push("input");
        } else {
            conditions.push(FOLDER.to_owned());
            needs.push("folder");
        }
        authority.job = Some(job(name, vec![key]));
    }
    conditions.push(if !untrusted && clean { READER } else { OWNER }.to_owned());
    let scope = "resource".to_owned();
    Some(Permit {
        id,
        caller: name,
        action,
        scope,
        needs,
        oauth_scope: None,
        bucket: Some(bucket),
        conditions,
        example: (Resource::Object(facts), Some(authority)),
    })
}

fn publish<'a>(caller: &'a str, queue: &str, needs: Vec<&'static str>, conditions: Vec<String>, authority: Authority) -> Permit<'a> {
    Permit {
        id: format!("flow.{caller}.queue.{queue}.publish"),
        caller,
        action: Action::Publish,
        scope: format!("resource == Queue::\"{queue}\""),
        needs,
        oauth_scope: None,
        bucket: None,
        conditions,
        example: (Resource::Queue(queue.to_owned()), Some(authority)),
    }
}

/// `objects` tells a queue of a stored object, on the authority that stored it.
fn event<'a>(manifest: &Manifest, bucket: &str, queue: &str) -> Option<Permit<'a>> {
    let storing = manifest.services.values().flat_map(|s| &s.flows).filter_map(|f| match f {
        Flow::Bucket { bucket: b, operation, purposes } if b == bucket && operation.stores() => Some(purposes),
        _ => None,
    });
    let purposes: BTreeSet<String> = storing.flatten().cloned().collect();
    let authority = person(purposes.first()?, None);
    let mut permit = publish("objects", queue, vec!["authority"], vec![AUTHORITY.to_owned(), purposes_are(&purposes)], authority);
    permit.id = format!("flow.objects.bucket.{bucket}.queue.{queue}.publish");
    Some(permit)
}

/// A delivery: the consumer, the queue's purpose, and a job made out to that consumer.
fn consume<'a>(manifest: &Manifest, name: &'a str, queue: &str) -> Permit<'a> {
    let purpose = manifest.queues.get(queue).map_or(PURPOSE_OPERATE, |q| q.purpose.as_str());
    let mut authority = person(purpose, None);
    authority.job = Some(job(name, Vec::new()));
    Permit {
        id: format!("flow.{name}.queue.{queue}.consume"),
        caller: name,
        action: Action::Consume,
        scope: format!("resource == Queue::\"{queue}\""),
        needs: vec!["authority", "job"],
        oauth_scope: None,
        bucket: None,
        conditions: vec![AUTHORITY.to_owned(), format!("context.authority.purpose == Purpose::\"{purpose}\""), JOB.to_owned()],
        example: (Resource::Queue(queue.to_owned()), Some(authority)),
    }
}

/// An administrator at the console, with step-up for changes; or the operator, whom the kernel vouches for (peer credentials).
fn administration(caller: &str, action: Action) -> Permit<'_> {
    let resource = Resource::Plane(PLANES.first().copied().unwrap_or_default().to_owned());
    let mut permit = standing(format!("flow.{caller}.plane.{action}"), caller, action, resource);
    permit.scope = "resource".to_owned();
    if caller == "console" {
        let mut authority = person(PURPOSE_OPERATE, None);
        authority.roles.insert(ADMIN_ROLE.to_owned());
        permit.needs.push("authority");
        permit.conditions = vec![
            AUTHORITY.to_owned(),
            format!("context.authority.purpose == Purpose::\"{PURPOSE_OPERATE}\""),
            format!("context.authority.user.roles.contains(\"{ADMIN_ROLE}\")"),
        ];
        if action != Action::AdminView {
            authority.step_up = true;
            permit.needs.push("step_up");
            permit.conditions.push("context.authority.step_up".to_owned());
        }
        permit.example.1 = Some(authority);
    }
    permit
}

/// What no permit can open, whoever wrote it.
fn forbids(manifest: &Manifest) -> Vec<Rule> {
    let quarantines = manifest.buckets.iter().filter_map(|(name, b)| Some((name, b.quarantine_until.as_ref()?)));
    let looks: Vec<String> = quarantines
        .map(|(bucket, validator)| {
            format!("(principal == Workload::\"{validator}\" && resource.bucket == Bucket::\"{bucket}\" && resource.verdict == Verdict::\"untyped\")")
        })
        .collect();
    let validators = if looks.is_empty() { String::new() } else { format!("\nunless {{ {} }}", looks.join(" || ")) };
    let classed: Vec<String> =
        Action::ALL.iter().filter(|a| !matches!(a.resource_type(), "Object")).map(|a| format!("Action::\"{a}\"")).collect();
    let rule = |id: &str, deny: &str, rest: String| {
        let deny = if deny.is_empty() { String::new() } else { format!("@deny(\"{deny}\")\n") };
        Rule { id: id.to_owned(), text: format!("@id(\"{id}\")\n{deny}forbid({rest};") }
    };
    vec![
        rule(
            "never.unclean-read",
            "object_quarantined",
            format!("principal, action in Action::\"objectGet\", resource)\nwhen {{ resource.verdict != Verdict::\"clean\" }}{validators}"),
        ),
        rule(
            "never.untrusted-meets-secret-object",
            "",
            "principal, action in Action::\"objectAny\", resource)\nwhen { principal.untrusted_input && resource.bucket.class.sensitivity >= 3 }".into(),
        ),
        rule(
            "never.untrusted-meets-secret",
            "",
            format!("principal, action in [{}], resource)\nwhen {{ principal.untrusted_input && resource.class.sensitivity >= 3 }}", classed.join(", ")),
        ),
        rule(
            "never.owned-object-without-authority",
            "authority_missing",
            format!("principal, action in Action::\"objectAny\", resource)\nwhen {{ resource has owner }} unless {{ {AUTHORITY} }}"),
        ),
        // `objects` speaks of what a worker stored, on the worker's authority.
        rule(
            "never.foreign-job",
            "job_mismatch",
            "principal, action, resource)\nwhen { context has job }\nunless { context.job.consumer == principal || principal == Workload::\"objects\" }".into(),
        ),
        rule(
            "never.change-without-step-up",
            "step_up_missing",
            format!(
                "principal, action in Action::\"adminChange\", resource)\nunless {{ principal == Workload::\"operator\" || ({AUTHORITY} && context.authority.step_up) }}"
            ),
        ),
    ]
}
