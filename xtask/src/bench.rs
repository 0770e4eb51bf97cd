//! `cargo xtask bench`: what the data path costs, measured here and now, beside the peers that are installed. Figures are printed and
//! written down, never asserted. docs/performance.md has the method and what was measured.
//!
//! CPU of the measured processes for each request is the figure that survives a noisy machine; each is compared within its round.

mod load;
mod peers;
mod report;
mod rig;
mod sandboxes;
mod scenario;
mod soak;
mod system;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};

use self::load::{Saturated, Tokens};
use self::report::Table;
use self::rig::{Rig, beside_the_load};
use self::scenario::{Program, Scenario, Shown, Target};
use crate::{Outcome, packages, tree};

/// Connections that are held idle.
const IDLE: u32 = 1000;
/// Requests in a second for latency.
const RATE: u32 = 1000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU of a request, at saturation: S1 (edge), S2 (edge and mesh hop), S3 (mesh hop).
    Cost,
    /// CPU of a request with and without spans and access log, ours alone.
    Telemetry,
    /// S1 with other tokens: RS256, EdDSA, and 2,000 different ones.
    Tokens,
    /// CPU of a new TLS connection with one request.
    Handshakes,
    /// Memory of idle mTLS connections; of a guard without any.
    Idle,
    /// What a hop adds at 1,000 requests a second.
    Latency,
    /// From start to the first answer.
    First,
    /// Start and memory of the whole reference system.
    System,
    /// Start of a sandbox, and a transcode in one beside bare FFmpeg.
    Sandbox,
    /// The whole reference system at half load for `--seconds` (3600 is an hour), while certificates and policies change every minute.
    /// Only when it is named.
    Soak,
}

/// How `bench` is asked.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Rounds; every target is measured in each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Connections at saturation.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Only these; everything otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where a peer is: haproxy=PATH, envoy=PATH, nginx=PATH; otherwise those of PATH.
    #[arg(long, value_name = "NAME=PATH")]
    peer: Vec<String>,
}

/// Measures, prints tables, and writes `target/bench.json`.
///
/// # Errors
/// When something cannot be built, started or asked, or when a target does not do what it is measured for.
pub fn run(wanted: &Wanted) -> Outcome {
    for needs in [packages::RUN, packages::DEMO, packages::BENCH] {
        packages::ensure(needs)?;
    }
    let parts =
        Part::value_variants().iter().copied().filter(|part| (wanted.only.is_empty() && *part != Part::Soak) || wanted.only.contains(part));
    let mut written = serde_json::Map::new();
    let mut rig = None;
    for part in parts {
        let mut bench = || -> Outcome<Rc<Bench<'_>>> {
            let open = rig.take().map_or_else(|| Bench::open(wanted).map(Rc::new), Ok)?;
            Ok(Rc::clone(rig.insert(open)))
        };
        let figures = match part {
            Part::Cost => bench()?.cost()?,
            Part::Telemetry => bench()?.telemetry()?,
            Part::Tokens => bench()?.tokens()?,
            Part::Handshakes => bench()?.handshakes()?,
            Part::Idle => bench()?.idle()?,
            Part::Latency => bench()?.latency()?,
            Part::First => bench()?.first()?,
            Part::System => system::measure()?,
            Part::Sandbox => sandboxes::measure()?,
            Part::Soak => soak::measure(wanted.seconds)?,
        };
        written.insert(format!("{part:?}").to_lowercase(), figures);
    }
    let file = tree::root().join("target/bench.json");
    std::fs::create_dir_all(tree::root().join("target"))?;
    std::fs::write(&file, serde_json::to_vec_pretty(&written)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// The product, the floor, and the peers that are here.
fn targets(told: &[String]) -> Outcome<Vec<Target>> {
    let mut targets = vec![Target::Palisade, Target::Floor];
    let told: BTreeMap<&str, &str> =
        told.iter().map(|peer| peer.split_once('=').ok_or_else(|| format!("--peer {peer}: say NAME=PATH"))).collect::<Result<_, _>>()?;
    if let Some(name) = told.keys().find(|name| !["haproxy", "envoy", "nginx"].contains(*name)) {
        return Err(format!("--peer {name}: known are haproxy, envoy and nginx").into());
    }
    for name in ["haproxy", "envoy", "nginx"] {
        match packages::found(told.get(name).copied().unwrap_or(name)).map(|path| path.display().to_string()) {
            Some(path) if name == "haproxy" => targets.push(Target::HaProxy(path)),
            Some(path) if name == "envoy" => targets.push(Target::Envoy(path)),
            Some(path) => targets.push(Target::Nginx(path)),
            None if told.contains_key(name) => return Err(format!("--peer {name}: there is no such file").into()),
            None => println!("not installed, so not measured: {name}"),
        }
    }
    Ok(targets)
}

struct Bench<'a> {
    rig: Rig,
    targets: Vec<Target>,
    wanted: &'a Wanted,
}

impl<'a> Bench<'a> {
    /// The rig, with every target checked.
    fn open(wanted: &'a Wanted) -> Outcome<Self> {
        let bench = Self { targets: targets(&wanted.peer)?, rig: Rig::open()?, wanted };
        bench.check()?;
        Ok(bench)
    }

    /// Every target does what it is measured for: lets the right ones in, and nobody else.
    fn check(&self) -> Outcome {
        println!("checking that every target does its work");
        let rig = &self.rig;
        for target in &self.targets {
            for scenario in Scenario::ALL {
                let wrong = |what: &str, got: &str| Err(format!("{} {}: {what}: got {got}", target.name(), scenario.name()).into());
                let Some(programs) = target.programs(rig, scenario, Shown::Right)? else { continue };
                let started = rig.start(&programs, &scenario.listening(rig.ports))?;
                let good = if scenario.is_public() { vec!["ES256", "RS256", "EdDSA"] } else { vec!["ES256"] };
                for token in good.into_iter().filter(|token| target.verifies(token)) {
                    let got = load::status(rig, scenario, Some(&rig.token(token)?))?;
                    if got != "200" {
                        return wrong(token, &got);
                    }
                }
                if scenario.is_public() {
                    let refused = |name: &str, token: Option<String>, with: &[&str]| -> Outcome {
                        let got = load::status(rig, scenario, token.as_deref())?;
                        if with.contains(&got.as_str()) { Ok(()) } else { wrong(name, &got) }
                    };
                    refused("no token", None, &["401"])?;
                    for name in ["forged", "expired", "wrong issuer"] {
                        refused(name, Some(rig.token(name)?), &["401"])?;
                    }
                    refused("wrong audience", Some(rig.token("wrong audience")?), &["401", "403"])?;
                    refused("no scope", Some(rig.token("no scope")?), &["403"])?;
                }
                if scenario != Scenario::Edge {
                    let got = load::status_at_hop(rig, None)?;
                    if got.starts_with('2') {
                        return wrong("a client without a certificate", &got);
                    }
                    drop(started);
                    let programs = target.programs(rig, scenario, Shown::Stranger)?.unwrap_or_default();
                    let _strange = rig.start(&programs, &scenario.listening(rig.ports))?;
                    let got = load::status(rig, scenario, Some(&rig.token("ES256")?))?;
                    if got.starts_with('2') {
                        return wrong("a first hop that is a stranger", &got);
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs `measure` on each of these targets that can do `scenario`, in every round; the figures by target.
    fn rounds<T>(
        &self,
        targets: &[Target],
        scenario: Scenario,
        mut measure: impl FnMut(&Target, &rig::Started) -> Outcome<Option<T>>,
    ) -> Outcome<Rounds<T>> {
        let mut figures = Rounds::<T>::new();
        for _ in 0..self.wanted.rounds {
            for target in targets {
                let Some(programs) = target.programs(&self.rig, scenario, Shown::Right)? else { continue };
                let started = self.rig.start(&programs, &scenario.listening(self.rig.ports))?;
                // Everything is asked once before it is measured.
                load::status(&self.rig, scenario, Some(&self.rig.token("ES256")?))?;
                if let Some(figure) = measure(target, &started)? {
                    figures.entry(target.name()).or_default().push(figure);
                }
            }
        }
        Ok(figures)
    }

    /// The rounds of a figure at saturation, in microseconds of CPU; a target that fails requests is an error.
    fn costs(
        &self,
        targets: &[Target],
        scenario: Scenario,
        mut run: impl FnMut(&Target, &rig::Started) -> Outcome<Option<Saturated>>,
    ) -> Outcome<Figures> {
        let figures = self.rounds(targets, scenario, |target, started| {
            let Some(measured) = run(target, started)? else { return Ok(None) };
            if measured.failed > 0 {
                return Err(format!("{} {}: {} requests failed", target.name(), scenario.name(), measured.failed).into());
            }
            Ok(Some(measured))
        })?;
        Ok(figures.into_iter().map(|(name, all)| (name, all.into_iter().map(|one| one.cpu_us).collect())).collect())
    }

    fn saturated(&self, targets: &[Target], scenario: Scenario, tokens: Tokens) -> Outcome<Figures> {
        self.costs(targets, scenario, |target, started| {
            let able = !matches!(tokens, Tokens::One(algorithm) if !target.verifies(algorithm));
            let run = || load::saturate(&self.rig, started, scenario, tokens, self.wanted.connections, self.wanted.seconds);
            able.then(run).transpose()
        })
    }

    fn cost(&self) -> Outcome<Value> {
        let mut table = Table::new("CPU of the proxies for each request", "µs", Some("floor"));
        for scenario in Scenario::ALL {
            table.column(scenario.name(), self.saturated(&self.targets, scenario, Tokens::One("ES256"))?);
        }
        Ok(table.print())
    }

    /// With everything on, beside the same with nothing but what must be kept: records, and their shipping.
    fn telemetry(&self) -> Outcome<Value> {
        let mut table = Table::new("What spans and the access log cost: CPU for each request", "µs", Some("records only"));
        for scenario in Scenario::ALL {
            table.column(scenario.name(), self.saturated(&[Target::Palisade, Target::RecordsOnly], scenario, Tokens::One("ES256"))?);
        }
        Ok(table.print())
    }

    fn tokens(&self) -> Outcome<Value> {
        let mut table = Table::new("S1 with other tokens, CPU for each request", "µs", Some("floor"));
        for tokens in [Tokens::One("RS256"), Tokens::One("EdDSA"), Tokens::Many] {
            table.column(tokens.name(), self.saturated(&self.targets, Scenario::Edge, tokens)?);
        }
        Ok(table.print())
    }

    fn handshakes(&self) -> Outcome<Value> {
        let mut table = Table::new("A new connection with TLS 1.3 and one request, at the edge: CPU", "µs", Some("floor"));
        let figures =
            self.costs(&self.targets, Scenario::Edge, |_, started| load::handshakes(&self.rig, started, self.wanted.seconds).map(Some))?;
        table.column("full handshake", figures);
        Ok(table.print())
    }

    fn idle(&self) -> Outcome<Value> {
        let (mut before, mut each) = (Figures::new(), Figures::new());
        for _ in 0..self.wanted.rounds {
            for target in &self.targets {
                let Some((mib, kib)) = self.idle_of(target)? else { continue };
                before.entry(target.name()).or_default().push(mib);
                each.entry(target.name()).or_default().push(kib);
            }
        }
        let mut table = Table::new("Memory of the second hop (proportional set size)", "MiB; KiB", Some("floor"));
        table.column("idle, MiB", before);
        table.column("each idle mTLS connection, KiB", each);
        Ok(table.print())
    }

    /// MiB of the second hop before, and KiB for each of the connections that it then holds.
    fn idle_of(&self, target: &Target) -> Outcome<Option<(f64, f64)>> {
        let (rig, scenario) = (&self.rig, Scenario::Hop);
        let Some(mut programs) = target.programs(rig, scenario, Shown::Right)? else { return Ok(None) };
        // The second hop comes last; what is before it is needed, and not measured.
        let last = programs.len().saturating_sub(1);
        programs.iter_mut().take(last).for_each(|program| program.counted = false);
        let started = rig.start(&programs, &scenario.listening(rig.ports))?;
        load::status(rig, scenario, None)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        let Some(before) = started.pss_bytes()? else { return Ok(None) };
        let ours = *target == Target::Palisade;
        let mut line =
            vec![rig.program.display().to_string(), "hold".to_owned(), format!("to={}", rig.ports.peer), format!("connections={IDLE}")];
        let shown = if ours { "front" } else { "gateway" };
        line.push(format!("ca={}", rig.file("ca.pem")));
        line.push(format!("cert={}", rig.file(&format!("{shown}.pem"))));
        line.push(format!("key={}", rig.file(&format!("{shown}.key"))));
        line.push(format!("id={}", scenario::SECOND));
        if ours {
            line.push(format!("token={}", rig.folder("world").join("token").display()));
        }
        let mut holding = beside_the_load().args(line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        let output = holding.stdout.take().ok_or("no output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut said)?;
        let held: u32 = said.trim().parse().map_err(|_| format!("{}: no connections are held", target.name()))?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        let after = started.pss_bytes()?;
        drop(holding.stdin.take());
        holding.wait()?;
        if held != IDLE {
            return Err(format!("{}: {held} of {IDLE} connections were answered with 200", target.name()).into());
        }
        let grown = after.unwrap_or_default().saturating_sub(before);
        Ok(Some((system::mib(before), system::mib(grown) * 1024.0 / f64::from(IDLE))))
    }

    fn latency(&self) -> Outcome<Value> {
        let seconds = self.wanted.seconds.max(5);
        let direct = load::at_rate(&self.rig, None, RATE, seconds)?;
        println!("\nThe app itself at {RATE} requests a second: p50 {:.0} µs, p99 {:.0} µs", direct.p50_us, direct.p99_us);
        let mut table = Table::new("What is added to it", "µs", None);
        for scenario in Scenario::ALL {
            let figures = self.rounds(&self.targets, scenario, |_, _| load::at_rate(&self.rig, Some(scenario), RATE, seconds).map(Some))?;
            let added = |pick: fn(&load::Latency) -> f64, from: f64| -> Figures {
                figures.iter().map(|(name, all)| (*name, all.iter().map(|one| pick(one) - from).collect())).collect()
            };
            table.column(&format!("{} p50", scenario.name()), added(|one| one.p50_us, direct.p50_us));
            table.column(&format!("{} p99", scenario.name()), added(|one| one.p99_us, direct.p99_us));
            if let Some((name, all)) = figures.iter().find(|(_, all)| all.iter().any(|one| one.failed > 0)) {
                return Err(
                    format!("{name} {}: {} requests failed", scenario.name(), all.iter().map(|one| one.failed).sum::<usize>()).into()
                );
            }
        }
        Ok(json!({ "app": { "p50_us": direct.p50_us, "p99_us": direct.p99_us }, "added": table.print() }))
    }

    fn first(&self) -> Outcome<Value> {
        let mut figures = Figures::new();
        for _ in 0..self.wanted.rounds {
            for target in &self.targets {
                let Some(programs) = target.programs(&self.rig, Scenario::Edge, Shown::Right)? else { continue };
                let (aside, measured): (Vec<Program>, Vec<Program>) = programs.into_iter().partition(|program| !program.counted);
                let _beside = self.rig.start(&aside, &[])?;
                let begin = Instant::now();
                let _started = self.rig.start(&measured, &[])?;
                let first = load::first_answer(&self.rig, Scenario::Edge, begin)?;
                figures.entry(target.name()).or_default().push(first.as_secs_f64() * 1000.0);
            }
        }
        let mut table =
            Table::new("From the start of the edge to its first answer, TLS, token and curl's own start included", "ms", Some("floor"));
        table.column("first answer", figures);
        Ok(table.print())
    }
}

/// What each round gave, by target.
type Rounds<T> = BTreeMap<&'static str, Vec<T>>;
type Figures = Rounds<f64>;
