//! Notes: how each try ended, as one line of JSON that travels as the service's own output.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::mark::Mark;
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
}

/// Notes of one technique at most; what is beyond is dropped, which is harmless because they are gathered by their ends.
const KEPT_MAX: usize = 64;

impl Notes {
    /// None yet.
    #[must_use]
    pub fn new(technique: &'static str, mark: &Mark) -> Self {
        Self { technique, mark: mark.to_string(), from_ms: now_ms(), kept: BTreeMap::new() }
    }

    /// It was refused, or nothing was there.
    pub fn stopped(&mut self, by: Option<Control>, seen: impl Into<String>) {
        self.note(Outcome::Stopped { by }, seen.into(), |_| {});
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
        self.note(Outcome::Untried { why: why.into() }, String::new(), |_| {});
    }

    fn note(&mut self, outcome: Outcome, seen: String, add: impl FnOnce(&mut Tried)) {
        let place = (outcome, seen);
        if !self.kept.contains_key(&place) && self.kept.len() >= KEPT_MAX {
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
            from_ms,
            until_ms: from_ms,
        });
        add(tried);
    }

    /// What was gathered, in order.
    #[must_use]
    pub fn gathered(self) -> Vec<Tried> {
        let until_ms = now_ms();
        self.kept.into_values().map(|tried| Tried { until_ms, ..tried }).collect()
    }

    /// Writes what was gathered on standard output.
    pub fn tell(self) {
        for tried in self.gathered() {
            say(Said::Tried(tried));
        }
    }
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
}
