//! What is under way: authority that was delivered and has not ended, and how many requests the service has in hand.
//!
//! Guarantees: D7 a token counts on the way out only while the request that brought it is in flight.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use trust::{Authority, Digest, TraceContext};

/// Delivered authority, by the digest of its token.
#[derive(Debug, Default, Clone)]
pub(super) struct Flight(Arc<Mutex<HashMap<Digest, Flying>>>);

/// A token in flight: one may serve several requests at once, each of a trace of its own.
#[derive(Debug)]
struct Flying {
    authority: Arc<Authority>,
    traces: Vec<TraceContext>,
}

/// One delivered token.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub(super) authority: Arc<Authority>,
    /// The request that passes it along belongs to this one: the one that it names, else the last that was delivered.
    pub(super) trace: TraceContext,
}

/// Keeps a delivered token in flight until dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    flight: Flight,
    token: Digest,
    trace: TraceContext,
}

impl Flight {
    /// Notes a token, by its digest, as delivered for as long as the ticket lives.
    pub(super) fn deliver(&self, token: Digest, authority: &Arc<Authority>, trace: TraceContext) -> Ticket {
        if let Ok(mut flying) = self.0.lock() {
            let entry = flying.entry(token).or_insert_with(|| Flying { authority: Arc::clone(authority), traces: Vec::new() });
            entry.traces.push(trace);
        }
        Ticket { flight: self.clone(), token, trace }
    }

    /// What that token carries, if it is in flight, for a request that says to be of the trace `said`.
    pub(super) fn find(&self, token: &str, said: Option<TraceContext>) -> Option<Delivered> {
        let flying = self.0.lock().ok()?;
        let entry = flying.get(&Digest::of(token.as_bytes()))?;
        let named = said.filter(|said| entry.traces.iter().any(|its| its.trace_id == said.trace_id));
        let trace = named.or_else(|| entry.traces.last().copied())?;
        Some(Delivered { authority: Arc::clone(&entry.authority), trace })
    }

    /// Whether that token is in flight.
    pub(super) fn has(&self, token: &HeaderValue) -> bool {
        self.0.lock().is_ok_and(|flying| flying.contains_key(&Digest::of(token.as_bytes())))
    }

    /// Whether a request of that trace is in flight.
    pub(super) fn has_trace(&self, trace_id: u128) -> bool {
        self.0.lock().is_ok_and(|flying| flying.values().any(|one| one.traces.iter().any(|its| its.trace_id == trace_id)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Ok(mut flying) = self.flight.0.lock() else { return };
        if let Some(entry) = flying.get_mut(&self.token) {
            if let Some(at) = entry.traces.iter().position(|its| *its == self.trace) {
                entry.traces.swap_remove(at);
            }
            if entry.traces.is_empty() {
                flying.remove(&self.token);
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
