//! Faults on purpose: only in a system that says that it wants them, and only where something would happen.
//!
//! Guarantees: D9 no fault is left behind by accident in a system that is meant to work.

use std::collections::BTreeMap;

use super::Check;
use crate::model::{Fault, FaultAct, Service};
use crate::problem::suggestion;
use crate::written;

impl Check<'_, '_, '_> {
    pub(super) fn faults(&mut self, services: &BTreeMap<String, Service>) -> BTreeMap<String, Fault> {
        let written = self.written;
        if !written.fault.is_empty() && !written.system.faults {
            let help = Some("take it out; or, in a system for tests alone, write faults = true in [system]".to_owned());
            self.document.problem(&["fault"], "this system takes no faults on purpose", help);
        }
        if written.system.faults && written.fault.is_empty() {
            let help = Some("take the line out".to_owned());
            self.document.problem(&["system", "faults"], "no fault is declared, so this would only leave a door open", help);
        }
        let mut faults = BTreeMap::new();
        for (name, w) in &written.fault {
            let at = |key| ["fault", name.as_str(), key];
            let Some(service) = services.get(&w.service) else {
                let help = suggestion(&w.service, services.keys().map(String::as_str));
                self.document.problem(&at("service"), format!("there is no service '{}'", w.service), Some(help));
                continue;
            };
            let offered: Vec<String> = service.routes.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
            if let Some(route) = w.route.as_ref().filter(|route| !offered.contains(route)) {
                let help = suggestion(route, offered.iter().map(String::as_str));
                self.document.problem(&at("route"), format!("'{}' has no route '{route}'", w.service), Some(help));
            }
            let callers = || services.keys().map(String::as_str).chain(["edge", "queue"]);
            if let Some(from) = w.from.as_deref().filter(|from| !callers().any(|one| one == *from)) {
                let help = suggestion(from, callers().collect::<Vec<_>>());
                self.document.problem(&at("from"), format!("there is no workload '{from}'"), Some(help));
            }
            let plain = |field: &String| field.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if w.header.as_ref().is_some_and(|field| field.is_empty() || field.len() > 63 || !plain(field)) {
                self.document.problem(&at("header"), "write a field's name: 1 to 63 of a-z, 0-9 and '-'", None);
            }
            let Some(act) = act(w) else {
                let message = "say what happens in exactly one of 'delay', 'abort' and 'reset'";
                self.document.problem(&["fault", name], message, None);
                continue;
            };
            let (route, from, header) = (w.route.clone(), w.from.clone(), w.header.clone());
            faults.insert(name.clone(), Fault { service: w.service.clone(), route, from, header, percent: w.percent.unwrap_or(100), act });
        }
        faults
    }
}

fn act(w: &written::Fault) -> Option<FaultAct> {
    match (w.delay, w.abort, w.reset) {
        (Some(delay), None, false) => Some(FaultAct::DelayMs(delay.0)),
        (None, Some(status), false) => Some(FaultAct::Abort(status)),
        (None, None, true) => Some(FaultAct::Reset),
        _ => None,
    }
}
