//! Neighbours: Bob's ordinary requests through everybody but the attacker, timed in quiet and while it presses.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breach::attacker::grpc;
use breach::attacker::hand::HOPS_MAX;
use breach::attacker::http::{Ask, Request};
use breach::attacker::note::now_ms;
use breach::attacker::script::filled;
use breach::{Act, Mark, Neighbour, Pace, Profile, Script};
use manifest::Protocol;
use serde_json::Value;

use super::browser::Browser;

/// A pause after each request: Bob is no flood himself, and stays below every limit of the edge.
const PAUSE: Duration = Duration::from_millis(60);

/// One request: who was asked, when (milliseconds since the epoch), how long it took (milliseconds), and whether it was answered.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    neighbour: String,
    at_ms: u64,
    took_ms: u64,
    answered: bool,
}

/// Ways of Bob's to everybody.
pub(super) struct Neighbours<'a> {
    bob: &'a Browser,
    /// By neighbour.
    ways: BTreeMap<String, Request>,
}

impl<'a> Neighbours<'a> {
    /// One route of each service that is answered, what the store gave Bob, and sign-in.
    pub(super) fn of(script: &Script, bob: &'a Browser) -> Self {
        let mark = Mark::new(Act::Calm, "none", "bob", 0).to_string();
        let mut ways = BTreeMap::new();
        let keys = Request::new("GET", format!("{}/jwks", contract::login::ISSUER_PATH));
        let mut wanted = vec![("role.login".to_owned(), keys)];
        for (name, part) in &script.services {
            let is_grpc = part.protocol == Protocol::Grpc;
            let reads = |route: &&manifest::Route| route.public && (route.method == "GET" || is_grpc) && !route.websocket;
            for route in part.routes.iter().filter(reads) {
                // By itself: what it would have others do is not its own pace.
                let target = format!("{}?breach={mark}&hops={HOPS_MAX}", filled(&route.path, &mark));
                let request = Request::new(&route.method, target);
                let request = if is_grpc { grpc::called(request, b"{}") } else { request };
                wanted.push((format!("service.{name}"), request));
            }
        }
        for (neighbour, request) in wanted {
            let Ok(answer) = bob.ask(&request) else { continue };
            let said: Value = serde_json::from_slice(grpc::message(&answer.body)).unwrap_or_default();
            for grant in said.get("downloads").and_then(Value::as_array).into_iter().flatten() {
                let Some(url) = grant.get("url").and_then(Value::as_str) else { continue };
                let stored = Request::new("GET", bob.path_of(url));
                if !ways.contains_key("role.objects") && bob.ask(&stored).is_ok_and(|answer| answer.is_success()) {
                    ways.insert("role.objects".to_owned(), stored);
                }
            }
            if answer.is_success() {
                ways.entry(neighbour).or_insert(request);
            }
        }
        Self { bob, ways }
    }

    /// Asks all of them but `attacker` again and again, each in a thread of its own, until `over`.
    pub(super) fn ask_until(&self, over: &AtomicBool, attacker: Option<&str>) -> Vec<Sample> {
        let samples = Mutex::new(Vec::new());
        let own = attacker.map(|name| format!("service.{name}"));
        std::thread::scope(|scope| {
            for (neighbour, request) in self.ways.iter().filter(|(name, _)| Some(*name) != own.as_ref()) {
                let samples = &samples;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let at_ms = now_ms();
                        let answered = self.bob.ask_once(request).is_ok_and(|answer| answer.is_success());
                        let sample = Sample { neighbour: neighbour.clone(), at_ms, took_ms: now_ms().saturating_sub(at_ms), answered };
                        samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sample);
                        std::thread::sleep(PAUSE);
                    }
                });
            }
        });
        samples.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What came of it: of each neighbour, in quiet and between two moments while `service` pressed.
pub(super) fn paces(quiet: &[Sample], during: &[Sample], service: &str, from_ms: u64, until_ms: u64) -> Vec<Neighbour> {
    let pace = |samples: &[Sample], of: &str, fits: &dyn Fn(&Sample) -> bool| {
        let fitting = samples.iter().filter(|sample| sample.neighbour == of && fits(sample));
        Pace::of(&fitting.map(|sample| (sample.took_ms, sample.answered)).collect::<Vec<_>>())
    };
    // A request that was under way when it began or ended was under way meanwhile.
    let meanwhile = |sample: &Sample| sample.at_ms <= until_ms && sample.at_ms.saturating_add(sample.took_ms) >= from_ms;
    let mut names: Vec<&str> = during.iter().map(|sample| sample.neighbour.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let one = |name: &str| Neighbour {
        profile: Profile::Service(service.to_owned()),
        neighbour: name.to_owned(),
        quiet: pace(quiet, name, &|_| true),
        during: pace(during, name, &meanwhile),
    };
    names.into_iter().map(one).filter(|one| one.during.requests > 0).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn sample(neighbour: &str, at_ms: u64, took_ms: u64, answered: bool) -> Sample {
        Sample { neighbour: neighbour.to_owned(), at_ms, took_ms, answered }
    }

    // L8: what is counted is what was under way while the attacker pressed.
    #[test]
    fn what_was_under_way_while_it_pressed_is_what_counts() {
        let quiet = [sample("role.login", 0, 10, true), sample("role.login", 100, 20, true)];
        let during = [
            sample("role.login", 900, 50, false),
            sample("role.login", 990, 30, true),
            sample("role.login", 1_500, 700, true),
            sample("role.login", 2_001, 1, false),
        ];
        let paces = paces(&quiet, &during, "web", 1_000, 2_000);
        assert_eq!(paces.len(), 1);
        assert_eq!((paces[0].quiet.p95_ms, paces[0].during.p95_ms), (20, 700));
        assert_eq!((paces[0].during.requests, paces[0].during.errors), (2, 0));
        assert!(paces[0].is_disturbed());
    }
}
