//! The review: what the audit log of a copy shows of controls that are not there, even where nothing was reached by that.
//!
//! An attack that is stopped does not tell which control was not asked, if another stood behind it. The log does: an act was allowed by a
//! policy that no manifest has, a route was let out that no flow declares, jobs were served whose lease nobody asked about.
//!
//! Guarantees: L13.
//! Not here:   what was reached (`measured`), and what both amount to (`breach::absent`).

use std::collections::{BTreeMap, BTreeSet};

use breach::attacker::script::fits;
use breach::{Absent, Control};
use contract::{Found, Who};
use evidence::log::Entry;
use manifest::{Flow, Manifest};
use policy::Bundle;
use serde_json::Value;

use super::BreachError;
use super::copy::Copy;
use super::probe::{Probed, is_out_at};
use crate::dangerous::DangerousSwitch;
use crate::system::Applied;

/// What was seen missing, by control and place.
type Noticed = BTreeMap<(Control, String), String>;

/// The controls that the copy went without, each with what its audit log shows of that.
pub(super) fn absent(copy: &Copy, switches: &[DangerousSwitch], probed: &[Probed], entries: &[Entry]) -> Result<Vec<Absent>, BreachError> {
    // What nobody has left out must stand.
    let broken = probed.iter().find(|one| !one.stands && !is_out_at(switches, one.control, &one.place));
    if let Some(Probed { control, place, what, .. }) = broken {
        return Err(BreachError::Ended(format!("{control} is missing at {place}, where nobody left it out: {what}")));
    }
    // The policies of the copy are those of the original.
    let policies = Applied::open(&copy.path)?.policies;
    let bundle = Bundle::build(&copy.original, &policies).map_err(|error| BreachError::Ended(error.to_string()))?;
    let known: BTreeSet<&str> = bundle.rules.iter().map(|rule| rule.id.as_str()).collect();
    let mut noticed = noticed(&copy.original, &known, entries);
    for missing in probed.iter().filter(|one| !one.stands) {
        noticed.insert((missing.control, missing.place.clone()), missing.what.clone());
    }
    let absent = |switch: &DangerousSwitch| {
        let here = |control: Control, place: &String| control == switch.control && switch.at.as_ref().is_none_or(|at| at == place);
        let missing = noticed.iter().filter(|((control, place), _)| here(*control, place));
        let stands = probed.iter().filter(|one| one.stands && one.control == switch.control);
        let missing = missing.map(|((_, place), what)| format!("{place}: {what}")).collect();
        let elsewhere = stands.map(|one| format!("{}: {}", one.place, one.what)).collect();
        Absent::new(switch.control, switch.at.clone(), missing).standing(elsewhere)
    };
    Ok(switches.iter().map(absent).collect())
}

/// What the log shows.
fn noticed(manifest: &Manifest, known: &BTreeSet<&str>, entries: &[Entry]) -> Noticed {
    let mut noticed = Noticed::new();
    let (mut jobs, mut leases) = (0_usize, 0_usize);
    for entry in entries.iter().filter(|entry| entry.record.event == "CallDecided") {
        let fields = &entry.record.fields;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let decision = |way: &str| fields.get("decision").and_then(|decision| decision.get(way));
        // The gateway asks for a page's role first: what it passes on without one is refused by whoever has the page.
        let roleless = decision("deny").and_then(|deny| deny.get("reason")).is_some_and(|reason| reason == "caller_not_admitted");
        if roleless && text("point") == "evidence" && text("principal").ends_with("/role/edge") {
            let what = || "people without a page's role come to the page".to_owned();
            noticed.entry((Control::Role, "edge".to_owned())).or_insert_with(what);
        }
        let Some(allowed) = decision("allow") else { continue };
        let policies = allowed.get("policies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let place = entry.workload.workload.name();
        for _stranger in policies.filter(|id| !known.contains(id)) {
            noticed
                .entry((Control::Policy, place.to_owned()))
                .or_insert_with(|| "acts are allowed by no policy of the manifest".to_owned());
        }
        match text("point") {
            "objects" if text("action").starts_with("object") && !text("job").is_empty() => jobs = jobs.saturating_add(1),
            "queue" if text("action") == "queue.lease.read" => leases = leases.saturating_add(1),
            "guard.out" if !declared(manifest, place, text("resource")) => {
                let what = || "routes are let out that no flow declares".to_owned();
                noticed.entry((Control::GuardOut, place.to_owned())).or_insert_with(what);
            }
            _ => {}
        }
    }
    if jobs > 0 && leases == 0 {
        let what = format!("{} allowed on jobs, and nobody asked whether a lease lives", if jobs == 1 { "one act is" } else { "acts are" });
        noticed.insert((Control::Lease, "objects".to_owned()), what);
    }
    noticed
}

/// Whether `SPIFFE-ID METHOD /path` is a way that this service may go.
fn declared(manifest: &Manifest, service: &str, resource: &str) -> bool {
    let mut words = resource.splitn(3, ' ');
    let (Some(to), Some(method), Some(path)) = (words.next(), words.next(), words.next()) else { return true };
    let (kind, callee) = to.trim_start_matches("spiffe://").split_once('/').and_then(|(_, id)| id.split_once('/')).unwrap_or_default();
    match (kind, callee) {
        ("service", callee) => manifest.services.get(service).is_none_or(|own| {
            own.flows.iter().any(|flow| matches!(flow, Flow::Call { service, method: of, path: template } if service == callee && of == method && fits(template, path)))
        }),
        (_, role) => {
            let routes = match role {
                "objects" => contract::objects::ROUTES,
                "queue" => contract::queue::ROUTES,
                "evidence" => contract::evidence::ROUTES,
                // Egress and raw flows are named otherwise.
                _ => return true,
            };
            matches!(contract::find(routes, method, path), Found::Route(route, _) if route.who == Who::Policy)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");

    fn entry(place: &str, point: &str, action: &str, resource: &str, job: &str, policies: &[&str]) -> Entry {
        let fields = serde_json::json!({
            "point": point, "action": action, "resource": resource, "job": job, "decision": { "allow": { "policies": policies, "epoch": 1 } },
        });
        let domain = trust::TrustDomain::parse("video.example").unwrap();
        let workload = if matches!(place, "objects" | "queue") { domain.role(place) } else { domain.service(place) };
        let record = serde_json::json!({ "seq": 1, "at_ms": 1, "event": "CallDecided", "trace": "", "span": "", "fields": fields });
        Entry { n: 1, taken_ms: 1, workload, process: "p".to_owned(), record: serde_json::from_value(record).unwrap() }
    }

    // L13: what the log shows of a control that is not asked, and that it shows nothing where all are.
    #[test]
    fn a_log_shows_which_control_was_not_asked() {
        let manifest = Manifest::parse("palisade.toml", VIDEO).unwrap();
        let to_api = "spiffe://video.example/service/api";
        let to_objects = "spiffe://video.example/role/objects";
        let good = [
            entry("web", "guard.out", "call", &format!("{to_api} GET /api/videos"), "", &[]),
            entry("transcoder", "guard.out", "call", &format!("{to_objects} GET /originals/a/b"), "j", &[]),
            entry("api", "guard", "call", "api:GET /api/videos", "", &["flow"]),
            entry("objects", "objects", "objectRead", "originals/a", "j", &["flow"]),
            entry("queue", "queue", "queue.lease.read", "GET /leases/1", "", &[]),
        ];
        let known = BTreeSet::from(["flow"]);
        assert_eq!(noticed(&manifest, &known, &good), Noticed::new());
        let table = [
            (Control::GuardOut, "web", entry("web", "guard.out", "call", &format!("{to_api} POST /api/videos"), "", &[])),
            (Control::GuardOut, "api", entry("api", "guard.out", "call", &format!("{to_objects} GET /presigned/originals/a"), "", &[])),
            (Control::Policy, "objects", entry("objects", "objects", "objectRead", "originals/b", "", &[policy::DANGEROUS_OPEN])),
        ];
        for (control, place, bad) in table {
            let seen = noticed(&manifest, &known, &[good.to_vec(), vec![bad]].concat());
            assert_eq!(seen.keys().collect::<Vec<_>>(), [&(control, place.to_owned())]);
        }
        let unasked = noticed(&manifest, &known, good.get(..4).unwrap());
        assert_eq!(unasked.keys().collect::<Vec<_>>(), [&(Control::Lease, "objects".to_owned())]);
    }
}
