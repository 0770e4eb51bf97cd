//! Circumstances of a measurement: how strong the sandboxes were that it was made in, and how long it took.
//!
//! Guarantees: L8: what was measured at one level of isolation is not told of another.

use std::collections::BTreeSet;

use manifest::Isolation;
use serde::{Deserialize, Serialize};

/// The longest that a suite is meant to take, milliseconds.
pub const SUITE_MS_MAX: u64 = 120_000;

/// How strong a service's sandboxes were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The weakest that its manifest accepts.
    pub accepts: Isolation,
    /// Those that its sandboxes really had.
    pub at: BTreeSet<Isolation>,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Took {
    /// To predict, milliseconds.
    pub prediction_ms: u64,
    /// The whole suite, from the copy to the report, milliseconds.
    pub suite_ms: u64,
}

impl Measured {
    /// What this measurement does not show of a service.
    #[must_use]
    pub fn unshown(&self, service: &str) -> Option<String> {
        if self.at.is_empty() {
            return Some(format!("{service} was started in no sandbox, so that nothing was measured of it"));
        }
        (!self.at.contains(&self.accepts)).then(|| {
            let at: Vec<&str> = self.at.iter().map(|level| words(*level)).collect();
            format!(
                "{service} was measured at isolation {}; its manifest accepts {}, which this does not show",
                at.join(", "),
                words(self.accepts)
            )
        })
    }
}

impl Took {
    /// A word about a suite that is slower than it is meant to be.
    #[must_use]
    pub fn slow(&self) -> Option<String> {
        (self.suite_ms > SUITE_MS_MAX)
            .then(|| format!("the suite took {} s, more than the {} s that it is meant to take", self.suite_ms / 1000, SUITE_MS_MAX / 1000))
    }
}

/// A level in a word.
#[must_use]
pub fn words(level: Isolation) -> &'static str {
    match level {
        Isolation::Full => "full",
        Isolation::Confined => "confined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // L8
    #[test]
    fn a_level_that_was_accepted_and_not_measured_is_told() {
        let of = |accepts, at: &[Isolation]| Measured { accepts, at: at.iter().copied().collect() }.unshown("worker");
        assert_eq!(of(Isolation::Full, &[Isolation::Full]), None);
        assert_eq!(of(Isolation::Confined, &[Isolation::Confined]), None);
        assert!(of(Isolation::Confined, &[Isolation::Full]).is_some_and(|said| said.contains("accepts confined")));
        assert!(of(Isolation::Full, &[]).is_some());
    }

    // L8
    #[test]
    fn a_suite_is_slow_beyond_its_limit_and_not_at_it() {
        let took = |suite_ms| Took { prediction_ms: 1, suite_ms }.slow();
        assert!(took(SUITE_MS_MAX).is_none() && took(SUITE_MS_MAX + 1).is_some_and(|said| said.contains("120 s")));
    }
}
