//! Places: how many requests are under way, in all and of each who is counted. A place is given back with the answer's last byte.
//!
//! Guarantees: A13 concurrency; the table has at most as many entries as there are requests under way, three for each.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
struct Counts {
    all: usize,
    by_key: HashMap<u64, usize>,
}

/// Counts of requests under way.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Counts>>);

/// Places taken; given back when dropped.
pub struct Taken {
    counts: Arc<Mutex<Counts>>,
    keys: [Option<u64>; 3],
}

impl Places {
    /// Requests under way.
    pub(super) fn all(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// One more for each of those keys, none of which may have more than its number; nothing if one of them is full.
    pub(super) fn take(&self, most: usize, wanted: &[Option<(u64, usize)>; 3]) -> Option<Taken> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |(key, max): (u64, usize)| counts.by_key.get(&key).is_some_and(|n| *n >= max) || max == 0;
        if counts.all >= most || wanted.iter().flatten().any(|one| full(*one)) {
            return None;
        }
        counts.all = counts.all.saturating_add(1);
        let keys = wanted.map(|one| one.map(|(key, _)| key));
        for key in keys.into_iter().flatten() {
            let count = counts.by_key.entry(key).or_default();
            *count = count.saturating_add(1);
        }
        Some(Taken { counts: Arc::clone(&self.0), keys })
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        for key in self.keys.into_iter().flatten() {
            let left = counts.by_key.get(&key).copied().unwrap_or_default().saturating_sub(1);
            if left == 0 {
                counts.by_key.remove(&key);
            } else {
                counts.by_key.insert(key, left);
            }
        }
    }
}
