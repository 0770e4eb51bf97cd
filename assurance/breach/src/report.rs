//! The report: for each attacker the cells that it reaches, and the matrix of lateral movement.
//!
//! Order is part of the form: profiles, cells and routes are sorted, so the same system gives the same bytes. A cell says what is
//! reached in units that both a model and an attack can count (`Extent`): "the job's input object", not "some objects".
//!
//! Guarantees: L8 cells of a prediction and of a measurement are the same type; L12 the matrix is sparse, what is absent is refused.

mod circumstances;
mod neighbour;
mod profile;
pub mod sight;
pub mod theft;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use trust::Digest;

pub use circumstances::{Measured, SUITE_MS_MAX, Took, words};
pub use neighbour::{Neighbour, Pace, SLOWER_FACTOR, SLOWER_MS};
pub use profile::{Profile, ProfileError};
pub use theft::{Theft, Thefts};

use crate::absent::Absent;
use crate::defence::Protected;
use crate::technique::{Attempt, Technique};

/// Version of the form. A reader refuses a report of another one.
pub const VERSION: u32 = 1;
/// What guards and roles listen on, for each other alone: a target of cells.
pub const LISTENERS: &str = "inner listeners";

/// What attackers reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `VERSION`.
    pub version: u32,
    /// Predicted or measured.
    pub how: How,
    /// The system's name.
    pub system: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its services: rows and columns of the matrix.
    pub services: BTreeSet<String>,
    /// One for each attacker, in the order of profiles.
    pub attackers: BTreeMap<Profile, Radius>,
    /// Which service can call which route of which other.
    pub lateral: Lateral,
    /// What the next one could be made to do, with the authority in hand; predicted alone, and apart from what is reached.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deputies: BTreeSet<Deputy>,
    /// What protects each thing from those who do not reach it; predicted alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defence: Vec<Protected>,
    /// What was tried, in the order of profiles and techniques; empty for a prediction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Controls that the copy went without, and what came of each; empty but for a measurement that was to show that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// What became of things that were stolen, wherever they were shown; measured alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thefts: Vec<Theft>,
    /// Declared flows that nothing serves yet, by service: nobody reaches anything by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unserved: BTreeMap<String, BTreeSet<String>>,
    /// The techniques that `attempts` speaks of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub techniques: Vec<Technique>,
    /// Services with a list of system calls of their own: what the attacker program had beyond it, because it cannot run without.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beyond: BTreeMap<String, BTreeSet<String>>,
    /// How other people's work went while each attacker used up all that it could; measured alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
    /// What was lost on the way of what each attacker told, and which turns did not come to their end; measured alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unheard: BTreeMap<Profile, BTreeSet<String>>,
    /// How strong the sandboxes of each service were; measured alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub isolation: BTreeMap<String, Measured>,
    /// How long it took; measured alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
}

/// Where a report comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// From the manifest; nothing ran.
    Predicted,
    /// By an attack on a copy of the system.
    Measured,
}

/// What one attacker reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radius {
    /// How long the attacker stays where it is.
    pub lasts: Lasts,
    /// What it reaches, and by what.
    #[serde(with = "cells")]
    pub reached: BTreeMap<Cell, BTreeSet<String>>,
}

/// How long an attacker stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasts {
    /// Until its job ends: nothing of it is there for the next.
    Job,
    /// Until the service is started again: "in flight" is everybody who comes by meanwhile.
    #[default]
    Start,
    /// As long as its credential.
    Credential,
}

/// One thing that is reached. Two reports agree where they have the same cells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// In which way.
    pub kind: Kind,
    /// What, as `KIND.NAME` of the manifest: `bucket.originals`, `queue.status`, `service.api` (what passes through it), `state.api`
    /// (its folder), `secret.key`, `egress.maps`, `role.login`; whatever else an attack finds, by a name that stays the same.
    pub target: String,
    /// For `Done` and `Egress`: what is done, `publish` or `GET /api/videos`; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// How much of it.
    pub extent: Extent,
}

/// In which way something is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its content is read.
    Read,
    /// Its content is made, changed or removed.
    Written,
    /// An act: a call, a publication, a verdict.
    Done,
    /// A credential, key or secret is in the attacker's hands.
    Secret,
    /// Something outside of the system answers.
    Egress,
    /// A neighbour is slower, or refuses, because of it.
    Disturbed,
}

/// How much is reached. What one covers, `covers` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// What anybody is given without saying who they are.
    Public,
    /// The attacker's own, as a person or partner.
    Own,
    /// What a workload does in its own name, on nobody's authority.
    Standing,
    /// The message in hand (1).
    Job,
    /// The object that the job in hand names as its input (1).
    JobInput,
    /// The folder of the job in hand (1).
    JobFolder,
    /// Of the person whose request or job is in flight.
    InFlight,
    /// What others shared with that person; nobody's as long as the store has no route for that.
    Shared,
    /// Everybody's.
    Everybody,
}

/// The matrix of lateral movement: from, to, routes that are really answered (`METHOD /path/{template}`, `TCP /` for raw flows). What is
/// absent is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lateral(pub BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// What somebody else does for an attacker, who gave it work on the authority in hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deputy {
    /// The attacker.
    pub profile: Profile,
    /// Who does it: `service.api`.
    pub via: String,
    /// What is done.
    pub cell: Cell,
}

/// A cell with what it was reached by, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// See `Cell`.
    pub kind: Kind,
    /// See `Cell`.
    pub target: String,
    /// See `Cell`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// See `Cell`.
    pub extent: Extent,
    /// Ids of policies (predicted) or of techniques (measured), sorted.
    pub by: BTreeSet<String>,
}

impl Report {
    /// A report without attackers yet.
    #[must_use]
    pub fn new(how: How, manifest: &manifest::Manifest) -> Self {
        Self {
            version: VERSION,
            how,
            system: manifest.name.clone(),
            manifest: manifest.digest(),
            services: manifest.services.keys().cloned().collect(),
            attackers: BTreeMap::new(),
            lateral: Lateral::default(),
            deputies: BTreeSet::new(),
            defence: Vec::new(),
            attempts: Vec::new(),
            absent: Vec::new(),
            unserved: manifest.unserved(),
            thefts: Vec::new(),
            techniques: Vec::new(),
            beyond: BTreeMap::new(),
            neighbours: Vec::new(),
            unheard: BTreeMap::new(),
            isolation: BTreeMap::new(),
            took: None,
        }
    }

    /// As JSON: the same report gives the same bytes.
    ///
    /// # Errors
    /// None that its types allow; `serde_json`'s, in case.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut ordered = self.clone();
        ordered.attempts.sort();
        ordered.techniques.sort();
        serde_json::to_string_pretty(&ordered)
    }

    /// Reads what `to_json` wrote.
    ///
    /// # Errors
    /// When it is not a report, or one of another version.
    pub fn from_json(text: &str) -> Result<Self, ReportError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(ReportError::Version(version));
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// Why a text is not a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not JSON, or not of the form.
    #[error("not a report of a breach: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the form.
    #[error("the report has version {0}, this program reads version {VERSION}; make it anew")]
    Version(u32),
}

impl Radius {
    /// Notes that `cell` is reached by `by`.
    pub fn add(&mut self, cell: Cell, by: impl Into<String>) {
        self.reached.entry(cell).or_default().insert(by.into());
    }

    /// Its cells without those that a wider one of the same target covers: what is counted, shown and compared.
    #[must_use]
    pub fn widest(&self) -> BTreeMap<&Cell, &BTreeSet<String>> {
        let covered = |cell: &Cell| self.reached.keys().any(|other| other.includes(cell));
        self.reached.iter().filter(|(cell, _)| !covered(cell)).collect()
    }

    /// The widest cells of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Cell> {
        self.widest().into_keys().filter(move |cell| cell.kind == kind)
    }
}

impl Cell {
    /// Content that is read.
    #[must_use]
    pub fn read(target: impl Into<String>, extent: Extent) -> Self {
        Self { kind: Kind::Read, target: target.into(), action: String::new(), extent }
    }

    /// Content that is made, changed or removed.
    #[must_use]
    pub fn written(target: impl Into<String>, extent: Extent) -> Self {
        Self { kind: Kind::Written, target: target.into(), action: String::new(), extent }
    }

    /// An act.
    #[must_use]
    pub fn done(target: impl Into<String>, action: impl Into<String>, extent: Extent) -> Self {
        Self { kind: Kind::Done, target: target.into(), action: action.into(), extent }
    }

    /// A secret in the attacker's hands.
    #[must_use]
    pub fn secret(target: impl Into<String>) -> Self {
        Self { kind: Kind::Secret, target: target.into(), action: String::new(), extent: Extent::Standing }
    }

    /// A call of something outside.
    #[must_use]
    pub fn egress(target: impl Into<String>, action: impl Into<String>, extent: Extent) -> Self {
        Self { kind: Kind::Egress, target: target.into(), action: action.into(), extent }
    }

    /// A neighbour that suffers.
    #[must_use]
    pub fn disturbed(target: impl Into<String>) -> Self {
        Self { kind: Kind::Disturbed, target: target.into(), action: String::new(), extent: Extent::Standing }
    }

    /// A call of a service's route that was answered: the act, what the answer shows, and what the call may have changed.
    #[must_use]
    pub fn of_call(target: &str, method: &str, action: &str, extent: Extent) -> Vec<Self> {
        let mut cells = vec![Self::done(target, action, extent), Self::read(target, extent)];
        if !matches!(method, "GET" | "HEAD" | "OPTIONS") {
            cells.push(Self::written(target, extent));
        }
        cells
    }

    /// Whether this one is of the same thing, and wider.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        (self.kind, &self.target, &self.action) == (other.kind, &other.target, &other.action) && self.extent.covers(other.extent)
    }
}

impl Extent {
    /// Whether whoever has this much has `other` with it; never itself.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        use Extent as E;
        match self {
            E::Everybody => other != E::Everybody,
            E::InFlight => matches!(other, E::Job | E::JobInput | E::JobFolder),
            // A job's folder is the one that its input lies in.
            E::JobFolder => other == E::JobInput,
            E::Public | E::Own | E::Standing | E::Job | E::JobInput | E::Shared => false,
        }
    }

    /// In plain words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "what anybody is given",
            Self::Own => "its own",
            Self::Standing => "in its own name",
            Self::Job => "the message in hand",
            Self::JobInput => "the job's input object (1)",
            Self::JobFolder => "the job's folder (1)",
            Self::InFlight => "of the person in flight",
            Self::Shared => "shared with that person",
            Self::Everybody => "everybody's",
        }
    }
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: &'static [Self] = &[Self::Read, Self::Written, Self::Done, Self::Secret, Self::Egress, Self::Disturbed];

    /// Heading in tables.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Written => "writes",
            Self::Done => "does",
            Self::Secret => "secrets",
            Self::Egress => "outside",
            Self::Disturbed => "disturbs",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)?;
        if !self.action.is_empty() {
            write!(f, " {}", self.action)?;
        }
        match self.kind {
            Kind::Secret | Kind::Disturbed => Ok(()),
            _ => write!(f, ": {}", self.extent.words()),
        }
    }
}

impl Lateral {
    /// How many services `from` can call.
    #[must_use]
    pub fn reach(&self, from: &str) -> usize {
        self.0.get(from).map_or(0, BTreeMap::len)
    }

    /// Notes that `from` can call `route` of `to`.
    pub fn add(&mut self, from: &str, to: &str, route: impl Into<String>) {
        self.0.entry(from.to_owned()).or_default().entry(to.to_owned()).or_default().insert(route.into());
    }

    /// Routes of `to` that `from` can call; none when it cannot.
    #[must_use]
    pub fn routes(&self, from: &str, to: &str) -> Option<&BTreeSet<String>> {
        self.0.get(from)?.get(to)
    }
}

/// Cells as a list of objects: JSON's keys are texts.
mod cells {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Cell, Reached};

    pub(super) fn serialize<S: Serializer>(cells: &BTreeMap<Cell, BTreeSet<String>>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(cells.iter().map(|(cell, by)| {
            let Cell { kind, target, action, extent } = cell.clone();
            Reached { kind, target, action, extent, by: by.clone() }
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Cell, BTreeSet<String>>, D::Error> {
        let list = Vec::<Reached>::deserialize(d)?;
        Ok(list.into_iter().map(|Reached { kind, target, action, extent, by }| (Cell { kind, target, action, extent }, by)).collect())
    }
}

#[cfg(test)]
mod tests;
