//! Which replica of a peer gets a request: the one with the fewest requests of ours under way, and none that just failed.
//!
//! A replica that cannot be connected to, breaks off, or answers 502 to 504 several times in a row is left out for a while, longer each
//! time; then one request at a time finds out whether it is back. When all are out, all are in: leaving out is for choosing the better
//! one, never for refusing where a try may work. Past a limit of requests under way the call fails at once instead of waiting in line.
//!
//! Retries are counted against a budget: a fifth of the requests, and three a second. What may be repeated at all, `mesh` says.
//!
//! Guarantees: A15, D9: one of several replicas may die without the callers noticing; no storm of retries; fail fast.
//! Not here:   connections (`streams`, `plain`), who the peer is (`tls`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::CallFailed;
use super::plain::Plain;
use super::streams::Streams;
use crate::limits;

/// A thousandth of a retry.
type Thousandths = u64;
const RETRY: Thousandths = 1_000;

/// One replica.
pub(super) struct Endpoint {
    text: String,
    pub(super) address: SocketAddr,
    pub(super) streams: Streams,
    pub(super) plain: Arc<Plain>,
    under_way: AtomicUsize,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Bad answers in a row.
    bad_answers: u32,
    /// How often it was left out since it last did well.
    times_out: u32,
    out_until: Option<Instant>,
}

/// The replicas of one peer, as last seen in the view.
pub(super) struct Balance {
    endpoints: Mutex<Arc<[Arc<Endpoint>]>>,
    /// Where the search among equals begins.
    turn: AtomicUsize,
    under_way_max: usize,
    budget: Mutex<Budget>,
}

/// A replica with one more request under way, until dropped.
pub(super) struct Load(Arc<Endpoint>);

/// Among replicas with equally much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// The first: those behind it start only when there is more to do than it takes.
    First,
    /// Each in turn.
    InTurn,
}

impl Balance {
    /// Nothing known yet; `under_way_max` requests of ours at the same time to one replica.
    pub(super) fn new(under_way_max: usize) -> Self {
        Self {
            endpoints: Mutex::new(Arc::new([])),
            turn: AtomicUsize::new(0),
            under_way_max,
            budget: Mutex::new(Budget::new(Instant::now())),
        }
    }

    /// The replicas at these addresses; those that were known before keep their connections and their record.
    pub(super) fn at(&self, addresses: &[String]) -> Arc<[Arc<Endpoint>]> {
        let mut known = lock(&self.endpoints);
        if known.len() == addresses.len() && known.iter().zip(addresses).all(|(one, text)| one.text == *text) {
            return Arc::clone(&known);
        }
        let kept = |text: &String| known.iter().find(|one| one.text == *text).cloned();
        let new = |text: &String| text.parse().ok().map(|address| Arc::new(Endpoint::new(text.clone(), address)));
        let now: Arc<[_]> = addresses.iter().filter_map(|text| kept(text).or_else(|| new(text))).collect();
        *known = Arc::clone(&now);
        now
    }

    /// The best of `endpoints` that is not among `tried`, while there is one; with whether another is left to try after it.
    pub(super) fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        tried: &[SocketAddr],
        among: Among,
        now: Instant,
    ) -> Result<(Load, bool), CallFailed> {
        let turn = if among == Among::InTurn { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let begin = turn.checked_rem(endpoints.len()).unwrap_or_default();
        let order = || endpoints.iter().cycle().skip(begin).take(endpoints.len());
        let untried = |one: &&Arc<Endpoint>| !tried.contains(&one.address);
        // `min_by_key` gives the first of equals.
        let least = |all: &mut dyn Iterator<Item = &Arc<Endpoint>>| all.min_by_key(|one| one.load()).cloned();
        let best = least(&mut order().filter(untried).filter(|one| one.is_in(now)))
            .or_else(|| least(&mut order().filter(untried)))
            .or_else(|| least(&mut order()))
            .ok_or(CallFailed::Undeclared)?;
        if best.load() >= self.under_way_max {
            return Err(CallFailed::Full(self.under_way_max));
        }
        best.under_way.fetch_add(1, Ordering::Relaxed);
        let others = endpoints.iter().filter(untried).any(|one| one.address != best.address);
        Ok((Load(best), others))
    }

    /// Notes a request, of which a fifth more may be retried.
    pub(super) fn asked(&self) {
        lock(&self.budget).earn();
    }

    /// Whether one more retry is within the budget.
    pub(super) fn may_retry(&self) -> bool {
        lock(&self.budget).spend(Instant::now())
    }
}

impl Endpoint {
    fn new(text: String, address: SocketAddr) -> Self {
        Self { text, address, streams: Streams::default(), plain: Arc::default(), under_way: AtomicUsize::new(0), health: Mutex::default() }
    }

    /// Requests under way.
    pub(super) fn load(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether it may be chosen: it did well, or it has been out long enough and nobody is finding out already.
    fn is_in(&self, now: Instant) -> bool {
        let health = lock(&self.health);
        match health.out_until {
            None => true,
            Some(until) => until <= now && self.load() == 0,
        }
    }

    /// It could not be reached or broke off.
    pub(super) fn failed(&self, now: Instant) {
        lock(&self.health).leave_out(now);
    }

    /// It answered with this status.
    pub(super) fn answered(&self, status: http::StatusCode, now: Instant) {
        let mut health = lock(&self.health);
        if !matches!(status.as_u16(), 502..=504) {
            *health = Health::default();
            return;
        }
        health.bad_answers = health.bad_answers.saturating_add(1);
        if health.bad_answers >= limits::REPLICA_BAD_ANSWERS_MAX {
            health.leave_out(now);
        }
    }
}

impl Health {
    fn leave_out(&mut self, now: Instant) {
        // Many requests fail together: together they are one failure.
        if self.out_until.is_some_and(|until| until > now) {
            return;
        }
        let ms = limits::REPLICA_OUT_MS.saturating_mul(1_u64.checked_shl(self.times_out).unwrap_or(u64::MAX));
        self.out_until = now.checked_add(Duration::from_millis(ms.min(limits::REPLICA_OUT_MS_MAX)));
        self.times_out = self.times_out.saturating_add(1).min(16);
    }
}

impl Load {
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What may still be retried.
#[derive(Debug)]
struct Budget {
    left: Thousandths,
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: limits::RETRIES_IDLE_MAX.saturating_mul(RETRY), at: now }
    }

    fn earn(&mut self) {
        let more = RETRY.saturating_mul(limits::RETRIES_PERCENT) / 100;
        let most = limits::RETRIES_MAX.saturating_mul(RETRY);
        self.left = self.left.saturating_add(more).min(most.max(self.left));
    }

    fn spend(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        // Thousandths a millisecond are whole ones a second.
        let earned = passed.saturating_mul(limits::RETRIES_A_SECOND);
        let idle_max = limits::RETRIES_IDLE_MAX.saturating_mul(RETRY);
        self.left = self.left.saturating_add(earned).min(idle_max.max(self.left));
        self.at = now;
        let Some(left) = self.left.checked_sub(RETRY) else { return false };
        self.left = left;
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks panics, and each value is valid at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
