//! Untried: every technique has an ending for every attacker that has it, and one that was not tried says why.
//!
//! A technique that does not run reaches nothing, which looks like a wall that holds. So a measurement is held against the table of
//! techniques first: what is expected and has no attempt is untried, and what is untried for no known reason fails the command.
//!
//! Guarantees: L8, L10: no agreement of a prediction and a measurement rests on a try that was not made.
//! Not here:   what was reached (`compare`).

use std::collections::BTreeSet;

use crate::attacker::techniques::{ALL, Row, Run, Who};
use crate::report::{Cell, Extent, Kind, Lasts, Profile, Report};
use crate::technique::{Attempt, Outcome};

/// A technique ran, and there was nothing that it is about.
pub const NOTHING_HERE: &str = "it ran, and there is nothing here that it is about";
/// Nobody else was taken over, so that there was nothing to be stolen.
pub const NOTHING_STOLEN: &str = "nothing was stolen";
/// Work came, and no authority with it.
pub const NO_TOKEN: &str = "no token is in hand";
/// The kernel lets nobody but root become another user.
pub const NOBODY_ELSE: &str = "nobody here can become another user of the machine";
/// A listener was gone before it could be tried: what is started for a job ends with it.
pub const NOBODY_THERE: &str = "nobody is there any more";
/// Nothing of it was given to anybody.
pub const NONE_BOUND: &str = "nobody of the copy has a token that is bound";
/// The manifest gives it no work.
pub const NO_WORK: &str = "no work comes to it by this manifest";
/// What is kept beyond a job is not, where the sandbox ends with it.
pub const ENDS_WITH_ITS_JOB: &str = "its sandbox ends with its job, and what it kept with that";
/// It was tried by another service, which tells of it.
pub const HANDED_ON: &str = "whoever it was handed to tells of it";
/// What is not in the kernel can neither be reached nor kept from anybody.
pub const KERNEL_LACKS: &str = "this kernel has no such thing";
/// What a service was given it does not hold; what it takes of itself it does.
pub const BY_PUSH: &str = "deliveries come to services of themselves here";
/// A sandbox without namespaces of its own has no `/proc` at all, and nothing else shows a program its own mappings.
pub const NO_PROC: &str = "there is no /proc in this sandbox";
/// What an expected technique has that nobody told anything of.
pub const MISSING: &str = "nothing was told of it: it did not run, or did not come to its end";

/// Reasons that hold wherever a technique gives them, by their beginnings. Whatever else was not tried is a gap.
const EXPLAINED: &[&str] =
    &[NOTHING_HERE, NO_TOKEN, NOBODY_ELSE, NOBODY_THERE, NONE_BOUND, NO_WORK, ENDS_WITH_ITS_JOB, HANDED_ON, KERNEL_LACKS, BY_PUSH, NO_PROC];

/// A technique that was not tried by somebody who has it, for no reason that is known beforehand, or whose end nobody heard of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// Who should have.
    pub profile: Profile,
    /// Id of the technique; none where it is not known which.
    pub technique: Option<String>,
    /// What is said of it.
    pub why: String,
}

impl Who {
    /// The attacker that it is in reports.
    #[must_use]
    pub fn profile(self) -> Profile {
        match self {
            Self::Stranger => Profile::External,
            Self::Person => Profile::Person,
            Self::Insider => Profile::Insider,
            Self::InsiderMfa => Profile::InsiderMfa,
            Self::Vendor => Profile::Vendor,
        }
    }
}

/// Whether an attacker has this technique.
#[must_use]
pub fn is_expected(row: &Row, profile: &Profile) -> bool {
    match (row.run, profile) {
        (Run::Outside(_, by), profile) => by.iter().any(|who| who.profile() == *profile),
        (_, Profile::Service(_)) => true,
        _ => false,
    }
}

impl Report {
    /// Gives everything that was expected of this measurement and is not there its ending: untried, with why that is. `wants` says which
    /// techniques were asked for; `predicted` which services get any work.
    pub fn complete(&mut self, predicted: &Report, wants: &dyn Fn(&str) -> bool) {
        let told: BTreeSet<(Profile, String)> =
            self.attempts.iter().map(|attempt| (attempt.profile.clone(), attempt.technique.clone())).collect();
        for profile in self.attackers.keys() {
            for row in ALL.iter().filter(|row| wants(row.id) && is_expected(row, profile)) {
                if !told.contains(&(profile.clone(), row.id.to_owned())) {
                    let why = self.why_missing(predicted, profile, row).to_owned();
                    let (profile, technique) = (profile.clone(), row.id.to_owned());
                    self.attempts.push(Attempt {
                        profile,
                        technique,
                        outcome: Outcome::Untried { why },
                        seen: String::new(),
                        detected: None,
                    });
                }
            }
        }
        // That it found nothing at one entry says nothing where it did at another.
        let tried: BTreeSet<(Profile, String)> =
            self.attempts.iter().filter(|one| !is_nothing(one)).map(|one| (one.profile.clone(), one.technique.clone())).collect();
        self.attempts.retain(|one| !is_nothing(one) || !tried.contains(&(one.profile.clone(), one.technique.clone())));
        self.attempts.sort();
    }

    fn why_missing(&self, predicted: &Report, profile: &Profile, row: &Row) -> &'static str {
        let own = |radius: &crate::report::Radius| radius.lasts == Lasts::Job;
        let Profile::Service(name) = profile else { return MISSING };
        let works = predicted.attackers.get(profile).is_some_and(|radius| radius.reached.keys().any(|cell| is_work(cell, name)));
        match row.run {
            _ if !works => NO_WORK,
            Run::After(_) if self.attackers.get(profile).is_some_and(own) => ENDS_WITH_ITS_JOB,
            Run::InHand(_, crate::Act::Replay) if self.taken_over() < 2 => NOTHING_STOLEN,
            _ => MISSING,
        }
    }

    /// What was not tried, for no reason that is known beforehand, and what was told and not heard.
    #[must_use]
    pub fn gaps(&self) -> BTreeSet<Gap> {
        let gap = |one: &Attempt| match &one.outcome {
            Outcome::Untried { why } if !self.is_explained(&one.profile, why) => {
                Some(Gap { profile: one.profile.clone(), technique: Some(one.technique.clone()), why: why.clone() })
            }
            _ => None,
        };
        let unheard = self.unheard.iter().flat_map(|(profile, all)| all.iter().map(move |why| (profile.clone(), why.clone())));
        let unheard = unheard.map(|(profile, why)| Gap { profile, technique: None, why });
        self.attempts.iter().filter_map(gap).chain(unheard).collect()
    }

    fn is_explained(&self, profile: &Profile, why: &str) -> bool {
        // Where others are taken over as well, something is stolen from them.
        let others = self.taken_over().saturating_sub(usize::from(matches!(profile, Profile::Service(_))));
        EXPLAINED.iter().any(|reason| why.starts_with(reason)) || (why.starts_with(NOTHING_STOLEN) && others == 0)
    }

    fn taken_over(&self) -> usize {
        self.attackers.keys().filter(|profile| matches!(profile, Profile::Service(_))).count()
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.technique {
            Some(technique) => write!(f, "{} did not try {technique}: {}", self.profile, self.why),
            None => write!(f, "{}: {}", self.profile, self.why),
        }
    }
}

fn is_nothing(attempt: &Attempt) -> bool {
    matches!(&attempt.outcome, Outcome::Untried { why } if why == NOTHING_HERE)
}

/// Whether a service that reaches this is given work: requests pass through it, or it consumes.
fn is_work(cell: &Cell, name: &str) -> bool {
    let passes = cell.kind == Kind::Read && cell.extent == Extent::InFlight && cell.target.strip_prefix("service.") == Some(name);
    passes || (cell.kind == Kind::Done && cell.action == "consume" && cell.extent == Extent::Job)
}

#[cfg(test)]
pub(crate) mod tests;
