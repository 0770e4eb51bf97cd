//! A running system for `demo` and the tests: its own folder, free ports, ended when dropped.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::artefacts::{self, Artefacts};
use crate::curl::Curl;
use crate::person::Person;

/// How long a system may take to come up.
const UP_MAX: Duration = Duration::from_secs(90);
/// How long it may take to drain.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The manifest.
    pub manifest: PathBuf,
    /// The folder for data; a second run in the same folder is a restart.
    pub dir: PathBuf,
    /// The `palisade` binary.
    pub palisade: PathBuf,
    /// User and group to run as; absent: ours.
    pub user: Option<u32>,
    /// More arguments of `up`.
    pub more: Vec<String>,
}

/// A system that is up.
#[derive(Debug)]
pub struct Running {
    process: Child,
    /// `https://localhost:PORT`.
    pub address: String,
    /// The one-time link, at the first start.
    pub first_link: Option<String>,
    /// The certificate to trust.
    pub certificate: PathBuf,
    /// Its folder.
    pub dir: PathBuf,
    /// The binary that runs.
    pub palisade: PathBuf,
}

impl Setting {
    /// The reference system in `dir`, with the programs that were built with us.
    ///
    /// # Errors
    /// When they are not built.
    pub fn reference(dir: &Path) -> Outcome<Self> {
        let built = Artefacts::beside_us()?;
        Ok(Self { manifest: artefacts::manifest(), dir: dir.to_path_buf(), palisade: built.palisade(), user: None, more: Vec::new() })
    }

    /// Starts it and waits until it is up.
    ///
    /// # Errors
    /// With what it said when it did not come up.
    pub fn start(&self) -> Outcome<Running> {
        let mut command = Command::new(&self.palisade);
        command
            .args(["--format", "json", "up", "--listen", "127.0.0.1:0", "--manifest"])
            .arg(&self.manifest)
            .arg("--dir")
            .arg(&self.dir)
            .args(&self.more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user).env("HOME", &self.dir);
        }
        let mut process = command.spawn().map_err(|e| format!("cannot run {}: {e}", self.palisade.display()))?;
        let stdout = process.stdout.take().ok_or("no output")?;
        let stderr = process.stderr.take().ok_or("no output")?;
        let complaints = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if BufReader::new(stdout).read_line(&mut line).is_ok() {
                // Nobody listens any more when the time is over.
                let _late = send.send(line);
            }
        });
        let line = receive.recv_timeout(UP_MAX).unwrap_or_default();
        let Ok(up) = serde_json::from_str::<Value>(&line) else {
            // It may have ended by itself already.
            let _ended = process.kill();
            process.wait()?;
            return Err(format!("the system did not come up: {}", complaints.join().unwrap_or_default()).into());
        };
        let text = |name: &str| up[name].as_str().map(str::to_owned);
        Ok(Running {
            process,
            address: text("address").ok_or("no address")?,
            first_link: text("first_link"),
            certificate: text("local_ca").ok_or("no certificate")?.into(),
            dir: text("dir").ok_or("no folder")?.into(),
            palisade: self.palisade.clone(),
        })
    }
}

impl Running {
    /// The supervisor's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A person with a browser of their own.
    #[must_use]
    pub fn person(&self, name: &str, scratch: &Path) -> Person {
        Person::new(Curl::new(&self.address, &self.certificate, scratch, name), name)
    }

    /// Runs a command of the CLI against this system and gives its JSON answer.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, arguments: &[&str]) -> Outcome<String> {
        let output = Command::new(&self.palisade).args(["--format", "json"]).args(arguments).arg("--dir").arg(&self.dir).output()?;
        if !output.status.success() {
            return Err(format!("palisade {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Invites a person and gives their one-time link.
    ///
    /// # Errors
    /// When `login` refuses.
    pub fn invite(&self, name: &str) -> Outcome<String> {
        let answer: Value = serde_json::from_str(&self.cli(&["user", "invite", name])?)?;
        let path = answer["path"].as_str().ok_or("no path")?;
        Ok(format!("{}/oidc{path}", self.address))
    }

    /// Asks it to drain, and waits.
    ///
    /// # Errors
    /// When it does not end well in time.
    pub fn stop(mut self) -> Outcome {
        Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        let start = Instant::now();
        while start.elapsed() < DRAIN_MAX {
            if let Some(status) = self.process.try_wait()? {
                return if status.success() { Ok(()) } else { Err(format!("the system ended with {status}").into()) };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("the system did not drain in time".into())
    }

    /// Kills the supervisor without a word (`kill -9`).
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> Outcome {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
