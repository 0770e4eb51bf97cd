//! What each side costs: time, CPU and memory, measured from outside in the same way.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::side::Side;
use crate::curl::Ask;
use crate::person::Person;
use crate::{Outcome, media, processes, tree};

/// How often an upload and a watch are made.
const TIMES: usize = 60;
/// How long the list is asked for, in seconds.
const LOAD_S: u32 = 8;

/// Median, and of a hundred the slowest but one, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// Median.
    pub p50_ms: f64,
    /// Of a hundred the slowest but one.
    pub p99_ms: f64,
}

/// The figures of one side.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The list of videos, on one kept connection.
    pub list: Times,
    /// Announcing a video and sending 1 MiB, on new connections, as curl does.
    pub upload: Times,
    /// Asking for a video and for its rendition, on new connections.
    pub watch: Times,
    /// CPU of all processes for one request of the list, in microseconds.
    pub request_cpu_us: f64,
    /// CPU of all processes for a video of ten seconds, from its announcement until it is ready, in seconds.
    pub video_cpu_s: f64,
    /// From its announcement until it is ready, in seconds.
    pub video_s: f64,
    /// Memory of all processes, idle, shared pages divided among those who share them; only root is told.
    pub idle_bytes: Option<u64>,
    /// Processes, idle.
    pub processes: usize,
    /// Ports that listen: for anybody, and for peers with a certificate of the system.
    pub ports: (usize, usize),
}

/// Measures a side that is up.
///
/// # Errors
/// When a request is refused, or `wrk` says nothing that can be read.
pub fn measure(side: &Side, scratch: &Path) -> Outcome<Figures> {
    let meter = side.site().person("meter", scratch)?;
    std::thread::sleep(Duration::from_secs(5));
    let all = processes::tree(side.pid())?;
    let (idle_bytes, count, ports) = (processes::pss_bytes(&all), all.len(), listening(&all)?);
    let file = scratch.join("ten.mp4");
    media::make(&file, 10, "1280x720", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])?;
    let (before, start) = (cpu_s(side.pid())?, Instant::now());
    let uploaded = meter.upload(&file, "video/mp4")?;
    meter.wait_for(&uploaded.id, &["ready"], Duration::from_secs(300))?;
    let video_s = start.elapsed().as_secs_f64();
    // Until the last of the job's processes has ended and is counted.
    std::thread::sleep(Duration::from_secs(4));
    let video_cpu_s = cpu_s(side.pid())? - before;
    let (list, request_cpu_us) = listed(side, &meter)?;
    Ok(Figures {
        list,
        request_cpu_us,
        upload: times(|| upload(&meter, scratch))?,
        watch: times(|| watch(&meter, &uploaded.id))?,
        video_cpu_s,
        video_s,
        idle_bytes,
        processes: count,
        ports,
    })
}

fn times(one: impl Fn() -> Outcome<f64>) -> Outcome<Times> {
    let mut all = Vec::new();
    for _ in 0..TIMES {
        all.push(one()?);
    }
    all.sort_by(f64::total_cmp);
    let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1))).copied().unwrap_or_default() * 1000.0;
    Ok(Times { p50_ms: at(50), p99_ms: at(99) })
}

/// Announces a video and sends 1 MiB that no decoder will see, since it is no video: what is measured is the way of the bytes.
fn upload(meter: &Person, scratch: &Path) -> Outcome<f64> {
    let file = scratch.join("mebibyte.mp4");
    std::fs::write(&file, "this is a text and no video at all \n".repeat(1 << 15).get(..1 << 20).unwrap_or_default())?;
    let start = meter.curl.spent_s();
    meter.upload(&file, "video/mp4")?;
    Ok(meter.curl.spent_s() - start)
}

fn watch(meter: &Person, id: &str) -> Outcome<f64> {
    let start = meter.curl.spent_s();
    let watch = meter.api("GET", &format!("/api/videos/{id}/watch"), None, 200)?;
    let url = watch["renditions"].as_array().and_then(|all| all.last()).and_then(|made| made["url"].as_str()).ok_or("no rendition")?;
    let answer = meter.curl.ask(url, &Ask::default())?;
    if answer.status == 200 { Ok(meter.curl.spent_s() - start) } else { Err(format!("{url}: {}", answer.status).into()) }
}

/// The list on one kept connection, as fast as it is answered.
fn listed(side: &Side, meter: &Person) -> Outcome<(Times, f64)> {
    let cookie = meter.curl.cookies()?;
    let run = |seconds: u32| {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c1", &format!("-d{seconds}s"), "--latency", "-H", &format!("Cookie: {cookie}")]);
        tree::output(wrk.arg(format!("{}/api/videos?limit=10", meter.curl.address())))
    };
    run(2)?;
    let before = cpu_s(side.pid())?;
    let said = run(LOAD_S)?;
    let spent = cpu_s(side.pid())? - before;
    if said.contains("Non-2xx") {
        return Err(format!("the list was refused under load: {said}").into());
    }
    let unreadable = || format!("wrk said: {said}");
    let percentile = |name: &str| -> Option<f64> { milliseconds(said.lines().find_map(|line| line.trim().strip_prefix(name))?.trim()) };
    let requests: f64 = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok()).ok_or_else(unreadable)?;
    let times = Times { p50_ms: percentile("50%").ok_or_else(unreadable)?, p99_ms: percentile("99%").ok_or_else(unreadable)? };
    Ok((times, spent / requests.max(1.0) * 1e6))
}

/// A time as `wrk` writes it.
fn milliseconds(text: &str) -> Option<f64> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<f64>().ok();
    number("us").map(|us| us / 1000.0).or_else(|| number("ms")).or_else(|| number("s").map(|s| s * 1000.0))
}

/// CPU that a process, its descendants, and those of them that have ended have spent, in seconds.
pub(super) fn cpu_s(root: u32) -> Outcome<f64> {
    let ticks: f64 = tree::output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?;
    let mut spent = 0u64;
    for process in processes::tree(root)? {
        // A process may end while we look; it is counted with its parent next time.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)) else { continue };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // proc(5): utime, stime, cutime, cstime.
        spent += fields.get(11..15).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(spent as f64 / ticks)
}

/// How many ports these processes listen on: for anybody, and for peers with a certificate alone (found by asking without one).
fn listening(all: &[processes::Process]) -> Outcome<(usize, usize)> {
    let mut inodes = std::collections::BTreeSet::new();
    for process in all {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let target = target.display().to_string();
            inodes.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
        }
    }
    let (mut open, mut closed) = (0, 0);
    for line in std::fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        let port = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok()).unwrap_or_default();
        if *state != "0A" || !inodes.contains(*inode) {
            continue;
        }
        let url = format!("https://127.0.0.1:{port}/");
        let asked = Command::new("curl").args(["--silent", "--insecure", "--max-time", "5", "--output", "/dev/null", &url]).status()?;
        if asked.success() { open += 1 } else { closed += 1 }
    }
    Ok((open, closed))
}

/// What a crash takes down.
#[derive(Debug, Clone, Serialize)]
pub struct Crash {
    /// What was killed.
    pub killed: String,
    /// Requests for the list in the five seconds after, and how many of them failed.
    pub asked: usize,
    /// How many failed.
    pub failed: usize,
    /// Whether the video that was being transcoded got ready in the end, by nobody's help.
    pub video_ready: bool,
}

/// Kills (`kill -9`) the process that runs the transcoding's code while it transcodes, and looks who notices.
///
/// # Errors
/// When there is nothing to kill.
pub fn crash(side: &Side, scratch: &Path) -> Outcome<Crash> {
    let person = side.site().person("witness", scratch)?;
    let file = scratch.join("long.mp4");
    media::make(&file, 20, "1280x720", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])?;
    let uploaded = person.upload(&file, "video/mp4")?;
    person.wait_for(&uploaded.id, &["transcoding"], Duration::from_secs(60))?;
    let names = ["video-transcoder", "video-monolith"];
    let all = processes::tree(side.pid())?;
    let victim = all.iter().find(|process| names.contains(&process.name.as_str())).ok_or("nobody transcodes")?;
    tree::run(Command::new("kill").args(["-9", &victim.pid.to_string()]))?;
    let start = Instant::now();
    let (mut asked, mut failed) = (0, 0);
    while start.elapsed() < Duration::from_secs(5) {
        asked += 1;
        failed += usize::from(person.api("GET", "/api/videos", None, 200).is_err());
        std::thread::sleep(Duration::from_millis(50));
    }
    let video_ready = failed < asked && person.wait_for(&uploaded.id, &["ready"], Duration::from_secs(240)).is_ok();
    Ok(Crash { killed: victim.name.clone(), asked, failed, video_ready })
}

/// The figures as one JSON value.
#[must_use]
pub fn as_json(figures: &Figures, crash: &Crash) -> serde_json::Value {
    json!({ "figures": figures, "crash": crash })
}
