//! Authority in hand: what travels with the work that a service is given, and so is there for whoever takes the service over.
//!
//! A service holds the authority of each request that its guard delivered and that is in flight, and of each job. Its job names an
//! object as input only if the message did: one that `objects` told of, or that the publisher's own job named (`queue`).

use std::collections::{BTreeMap, BTreeSet};

use manifest::{Flow, Manifest};
use trust::{Authority, Job, ObjectRef};

/// The person in flight.
pub(crate) const PERSON: &str = "the-person-in-flight";
/// Everybody else.
pub(crate) const ANOTHER: &str = "another-person";
/// Folder of a job's input.
pub(crate) const FOLDER: &str = "job";

/// An authority that a service holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// Nobody's.
    Nothing,
    /// Of a request on a route with that purpose.
    Request {
        /// The purpose.
        purpose: String,
    },
    /// Of a job.
    Job {
        /// Its queue.
        queue: String,
        /// The queue's purpose.
        purpose: String,
        /// The bucket that its input is in, if it has one.
        input: Option<String>,
    },
}

impl Held {
    /// As a decision sees it, in the hands of `holder`.
    pub(crate) fn authority(&self, holder: &str) -> Option<Authority> {
        let (purpose, job) = match self {
            Self::Nothing => return None,
            Self::Request { purpose } => (purpose, None),
            Self::Job { queue, purpose, input } => {
                let inputs: Vec<ObjectRef> = input.iter().filter_map(|bucket| input_of(bucket)).collect();
                let folder = inputs.first().map(ObjectRef::folder).unwrap_or_default().to_owned();
                let (id, lease, queue) = ("job".into(), "lease".into(), queue.clone());
                (purpose, Some(Job { id, lease, queue, consumer: holder.to_owned(), inputs, folder }))
            }
        };
        Some(person(purpose, job))
    }
}

/// The input of a job, if it is in that bucket.
pub(crate) fn input_of(bucket: &str) -> Option<ObjectRef> {
    ObjectRef::new(bucket, format!("{FOLDER}/input")).ok()
}

/// The authority of the person in flight.
pub(crate) fn person(purpose: &str, job: Option<Job>) -> Authority {
    Authority {
        txn: "transaction".into(),
        user: PERSON.into(),
        purpose: purpose.to_owned(),
        scopes: BTreeSet::new(),
        roles: BTreeSet::new(),
        step_up: false,
        job,
    }
}

/// Everything that `service` is given.
pub(crate) fn of(manifest: &Manifest, inputs: &BTreeMap<String, BTreeSet<Option<String>>>, service: &str) -> BTreeSet<Held> {
    let mut held = BTreeSet::from([Held::Nothing]);
    let Some(own) = manifest.services.get(service) else { return held };
    let called = |method: &str, path: &str| {
        let flows = manifest.services.values().flat_map(|s| &s.flows).chain(manifest.peps.values().flat_map(|p| &p.flows));
        flows.into_iter().any(|f| matches!(f, Flow::Call { service: to, method: m, path: p } if to == service && m == method && p == path))
    };
    for route in own.routes.iter().filter(|r| !r.is_tcp() && (r.public || called(&r.method, &r.path))) {
        held.insert(Held::Request { purpose: route.purpose.clone() });
    }
    for queue in &own.consumes {
        let Some(of) = manifest.queues.get(queue) else { continue };
        for input in inputs.get(queue).into_iter().flatten() {
            held.insert(Held::Job { queue: queue.clone(), purpose: of.purpose.clone(), input: input.clone() });
        }
    }
    held
}

/// For each queue the buckets that the input of its jobs may be in: those whose objects it hears of, and those that a publisher's own
/// jobs name. A publisher on a request's authority names none.
pub(crate) fn inputs(manifest: &Manifest) -> BTreeMap<String, BTreeSet<Option<String>>> {
    let mut all: BTreeMap<String, BTreeSet<Option<String>>> = manifest.queues.keys().map(|q| (q.clone(), BTreeSet::new())).collect();
    for (name, bucket) in &manifest.buckets {
        if let Some(named) = bucket.created.as_ref().and_then(|queue| all.get_mut(queue)) {
            named.insert(Some(name.clone()));
        }
    }
    // What a queue's jobs may name goes on to the queues that its consumer publishes to; each round adds or ends it.
    loop {
        let mut more = Vec::new();
        for service in manifest.services.values() {
            let own = service.consumes.iter().filter_map(|queue| all.get(queue)).flatten().cloned();
            let mut own: BTreeSet<Option<String>> = own.collect();
            if !own.is_empty() || service.routes.iter().any(|r| !r.is_tcp()) {
                own.insert(None);
            }
            for flow in &service.flows {
                if let Flow::Publish { queue, .. } = flow {
                    more.extend(own.iter().map(|input| (queue.clone(), input.clone())));
                }
            }
        }
        for (from, queue) in &manifest.queues {
            let dead = all.get(from).filter(|named| !named.is_empty()).is_some();
            if let Some(to) = queue.dead_letters_to.as_ref().filter(|_| dead) {
                more.push((to.clone(), None));
            }
        }
        let mut grew = false;
        for (queue, input) in more {
            grew |= all.get_mut(&queue).is_some_and(|named| named.insert(input));
        }
        if !grew {
            return all;
        }
    }
}
