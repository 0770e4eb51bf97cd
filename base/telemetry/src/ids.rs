//! Unpredictable bytes in store, for ids of traces and spans: the generator is asked for many at once and not for eight with each span.
//!
//! They are as unpredictable as those of the generator, and none is given twice. Keys and tokens never come from here.
//!
//! Not here:   what an id is (`trust::trace`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use trust::Entropy;

/// Bytes fetched at once: 21 new traces, or 64 spans of others' traces.
const STORE_BYTES: usize = 512;

/// A store of unpredictable bytes.
pub(crate) struct Store {
    source: Arc<dyn Entropy>,
    left: Mutex<Vec<u8>>,
}

impl Store {
    /// Nothing in store yet.
    pub(crate) fn new(source: Arc<dyn Entropy>) -> Self {
        Self { source, left: Mutex::default() }
    }
}

impl Entropy for Store {
    fn fill(&self, out: &mut [u8]) {
        if out.len() > STORE_BYTES {
            return self.source.fill(out);
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < out.len() {
            left.resize(STORE_BYTES, 0);
            self.source.fill(&mut left);
        }
        let rest = left.len().saturating_sub(out.len());
        for (to, from) in out.iter_mut().zip(left.drain(rest..)) {
            *to = from;
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// Each call gives the next number, in every byte.
    #[derive(Debug, Default)]
    struct Counting(AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, out: &mut [u8]) {
            let start = self.0.fetch_add(1, Ordering::Relaxed);
            for (n, byte) in (0_u8..=255).cycle().zip(out.iter_mut()) {
                *byte = n ^ start;
            }
        }
    }

    // J2: ids are told apart, so no byte of the generator may serve twice.
    #[test]
    fn bytes_in_store_are_given_once_and_fetched_many_at_a_time() {
        let source = Arc::new(Counting::default());
        let store = Store::new(source.clone());
        let mut given = Vec::new();
        for _ in 0..64 {
            let mut id = [0; 8];
            store.fill(&mut id);
            given.extend_from_slice(&id);
        }
        assert_eq!(source.0.load(Ordering::Relaxed), 1, "one fetch for 64 spans");
        let mut fetched = vec![0; STORE_BYTES];
        Counting::default().fill(&mut fetched);
        given.sort_unstable();
        fetched.sort_unstable();
        assert_eq!(given, fetched, "each byte once");
        store.fill(&mut [0; 8]);
        assert_eq!(source.0.load(Ordering::Relaxed), 2);
        store.fill(&mut [0; STORE_BYTES + 1]);
        assert_eq!(source.0.load(Ordering::Relaxed), 3, "what is more than the store comes from the generator");
    }
}
