//! Notes: how each try ended, as one line of JSON that travels as the service's own output.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::heard::{self, Heard};
use super::mark::Mark;
use crate::untried::NOTHING_HERE;
use crate::{Cell, Control, Outcome};

/// How tries of one technique ended that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// The mark that it was the turn of.
    pub mark: String,
    /// Id of the technique.
    pub technique: String,
    /// How they ended.
    pub outcome: Outcome,
    /// What was seen.
    pub seen: String,
    /// What was reached, if anything.
    pub cells: Vec<Cell>,
    /// Routes of other services that really answered: service, route.
    pub routes: Vec<(String, String)>,
    /// Things that were taken and may be worth something elsewhere: what it is, and its text.
    pub stolen: Vec<(String, String)>,
    /// Requests that were sent for them.
    pub sent: u64,
    /// Reasons that their refusals told.
    pub reasons: BTreeSet<String>,
    /// Some were refused and told no reason.
    pub unsaid: bool,
    /// Traces that their answers belong to, where the edge named them.
    pub traces: BTreeSet<String>,
    /// What was stolen and shown, and in which context.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub thefts: BTreeSet<(String, String)>,
    /// When the technique was begun, milliseconds since the epoch.
    pub from_ms: u64,
    /// When it was over.
    pub until_ms: u64,
}

/// A line of the service's output. What else a service says is not one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The tries, or the end of a turn.
    pub breach: Said,
}

impl Line {
    /// What every one begins with, also one that was torn.
    pub const BEGIN: &str = "{\"breach\":";
}

/// What a line says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A turn begins: the mark, and what the service was called by.
    Began {
        /// The mark.
        mark: String,
        /// `METHOD /path` or `queue.NAME`.
        entry: String,
    },
    /// A service played along.
    Played {
        /// The mark.
        mark: String,
        /// As in `Began`.
        entry: String,
        /// Its flows, and what each was answered with.
        done: Vec<(String, u16)>,
    },
    /// Tries.
    Tried(Tried),
    /// A turn is over.
    Ended {
        /// The mark.
        mark: String,
        /// As in `Began`.
        entry: String,
    },
}

/// Gathers the tries of one technique.
#[derive(Debug)]
pub struct Notes {
    technique: &'static str,
    mark: String,
    from_ms: u64,
    kept: BTreeMap<(Outcome, String), Tried>,
    /// What is being shown: artefact and context.
    showing: Option<(String, String)>,
}

/// Refusals of one technique at most that are told apart; of those beyond only their number would grow. What was reached is never dropped.
const STOPPED_MAX: usize = 256;

/// The longest line that is told in one, in bytes: guards tear those of more than 16 KiB.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Things that a part of a longer one tells of.
const PART: usize = 8;
/// The longest text of what was seen, in bytes; tries that differ only beyond that are one.
const SEEN_BYTES_MAX: usize = 512;

/// Traces that one note keeps, at most: its tries ended alike, and so do their records.
const TRACES_MAX: usize = 64;

impl Notes {
    /// None yet.
    #[must_use]
    pub fn new(technique: &'static str, mark: &Mark) -> Self {
        // What another technique heard is not about this one.
        let _before = heard::take();
        Self { technique, mark: mark.to_string(), from_ms: now_ms(), kept: BTreeMap::new(), showing: None }
    }

    /// What is noted from now on is about this artefact in that context, or about none.
    pub fn shows(&mut self, artefact: Option<(&str, &str)>) {
        self.showing = artefact.map(|(what, context)| (what.to_owned(), context.to_owned()));
    }

    /// What is shown is good there, as it is meant to be: that is no reach of its own.
    pub fn counts(&mut self, seen: impl Into<String>) {
        self.note(Outcome::Reached, seen.into(), |_| {});
    }

    /// It was refused, or nothing was there. What the refusal itself tells of who refused counts more than `by`.
    pub fn stopped(&mut self, by: Option<Control>, seen: impl Into<String>) {
        let heard = heard::take();
        // At the edge a route that nobody has is told as one of a guard's is.
        let is_guards = |by: &Control| *by != Control::GuardOut || heard.trace.is_none();
        let told = heard.reason.as_deref().and_then(heard::control).filter(is_guards);
        self.note_heard(Outcome::Stopped { by: told.or(by) }, seen.into(), heard, |_| {});
    }

    /// It worked.
    pub fn reached(&mut self, cell: Cell, seen: impl Into<String>) {
        self.note(Outcome::Reached, seen.into(), |tried| {
            if !tried.cells.contains(&cell) {
                tried.cells.push(cell);
            }
        });
    }

    /// Another service's route really answered.
    pub fn answered(&mut self, service: &str, route: &str) {
        let found = (service.to_owned(), route.to_owned());
        self.note(Outcome::Reached, format!("{service} answers"), |tried| {
            if !tried.routes.contains(&found) {
                tried.routes.push(found);
            }
        });
    }

    /// Something was taken.
    pub fn stole(&mut self, what: &str, text: &str) {
        let found = (what.to_owned(), text.to_owned());
        self.note(Outcome::Reached, format!("has {what} in hand"), |tried| tried.stolen.push(found));
    }

    /// It could not be tried.
    pub fn untried(&mut self, why: impl Into<String>) {
        self.note(Outcome::Untried { why: shortened(why.into()) }, String::new(), |_| {});
    }

    fn note(&mut self, outcome: Outcome, seen: String, add: impl FnOnce(&mut Tried)) {
        self.note_heard(outcome, seen, heard::take(), add);
    }

    fn note_heard(&mut self, outcome: Outcome, seen: String, heard: Heard, add: impl FnOnce(&mut Tried)) {
        let place = (outcome, shortened(seen));
        let is_stop = |outcome: &Outcome| matches!(outcome, Outcome::Stopped { .. });
        let stops = || self.kept.keys().filter(|(outcome, _)| is_stop(outcome)).count();
        if is_stop(&place.0) && !self.kept.contains_key(&place) && stops() >= STOPPED_MAX {
            return;
        }
        let (mark, technique, from_ms) = (&self.mark, self.technique, self.from_ms);
        let tried = self.kept.entry(place).or_insert_with_key(|(outcome, seen)| Tried {
            mark: mark.clone(),
            technique: technique.to_owned(),
            outcome: outcome.clone(),
            seen: seen.clone(),
            cells: Vec::new(),
            routes: Vec::new(),
            stolen: Vec::new(),
            thefts: BTreeSet::new(),
            sent: 0,
            reasons: BTreeSet::new(),
            unsaid: false,
            traces: BTreeSet::new(),
            from_ms,
            until_ms: from_ms,
        });
        tried.sent = tried.sent.saturating_add(heard.sent);
        tried.unsaid |= heard.unsaid;
        tried.reasons.extend(heard.reason);
        if tried.traces.len() < TRACES_MAX {
            tried.traces.extend(heard.trace);
        }
        tried.thefts.extend(self.showing.clone());
        add(tried);
    }

    /// What was gathered, in order. A technique that noted nothing found nothing that it is about.
    #[must_use]
    pub fn gathered(mut self) -> Vec<Tried> {
        if self.kept.is_empty() {
            self.untried(NOTHING_HERE);
        }
        let until_ms = now_ms();
        self.kept.into_values().map(|tried| Tried { until_ms, ..tried }).collect()
    }

    /// Writes what was gathered on standard output.
    pub fn tell(self) {
        for tried in self.gathered() {
            for part in tried.parts() {
                say(Said::Tried(part));
            }
        }
    }
}

impl Tried {
    /// Itself, or in parts that are short enough to be told whole.
    fn parts(self) -> Vec<Self> {
        if serde_json::to_string(&self).is_ok_and(|text| text.len() <= LINE_BYTES_MAX) {
            return vec![self];
        }
        let none = Self { cells: Vec::new(), routes: Vec::new(), stolen: Vec::new(), ..self.clone() };
        let cells = self.cells.chunks(PART).map(|cells| Self { cells: cells.to_vec(), ..none.clone() });
        let routes = self.routes.chunks(PART).map(|routes| Self { routes: routes.to_vec(), ..none.clone() });
        let stolen = self.stolen.chunks(1).map(|stolen| Self { stolen: stolen.to_vec(), ..none.clone() });
        let parts: Vec<Self> = cells.chain(routes).chain(stolen).collect();
        if parts.is_empty() { vec![none] } else { parts }
    }
}

/// At most so much of a text as one line can tell.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SEEN_BYTES_MAX));
    text
}

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

/// One line on standard output.
pub(crate) fn say(said: Said) {
    let Ok(text) = serde_json::to_string(&Line { breach: said }) else { return };
    let mut out = std::io::stdout().lock();
    // Nobody listens any more when the copy is being ended.
    let _unheard = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::{Act, Extent};

    #[test]
    fn tries_that_end_alike_are_one_note() {
        let mut notes = Notes::new("files", &Mark::new(Act::Attack, "web", "ada", 1));
        for _ in 0..1000 {
            notes.stopped(Some(Control::Landlock), "EACCES");
        }
        notes.reached(Cell::read("host.files", Extent::Everybody), "opened");
        notes.reached(Cell::read("host.files", Extent::Everybody), "opened");
        let all = notes.gathered();
        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().find(|t| t.outcome == Outcome::Reached).unwrap().cells.len(), 1);
    }

    // L8: however many ways it is refused in, what it reaches is told.
    #[test]
    fn what_is_reached_after_many_refusals_is_not_dropped() {
        let mut notes = Notes::new("files", &Mark::new(Act::Attack, "web", "ada", 1));
        for number in 0..STOPPED_MAX + 10 {
            notes.stopped(None, number.to_string());
        }
        notes.reached(Cell::read("host.files", Extent::Everybody), "opened");
        notes.untried("and this could not be tried");
        let all = notes.gathered();
        assert_eq!(all.len(), STOPPED_MAX + 2);
        assert_eq!(all.iter().filter(|tried| !tried.cells.is_empty()).count(), 1);
    }

    // L8: a line that a guard would tear is told in several, and nothing of it is left out.
    #[test]
    fn what_is_too_long_for_a_line_is_told_in_parts() {
        let gathered = |count: usize| {
            let mut notes = Notes::new("standing", &Mark::new(Act::Attack, "web", "ada", 1));
            for number in 0..count {
                notes.reached(Cell::read(format!("bucket.{number:0>200}"), Extent::Everybody), "x".repeat(10_000));
            }
            let stolen = [1, 2].map(|number| (format!("cookie {number}"), "y".repeat(5000))).to_vec();
            Tried { stolen: stolen.get(..count / 50).unwrap().to_vec(), ..notes.gathered().remove(0) }
        };
        let length = |tried: &Tried| serde_json::to_string(&Line { breach: Said::Tried(tried.clone()) }).unwrap().len();
        assert_eq!(gathered(3).parts().len(), 1);
        let whole = gathered(100);
        let parts = whole.clone().parts();
        assert!(length(&whole) > 16 * 1024 && parts.len() > 10 && parts.iter().all(|part| length(part) <= LINE_BYTES_MAX));
        let cells: Vec<Cell> = parts.iter().flat_map(|part| part.cells.clone()).collect();
        assert_eq!(cells, whole.cells);
        assert_eq!(parts.iter().flat_map(|part| part.stolen.clone()).collect::<Vec<_>>(), whole.stolen);
    }

    // L10: one that notes nothing has an ending all the same.
    #[test]
    fn a_technique_without_a_note_found_nothing_that_it_is_about() {
        let all = Notes::new("after", &Mark::new(Act::Attack, "web", "ada", 1)).gathered();
        assert_eq!(all.iter().map(|tried| &tried.outcome).collect::<Vec<_>>(), [&Outcome::Untried { why: NOTHING_HERE.to_owned() }]);
    }
}
