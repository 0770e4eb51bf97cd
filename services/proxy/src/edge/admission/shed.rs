//! Shedding: when work waits, less of it is begun, and what nobody signed in for is left out first.
//!
//! How long work waits is measured by how late a timer of the process is served, which is how long anything that is ready waits for its
//! turn. While it is late, the number of requests under way that is allowed shrinks by a quarter at each look, down to a floor; while it
//! is not, it grows back by a twentieth. Requests without a person get three quarters of it, so that they are refused while people are
//! still served.
//!
//! Guarantees: A13 adaptive shedding: 503 for strangers before anybody else; the floor is always served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often the wait is looked at.
pub(in super::super) const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// A turn that comes later than this is too late.
const WAIT_MAX: Duration = Duration::from_millis(150);
/// Requests under way that are always allowed.
const FLOOR: usize = 64;

/// How many requests may be under way now.
#[derive(Debug)]
pub(super) struct Pressure {
    most: usize,
    allowed: AtomicUsize,
}

impl Pressure {
    pub(super) fn new(most: usize) -> Self {
        Self { most, allowed: AtomicUsize::new(most) }
    }

    /// A timer was served so much later than it asked for.
    pub(super) fn observe(&self, late: Duration) {
        let now = self.allowed.load(Ordering::Relaxed);
        let next =
            if late > WAIT_MAX { (now - now / 4).max(FLOOR.min(self.most)) } else { now.saturating_add(self.most / 20 + 1).min(self.most) };
        self.allowed.store(next, Ordering::Relaxed);
    }

    /// How many requests may be under way for one more to begin.
    pub(super) fn allows(&self, has_person: bool) -> usize {
        let allowed = self.allowed.load(Ordering::Relaxed);
        if has_person { allowed } else { allowed - allowed / 4 }
    }

    /// Whether less is allowed than could be.
    pub(super) fn is_on(&self) -> bool {
        self.allowed.load(Ordering::Relaxed) < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A13: just below and across, and back.
    #[test]
    fn waiting_work_shrinks_what_is_begun_and_calm_grows_it_back() {
        let pressure = Pressure::new(1000);
        pressure.observe(WAIT_MAX);
        assert_eq!((pressure.allows(true), pressure.allows(false)), (1000, 750));
        assert!(!pressure.is_on());
        pressure.observe(WAIT_MAX + Duration::from_millis(1));
        assert_eq!((pressure.allows(true), pressure.allows(false)), (750, 563));
        for _ in 0..100 {
            pressure.observe(Duration::from_secs(1));
        }
        assert_eq!((pressure.allows(true), pressure.allows(false)), (64, 48));
        for _ in 0..100 {
            pressure.observe(Duration::ZERO);
        }
        assert!(!pressure.is_on());
        let small = Pressure::new(10);
        small.observe(Duration::from_secs(1));
        assert_eq!(small.allows(true), 10, "what is always allowed is never more than there is");
    }
}
