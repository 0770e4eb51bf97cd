//! Switched off: what came of a measurement of a copy that goes without a control.
//!
//! A control that is missing is found in one of two ways. More is reached than with every control in force: then the model must have that
//! thing listed as behind this control alone. Or another control still stops what is tried: then somebody has seen that this one is not
//! there (a look at the wall itself, the audit log), and the controls that stopped it are named.
//!
//! Guarantees: L13.
//! Not here:   switching it off, and breaking in (`palisade`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::compare::{Between, Change, What, compare};
use crate::predict::Prediction;
use crate::report::{Cell, Extent, LISTENERS, Profile, Report};
use crate::technique::{Control, Outcome};

/// One control that a copy went without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// Which.
    pub control: Control,
    /// The service or role that went without it; nothing: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What was reached that is not with every control in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Beyond>,
    /// How it was seen that it is not there, by itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub noticed: BTreeSet<String>,
    /// Where the same was tried and it stands, for controls that the run tries itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stands: BTreeSet<String>,
    /// Techniques that test it and were stopped nevertheless, with the controls that stopped them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, BTreeSet<Control>>,
}

/// One thing that was reached because a control was missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beyond {
    /// By whom.
    pub profile: Profile,
    /// What.
    pub cell: Cell,
    /// By which techniques.
    pub by: BTreeSet<String>,
    /// Whether the model lists it as behind this control alone.
    pub listed: bool,
    /// Whether it may have been reached because of another control that was missing as well: no technique that reached it tests any of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
}

/// Names of what the technique `walls` finds missing begin so.
pub const WALL: &str = "control.";

impl Absent {
    /// A control that a copy went without, and how it was noticed so far.
    #[must_use]
    pub fn new(control: Control, at: Option<String>, noticed: BTreeSet<String>) -> Self {
        Self { control, at, reached: Vec::new(), noticed, stands: BTreeSet::new(), stopped: BTreeMap::new() }
    }

    /// The same, with where it stands.
    #[must_use]
    pub fn standing(self, stands: BTreeSet<String>) -> Self {
        Self { stands, ..self }
    }

    /// Whether it was found that it is missing. What may be another's doing finds nothing.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.reached.iter().any(|beyond| !beyond.unsure) || !self.noticed.is_empty()
    }

    /// Whether everything that was reached is listed as behind it alone.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.reached.iter().all(|beyond| beyond.listed)
    }

    /// What goes with it: the question to the policies is also what asks for a job's input and folder, and for a verdict.
    fn embodied(&self) -> BTreeSet<Control> {
        match self.control {
            Control::Policy => BTreeSet::from([Control::Policy, Control::JobToken, Control::Quarantine]),
            control => BTreeSet::from([control]),
        }
    }

    fn concerns(&self, profile: &Profile, services: &BTreeSet<String>) -> bool {
        match &self.at {
            Some(at) if services.contains(at) => *profile == Profile::Service(at.clone()),
            // A role, or everywhere.
            _ => true,
        }
    }

    /// Whether it stood, where it was left out, before what this attacker reached. What is asked of a caller is asked where they come in; the
    /// others are around whoever is in a service.
    fn stood_before(&self, profile: &Profile, cell: &Cell, services: &BTreeSet<String>) -> bool {
        let asked_of_callers = matches!(self.control, Control::Policy | Control::GuardIn | Control::Mtls);
        match (&self.at, place_of(cell)) {
            (Some(at), Some(place)) if asked_of_callers => place == at,
            _ => self.concerns(profile, services),
        }
    }

    fn judge(&mut self, prediction: &Prediction, measured: &Report, others: &[Self]) {
        let embodied = self.embodied();
        let attributed = Attributed { measured, others };
        for difference in compare(&prediction.report, measured, Between::Measurement).differences {
            if difference.change != Change::Added {
                continue;
            }
            let cell = match difference.what {
                What::Cell(cell) => cell,
                What::Route { service, route } => Cell::done(format!("service.{service}"), route, Extent::InFlight),
                What::Attacker => continue,
            };
            if let Some(wall) = cell.target.strip_prefix(WALL) {
                if wall == self.control.as_str() && self.concerns(&difference.profile, &measured.services) {
                    self.noticed.insert(format!("{}: the wall itself is not there", difference.profile));
                }
                continue;
            }
            let listed = prediction.ways.iter().any(|way| {
                let stopped_by_it = !way.stops.is_empty() && way.stops.is_subset(&embodied);
                stopped_by_it && way.profile == difference.profile && way.cell.kind == cell.kind && way.cell.target == cell.target
            });
            if !self.stood_before(&difference.profile, &cell, &measured.services) {
                continue;
            }
            let unsure = match is_about(&attributed, &difference.by, &cell, self.control) {
                About::It => false,
                About::Others => continue,
                About::Unknown => others.len() > 1 && !listed,
            };
            self.reached.push(Beyond { profile: difference.profile, cell, by: difference.by, listed, unsure });
        }
        self.reached.sort();
        let tests: BTreeSet<&str> =
            measured.techniques.iter().filter(|row| row.controls.contains(&self.control)).map(|row| row.id.as_str()).collect();
        for attempt in measured.attempts.iter().filter(|attempt| tests.contains(attempt.technique.as_str())) {
            if let Outcome::Stopped { by: Some(by) } = attempt.outcome
                && by != self.control
                && self.concerns(&attempt.profile, &measured.services)
            {
                self.stopped.entry(attempt.technique.clone()).or_default().insert(by);
            }
        }
    }
}

impl Report {
    /// Says of each control that was switched off what came of that.
    pub fn judge_absent(&mut self, prediction: &Prediction) {
        let mut absent = std::mem::take(&mut self.absent);
        let others = absent.clone();
        for one in &mut absent {
            one.judge(prediction, self, &others);
        }
        // Where several were left out, what lies behind one of them alone was not reached by another.
        let of = |beyond: &Beyond| (beyond.profile.clone(), beyond.cell.clone());
        let listed: BTreeSet<_> = absent.iter().flat_map(|one| &one.reached).filter(|beyond| beyond.listed).map(of).collect();
        for one in &mut absent {
            one.reached.retain(|beyond| beyond.listed || !listed.contains(&of(beyond)));
        }
        self.absent = absent;
    }
}

/// What is known of a run in which several controls were missing.
struct Attributed<'r> {
    measured: &'r Report,
    others: &'r [Absent],
}

/// Which of the missing controls the techniques test that reached something.
enum About {
    /// This one.
    It,
    /// Only others.
    Others,
    /// None: every one of them may have stood before it, and where one alone was missing, that one did.
    Unknown,
}

fn is_about(of: &Attributed<'_>, by: &BTreeSet<String>, cell: &Cell, control: Control) -> About {
    // A route is called by two techniques, which test the callee's answer in different ways.
    let calls = cell.target.starts_with("service.") && by.is_empty();
    let tests = |row: &&crate::Technique| by.contains(&row.id) || (calls && matches!(row.id.as_str(), "routes-of-others" | "own-work"));
    let controls: BTreeSet<Control> = of.measured.techniques.iter().filter(tests).flat_map(|row| row.controls.iter().copied()).collect();
    match of.others.iter().any(|one| controls.contains(&one.control)) {
        true if controls.contains(&control) => About::It,
        true => About::Others,
        false => About::Unknown,
    }
}

/// Who is asked for it: the role that keeps it, or the service itself.
fn place_of(cell: &Cell) -> Option<&str> {
    if cell.target == LISTENERS {
        return cell.action.rsplit('/').next();
    }
    match cell.target.split_once('.')? {
        ("bucket", _) => Some("objects"),
        ("queue", _) => Some("queue"),
        ("service" | "role", name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
