//! Handshakes under way: few, and the oldest goes first.
//!
//! Until its handshake is done a connection has shown nothing, and anybody can hold it open in silence. So handshakes have places of
//! their own, far fewer than connections: whoever comes when an address, or the listener, has no more takes the place of the oldest.
//! A peer that is what it says is done in milliseconds; those who are silent drop one another.
//!
//! Guarantees: A13, D1: half-open connections do not keep anybody out.
//! Not here:   how long a handshake may take at most (`limits::HANDSHAKE_MS`), how many connections there are (`accepting`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The handshakes of one listener.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    max: usize,
    per_address_max: usize,
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    /// By number, so in the order that they began.
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
    next: u64,
}

/// One handshake's place.
struct Place<'a> {
    pool: &'a HalfOpen,
    number: u64,
    taken_over: CancellationToken,
}

impl HalfOpen {
    /// Places for `max` handshakes at the same time, `per_address_max` of one address.
    pub(crate) fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_address_max, begun: Mutex::default() })
    }

    /// Waits for `handshake`; nothing when its place was taken over by a later one.
    pub(crate) async fn run<T>(&self, address: IpAddr, handshake: impl Future<Output = T>) -> Option<T> {
        let place = self.enter(address);
        tokio::select! {
            done = handshake => Some(done),
            () = place.taken_over.cancelled() => None,
        }
    }

    fn enter(&self, address: IpAddr) -> Place<'_> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let Begun { all, next } = &mut *begun;
        let mut same = all.iter().filter(|(_, (of, _))| *of == address).map(|(number, _)| *number);
        let oldest_same = same.next();
        let oldest = if same.count().saturating_add(usize::from(oldest_same.is_some())) >= self.per_address_max {
            oldest_same
        } else if all.len() >= self.max {
            all.keys().next().copied()
        } else {
            None
        };
        if let Some((_, taken_over)) = oldest.and_then(|oldest| all.remove(&oldest)) {
            taken_over.cancel();
        }
        let (number, taken_over) = (*next, CancellationToken::new());
        *next = next.wrapping_add(1);
        all.insert(number, (address, taken_over.clone()));
        Place { pool: self, number, taken_over }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.begun.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    // A13: the oldest of the address goes first, then the oldest of all; whoever is done gives its place back.
    #[tokio::test]
    async fn the_oldest_handshake_gives_way() {
        let pool = HalfOpen::new(4, 2);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let begin = |n: u8| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.run(address(n), std::future::pending::<()>()).await })
        };
        let mut begun = Vec::new();
        for n in [1, 1, 2, 3] {
            begun.push(begin(n));
            tokio::task::yield_now().await;
        }
        assert!(begun.iter().all(|one| !one.is_finished()), "just at the limit: nobody gives way");
        begun.push(begin(1));
        assert_eq!(begun.remove(0).await.unwrap(), None, "the oldest of the address that has too many");
        begun.push(begin(4));
        assert_eq!(begun.remove(0).await.unwrap(), None, "the oldest of all");
        assert!(begun.iter().all(|one| !one.is_finished()));
        assert_eq!(pool.run(address(9), async { 7 }).await, Some(7));
        begun.into_iter().for_each(|one| one.abort());
        tokio::task::yield_now().await;
        assert_eq!(pool.begun.lock().unwrap().all.len(), 0);
    }
}
