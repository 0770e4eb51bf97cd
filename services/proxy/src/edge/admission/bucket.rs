//! Token buckets by key (GCRA), in a table that no flood of keys makes larger.
//!
//! For each key there is one number: when its bucket is full again. A key is kept as a keyed hash, so an entry has a fixed size and
//! nobody can choose keys that meet. When a part of the table is full of buckets in use, all newcomers of that part share one bucket:
//! who is known is served as before, and strangers together get what one of them would get.
//!
//! Spec:       the generic cell rate algorithm (ITU-T I.371, annex A; virtual scheduling).
//! Guarantees: A13 rates; at most `KEYS_MAX` entries whatever comes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Keys of one table.
pub(super) const KEYS_MAX: usize = 65_536;
const PARTS: usize = 16;
/// A full part is searched for idle buckets at most this often: the search itself is work that strangers cause.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// How many, how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// One more after this.
    interval: Duration,
    /// So many at once after a pause.
    burst: u32,
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests at once, at most.
    pub quota: u32,
    /// Seconds in which as many come back.
    pub window_s: u64,
    /// Requests left.
    pub remaining: u32,
    /// Seconds until all of them are back; for a refusal, until the next one is.
    pub reset_s: u64,
}

impl Quota {
    /// `requests` in each `period`, `burst` at once; none of them 0 (a 0 counts as 1).
    #[must_use]
    pub fn new(requests: u32, period: Duration, burst: u32) -> Self {
        let interval = period.checked_div(requests.max(1)).unwrap_or(period).max(Duration::from_nanos(1));
        Self { interval, burst: burst.max(1) }
    }

    fn whole(self) -> Duration {
        self.interval.saturating_mul(self.burst)
    }

    /// What is left when the bucket is full again after `debt`.
    fn standing(self, debt: Duration, reset: Duration) -> Standing {
        let left = self.whole().saturating_sub(debt).as_nanos() / self.interval.as_nanos().max(1);
        let up = |time: Duration| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1);
        Standing {
            quota: self.burst,
            window_s: up(self.whole()),
            remaining: u32::try_from(left).unwrap_or(u32::MAX).min(self.burst),
            reset_s: up(reset),
        }
    }
}

#[derive(Default)]
struct Part {
    /// When the bucket of each key is full again.
    full_at: HashMap<u64, Duration>,
    /// The bucket that newcomers share while there is no place.
    strangers: Duration,
    searched: Option<Duration>,
}

/// Buckets of many keys, all of which may have different quotas.
pub(super) struct Buckets {
    parts: [Mutex<Part>; PARTS],
}

impl Buckets {
    pub(super) fn new() -> Self {
        Self { parts: Default::default() }
    }

    /// Takes one from the bucket of `key`.
    ///
    /// # Errors
    /// The standing of who must wait: `reset_s` says how long.
    pub(super) fn take(&self, key: u64, quota: Quota, now: Duration) -> Result<Standing, Standing> {
        let Some(part) = self.parts.get(usize::try_from(key % PARTS as u64).unwrap_or_default()) else {
            return Err(quota.standing(quota.whole(), quota.interval));
        };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = part.bucket(key, now);
        let debt = full_at.saturating_sub(now).saturating_add(quota.interval);
        if debt > quota.whole() {
            return Err(quota.standing(quota.whole(), debt.saturating_sub(quota.whole())));
        }
        *full_at = now.saturating_add(debt);
        Ok(quota.standing(debt, debt))
    }

    /// Forgets the buckets that are full.
    pub(super) fn sweep(&self, now: Duration) {
        for part in &self.parts {
            part.lock().unwrap_or_else(PoisonError::into_inner).sweep(now);
        }
    }

    /// Keys that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).full_at.len()).sum()
    }
}

impl Part {
    fn bucket(&mut self, key: u64, now: Duration) -> &mut Duration {
        let is_full = self.full_at.len() >= KEYS_MAX / PARTS;
        if is_full && !self.full_at.contains_key(&key) {
            if self.searched.is_none_or(|at| now.saturating_sub(at) >= SEARCH_PAUSE) {
                self.searched = Some(now);
                self.sweep(now);
            }
            if self.full_at.len() >= KEYS_MAX / PARTS {
                return &mut self.strangers;
            }
        }
        self.full_at.entry(key).or_default()
    }

    fn sweep(&mut self, now: Duration) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.capacity() > 4 * self.full_at.len().max(64) {
            self.full_at.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    // A13: just below, and across.
    #[test]
    fn a_bucket_gives_its_burst_at_once_and_its_rate_over_time() {
        let (buckets, quota) = (Buckets::new(), Quota::new(10, Duration::from_secs(1), 3));
        let start = Duration::from_secs(50);
        let left: Vec<_> = (0..3).map(|_| buckets.take(7, quota, start).unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        assert_eq!(buckets.take(7, quota, start), Err(Standing { quota: 3, window_s: 1, remaining: 0, reset_s: 1 }));
        assert!(buckets.take(8, quota, start).is_ok(), "another key has its own");
        assert!(buckets.take(7, quota, start + 99 * MS).is_err());
        assert!(buckets.take(7, quota, start + 100 * MS).is_ok(), "one interval later there is one more");
        assert!(buckets.take(7, quota, start + 100 * MS).is_err());
        let served = (0..10_000).filter(|ms| buckets.take(9, quota, start + *ms * MS).is_ok()).count();
        assert_eq!(served, 3 + 99, "over ten seconds: the burst, then ten a second");
    }

    // A13: a flood of keys takes no more memory than the table has, and takes nothing from who is known.
    #[test]
    fn a_flood_of_keys_cannot_make_the_table_grow() {
        let (buckets, quota) = (Buckets::new(), Quota::new(1, Duration::from_secs(1), 5));
        let start = Duration::from_secs(50);
        assert!(buckets.take(3, quota, start).is_ok());
        let mut refused = 0;
        for key in 100..1_000_000 {
            refused += usize::from(buckets.take(key, quota, start + 10 * MS).is_err());
        }
        assert_eq!(buckets.len(), KEYS_MAX);
        assert!(refused > 900_000, "strangers without a place share one bucket in each part: {refused}");
        assert_eq!(buckets.take(3, quota, start + 10 * MS).unwrap().remaining, 3, "who was there before has what is theirs");
        // Once the flood's buckets are full again they make place, with nobody sweeping from outside.
        assert!(buckets.take(2_000_000, quota, start + Duration::from_secs(60)).is_ok());
        assert!(buckets.len() < KEYS_MAX);
        buckets.sweep(start + Duration::from_secs(600));
        assert_eq!(buckets.len(), 0);
    }
}
