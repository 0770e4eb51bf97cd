//! Sight: which techniques the audit log told of in time, and which it did not.
//!
//! Guarantees: J11 the table is part of each measurement.
//! Not here:   which record is of which try (`palisade`).

use std::collections::{BTreeMap, BTreeSet};

use crate::report::{Profile, Report};
use crate::technique::{Detected, Technique};

/// What was seen of one technique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight<'r> {
    /// Which.
    pub technique: &'r Technique,
    /// Attackers of whom a try was looked for in the log.
    pub of: usize,
    /// Those of them of whom one was there.
    pub by: usize,
    /// Names of the records, or the refusals' reasons.
    pub events: BTreeSet<&'r str>,
}

impl Sight<'_> {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.by, self.of) {
            (_, 0) => "untried here".to_owned(),
            (0, _) => "no".to_owned(),
            (by, of) if by == of => "yes".to_owned(),
            (by, of) => format!("for {by} of {of} attackers"),
        }
    }
}

/// The one technique that only does what it may: no attack that anybody looks for.
const OWN_WORK: &str = "own-work";

/// Every other technique of a measurement, in their order.
#[must_use]
pub fn sights(report: &Report) -> Vec<Sight<'_>> {
    let sight = |technique: &String| {
        let mut attackers: BTreeMap<&Profile, bool> = BTreeMap::new();
        let mut events = BTreeSet::new();
        for one in report.attempts.iter().filter(|one| one.technique == *technique) {
            let Some(detected) = &one.detected else { continue };
            let seen = attackers.entry(&one.profile).or_default();
            if let Detected::Yes { event, .. } = detected {
                *seen = true;
                events.insert(event.as_str());
            }
        }
        (attackers, events)
    };
    let seen = report.techniques.iter().filter(|technique| technique.id != OWN_WORK).map(|technique| {
        let (attackers, events) = sight(&technique.id);
        let by = attackers.values().filter(|seen| **seen).count();
        Sight { technique, of: attackers.len(), by, events }
    });
    seen.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use manifest::Manifest;

    use super::*;
    use crate::report::How;
    use crate::technique::{Attempt, Outcome, Stride};

    fn technique(id: &str) -> Technique {
        let (id, attack) = (id.to_owned(), "T1068".to_owned());
        Technique { id, title: String::new(), attack, stride: Stride::E, controls: Vec::new() }
    }

    // J11: yes is for everybody who tried, and what was not tried is neither seen nor unseen.
    #[test]
    fn a_technique_is_seen_where_a_record_is_of_each_attackers_try() {
        let video = Manifest::parse("palisade.toml", include_str!("../../../../apps/video/palisade.toml")).unwrap();
        let mut report = Report::new(How::Measured, &video);
        report.techniques = ["seen", "partly", "unseen", "untried", "own-work"].map(technique).to_vec();
        let yes = Some(Detected::Yes { event: "SyscallDenied".to_owned(), after_ms: 3 });
        let stopped = Outcome::Stopped { by: None };
        for (profile, technique, outcome, detected) in [
            (Profile::Person, "seen", &stopped, yes.clone()),
            (Profile::Person, "seen", &stopped, Some(Detected::No)),
            (Profile::Vendor, "seen", &stopped, yes.clone()),
            (Profile::Person, "partly", &stopped, yes),
            (Profile::Vendor, "partly", &stopped, Some(Detected::No)),
            (Profile::Person, "unseen", &stopped, Some(Detected::No)),
            (Profile::Person, "untried", &Outcome::Untried { why: "nothing is there".to_owned() }, None),
            (Profile::Person, "own-work", &stopped, Some(Detected::No)),
        ] {
            let (technique, outcome) = (technique.to_owned(), outcome.clone());
            report.attempts.push(Attempt { profile, technique, outcome, seen: String::new(), detected });
        }
        let told: Vec<_> = sights(&report).iter().map(|one| (one.technique.id.clone(), one.words(), one.events.len())).collect();
        let told: Vec<_> = told.iter().map(|(id, words, events)| (id.as_str(), words.as_str(), *events)).collect();
        assert_eq!(told, [("seen", "yes", 1), ("partly", "for 1 of 2 attackers", 1), ("unseen", "no", 0), ("untried", "untried here", 0)]);
    }
}
