//! Rounds: work of several people goes through the copy, and one service at a time attacks what it is given.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breach::attacker::grpc;
use breach::attacker::http::{Ask, Request, text_of};
use breach::attacker::note::Said;
use breach::attacker::play::{canary_of, content};
use breach::attacker::script::filled;
use breach::attacker::techniques::carried;
use breach::{Act, Mark, Script};
use manifest::Protocol;
use serde_json::{Value, json};

use super::browser::Browser;
use super::neighbours::{Neighbours, Sample};
use super::people::People;
use super::watch::Watch;

/// How often logs are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// So long without a word means that all work has come to its end.
const QUIET: Duration = Duration::from_millis(1500);
/// How long work may take to reach the service whose turn it is, sandboxes being started on the way.
const REACH_MAX: Duration = Duration::from_secs(15);
/// The technique that has a round of its own.
pub(super) const EXHAUSTION: &str = "exhaustion";
/// Number of what is sent so that a service lends its authority.
const LENT: u32 = 3_000;
/// The longest round.
const ROUND_MAX: Duration = Duration::from_secs(75);

/// What goes through the copy.
pub(super) struct Rounds<'a> {
    pub(super) script: &'a Script,
    pub(super) people: &'a People,
    pub(super) watch: Watch,
    /// What was stolen, from whom.
    pub(super) stolen: Vec<(String, String)>,
}

impl Rounds<'_> {
    /// Ordinary work of Ada and Bob, so that both have things of every kind.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.things(&[(&self.people.bob, "bob"), (&self.people.ada, "ada")], 0);
        let entries: BTreeSet<&str> =
            self.watch.said.iter().filter(|(_, said)| matches!(said, Said::Played { .. })).map(|(name, _)| name.as_str()).collect();
        if entries.is_empty() {
            Err("no service of the copy was given any work; see that the manifest has public routes".to_owned())
        } else {
            Ok(())
        }
    }

    /// Ordinary work of these, with this number: things of theirs of every kind, which nobody has touched yet.
    pub(super) fn things(&mut self, of: &[(&Browser, &str)], number: u32) {
        for (browser, person) in of {
            wave(self.script, browser, &Mark::new(Act::Calm, "none", person, number), None);
        }
        self.settle(REACH_MAX);
    }

    /// One service's turn, on things that are new: what the one before removed is no wall.
    pub(super) fn attack(&mut self, service: &str) {
        let (script, people) = (self.script, self.people);
        let number = turn_number(script, service);
        self.things(&[(&people.bob, "bob"), (&people.ada, "ada")], number);
        let mark = Mark::new(Act::Attack, service, "ada", number);
        let (text, told) = (mark.to_string(), carried("bob", &people.bob_id));
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| wave(script, &people.ada, &mark, Some(&told)));
            let (mut waited, mut quiet, mut replays) = (Duration::ZERO, Duration::ZERO, Vec::new());
            while waited < ROUND_MAX {
                std::thread::sleep(LOOK);
                waited = waited.saturating_add(LOOK);
                quiet = if self.watch.look() > 0 { Duration::ZERO } else { quiet.saturating_add(LOOK) };
                let state = Turn::of(&self.watch, service, &text);
                if let Some(token) = state.token.filter(|_| replays.is_empty()) {
                    self.stolen.push((format!("a token of {service}"), token.clone()));
                    let carry = format!("{text}~{token}");
                    for other in script.services.keys().filter(|other| *other != service) {
                        let (mark, carry) = (Mark::new(Act::Replay, other, "ada", number), carry.clone());
                        replays.push(scope.spawn(move || wave(script, &people.ada, &mark, Some(&carry))));
                    }
                }
                let done = begun.is_finished() && replays.iter().all(std::thread::ScopedJoinHandle::is_finished);
                let reached = state.began > 0 && state.began == state.ended;
                if done && ((reached && quiet >= QUIET) || (state.began == 0 && quiet >= REACH_MAX)) {
                    break;
                }
            }
        });
    }

    /// One service uses up all that it can have, while Bob asks everybody else: what he was answered, and how fast.
    pub(super) fn press(&mut self, service: &str, neighbours: &Neighbours<'_>) -> Vec<Sample> {
        let (script, people) = (self.script, self.people);
        let mark = Mark::new(Act::Press, service, "ada", 2);
        let (text, over) = (mark.to_string(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| wave(script, &people.ada, &mark, None));
            let (mut waited, mut idle, mut asking) = (Duration::ZERO, Duration::ZERO, None);
            while waited < ROUND_MAX && idle < REACH_MAX {
                std::thread::sleep(LOOK);
                waited = waited.saturating_add(LOOK);
                self.watch.look();
                let state = Turn::of(&self.watch, service, &text);
                if state.began > 0 && asking.is_none() {
                    asking = Some(scope.spawn(|| neighbours.ask_until(&over, Some(service))));
                }
                if state.pressed {
                    break;
                }
                idle = if begun.is_finished() && state.began == 0 { idle.saturating_add(LOOK) } else { Duration::ZERO };
            }
            over.store(true, Ordering::Relaxed);
            asking.and_then(|asking| asking.join().ok()).unwrap_or_default()
        })
    }

    /// The authority that some service has in hand just now: of Ada, who has no role.
    pub(super) fn lent(&mut self) -> Option<String> {
        let (script, people) = (self.script, self.people);
        let entered = script.services.iter().filter(|(_, part)| part.routes.iter().any(|route| route.public));
        for (service, number) in entered.map(|(name, _)| name).zip(LENT..) {
            let mark = Mark::new(Act::Lend, service, "ada", number);
            wave(script, &people.ada, &mark, None);
            self.settle(REACH_MAX);
            if let Some(token) = Turn::of(&self.watch, service, &mark.to_string()).token {
                return Some(token);
            }
        }
        None
    }

    /// Waits until nobody says anything any more.
    fn settle(&mut self, most: Duration) {
        let (mut waited, mut quiet) = (Duration::ZERO, Duration::ZERO);
        while waited < most && quiet < QUIET {
            std::thread::sleep(LOOK);
            waited = waited.saturating_add(LOOK);
            quiet = if self.watch.look() > 0 { Duration::ZERO } else { quiet.saturating_add(LOOK) };
        }
    }
}

/// The number of a service's turn, from 1: of what is made for it, and of replays of what it had.
fn turn_number(script: &Script, service: &str) -> u32 {
    let at = script.services.keys().position(|name| name == service).and_then(|at| u32::try_from(at).ok());
    at.unwrap_or_default().saturating_add(1)
}

/// How far a turn is.
struct Turn {
    began: usize,
    ended: usize,
    /// What uses everything up has been tried.
    pressed: bool,
    token: Option<String>,
}

impl Turn {
    fn of(watch: &Watch, service: &str, mark: &str) -> Self {
        let mut turn = Self { began: 0, ended: 0, pressed: false, token: None };
        for (_, said) in watch.said.iter().filter(|(name, _)| name == service) {
            match said {
                Said::Began { mark: of, .. } if of == mark => turn.began += 1,
                Said::Ended { mark: of, .. } if of == mark => turn.ended += 1,
                Said::Tried(tried) if tried.mark == mark => {
                    turn.pressed |= tried.technique == EXHAUSTION;
                    turn.token = turn
                        .token
                        .or_else(|| tried.stolen.iter().find(|(what, _)| what == "transaction-token").map(|(_, text)| text.clone()));
                }
                _ => {}
            }
        }
        turn
    }
}

/// One person's work: every public route once, and every upload that is granted.
pub(super) fn wave(script: &Script, browser: &Browser, mark: &Mark, carry: Option<&str>) {
    let text = mark.to_string();
    let mut stored = BTreeSet::new();
    for part in script.services.values() {
        for route in part.routes.iter().filter(|route| route.public && route.method != "TCP" && !route.websocket) {
            let mut target = format!("{}?breach={text}&hops=0", filled(&route.path, &text));
            if let Some(carry) = carry {
                target.push_str(&format!("&carry={carry}"));
            }
            let request = Request::new(&route.method, target);
            let bodied = !matches!(route.method.as_str(), "GET" | "HEAD" | "DELETE");
            let words = json!({ "mark": text, "carry": carry }).to_string();
            let request = match part.protocol {
                Protocol::Grpc => grpc::called(request, words.as_bytes()),
                _ if bodied => request.body("application/json", words),
                _ => request,
            };
            // A route that gives no answer is seen by what its service does not say.
            let Ok(answer) = browser.ask(&request) else { continue };
            let said: Value = serde_json::from_slice(grpc::message(&answer.body)).unwrap_or_default();
            for grant in said.get("uploads").and_then(Value::as_array).into_iter().flatten() {
                let place = (text_of(grant, "bucket").unwrap_or_default().to_owned(), text_of(grant, "key").unwrap_or_default().to_owned());
                if stored.insert(place) {
                    upload(browser, grant, mark, carry);
                }
            }
        }
    }
}

fn upload(browser: &Browser, grant: &Value, mark: &Mark, carry: Option<&str>) {
    let url = browser.path_of(text_of(grant, "url").unwrap_or_default());
    let mut request = Request::new(text_of(grant, "method").unwrap_or("PUT"), url);
    for (name, value) in grant.get("headers").and_then(Value::as_object).into_iter().flatten() {
        request = request.with(name, value.as_str().unwrap_or_default());
    }
    request.body = content(&mark.to_string(), &canary_of(&mark.person), carry);
    // As with routes: what is not stored is seen by what follows from it.
    let _refused = browser.ask(&request);
}
