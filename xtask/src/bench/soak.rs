//! A soak: the whole reference system at half of what it can do, while certificates and policies change every minute.
//!
//! Every minute the public certificate is exchanged, another manifest comes into force, and every workload gets a new SVID (their lives
//! are two minutes). Requests go over connections that are kept throughout, HTTP/1.1 and HTTP/2, and over new ones. None may fail, and
//! memory must stay where it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::system::mib;
use crate::artefacts::{self, Artefacts};
use crate::demo::Scratch;
use crate::running::{Running, Setting};
use crate::{Outcome, processes, tree};

/// From one exchange to the next.
const EVERY: Duration = Duration::from_secs(60);
/// Between two requests on new connections.
const NEW: Duration = Duration::from_secs(2);
/// Seconds in which it is found out what the system can do.
const TRIAL_S: u32 = 10;
/// Kept connections of each version of HTTP: with the new ones they stay below the 16 requests that a service takes at once.
const KEPT: u32 = 6;

/// The reference system with short lives, high limits and a certificate that is brought.
fn manifest(folder: &Path, changed: bool) -> Outcome<String> {
    let text = std::fs::read_to_string(artefacts::manifest())?;
    let (system, edge, route) = ("[system]\n", "hosts = [\"localhost\", \"127.0.0.1\"]\n", "  { path = \"/static/{*file}\"");
    if [system, edge, route].iter().any(|mark| !text.contains(mark)) {
        return Err("the reference manifest is not as the soak knows it".into());
    }
    let more = if changed { "  { path = \"/soaked\", methods = [\"GET\"], purpose = \"view\" },\n" } else { "" };
    let brought = "hosts = [\"localhost\", \"127.0.0.1\"]\n[edge.limits]\naddress = \"100000/s\"\nperson = \"100000/s\"\n\
                   [edge.certificate.soak]\nhosts = [\"localhost\", \"127.0.0.1\"]\nchain = \"soak.pem\"\nkey = \"soak.key\"\n";
    let text = text.replacen(system, "[system]\nsvid_life = \"2m\"\n", 1).replacen(edge, brought, 1);
    let text = text.replacen(route, &format!("{more}{route}"), 1);
    std::fs::write(folder.join("palisade.toml"), &text)?;
    Ok(text)
}

/// A new certificate of the edge in its place.
fn certificate(folder: &Path) -> Outcome {
    let (key, chain) = (folder.join("next.key"), folder.join("next.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=soak"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
    tree::output(openssl.arg(&key).arg("-out").arg(&chain))?;
    std::fs::rename(key, folder.join("soak.key"))?;
    Ok(std::fs::rename(chain, folder.join("soak.pem"))?)
}

struct Soak {
    running: Running,
    folder: PathBuf,
    field: String,
}

impl Soak {
    fn open(scratch: &Path) -> Outcome<Self> {
        let built = Artefacts::build_for_release()?;
        let folder = scratch.join("video");
        let from = artefacts::manifest();
        let source = from.parent().ok_or("no folder")?;
        tree::run(Command::new("cp").arg("-a").arg(source).arg(&folder))?;
        certificate(&folder)?;
        manifest(&folder, false)?;
        let setting =
            Setting { manifest: folder.join("palisade.toml"), palisade: built.palisade(), ..Setting::reference(&scratch.join("system"))? };
        let mut running = setting.start()?;
        running.certificate = folder.join("soak.pem");
        let person = running.person("ada", scratch);
        person.enrol(running.first_link.as_deref().ok_or("no one-time link was printed")?)?;
        let people: Value = serde_json::from_str(&running.cli(&["user", "list"])?)?;
        let id = people[0]["user"].as_str().ok_or("nobody is listed")?;
        let key: Value = serde_json::from_str(&running.cli(&["key", "create", "soak", "--for", id, "--scope", "videos"])?)?;
        let field = format!("Authorization: Bearer {}", key["key"].as_str().ok_or("no key")?);
        Ok(Self { running, folder, field })
    }

    fn load(&self, more: &[&str]) -> Command {
        let mut command = Command::new("h2load");
        command.args(["-t1", &format!("-c{KEPT}"), "-H", &self.field]).args(more).arg(format!("{}/api/videos", self.running.address));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// One request on a connection of its own.
    fn once(&self) -> Outcome<bool> {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", "-H", &self.field]);
        let answer = curl.arg(format!("{}/api/videos", self.running.address)).output()?;
        Ok(answer.stdout == b"200")
    }

    fn exchange(&self, round: usize) -> Outcome {
        certificate(&self.folder)?;
        manifest(&self.folder, round.is_multiple_of(2))?;
        self.running.cli(&["apply", "--manifest", &artefacts::text(&self.folder.join("palisade.toml"))]).map(|_| ())
    }

    /// Prints what the system itself counted besides 2xx: where, for whom, with which outcome.
    fn explain(&self) -> Outcome {
        let answer: Value = serde_json::from_str(&self.running.cli(&["metrics"])?)?;
        let metrics = answer["metrics"].as_str().ok_or("no metrics")?;
        let refused = |line: &&str| {
            let counted = line.starts_with("palisade_requests_total{") || line.starts_with("palisade_decisions_total{");
            counted && !line.contains("status=\"2") && !line.contains("outcome=\"allow\"")
        };
        println!("what was answered with anything else:");
        metrics.lines().filter(refused).for_each(|line| println!("  {line}"));
        Ok(())
    }

    /// MiB of each process: its resident set, since that is told to everybody.
    fn memory(&self) -> Outcome<BTreeMap<String, f64>> {
        let mut all = BTreeMap::new();
        for process in processes::tree(self.running.pid())? {
            *all.entry(process.name).or_insert(0.0) += mib(process.rss_bytes);
        }
        Ok(all)
    }
}

/// What `h2load` says at its end: requests that were answered with 2xx, and all others.
fn tally(load: Child) -> Outcome<(u64, u64)> {
    let said = String::from_utf8(load.wait_with_output()?.stdout)?;
    let number = |line: &str, after: &str| -> Option<u64> {
        let line = said.lines().find(|found| found.starts_with(line))?;
        line.split(after).next()?.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
    };
    let counts = (number("requests:", " done"), number("status codes:", " 2xx"), number("requests:", " failed"));
    let (Some(done), Some(good), Some(failed)) = counts else { return Err(format!("h2load said: {said}").into()) };
    Ok((good, failed + done.saturating_sub(good + failed)))
}

/// Runs it for so long and prints what happened.
///
/// # Errors
/// When something cannot be started, when a request failed, or when memory grew by more than a tenth.
pub fn measure(seconds: u32) -> Outcome<Value> {
    let scratch = Scratch::new()?;
    let soak = Soak::open(&scratch.0)?;
    if !soak.once()? {
        return Err("the system does not answer".into());
    }
    let trial = tally(soak.load(&["--h1", &format!("-D{TRIAL_S}")]).spawn()?)?;
    let rate = (trial.0 / u64::from(TRIAL_S) / 2).max(u64::from(KEPT * 2));
    println!("\nSoak: {} requests a second at most; half of it, {rate}, for {seconds} s", trial.0 / u64::from(TRIAL_S));
    let each = format!("--rps={}", (rate / u64::from(KEPT * 2)).max(1));
    let duration = format!("-D{seconds}");
    let kept = [soak.load(&["--h1", &each, &duration]).spawn()?, soak.load(&[&each, &duration]).spawn()?];
    let (begin, mut rounds, mut new) = (Instant::now(), 0_usize, (0_u64, 0_u64));
    let mut memory = Vec::new();
    while begin.elapsed() < Duration::from_secs(u64::from(seconds)) {
        if begin.elapsed() >= EVERY * u32::try_from(rounds + 1)? {
            soak.exchange(rounds)?;
            rounds += 1;
            memory.push(soak.memory()?);
        }
        if soak.once()? {
            new.0 += 1
        } else {
            new.1 += 1
        }
        std::thread::sleep(NEW);
    }
    let [one, two] = kept.map(tally);
    let (one, two) = (one?, two?);
    println!("kept connections: HTTP/1.1 {} answered, {} not; HTTP/2 {} answered, {} not", one.0, one.1, two.0, two.1);
    println!("new connections: {} answered, {} not; {rounds} exchanges of certificate and policies", new.0, new.1);
    let grown = told(&memory);
    if one.1 + two.1 + new.1 > 0 {
        soak.explain()?;
    }
    soak.running.stop()?;
    if one.1 + two.1 + new.1 > 0 {
        return Err("requests failed".into());
    }
    if grown.is_some_and(|grown| grown > 1.1) {
        return Err("memory grew by more than a tenth".into());
    }
    Ok(
        json!({ "seconds": seconds, "rate": rate, "http1": one.0, "http2": two.0, "new": new.0, "failed": 0, "exchanges": rounds, "memory_mib": memory }),
    )
}

/// Prints memory after a quarter of the time and at the end; how much the sum grew in between.
fn told(memory: &[BTreeMap<String, f64>]) -> Option<f64> {
    let (early, late) = (memory.get(memory.len() / 4)?, memory.last()?);
    println!("{:<24} {:>16} {:>10}", "RSS MiB", "after a quarter", "at the end");
    for (name, end) in late {
        println!("{name:<24} {:>16.1} {end:>10.1}", early.get(name).copied().unwrap_or_default());
    }
    let (before, after): (f64, f64) = (early.values().sum(), late.values().sum());
    println!("{:<24} {before:>16.1} {after:>10.1}", "sum");
    Some(after / before)
}
