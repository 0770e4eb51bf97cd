//! `cargo xtask demo FILE`: one video through a system of its own, and one JSON line about it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::artefacts::Artefacts;
use crate::curl::Ask;
use crate::person::Person;
use crate::processes::{self, Process};
use crate::running::{Running, Setting};
use crate::{Outcome, media, packages, tree};

/// How long a video may take to be ready.
const READY_MAX: Duration = Duration::from_secs(15 * 60);
/// How far a rendition's length may be from the original's, in seconds.
const DURATION_TOLERANCE_S: f64 = 0.6;

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The video.
    pub video_id: String,
    /// The trace from the browser's upload to the last rendition.
    pub trace_id: String,
    /// The renditions, as downloaded and probed.
    pub renditions: Vec<Rendition>,
    /// From the first request to the last checked byte.
    pub seconds: f64,
    /// The processes, idle, before the upload.
    pub processes: Vec<Process>,
    /// Sum of their proportional set sizes.
    pub pss_bytes: Option<u64>,
}

/// A rendition, checked.
#[derive(Debug, Serialize)]
pub struct Rendition {
    /// `720p`.
    pub name: String,
    /// Pixels.
    pub width: u64,
    /// Pixels.
    pub height: u64,
    /// Seconds.
    pub duration_s: f64,
    /// Size.
    pub bytes: u64,
}

/// Runs the demo and prints its line.
///
/// # Errors
/// With the first thing that did not hold.
pub fn run(file: &Path) -> Outcome {
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::DEMO)?;
    if !file.is_file() {
        return Err(format!("{} is not a file", file.display()).into());
    }
    eprintln!("building (the first time takes some minutes)");
    Artefacts::build()?;
    let scratch = Scratch::new()?;
    let running = Setting::reference(&scratch.0.join("system"))?.start()?;
    let outcome = through(&running, file, &scratch.0);
    let stopped = running.stop();
    let report = outcome?;
    stopped?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Takes one video through a running system that nobody has enrolled in yet.
///
/// # Errors
/// With the first thing that did not hold.
pub fn through(running: &Running, file: &Path, scratch: &Path) -> Outcome<Report> {
    let start = Instant::now();
    let person = running.person("ada", scratch);
    person.enrol(running.first_link.as_deref().ok_or("no one-time link was printed")?)?;
    person.sign_in()?;
    let processes = processes::tree(running.pid())?;
    let original = media::probe(file)?;
    let uploaded = person.upload(file, media::media_type(file))?;
    let video = person.wait_for(&uploaded.id, &["ready"], READY_MAX)?;
    let renditions = download(&person, &video, &uploaded.id, &original, scratch)?;
    let pss_bytes = processes::pss_bytes(&processes);
    Ok(Report { video_id: uploaded.id, trace_id: uploaded.trace, renditions, seconds: start.elapsed().as_secs_f64(), processes, pss_bytes })
}

/// Downloads every rendition and the poster by their URLs and checks them against the original and against what was told.
///
/// # Errors
/// With the first that is not as it should be.
pub fn download(person: &Person, video: &Value, id: &str, original: &media::Probed, scratch: &Path) -> Outcome<Vec<Rendition>> {
    let watch = person.api("GET", &format!("/api/videos/{id}/watch"), None, 200)?;
    let offered = watch["renditions"].as_array().filter(|all| !all.is_empty()).ok_or("no renditions")?;
    let mut renditions = Vec::new();
    for offer in offered {
        let name = offer["name"].as_str().ok_or("a rendition without a name")?.to_owned();
        let path = scratch.join(format!("{id}-{name}.mp4"));
        fetch(person, offer["url"].as_str().ok_or("no URL")?, &path)?;
        let probed = media::probe(&path)?;
        let bytes = std::fs::metadata(&path)?.len();
        let told =
            video["renditions"].as_array().and_then(|all| all.iter().find(|r| r["name"] == offer["name"])).ok_or("not in the list")?;
        let as_told = told["width"] == probed.width && told["height"] == probed.height && told["bytes"] == bytes;
        let codecs = probed.video == "h264"
            && probed.audio.as_deref().is_none_or(|audio| audio == "aac")
            && probed.audio.is_some() == original.audio.is_some();
        let fits = probed.width <= original.width.next_multiple_of(2) && probed.height <= original.height.next_multiple_of(2);
        let whole = (probed.duration_s - original.duration_s).abs() < DURATION_TOLERANCE_S;
        if !(as_told && codecs && fits && whole) {
            return Err(
                format!("rendition {name} is not as it should be: {probed:?}, {bytes} bytes; told {told}; original {original:?}").into()
            );
        }
        renditions.push(Rendition { name, width: probed.width, height: probed.height, duration_s: probed.duration_s, bytes });
    }
    let poster = scratch.join(format!("{id}-poster.jpg"));
    fetch(person, watch["poster_url"].as_str().ok_or("no poster")?, &poster)?;
    if !std::fs::read(&poster)?.starts_with(&[0xff, 0xd8, 0xff]) {
        return Err("the poster is no JPEG".into());
    }
    Ok(renditions)
}

fn fetch(person: &Person, url: &str, to: &Path) -> Outcome {
    let answer = person.curl.ask(url, &Ask { save: Some(to), ..Ask::default() })?;
    if answer.status == 200 { Ok(()) } else { Err(format!("{url} was answered with {}", answer.status).into()) }
}

/// A folder that is removed at the end.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one. Not in `/tmp`: every sandbox has a `/tmp` of its own, and what is below it there is the service's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Outcome<Self> {
        let made = tree::output(std::process::Command::new("mktemp").args(["-d", "-p", "/var/tmp", "--suffix", "-palisade"]))?;
        Ok(Self(PathBuf::from(made.trim())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("PALISADE_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
            return;
        }
        // A file that is still written is left to the system's own cleaning.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}
