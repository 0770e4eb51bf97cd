//! The manifest's facts: as entities for decisions, and as policies that none may fire on them (POLICY, the world).
//!
//! A fact policy forbids everything unless the fact is true. Proofs use them as assumptions; `Engine::load` evaluates them on the
//! entities that came with the slice, so that what was assumed is what is there.

use std::collections::BTreeSet;

use manifest::{Flow, Manifest, ROLE_NAMES};
use serde_json::{Value, json};

use crate::PLANES;
use crate::bundle::Rule;
use crate::question::Resource;

/// Class of the planes; a name that no manifest can declare.
const PLANE_CLASS: &str = "palisade.plane";
/// Team of Palisade's own workloads and of services without an owner.
const TEAM: &str = "palisade.team";

fn uid(kind: &str, id: &str) -> Value {
    json!({ "type": kind, "id": id })
}

fn reference(kind: &str, id: &str) -> Value {
    json!({ "__entity": uid(kind, id) })
}

/// Every entity that the manifest determines, in Cedar's JSON.
pub(crate) fn entities(manifest: &Manifest) -> Value {
    let mut all = Vec::new();
    let mut add = |kind: &str, id: &str, attrs: Value| all.push(json!({ "uid": uid(kind, id), "attrs": attrs, "parents": [] }));
    let mut teams = BTreeSet::from([TEAM]);
    teams.extend(manifest.services.values().filter_map(|s| s.owner.as_deref()));
    teams.extend(manifest.peps.values().filter_map(|p| p.owner.as_deref()));
    for team in teams {
        add("Team", team, json!({}));
    }
    for (class, sensitivity) in &manifest.data {
        add("Class", class, json!({ "sensitivity": sensitivity }));
    }
    add("Class", PLANE_CLASS, json!({ "sensitivity": 3 }));
    for role in ROLE_NAMES {
        add("Workload", role, json!({ "team": reference("Team", TEAM), "untrusted_input": false }));
    }
    for (name, pep) in &manifest.peps {
        let team = pep.owner.as_deref().unwrap_or(TEAM);
        add("Workload", name, json!({ "team": reference("Team", team), "untrusted_input": false }));
    }
    for (name, service) in &manifest.services {
        let team = service.owner.as_deref().unwrap_or(TEAM);
        add("Workload", name, json!({ "team": reference("Team", team), "untrusted_input": service.untrusted_input }));
        for route in &service.routes {
            let class = service.data.as_deref().unwrap_or(PLANE_CLASS);
            add("Route", &route.id(name), json!({ "service": reference("Workload", name), "class": reference("Class", class) }));
        }
    }
    for (id, destination, class) in outside(manifest) {
        add("Outside", &id, json!({ "destination": reference("Destination", destination), "class": reference("Class", class) }));
    }
    for (kind, name, class) in classed(manifest) {
        add(kind, name, json!({ "class": reference("Class", class) }));
    }
    Value::Array(all)
}

/// Everything that has a class and nothing else.
fn classed(manifest: &Manifest) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let buckets = manifest.buckets.iter().map(|(n, b)| ("Bucket", n.as_str(), b.data.as_str()));
    let queues = manifest.queues.iter().map(|(n, q)| ("Queue", n.as_str(), q.data.as_str()));
    let secrets = manifest.secrets.iter().map(|(n, s)| ("Secret", n.as_str(), s.data.as_str()));
    let destinations = manifest.egress.iter().map(|(n, d)| ("Destination", n.as_str(), d.data.as_str()));
    let planes = PLANES.iter().map(|n| ("Plane", *n, PLANE_CLASS));
    buckets.chain(queues).chain(secrets).chain(destinations).chain(planes)
}

/// What flows lead to outside, once each: its id, its destination and the class that may go there.
fn outside(manifest: &Manifest) -> BTreeSet<(String, &str, &str)> {
    let flows = manifest.services.values().flat_map(|service| &service.flows);
    let lead = flows.filter_map(|flow| {
        let Flow::Egress { destination, method, path, .. } = flow else { return None };
        let class = manifest.egress.get(destination)?.data.as_str();
        Some((Resource::outside(destination, method, path).id(), destination.as_str(), class))
    });
    lead.collect()
}

/// The facts as policies.
pub(crate) fn facts(manifest: &Manifest) -> Vec<Rule> {
    let mut facts = Vec::new();
    let mut add = |id: String, fact: String| {
        let text = format!("@id(\"world.{id}\")\nforbid(principal, action, resource) unless {{ {fact} }};");
        facts.push(Rule { id: format!("world.{id}"), text });
    };
    for (class, sensitivity) in &manifest.data {
        add(format!("class.{class}"), format!("Class::\"{class}\".sensitivity == {sensitivity}"));
    }
    for role in ROLE_NAMES.iter().copied().chain(manifest.peps.keys().map(String::as_str)) {
        add(format!("workload.{role}"), format!("Workload::\"{role}\".untrusted_input == false"));
    }
    for (name, service) in &manifest.services {
        add(format!("workload.{name}"), format!("Workload::\"{name}\".untrusted_input == {}", service.untrusted_input));
        for route in &service.routes {
            let (id, class) = (route.id(name), service.data.as_deref().unwrap_or(PLANE_CLASS));
            let fact = format!("Route::\"{id}\".service == Workload::\"{name}\" && Route::\"{id}\".class == Class::\"{class}\"");
            add(format!("route.{id}"), fact);
        }
    }
    for (id, destination, class) in outside(manifest) {
        let fact =
            format!("Outside::\"{id}\".destination == Destination::\"{destination}\" && Outside::\"{id}\".class == Class::\"{class}\"");
        add(format!("outside.{id}"), fact);
    }
    for (kind, name, class) in classed(manifest) {
        add(format!("{}.{name}", kind.to_lowercase()), format!("{kind}::\"{name}\".class == Class::\"{class}\""));
    }
    facts
}
