//! Neighbours: how other people's work through other services went while one attacker used up all that it could have.
//!
//! A neighbour is disturbed when it refuses or fails what it answered before, or when its slow requests (the 95th percentile: one that was
//! slow among the forty of three seconds says nothing) take both much longer than in the same run's quiet, and long by themselves: a
//! machine that is busy anyway makes everything slower, and disturbs nobody by that.
//!
//! Guarantees: L8 the cell `disturbs` is reached by a measure that is written down.
//! Not here:   the measuring.

use serde::{Deserialize, Serialize};

use super::Profile;

/// So many times slower than in quiet, by the 95th percentile…
pub const SLOWER_FACTOR: u64 = 5;
/// …and slower than this, milliseconds: both, for a neighbour to be disturbed.
pub const SLOWER_MS: u64 = 500;

/// One neighbour while one attacker pressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// The attacker.
    pub profile: Profile,
    /// Who was asked: `service.web`, `role.login`, `role.objects`.
    pub neighbour: String,
    /// Before any attack.
    pub quiet: Pace,
    /// Meanwhile.
    pub during: Pace,
}

/// How a series of requests went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// How many.
    pub requests: u64,
    /// Of these, refused, failed or not answered.
    pub errors: u64,
    /// Median, milliseconds.
    pub p50_ms: u64,
    /// 95th percentile, milliseconds.
    pub p95_ms: u64,
    /// 99th percentile, milliseconds; of less than a hundred requests it is the slowest.
    pub p99_ms: u64,
}

impl Pace {
    /// Of requests: how long each took, and whether it was answered as it should be.
    #[must_use]
    pub fn of(took: &[(u64, bool)]) -> Self {
        let mut times: Vec<u64> = took.iter().map(|(ms, _)| *ms).collect();
        times.sort_unstable();
        // Nearest rank.
        let rank = |percent: usize| {
            let at = times.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
            times.get(at).copied().unwrap_or_default()
        };
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            requests: count(times.len()),
            errors: count(took.iter().filter(|(_, answered)| !answered).count()),
            p50_ms: rank(50),
            p95_ms: rank(95),
            p99_ms: rank(99),
        }
    }
}

impl Neighbour {
    /// Whether it suffered.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        let slow = self.during.p95_ms > SLOWER_MS && self.during.p95_ms > self.quiet.p95_ms.saturating_mul(SLOWER_FACTOR);
        slow || self.during.errors > self.quiet.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disturbed(quiet_ms: u64, during_ms: u64, errors: u64) -> bool {
        let quiet = Pace { requests: 50, errors: 0, p50_ms: 10, p95_ms: quiet_ms, p99_ms: 4_000 };
        let during = Pace { errors, p95_ms: during_ms, p99_ms: 9_000, ..quiet };
        Neighbour { profile: Profile::External, neighbour: "role.login".to_owned(), quiet, during }.is_disturbed()
    }

    // L8
    #[test]
    fn a_neighbour_is_disturbed_when_it_fails_or_is_both_much_slower_and_slow() {
        assert!(!disturbed(100, 500, 0), "slower, and not by more than the factor");
        assert!(disturbed(100, 501, 0), "just above both");
        assert!(!disturbed(101, 505, 0), "five times, not more");
        assert!(!disturbed(10, 500, 0), "fifty times slower and quick all the same");
        assert!(disturbed(10, 501, 0));
        assert!(disturbed(100, 100, 1), "one that failed");
    }

    #[test]
    fn a_pace_is_counted_by_nearest_rank() {
        let hundred: Vec<(u64, bool)> = (1..=100).rev().map(|ms| (ms, ms != 7)).collect();
        assert_eq!(Pace::of(&hundred), Pace { requests: 100, errors: 1, p50_ms: 50, p95_ms: 95, p99_ms: 99 });
        assert_eq!(Pace::of(&[(3, true)]), Pace { requests: 1, errors: 0, p50_ms: 3, p95_ms: 3, p99_ms: 3 });
        assert_eq!(Pace::of(&[]), Pace::default());
    }
}
