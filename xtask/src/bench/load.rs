//! Load, and what it says: `wrk` at saturation and for handshakes, `h2load` at a fixed rate, `curl` for single requests.

use std::time::{Duration, Instant};

use super::rig::{Rig, Started, beside_the_load};
use super::scenario::Scenario;
use crate::{Outcome, tree};

/// How the load's requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// One, signed with that algorithm.
    One(&'static str),
    /// 2,000 in turn.
    Many,
}

impl Tokens {
    /// As it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One(algorithm) => algorithm,
            Self::Many => "ES256, 2,000 tokens",
        }
    }
}

/// What one run at saturation says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saturated {
    /// CPU of the measured processes, in microseconds for each request.
    pub cpu_us: f64,
    /// Requests that were answered with something else than 2xx, or not at all.
    pub failed: u64,
}

fn url(rig: &Rig, scenario: Scenario) -> String {
    format!("http{}://127.0.0.1:{}/", if scenario.is_public() { "s" } else { "" }, rig.ports.entry)
}

fn with_token(rig: &Rig, scenario: Scenario, tokens: Tokens) -> Outcome<Vec<String>> {
    Ok(match tokens {
        _ if !scenario.is_public() => Vec::new(),
        Tokens::Many => vec!["-s".to_owned(), rig.file("many.lua")],
        Tokens::One(algorithm) => vec!["-H".to_owned(), format!("Authorization: Bearer {}", rig.token(algorithm)?)],
    })
}

/// As much as one core of load can ask for, on kept connections.
///
/// # Errors
/// When `wrk` says nothing that can be read.
pub fn saturate(rig: &Rig, started: &Started, scenario: Scenario, tokens: Tokens, connections: u32, seconds: u32) -> Outcome<Saturated> {
    let more = with_token(rig, scenario, tokens)?;
    let run = |seconds: u32| {
        let mut command = beside_the_load();
        command.args(["wrk", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]).args(&more).arg(url(rig, scenario));
        counted(started, || tree::output(&mut command))
    };
    run(1)?;
    run(seconds)
}

/// A new connection for each request, one after the other on each of 16 places.
///
/// # Errors
/// As `saturate`.
pub fn handshakes(rig: &Rig, started: &Started, seconds: u32) -> Outcome<Saturated> {
    let more = with_token(rig, Scenario::Edge, Tokens::One("ES256"))?;
    let mut command = beside_the_load();
    command.args(["wrk", "-t1", "-c16", &format!("-d{seconds}s"), "-H", "Connection: close"]).args(more).arg(url(rig, Scenario::Edge));
    counted(started, || tree::output(&mut command))
}

fn counted(started: &Started, run: impl FnOnce() -> Outcome<String>) -> Outcome<Saturated> {
    let before = started.cpu_s()?;
    let said = run()?;
    let cpu_s = started.cpu_s()? - before;
    let number = |before: &str, after: &str| -> Option<f64> {
        let line = said.lines().find(|line| line.contains(before) && line.contains(after))?;
        let text = line.split(after).next()?.trim().rsplit([' ', ':']).next()?;
        text.parse().ok()
    };
    let requests = number("requests in", " requests in").ok_or_else(|| format!("wrk said: {said}"))?;
    let other: u64 =
        said.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses:")).map_or(Ok(0), |n| n.trim().parse())?;
    let broken: u64 = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Socket errors:"))
        .map_or(0, |line| line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum());
    Ok(Saturated { cpu_us: cpu_s / requests.max(1.0) * 1e6, failed: other + broken })
}

/// The time that requests took, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// Of a hundred, the slowest but one.
    pub p99_us: f64,
    /// Requests that were not answered with 200.
    pub failed: usize,
}

/// Ten connections at a fixed rate; the first tenth is not counted. `to`: the app itself, or the scenario's entry.
///
/// # Errors
/// When `h2load` wrote nothing that can be read.
pub fn at_rate(rig: &Rig, to: Option<Scenario>, rate: u32, seconds: u32) -> Outcome<Latency> {
    let log = rig.folder("run").join("h2load.log");
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let mut command = beside_the_load();
    let (rate_each, count) = (format!("--rps={}", rate / 10), format!("-n{}", rate * seconds));
    command.args(["h2load", "--h1", "-t1", "-c10", &rate_each, &count]).arg(format!("--log-file={}", log.display()));
    match to {
        None => command.arg(format!("http://127.0.0.1:{}/", rig.ports.app)),
        Some(scenario) => command.args(with_token(rig, scenario, Tokens::One("ES256"))?).arg(url(rig, scenario)),
    };
    tree::output(&mut command)?;
    let text = std::fs::read_to_string(&log)?;
    // Start, status, time: the columns of h2load's log, in microseconds.
    let rows: Vec<(&str, f64)> = text
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let _start = columns.next()?;
            Some((columns.next()?, columns.next()?.parse().ok()?))
        })
        .collect();
    let counted = rows.get(rows.len() / 10..).unwrap_or_default();
    let mut times: Vec<f64> = counted.iter().map(|(_, time)| *time).collect();
    times.sort_by(f64::total_cmp);
    let at = |hundredth: usize| times.get(times.len() * hundredth / 100).copied().unwrap_or_default();
    Ok(Latency { p50_us: at(50), p99_us: at(99), failed: counted.iter().filter(|(status, _)| *status != "200").count() })
}

/// The status of one request to the entry: `000` when there was no answer.
///
/// # Errors
/// When curl cannot be run.
pub fn status(rig: &Rig, scenario: Scenario, token: Option<&str>) -> Outcome<String> {
    asked(&url(rig, scenario), token.map(|token| format!("Authorization: Bearer {token}")).as_deref(), &[])
}

/// The status of one request to the second hop, with that certificate or none.
///
/// # Errors
/// When curl cannot be run.
pub fn status_at_hop(rig: &Rig, certificate: Option<&str>) -> Outcome<String> {
    let shown = certificate.map(|name| [rig.file(&format!("{name}.pem")), rig.file(&format!("{name}.key"))]);
    let more: Vec<&str> = shown.iter().flat_map(|[certificate, key]| ["--cert", certificate.as_str(), "--key", key.as_str()]).collect();
    asked(&format!("https://127.0.0.1:{}/", rig.ports.peer), None, &more)
}

fn asked(url: &str, field: Option<&str>, more: &[&str]) -> Outcome<String> {
    let mut command = beside_the_load();
    command.args(["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]).args(more);
    if let Some(field) = field {
        command.args(["-H", field]);
    }
    // A connection that was refused is an answer here.
    let output = command.arg(url).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// How long it takes from now until the entry answers with 200.
///
/// # Errors
/// When it never does.
pub fn first_answer(rig: &Rig, scenario: Scenario, begin: Instant) -> Outcome<Duration> {
    let token = rig.token("ES256")?;
    while begin.elapsed() < Duration::from_secs(10) {
        if status(rig, scenario, Some(&token))? == "200" {
            return Ok(begin.elapsed());
        }
    }
    Err("no answer in ten seconds".into())
}
