//! What init sees a service try, and how much of it the guard is told.
//!
//! Whoever may only be refused may still ask, as often as it likes. So what was denied is counted by kind, and told twice a second; the
//! first of a quiet half at once. An alarm within a second of what it is about (J11) leaves no longer to wait.
//!
//! Guarantees: I6 a denied call is an event; how often it was tried costs nobody anything.
//! Not here:   the record (the guard writes it).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::calls;

/// Kinds that are told apart between two tellings; what is yet another is counted as `(others)`.
const KINDS_MAX: usize = 64;
/// Pause between two tellings.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// System calls that were denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The call, as `ptrace`, `socket inet raw`, `connect 10.0.0.1:80`; `(others)` for all past the first 64 kinds between two tellings.
    pub call: String,
    /// How often since it was told last.
    pub count: u64,
    /// The program was ended for it.
    pub killed: bool,
}

/// What was seen of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Denied calls.
    Denied(Vec<Denial>),
    /// In a trace: names of calls that were made for the first time.
    Traced(Vec<String>),
}

/// What was seen and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    denied: BTreeMap<(String, bool), u64>,
    traced: BTreeSet<i64>,
    new: Vec<String>,
    told: Option<Instant>,
}

impl Watched {
    pub(crate) fn denied(&mut self, call: String, killed: bool) {
        let mut key = (call, killed);
        if self.denied.len() >= KINDS_MAX && !self.denied.contains_key(&key) {
            key = ("(others)".to_owned(), killed);
        }
        let count = self.denied.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn traced(&mut self, call: i64) {
        if self.traced.insert(call) {
            self.new.push(calls::name(call));
        }
    }

    /// How long until something is due; `None` if nothing waits.
    pub(crate) fn due_in(&self, now: Instant) -> Option<Duration> {
        if !self.new.is_empty() {
            return Some(Duration::ZERO);
        }
        let since = self.told.map(|told| now.saturating_duration_since(told));
        (!self.denied.is_empty()).then(|| since.map_or(Duration::ZERO, |since| TELL_EVERY.saturating_sub(since)))
    }

    /// What is due now, or (at the end) all.
    pub(crate) fn take(&mut self, now: Instant, all: bool) -> Vec<Seen> {
        let mut due = Vec::new();
        if !self.new.is_empty() {
            due.push(Seen::Traced(std::mem::take(&mut self.new)));
        }
        let is_time = all || self.due_in(now) == Some(Duration::ZERO);
        if is_time && !self.denied.is_empty() {
            self.told = Some(now);
            let denied = std::mem::take(&mut self.denied);
            due.push(Seen::Denied(denied.into_iter().map(|((call, killed), count)| Denial { call, count, killed }).collect()));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    //! Tests of what is told.
    #![allow(clippy::indexing_slicing, clippy::panic, reason = "tests")]
    use super::*;

    fn denials(seen: &[Seen]) -> &[Denial] {
        match seen {
            [Seen::Denied(denials)] => denials,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_is_told_at_once_and_a_flood_twice_a_second() {
        // I6
        let (start, mut watched) = (crate::supervise::now(), Watched::default());
        assert_eq!(watched.due_in(start), None);
        watched.denied("ptrace".to_owned(), true);
        assert_eq!(watched.due_in(start), Some(Duration::ZERO));
        assert_eq!(denials(&watched.take(start, false)), [Denial { call: "ptrace".to_owned(), count: 1, killed: true }]);
        for _ in 0..100_000 {
            watched.denied("setuid".to_owned(), false);
        }
        let soon = start + Duration::from_millis(300);
        assert_eq!(watched.take(soon, false), []);
        assert_eq!(watched.due_in(soon), Some(Duration::from_millis(200)));
        let later = start + TELL_EVERY;
        assert_eq!(denials(&watched.take(later, false)), [Denial { call: "setuid".to_owned(), count: 100_000, killed: false }]);
        watched.denied("setuid".to_owned(), false);
        assert_eq!(denials(&watched.take(later, true))[0].count, 1, "at the end all is told");
    }

    #[test]
    fn kinds_past_the_limit_are_counted_together() {
        // I6
        let (start, mut watched) = (crate::supervise::now(), Watched::default());
        for number in 0..KINDS_MAX + 10 {
            watched.denied(format!("connect 10.0.0.1:{number}"), false);
        }
        let seen = watched.take(start, false);
        assert_eq!(denials(&seen).len(), KINDS_MAX + 1);
        assert_eq!(denials(&seen)[0], Denial { call: "(others)".to_owned(), count: 10, killed: false });
    }

    #[test]
    fn a_traced_call_is_told_once() {
        let (start, mut watched) = (crate::supervise::now(), Watched::default());
        watched.traced(libc::SYS_openat);
        watched.traced(libc::SYS_openat);
        assert_eq!(watched.take(start, false), [Seen::Traced(vec!["openat".to_owned()])]);
        watched.traced(libc::SYS_openat);
        assert_eq!(watched.due_in(start), None);
    }
}
