//! Metrics that were asked for lately, found by what is looked for, without making a label of it.

use std::sync::{PoisonError, RwLock};

/// More are looked up where they stand.
const KEPT_MAX: usize = 32;

/// Metrics by label.
pub(crate) struct Memo<L, M>(RwLock<Vec<(L, M)>>);

impl<L, M> Default for Memo<L, M> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<L, M: Clone> Memo<L, M> {
    /// The metric whose label `is` it, else the one that `find` gives, which is kept while there is room.
    pub(crate) fn get(&self, is: impl Fn(&L) -> bool, find: impl FnOnce() -> (L, M)) -> M {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metric)) = kept.iter().find(|(label, _)| is(label)) {
            return metric.clone();
        }
        drop(kept);
        let (label, metric) = find();
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX && !kept.iter().any(|(label, _)| is(label)) {
            kept.push((label, metric.clone()));
        }
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_no_more_is_kept_than_fits() {
        let memo = Memo::default();
        for n in 0..KEPT_MAX + 5 {
            assert_eq!(memo.get(|its| *its == n, || (n, n * 2)), n * 2);
        }
        for n in 0..KEPT_MAX + 5 {
            // Those that found room are not asked for again.
            let expected = if n < KEPT_MAX { n * 2 } else { 7 };
            assert_eq!(memo.get(|its| *its == n, || (n, 7)), expected);
        }
        assert_eq!(memo.0.read().map(|kept| kept.len()).unwrap_or_default(), KEPT_MAX);
    }
}
