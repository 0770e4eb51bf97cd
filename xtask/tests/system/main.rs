//! End to end: real processes, real sockets, real media, a real browser.
//!
//! Each test runs a system of its own in a temporary folder on free ports. A program that a test needs and that is missing is a
//! failure, never a skip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests measure and wait in real time")]

mod apart;
mod boundary;
mod breach;
mod browser;
mod certificates;
mod contained;
mod credentials;
mod deputy;
mod envoy;
mod figures;
mod given_up;
mod hanging;
mod hostile;
mod journey;
mod killed;
mod leftover;
mod lifecycle;
mod on_purpose;
mod outside;
mod quarantined;
mod refused;
mod replaced;
mod replicas;
mod resumed;
mod sandboxed;
mod sdk;
mod second;
mod switched;
mod talk;
mod tampered;
mod twin;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use xtask::demo::Scratch;
use xtask::media;
use xtask::person::Person;
use xtask::running::{Running, Setting};

/// How long a short video may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(180);

/// A system that is up, with its first person signed in.
struct Stage {
    running: Running,
    ada: Person,
    scratch: Scratch,
    setting: Setting,
}

impl Stage {
    fn set() -> Self {
        let scratch = Scratch::new().unwrap();
        let setting = Setting::reference(&scratch.0.join("system")).unwrap();
        Self::set_with(scratch, setting)
    }

    fn set_with(scratch: Scratch, setting: Setting) -> Self {
        let running = setting.start().unwrap();
        let ada = running.person("ada", &scratch.0);
        ada.enrol(running.first_link.as_deref().expect("a one-time link at the first start")).unwrap();
        ada.sign_in().unwrap();
        Self { running, ada, scratch, setting }
    }

    /// The same for a copy of the reference system, whose files a test may change.
    fn set_with_copy(replace: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new().unwrap();
        let setting = contained::copied(&scratch, replace);
        Self::set_with(scratch, setting)
    }

    /// A second person.
    fn invited(&self, name: &str) -> Person {
        let person = self.running.person(name, &self.scratch.0);
        person.enrol(&self.running.invite(name).unwrap()).unwrap();
        person.sign_in().unwrap();
        person
    }

    /// A short video.
    fn video(&self, seconds: u32) -> PathBuf {
        made(&self.scratch.0, seconds)
    }

    /// Everything that a process has logged.
    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.running.dir.join("log").join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until the metrics of all processes have this in them: each tells its own every 15 s at least.
    fn counted(&self, what: &str) {
        let start = std::time::Instant::now();
        while !self.running.cli(&["metrics"]).unwrap().contains(what) {
            assert!(start.elapsed() < Duration::from_secs(60), "{what} is not counted");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The text of the whole audit log, once everything that happened has arrived in it.
    fn audit(&self) -> String {
        std::thread::sleep(Duration::from_millis(1500));
        audit_text(&self.running.dir)
    }
}

fn made(folder: &Path, seconds: u32) -> PathBuf {
    let path = folder.join(format!("made-{seconds}.mp4"));
    media::make(&path, seconds, "640x360", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]).unwrap();
    path
}

fn audit_text(dir: &Path) -> String {
    let mut text = String::new();
    for path in xtask::tree::files(&dir.join("data/evidence"), "jsonl").unwrap() {
        text.push_str(&std::fs::read_to_string(path).unwrap());
    }
    assert!(!text.is_empty(), "the audit log is empty or elsewhere");
    text
}
