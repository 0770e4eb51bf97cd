//! Admission: how often and how much at once, for each person and for each address.
//!
//! Rates are token buckets (GCRA); concurrency is a count that a permit holds until the answer's last byte. An IPv6 address counts by
//! its /64, since a host has a whole one.
//!
//! Spec:       RFC 6585 section 4 (429), RFC 9110 section 10.2.3 (`Retry-After`).
//! Guarantees: A13: one principal or address cannot use up what the others need.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use trust::{Clock, DenyReason};

use super::stop::{Refusal, Stop};

/// What one may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second of one address, over time.
    pub address_rate: NonZeroU32,
    /// Requests of one address at once, after a pause.
    pub address_burst: NonZeroU32,
    /// Requests a second of one person, over time.
    pub person_rate: NonZeroU32,
    /// Requests of one person at once, after a pause.
    pub person_burst: NonZeroU32,
    /// Sign-ins of one address begun or completed a second, over time: each is a durable write.
    pub sign_in_rate: NonZeroU32,
    /// Sign-ins of one address at once, after a pause.
    pub sign_in_burst: NonZeroU32,
    /// Requests of one address under way.
    pub address_in_flight_max: usize,
    /// Requests of one person under way.
    pub person_in_flight_max: usize,
    /// Requests under way in all.
    pub in_flight_max: usize,
    /// Connections of one address.
    pub address_connections_max: usize,
}

impl Limits {
    /// For a public gateway of one machine.
    #[must_use]
    pub fn standard() -> Self {
        let n = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            address_rate: n(200),
            address_burst: n(400),
            person_rate: n(100),
            person_burst: n(200),
            sign_in_rate: n(5),
            sign_in_burst: n(40),
            address_in_flight_max: 256,
            person_in_flight_max: 64,
            in_flight_max: 2048,
            address_connections_max: 256,
        }
    }
}

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Person(String),
}

#[derive(Clone)]
struct Ticks(Arc<dyn Clock>);

impl GovernorClock for Ticks {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

type Rates = RateLimiter<Key, HashMapStateStore<Key>, Ticks, NoOpMiddleware<Duration>>;

/// The counts.
pub struct Admission {
    limits: Limits,
    clock: Ticks,
    addresses: Rates,
    people: Rates,
    sign_ins: Rates,
    in_flight: Arc<Mutex<InFlight>>,
}

#[derive(Default)]
struct InFlight {
    all: usize,
    by_key: HashMap<Key, usize>,
}

/// The right to be served; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Mutex<InFlight>>,
    keys: Vec<Key>,
}

impl Admission {
    /// Nothing under way.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let clock = Ticks(clock);
        let rates = |rate, burst| RateLimiter::new(Quota::per_second(rate).allow_burst(burst), HashMapStateStore::default(), clock.clone());
        let addresses = rates(limits.address_rate, limits.address_burst);
        let people = rates(limits.person_rate, limits.person_burst);
        let sign_ins = rates(limits.sign_in_rate, limits.sign_in_burst);
        Self { limits, addresses, people, sign_ins, clock: clock.clone(), in_flight: Arc::default() }
    }

    /// One more request of that address.
    ///
    /// # Errors
    /// `RateExceeded`.
    pub fn address(&self, from: IpAddr) -> Result<(), Stop> {
        self.rate(&self.addresses, &Key::Address(network(from)))
    }

    /// One more sign-in from that address.
    ///
    /// # Errors
    /// `RateExceeded`.
    pub fn sign_in(&self, from: IpAddr) -> Result<(), Stop> {
        self.rate(&self.sign_ins, &Key::Address(network(from)))
    }

    /// One more request of that address and person, under way until the permit is dropped.
    ///
    /// # Errors
    /// `RateExceeded` or `ConcurrencyExceeded`.
    pub fn request(&self, from: IpAddr, person: Option<&str>) -> Result<Permit, Stop> {
        let mut keys = vec![Key::Address(network(from))];
        if let Some(person) = person {
            let key = Key::Person(person.to_owned());
            self.rate(&self.people, &key)?;
            keys.push(key);
        }
        let mut counts = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |key: &Key| {
            let max = match key {
                Key::Address(_) => self.limits.address_in_flight_max,
                Key::Person(_) => self.limits.person_in_flight_max,
            };
            counts.by_key.get(key).is_some_and(|n| *n >= max)
        };
        if counts.all >= self.limits.in_flight_max || keys.iter().any(full) {
            return Err(DenyReason::ConcurrencyExceeded.into());
        }
        counts.all = counts.all.saturating_add(1);
        for key in &keys {
            let count = counts.by_key.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
        }
        Ok(Permit { counts: Arc::clone(&self.in_flight), keys })
    }

    /// Forgets those who have not asked for a while.
    pub fn sweep(&self) {
        self.addresses.retain_recent();
        self.people.retain_recent();
        self.sign_ins.retain_recent();
    }

    fn rate(&self, rates: &Rates, key: &Key) -> Result<(), Stop> {
        rates.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Stop::Refused(Refusal { retry_after_s: Some(wait.as_secs().saturating_add(1)), ..Refusal::from(DenyReason::RateExceeded) })
        })
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} under way", self.all)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        for key in &self.keys {
            let left = counts.by_key.get(key).copied().unwrap_or_default().saturating_sub(1);
            if left == 0 {
                counts.by_key.remove(key);
            } else {
                counts.by_key.insert(key.clone(), left);
            }
        }
    }
}

/// The part of an address that one host cannot change at will.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}
