//! Defence in depth: which controls stand between attackers and each thing, and what stands behind one alone.
//!
//! Two controls are independent where each would stop a way without the other. A control protects something alone if there is a way
//! that nothing else stops: with that control left out the way is open. Leaving one out is what `Prediction::without` does.
//!
//! Guarantees: L13.
//! Not here:   switching a control off in a system that runs, and breaking in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::predict::{Prediction, Way};
use crate::report::{Cell, Profile, Report};
use crate::technique::Control;

/// One thing, and what protects it from those who do not reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protected {
    /// What.
    pub target: String,
    /// Every control that stops some way to it.
    pub controls: BTreeSet<Control>,
    /// Controls that some way is stopped by alone, and for whom the way would be open.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alone: BTreeMap<Control, BTreeSet<Profile>>,
}

impl Prediction {
    /// What would be reached with one control left out.
    #[must_use]
    pub fn without(&self, control: Control) -> Report {
        let mut report = self.report.clone();
        for way in self.ways.iter().filter(|way| way.stops.len() == 1 && way.stops.contains(&control)) {
            report.attackers.entry(way.profile.clone()).or_default().add(way.cell.clone(), format!("without {control}"));
            if let (Profile::Service(from), Some(to), false) =
                (&way.profile, way.cell.target.strip_prefix("service."), way.cell.action.is_empty())
            {
                report.lateral.add(from, to, way.cell.action.clone());
            }
        }
        report
    }

    /// What protects each thing, in the order of their names. Who reaches something is not protected from it, and not counted.
    #[must_use]
    pub fn defence(&self) -> Vec<Protected> {
        let mut all: BTreeMap<&str, Protected> = BTreeMap::new();
        for way in self.ways.iter().filter(|way| !way.stops.is_empty() && !self.reaches(&way.profile, &way.cell)) {
            let target = way.cell.target.as_str();
            let new = || Protected { target: target.to_owned(), controls: BTreeSet::new(), alone: BTreeMap::new() };
            let protected = all.entry(target).or_insert_with(new);
            protected.controls.extend(&way.stops);
            if let Some(alone) = only(way) {
                protected.alone.entry(alone).or_default().insert(way.profile.clone());
            }
        }
        all.into_values().collect()
    }

    fn reaches(&self, profile: &Profile, cell: &Cell) -> bool {
        let radius = self.report.attackers.get(profile);
        radius.is_some_and(|radius| radius.reached.keys().any(|own| own == cell || own.includes(cell)))
    }
}

/// The one control that stops a way.
fn only(way: &Way) -> Option<Control> {
    if way.stops.len() == 1 { way.stops.first().copied() } else { None }
}

#[cfg(test)]
mod tests;
