//! What is under way: authority that was delivered and has not ended, and how many requests the service has in hand.
//!
//! Guarantees: D7 a token counts on the way out only while the request that brought it is in flight.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trust::{Authority, Digest, TraceContext};

/// Delivered authority, by the digest of its token.
#[derive(Debug, Default, Clone)]
pub(super) struct Flight(Arc<Mutex<HashMap<Digest, Delivered>>>);

/// One delivered token.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub(super) authority: Authority,
    pub(super) trace: TraceContext,
    /// The same token may come with several requests at once.
    times: usize,
}

/// Keeps a delivered token in flight until dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    flight: Flight,
    token: Digest,
}

impl Flight {
    /// Notes a token as delivered, for as long as the ticket lives.
    pub(super) fn deliver(&self, token: &str, authority: &Authority, trace: TraceContext) -> Ticket {
        let token = Digest::of(token.as_bytes());
        if let Ok(mut delivered) = self.0.lock() {
            let entry = delivered.entry(token).or_insert_with(|| Delivered { authority: authority.clone(), trace, times: 0 });
            entry.times = entry.times.saturating_add(1);
        }
        Ticket { flight: self.clone(), token }
    }

    /// What that token carries, if it is in flight.
    pub(super) fn find(&self, token: &str) -> Option<Delivered> {
        self.0.lock().ok()?.get(&Digest::of(token.as_bytes())).cloned()
    }

    /// Whether a request of that trace is in flight.
    pub(super) fn has_trace(&self, trace_id: u128) -> bool {
        self.0.lock().is_ok_and(|delivered| delivered.values().any(|one| one.trace.trace_id == trace_id))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Ok(mut delivered) = self.flight.0.lock() else { return };
        if let Some(entry) = delivered.get_mut(&self.token) {
            entry.times = entry.times.saturating_sub(1);
            if entry.times == 0 {
                delivered.remove(&self.token);
            }
        }
    }
}

/// Requests that the service has in hand.
#[derive(Debug, Default, Clone)]
pub(super) struct Places(Arc<AtomicUsize>);

/// One of them, until dropped.
#[derive(Debug)]
pub(super) struct Place(Places);

impl Places {
    /// Takes a place when fewer than `most` are taken.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < most).then(|| taken.saturating_add(1))).ok()?;
        Some(Place(self.clone()))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
