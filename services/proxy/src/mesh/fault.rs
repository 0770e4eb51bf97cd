//! Faults on purpose: what the manifest of a system for tests wants to go wrong before a service.
//!
//! They happen at the guard of the *called* service, behind its decision and before its service: so callers meet them as they meet real
//! ones, over the same connections, and every time-out, retry and exclusion of theirs is tried as it is; and no fault opens anything,
//! since only a request that would have been let in gets that far. Which ones of a hundred is not left to chance: they are spread
//! evenly, so that a test sees the same each time.
//!
//! Guarantees: D9 faults for tests, declared, recorded on the span (`palisade.fault`) and counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use contract::control::{FaultAct, FaultProfile};
use http::HeaderMap;

/// How many requests each fault could have happened to.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeMap<String, u64>>);

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) act: FaultAct,
}

impl Faults {
    /// The first fault that happens to a request of `from` for `route` (nothing for a delivery). Nothing in a system without faults.
    pub(super) fn choose(&self, declared: &[FaultProfile], from: &str, route: Option<&str>, fields: &HeaderMap) -> Option<Chosen> {
        let meant = |fault: &&FaultProfile| {
            fault.from.as_ref().is_none_or(|its| its == from)
                && fault.route.as_ref().is_none_or(|its| Some(its.as_str()) == route)
                && fault.header.as_ref().is_none_or(|its| fields.contains_key(its.as_str()))
        };
        let happens = |fault: &&FaultProfile| {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(fault.name.clone()).or_default();
            let share = |count: u64| count.saturating_mul(u64::from(fault.percent)) / 100;
            let before = share(*count);
            *count = count.saturating_add(1);
            share(*count) > before
        };
        let chosen = declared.iter().filter(meant).find(happens)?;
        Some(Chosen { name: chosen.name.clone(), act: chosen.act })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fault(percent: u8) -> FaultProfile {
        FaultProfile { name: "f".into(), route: None, from: None, header: None, percent, act: FaultAct::Reset }
    }

    // D9
    #[test]
    fn so_many_of_a_hundred_are_spread_evenly() {
        for percent in [1, 10, 33, 50, 99, 100] {
            let (faults, declared) = (Faults::default(), [fault(percent)]);
            let hit: Vec<bool> = (0..200).map(|_| faults.choose(&declared, "front", None, &HeaderMap::new()).is_some()).collect();
            let share = |part: &[bool]| part.iter().filter(|hit| **hit).count();
            assert_eq!((share(&hit[..100]), share(&hit[100..])), (usize::from(percent), usize::from(percent)));
            let (one, other) = (share(&hit[..50]), share(&hit[50..100]));
            assert!(one.abs_diff(other) <= 1, "{percent}: {one} and {other}");
        }
    }

    #[test]
    fn a_fault_happens_to_what_it_is_declared_for() {
        let narrow =
            FaultProfile { from: Some("front".into()), route: Some("GET /a".into()), header: Some("x-fault".into()), ..fault(100) };
        let with = HeaderMap::from_iter([("x-fault".parse().unwrap(), "1".parse().unwrap())]);
        let happens =
            |from, route, fields: &HeaderMap| Faults::default().choose(std::slice::from_ref(&narrow), from, route, fields).is_some();
        assert!(happens("front", Some("GET /a"), &with));
        assert!(!happens("edge", Some("GET /a"), &with) && !happens("front", Some("GET /b"), &with));
        assert!(!happens("front", None, &with) && !happens("front", Some("GET /a"), &HeaderMap::new()));
        assert_eq!(Faults::default().choose(&[], "front", Some("GET /a"), &with), None);
    }
}
