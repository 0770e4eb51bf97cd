//! Comparison: two reports, cell by cell.
//!
//! A prediction and a measurement must agree; each cell in which they differ is a finding. Of two revisions the later one may only
//! reach less: what is new is a finding, what is gone is told.
//!
//! Guarantees: L8 prediction and measurement are held against each other; L9; L12 the matrices are compared route by route.

use std::collections::BTreeSet;

use manifest::Isolation;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::report::{Cell, Extent, LISTENERS, Profile, Radius, Report};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Between {
    /// A prediction (before) and a measurement (after).
    Measurement,
    /// A prediction and a measurement by some techniques alone: that these reach less says nothing.
    Part,
    /// An earlier and a later revision of a manifest.
    Revisions,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// What was compared.
    pub between: Between,
    /// Cells in which the two differ, in order.
    pub differences: Vec<Difference>,
}

/// One cell in which two reports differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// For whom.
    pub profile: Profile,
    /// New or gone.
    pub change: Change,
    /// What.
    pub what: What,
    /// By which policies or techniques it is reached, where it is.
    pub by: BTreeSet<String>,
}

/// New or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// In the second report alone.
    Added,
    /// In the first report alone.
    Removed,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Something is reached.
    Cell(Cell),
    /// A route of another service can be called.
    Route {
        /// The callee.
        service: String,
        /// `METHOD /path/{template}`.
        route: String,
    },
    /// The attacker itself: its service is not in the other report.
    Attacker,
}

/// Compares. A measurement of some attackers is held against what was predicted for these.
#[must_use]
pub fn compare(before: &Report, after: &Report, between: Between) -> Comparison {
    let mut differences = BTreeSet::new();
    let profiles: BTreeSet<&Profile> = match between {
        Between::Measurement | Between::Part => after.attackers.keys().collect(),
        Between::Revisions => before.attackers.keys().chain(after.attackers.keys()).collect(),
    };
    let nothing = Radius::default();
    for profile in profiles {
        let (first, second) = (before.attackers.get(profile), after.attackers.get(profile));
        let mut differs = |change, what, by| differences.insert(Difference { profile: profile.clone(), change, what, by });
        match (first.is_some(), second.is_some()) {
            (true, false) => differs(Change::Removed, What::Attacker, BTreeSet::new()),
            (false, true) => differs(Change::Added, What::Attacker, BTreeSet::new()),
            _ => false,
        };
        let (first, second) = (first.unwrap_or(&nothing), second.unwrap_or(&nothing));
        for (cell, by) in missing(second, first) {
            differs(Change::Added, What::Cell(cell.clone()), by.clone());
        }
        for (cell, by) in missing(first, second) {
            differs(Change::Removed, What::Cell(cell.clone()), by.clone());
        }
        if let Profile::Service(name) = profile {
            for (from, to, change) in [(after, before, Change::Added), (before, after, Change::Removed)] {
                for (service, route) in routes(from, name).difference(&routes(to, name)) {
                    let what = What::Route { service: (*service).to_owned(), route: (*route).to_owned() };
                    differs(change, what, BTreeSet::new());
                }
            }
        }
    }
    let counts = |one: &Difference| between != Between::Part || one.change == Change::Added;
    Comparison { between, differences: differences.into_iter().filter(counts).collect() }
}

/// What of a prediction a measurement can agree with: of the attackers that were tried, and without what a service's network shows to
/// others where each sandbox had one of its own.
#[must_use]
pub fn measurable(mut predicted: Report, measured: &Report) -> Report {
    predicted.attackers.retain(|profile, _| measured.attackers.contains_key(profile));
    if !measured.isolation.values().any(|levels| levels.at.contains(&Isolation::Confined)) {
        let plain = Cell::done(LISTENERS, names::PLAIN_ANSWER, Extent::Public);
        predicted.attackers.values_mut().for_each(|radius| drop(radius.reached.remove(&plain)));
    }
    predicted.lateral.0.retain(|from, _| measured.attackers.contains_key(&Profile::Service(from.clone())));
    predicted
}

/// Cells of `of` that `other` neither has nor covers.
fn missing<'r>(of: &'r Radius, other: &Radius) -> Vec<(&'r Cell, &'r BTreeSet<String>)> {
    let has = |cell: &Cell| other.reached.contains_key(cell) || other.reached.keys().any(|own| own.includes(cell));
    of.widest().into_iter().filter(|(cell, _)| !has(cell)).collect()
}

fn routes<'r>(report: &'r Report, from: &str) -> BTreeSet<(&'r str, &'r str)> {
    let row = report.lateral.0.get(from).into_iter().flatten();
    row.flat_map(|(to, routes)| routes.iter().map(move |route| (to.as_str(), route.as_str()))).collect()
}

impl Comparison {
    /// Whether the command fails: a measurement that differs at all, a revision that reaches more.
    #[must_use]
    pub fn fails(&self) -> bool {
        match self.between {
            Between::Measurement | Between::Part => !self.differences.is_empty(),
            Between::Revisions => self.differences.iter().any(|d| d.change == Change::Added),
        }
    }
}

impl Difference {
    /// A rule's id, for tools that group by it.
    #[must_use]
    pub fn rule(&self, between: Between) -> &'static str {
        match (between, self.change) {
            (Between::Measurement | Between::Part, Change::Added) => "reached-not-predicted",
            (Between::Measurement | Between::Part, Change::Removed) => "predicted-not-reached",
            (Between::Revisions, Change::Added) => "widened",
            (Between::Revisions, Change::Removed) => "narrowed",
        }
    }

    /// In a sentence.
    #[must_use]
    pub fn sentence(&self, between: Between) -> String {
        let who = &self.profile;
        let what = match &self.what {
            What::Cell(cell) => format!("{} {cell}", cell.kind.words()),
            What::Route { service, route } => format!("calls {service} {route}"),
            What::Attacker => match self.change {
                Change::Added => return format!("{who} is new: it can be taken over"),
                Change::Removed => return format!("{who} is gone"),
            },
        };
        match (between, self.change) {
            (Between::Measurement | Between::Part, Change::Added) => format!("{who} {what}, which was not predicted"),
            (Between::Measurement | Between::Part, Change::Removed) => format!("{who} was predicted to reach this and did not: {what}"),
            (Between::Revisions, Change::Added) => format!("{who} now {what}"),
            (Between::Revisions, Change::Removed) => format!("{who} no longer {what}"),
        }
    }
}

#[cfg(test)]
mod tests;
