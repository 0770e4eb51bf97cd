//! Admission: how often and how much at once, for each person, address and route.
//!
//! Rates are token buckets (GCRA); concurrency is a count that a permit holds until the answer's last byte. An IPv6 address counts by
//! its /64, since a host has a whole one. A route's own rate counts each person for themselves, so that one cannot use it up for others.
//!
//! Spec:       RFC 6585 section 4 (429), RFC 9110 section 10.2.3 (`Retry-After`); draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit`).
//! Guarantees: A13: one principal or address cannot use up what the others need; no flood makes a table grow.

mod bucket;
mod places;
mod shed;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use contract::control::PublicRoute;
use trust::{Clock, DenyReason};

use self::bucket::Buckets;
use self::places::{Places, Taken};
use self::shed::Pressure;
use super::stop::{Refusal, Stop};

pub use self::bucket::{Quota, Standing};
pub(super) use self::shed::LOOK_PAUSE;

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

    /// More than anybody can ask for. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_none() -> Self {
        let (rate, count) = (NonZeroU32::new(1_000_000).unwrap_or(NonZeroU32::MAX), 1 << 20);
        Self {
            address_rate: rate,
            address_burst: rate,
            person_rate: rate,
            person_burst: rate,
            sign_in_rate: rate,
            sign_in_burst: rate,
            address_in_flight_max: count,
            person_in_flight_max: count,
            in_flight_max: count,
            address_connections_max: count,
        }
    }
}

/// Who is counted, as keys of the tables.
#[derive(Hash)]
enum Counted<'a> {
    Address(IpAddr),
    Person(&'a str),
    Route(&'a str, &'a str, &'a str),
    PersonOnRoute(&'a str, &'a str, &'a str, &'a str),
}

/// The counts.
pub struct Admission {
    limits: Limits,
    clock: Arc<dyn Clock>,
    keys: RandomState,
    addresses: Buckets,
    people: Buckets,
    routes: Buckets,
    sign_ins: Buckets,
    places: Places,
    pressure: Pressure,
}

/// The right to be served; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _taken: Taken,
    standings: Vec<(&'static str, Standing)>,
}

impl Permit {
    /// What is left of each quota that counted, by its name.
    #[must_use]
    pub fn standings(&self) -> &[(&'static str, Standing)] {
        &self.standings
    }
}

impl Admission {
    /// Nothing under way.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let (addresses, people, routes, sign_ins) = (Buckets::new(), Buckets::new(), Buckets::new(), Buckets::new());
        let pressure = Pressure::new(limits.in_flight_max);
        Self { limits, clock, keys: RandomState::new(), addresses, people, routes, sign_ins, places: Places::default(), pressure }
    }

    /// One more request of that address.
    ///
    /// # Errors
    /// `RateExceeded`.
    pub fn address(&self, from: IpAddr) -> Result<(), Stop> {
        let quota = second(self.limits.address_rate, self.limits.address_burst);
        self.take(&self.addresses, "address", &Counted::Address(network(from)), quota).map(|_| ())
    }

    /// One more sign-in from that address.
    ///
    /// # Errors
    /// `RateExceeded`.
    pub fn sign_in(&self, from: IpAddr) -> Result<(), Stop> {
        let quota = second(self.limits.sign_in_rate, self.limits.sign_in_burst);
        self.take(&self.sign_ins, "sign-in", &Counted::Address(network(from)), quota).map(|_| ())
    }

    /// One more request of that address and person to that route, under way until the permit is dropped.
    ///
    /// # Errors
    /// `RateExceeded`, `ConcurrencyExceeded`, or `Overloaded`.
    pub fn request(&self, from: IpAddr, person: Option<&str>, route: Option<&PublicRoute>) -> Result<Permit, Stop> {
        let mut standings = Vec::with_capacity(2);
        if let Some(person) = person {
            let quota = second(self.limits.person_rate, self.limits.person_burst);
            standings.push(self.take(&self.people, "person", &Counted::Person(person), quota)?);
            if let Some((route, rate)) = route.and_then(|route| Some((route, route.rate?))) {
                let quota = Quota::new(rate.requests, Duration::from_millis(rate.period_ms), rate.burst);
                let key = Counted::PersonOnRoute(person, route.service.workload.name(), &route.method, &route.path);
                standings.push(self.take(&self.routes, "route", &key, quota)?);
            }
        }
        let allowed = self.pressure.allows(person.is_some());
        if self.places.all() >= allowed && (self.pressure.is_on() || person.is_none()) {
            return Err(DenyReason::Overloaded.into());
        }
        let of_address = Some((self.key(&Counted::Address(network(from))), self.limits.address_in_flight_max));
        let of_person = person.map(|person| (self.key(&Counted::Person(person)), self.limits.person_in_flight_max));
        let of_route = route.and_then(|route| {
            let most = usize::try_from(route.concurrency_max?).unwrap_or(usize::MAX);
            Some((self.key(&Counted::Route(route.service.workload.name(), &route.method, &route.path)), most))
        });
        let taken = self.places.take(self.limits.in_flight_max, &[of_address, of_person, of_route]);
        Ok(Permit { _taken: taken.ok_or(DenyReason::ConcurrencyExceeded)?, standings })
    }

    /// Forgets those who have not asked for a while.
    pub fn sweep(&self) {
        let now = self.clock.monotonic();
        for table in [&self.addresses, &self.people, &self.routes, &self.sign_ins] {
            table.sweep(now);
        }
    }

    /// A timer was served so much later than it asked for; whether less than usual is begun now.
    pub fn observe(&self, late: Duration) -> bool {
        self.pressure.observe(late);
        self.pressure.is_on()
    }

    fn key(&self, counted: &Counted<'_>) -> u64 {
        self.keys.hash_one(counted)
    }

    fn take(&self, table: &Buckets, name: &'static str, who: &Counted<'_>, quota: Quota) -> Result<(&'static str, Standing), Stop> {
        match table.take(self.key(who), quota, self.clock.monotonic()) {
            Ok(standing) => Ok((name, standing)),
            Err(standing) => Err(Stop::Refused(Refusal {
                retry_after_s: Some(standing.reset_s),
                standing: Some((name, standing)),
                ..Refusal::from(DenyReason::RateExceeded)
            })),
        }
    }
}

fn second(rate: NonZeroU32, burst: NonZeroU32) -> Quota {
    Quota::new(rate.get(), Duration::from_secs(1), burst.get())
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.limits).finish_non_exhaustive()
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
