//! Posture: how well a system is kept, from its sources to its services, each line with its evidence.
//!
//! A line says something that evidence shows to hold, or not to hold; where there is no evidence, it is unknown, and counts like the worst.
//! Each line belongs to a trust boundary. A boundary is as good as its weakest line, and the system as good as its weakest boundary:
//! never the mean, since nobody attacks the mean.
//!
//! Guarantees: P5.
//! Not here:   gathering what is on a machine (`palisade posture`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use manifest::{Isolation, Manifest};
use serde::{Deserialize, Serialize};

use crate::compare::{Between, compare, measurable};
use crate::report::{Extent, How, Kind, Profile, Report};

/// The six areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The manifest and policies.
    Sources,
    /// What is built from them.
    Build,
    /// What runs, byte for byte.
    Images,
    /// The machine.
    Infrastructure,
    /// How it is started, limited and replaced.
    Orchestration,
    /// What each service reaches.
    Services,
}

/// What evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is no evidence.
    Unknown,
    /// It does not hold.
    Broken,
    /// It holds in part.
    Weak,
    /// It holds.
    Held,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Area.
    pub area: Area,
    /// The trust boundary that it is about: `outside`, `operator`, `supply`, `service.NAME`.
    pub boundary: String,
    /// What is claimed.
    pub claim: String,
    /// Whether it holds.
    pub state: State,
    /// Why, in a few words.
    pub why: String,
    /// Where that can be seen: a file, or a command that shows it.
    pub evidence: String,
}

/// All lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posture {
    /// The system.
    pub system: String,
    /// Of the system: that of its worst boundary, 0 to 100.
    pub score: u8,
    /// Of each boundary: that of its worst line.
    pub boundaries: BTreeMap<String, u8>,
    /// In order.
    pub lines: Vec<Line>,
}

impl State {
    /// 0 to 100. What nobody looked at is worth what does not hold.
    #[must_use]
    pub fn score(self) -> u8 {
        match self {
            Self::Unknown | Self::Broken => 0,
            Self::Weak => 50,
            Self::Held => 100,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Broken => "BROKEN",
            Self::Weak => "weak",
            Self::Held => "held",
        }
    }
}

impl Posture {
    /// The posture that lines come to. Without a line nothing is known, which is the worst.
    #[must_use]
    pub fn of(system: &str, mut lines: Vec<Line>) -> Self {
        lines.sort();
        let mut boundaries = BTreeMap::new();
        for line in &lines {
            let worst = boundaries.entry(line.boundary.clone()).or_insert(100);
            *worst = line.state.score().min(*worst);
        }
        let score = boundaries.values().copied().min().unwrap_or(0);
        Self { system: system.to_owned(), score, boundaries, lines }
    }

    /// For people: the score first, then what keeps it down.
    #[must_use]
    pub fn text(&self) -> String {
        let weakest: Vec<&str> = self.boundaries.iter().filter(|(_, score)| **score == self.score).map(|(name, _)| name.as_str()).collect();
        let unknown = self.lines.iter().filter(|line| line.state == State::Unknown).count();
        let mut out = format!(
            "{}: {} of 100, which is its weakest trust boundary ({}); {unknown} of {} lines are unknown and count as the worst.\n",
            self.system,
            self.score,
            weakest.join(", "),
            self.lines.len()
        );
        let mut area = None;
        for line in &self.lines {
            if area != Some(line.area) {
                let _ = writeln!(out, "\n{}", format!("{:?}", line.area).to_lowercase());
                area = Some(line.area);
            }
            let _ = writeln!(out, "  {:<8} {:<20} {}: {}", line.state.word(), line.boundary, line.claim, line.why);
            let _ = writeln!(out, "  {:<8} {:<20} -> {}", "", "", line.evidence);
        }
        out
    }
}

/// Lines about orchestration and services, from the manifest, its prediction, and a measurement if there is one of this very manifest.
#[must_use]
pub fn of_system(manifest: &Manifest, predicted: &Report, measured: Option<&Report>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |area, boundary: &str, claim: &str, state, why: String, evidence: &str| {
        let (boundary, claim, evidence) = (boundary.to_owned(), claim.to_owned(), evidence.to_owned());
        lines.push(Line { area, boundary, claim, state, why, evidence });
    };
    let faults = if manifest.faults.is_empty() { State::Held } else { State::Broken };
    let why = format!("{} declared", manifest.faults.len());
    add(Area::Orchestration, "outside", "nothing goes wrong on purpose", faults, why, "palisade check");
    for name in manifest.services.keys() {
        let profile = Profile::Service(name.clone());
        let boundary = profile.to_string();
        if let Some(service) = manifest.services.get(name) {
            let full = service.isolation == Isolation::Full;
            let (state, why) = if full { (State::Held, "full is required") } else { (State::Weak, "namespaces may be missing") };
            let evidence = format!("palisade sandbox explain {name}");
            add(Area::Orchestration, &boundary, "every layer of its sandbox is required to start", state, why.to_owned(), &evidence);
        }
        let wide: Vec<String> = predicted
            .attackers
            .get(&profile)
            .into_iter()
            .flat_map(|radius| radius.widest().into_keys())
            .filter(|cell| matches!(cell.kind, Kind::Read | Kind::Written) && cell.extent == Extent::Everybody || cell.kind == Kind::Secret)
            .map(|cell| format!("{} {}", cell.kind.words(), cell.target))
            .collect();
        let state = if wide.is_empty() { State::Held } else { State::Weak };
        let why = if wide.is_empty() { "none".to_owned() } else { wide.join(", ") };
        let evidence = format!("palisade breach --predict --only {name}");
        add(
            Area::Services,
            &boundary,
            "once taken over it reaches nobody's data but of the work in hand, and no secret",
            state,
            why,
            &evidence,
        );
        let (state, why) = attacked(manifest, predicted, measured, &profile);
        add(Area::Services, &boundary, "an attack reached what was predicted", state, why, "palisade breach");
    }
    lines
}

/// What a measurement says of one attacker.
fn attacked(manifest: &Manifest, predicted: &Report, measured: Option<&Report>, profile: &Profile) -> (State, String) {
    let Some(measured) = measured else { return (State::Unknown, "never measured; --measured names a report".to_owned()) };
    if measured.how != How::Measured {
        return (State::Unknown, "the report is a prediction; nobody measured".to_owned());
    }
    if measured.manifest != manifest.digest() {
        return (State::Unknown, "the measurement is of another manifest".to_owned());
    }
    if !measured.absent.is_empty() {
        return (State::Unknown, "the measurement is of a copy that went without a control".to_owned());
    }
    if !measured.attackers.contains_key(profile) {
        return (State::Unknown, "the measurement left it out".to_owned());
    }
    let mut whole = measured.clone();
    whole.complete(predicted, &|_| true);
    match whole.gaps().iter().filter(|gap| gap.profile == *profile).count() {
        0 => {}
        some => return (State::Unknown, format!("the measurement is partial: {some} techniques were not tried")),
    }
    let differences = compare(&measurable(predicted.clone(), measured), measured, Between::Measurement).differences;
    match differences.iter().filter(|difference| difference.profile == *profile).count() {
        0 => (State::Held, "every cell agrees".to_owned()),
        some => (State::Broken, format!("{some} cells differ")),
    }
}

#[cfg(test)]
mod tests;
