//! Deputies: what the next one could be made to do, with the authority in hand.
//!
//! Whoever can call a service or publish to its queue gives it work, and with the work the authority of the same person. What that
//! service may do with it is a second step: it needs a second weakness, so it is shown apart. A service's own folder is left out, as no
//! authority is asked there.

use std::collections::BTreeSet;

use manifest::Flow;

use super::held::Held;
use super::{Found, Model, Work};
use crate::report::{Cell, Deputy, Extent, Kind, Profile};

/// What the services behind one that was taken over could be made to do.
pub(crate) fn of_service(model: &Model<'_>, found: &mut Found, profile: &Profile, name: &str, held: &BTreeSet<Held>) {
    let hands = held.iter().map(|one| Work { service: name.to_owned(), held: one.clone() });
    let first = hands.flat_map(|hand| next(model, &hand, &open(model, &hand))).collect();
    follow(model, found, profile, name, first, Some);
}

/// What the services that a person calls do for them.
pub(crate) fn of_person(model: &Model<'_>, found: &mut Found, profile: &Profile, called: Vec<Work>) {
    // What is the person's in flight is the attacker's own.
    let own = |extent| match extent {
        Extent::InFlight | Extent::Job | Extent::JobInput | Extent::JobFolder => Some(Extent::Own),
        Extent::Standing => None,
        other => Some(other),
    };
    follow(model, found, profile, "", called, own);
}

fn follow(
    model: &Model<'_>,
    found: &mut Found,
    profile: &Profile,
    start: &str,
    first: Vec<Work>,
    seen_as: impl Fn(Extent) -> Option<Extent>,
) {
    let (mut seen, mut waiting) = (BTreeSet::new(), first);
    while let Some(work) = waiting.pop() {
        if work.service == start || !seen.insert(work.clone()) {
            continue;
        }
        let open = open(model, &work);
        waiting.extend(next(model, &work, &open));
        for cell in open {
            let standing = cell.extent == Extent::Standing && cell.kind == Kind::Done;
            if let Some(extent) = seen_as(cell.extent).filter(|_| !standing) {
                let (profile, via) = (profile.clone(), format!("service.{}", work.service));
                found.deputies.insert(Deputy { profile, via, cell: Cell { extent, ..cell } });
            }
        }
    }
}

/// What a service may do with what it holds.
fn open(model: &Model<'_>, work: &Work) -> BTreeSet<Cell> {
    model.probes(work).iter().filter(|probe| probe.stops.is_empty()).map(|probe| probe.cell.clone()).collect()
}

/// The work that it gives to others.
fn next(model: &Model<'_>, work: &Work, open: &BTreeSet<Cell>) -> Vec<Work> {
    let mut given = Vec::new();
    for cell in open {
        match (cell.kind, cell.target.split_once('.')) {
            (Kind::Done, Some(("service", callee))) => {
                let routes = model.manifest.services.get(callee).map(|service| service.routes.as_slice()).unwrap_or_default();
                let route = routes.iter().find(|r| !r.is_tcp() && format!("{} {}", r.method, r.path) == cell.action);
                let held = route.map(|route| Held::Request { purpose: route.purpose.clone() });
                given.extend(held.map(|held| Work { service: callee.to_owned(), held }));
            }
            (Kind::Done, Some(("queue", queue))) if cell.action == "publish" => {
                // Whoever has a job may name its input; a request names nothing.
                let input = if let Held::Job { input, .. } = &work.held { input.clone() } else { None };
                given.extend(job(model, queue, input));
            }
            (Kind::Written, Some(("bucket", bucket))) if stores(model, &work.service, bucket) => {
                let queue = model.manifest.buckets.get(bucket).and_then(|b| b.created.as_deref());
                given.extend(queue.and_then(|queue| job(model, queue, Some(bucket.to_owned()))));
            }
            _ => {}
        }
    }
    given
}

/// The work of whoever consumes `queue`.
fn job(model: &Model<'_>, queue: &str, input: Option<String>) -> Option<Work> {
    let (consumer, of) = (model.manifest.consumer(queue)?, model.manifest.queues.get(queue)?);
    let held = Held::Job { queue: queue.to_owned(), purpose: of.purpose.clone(), input };
    Some(Work { service: consumer.to_owned(), held })
}

/// Whether what it does to a bucket puts objects there.
fn stores(model: &Model<'_>, name: &str, bucket: &str) -> bool {
    let flows = model.manifest.services.get(name).map(|s| s.flows.iter()).into_iter().flatten();
    flows.into_iter().any(|f| matches!(f, Flow::Bucket { bucket: b, operation, .. } if b == bucket && operation.stores()))
}
