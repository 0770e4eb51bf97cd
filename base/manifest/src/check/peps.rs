//! Enforcement points of somebody else's making: `[pep.NAME]`.
//!
//! What such a proxy offers is a part of what the edge offers: public routes, each of which says why a request on it is made and which
//! scope the person's token must have. It is a workload with a name of its own, so that policies, records and revocations can name it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, LIST_MAX};
use crate::ROLE_NAMES;
use crate::flow::{Flow, take_apart};
use crate::model::{Pep, Service};
use crate::problem::suggestion;
use crate::written;

impl Check<'_, '_, '_> {
    pub(super) fn peps(&mut self, services: &BTreeMap<String, Service>) -> BTreeMap<String, Pep> {
        let written = self.written;
        let mut peps = BTreeMap::new();
        for (name, w) in &written.pep {
            let taken = if ROLE_NAMES.contains(&name.as_str()) {
                Some("one of Palisade's own workloads")
            } else {
                services.contains_key(name).then_some("a service")
            };
            if let Some(whose) = taken {
                let help = Some("choose another name for the enforcement point".to_owned());
                self.document.problem(&["pep", name], format!("'{name}' is the name of {whose}"), help);
            }
            if let Some(owner) = w.owner.as_deref().filter(|owner| !trust::spiffe::is_name(owner)) {
                self.not_a_name(&["pep", name, "owner"], owner);
            }
            let flows = self.offers(name, w, services);
            peps.insert(name.clone(), Pep { owner: w.owner.clone(), uid: w.uid, flows });
        }
        peps
    }

    fn offers(&mut self, name: &str, w: &written::Pep, services: &BTreeMap<String, Service>) -> BTreeSet<Flow> {
        let mut flows = BTreeSet::new();
        if w.offers.is_empty() || w.offers.len() > LIST_MAX {
            let help = Some("as in [\"service.api\"], or [\"service.api:GET /videos\"]".to_owned());
            self.document.problem(&["pep", name, "offers"], format!("list 1 to {LIST_MAX} services or public routes"), help);
        }
        for (i, text) in w.offers.iter().enumerate() {
            let at: &[&str] = &["pep", name, "offers", &i.to_string()];
            let (target, operation) = match text.contains(':').then(|| take_apart(text)) {
                Some(Ok(parts)) if parts.purposes.is_empty() => (format!("{}.{}", parts.kind, parts.name), Some(parts.operation)),
                None => (text.clone(), None),
                Some(_) => {
                    self.document.problem(at, "write 'service.NAME' or 'service.NAME:METHOD /path'", None);
                    continue;
                }
            };
            let known: Vec<&str> = services.keys().map(String::as_str).collect();
            let Some(service) = self.reference(at, "service", &target, &known) else { continue };
            let public = services.get(service).into_iter().flat_map(|s| &s.routes).filter(|r| r.public);
            let offered: Vec<_> = public.map(|r| (format!("{} {}", r.method, r.path), r)).collect();
            let meant: Vec<_> = offered.iter().filter(|(line, _)| operation.is_none_or(|wanted| wanted == line)).collect();
            if meant.is_empty() {
                let help = Some(suggestion(operation.unwrap_or_default(), offered.iter().map(|(line, _)| line.as_str())));
                let message = match operation {
                    Some(wanted) => format!("'{service}' has no public route '{wanted}'"),
                    None => format!("'{service}' has no public routes"),
                };
                self.document.problem(at, message, help);
            }
            for (_, route) in meant {
                let flow = Flow::Call { service: service.to_owned(), method: route.method.clone(), path: route.path.clone() };
                if !flows.insert(flow) {
                    self.document.problem(at, format!("{} {} is offered twice", route.method, route.path), None);
                }
            }
        }
        flows
    }
}
