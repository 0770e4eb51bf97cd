//! The copy, running: `palisade up` of it, in a process of its own that ends with us.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{BreachError, inside};

/// How long the copy may take to come up, and to drain.
const UP_MAX: Duration = Duration::from_secs(90);
const DRAIN_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// A running copy; killed when dropped.
#[derive(Debug)]
pub(super) struct Stage {
    process: Child,
    /// `https://localhost:PORT`.
    pub(super) origin: String,
    /// Its local certificate.
    pub(super) certificate: PathBuf,
    /// The one-time link of the first administrator, as a path.
    pub(super) first_link: String,
    /// Its folder.
    pub(super) dir: PathBuf,
}

impl Stage {
    /// Starts it, without these controls, and waits until it is up.
    pub(super) fn start(manifest: &Path, dir: &Path, dangerous_without: &[String]) -> Result<Self, BreachError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(inside::SYSTEM)
            .arg(manifest)
            .arg(dir)
            .args(dangerous_without)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().map_err(BreachError::Process)?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let complaints =
            std::thread::spawn(move || stderr.map(|pipe| std::io::read_to_string(pipe).unwrap_or_default()).unwrap_or_default());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|pipe| BufReader::new(pipe).read_line(&mut line));
            // Nobody listens any more when the time is over.
            let _late = read.map(|_| send.send(line));
        });
        let line = receive.recv_timeout(UP_MAX).unwrap_or_default();
        let Ok(up) = serde_json::from_str::<Value>(&line) else {
            // It may have ended by itself already.
            let _ended = process.kill();
            process.wait().map_err(BreachError::Process)?;
            return Err(BreachError::Ended(format!("the copy did not come up: {}", complaints.join().unwrap_or_default())));
        };
        let text = |name: &str| up.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let origin = text("address");
        let first_link = text("first_link");
        let first_link = first_link.strip_prefix(&origin).unwrap_or(&first_link).to_owned();
        Ok(Self { process, certificate: text("local_ca").into(), first_link, dir: text("dir").into(), origin })
    }

    /// Drains it.
    pub(super) fn stop(mut self) -> Result<(), BreachError> {
        let pid = i32::try_from(self.process.id()).map_err(|error| BreachError::Ended(error.to_string()))?;
        let ask = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        ask.map_err(|error| BreachError::Process(error.into()))?;
        let mut waited = Duration::ZERO;
        while waited < DRAIN_MAX {
            if self.process.try_wait().map_err(BreachError::Process)?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
            waited = waited.saturating_add(LOOK);
        }
        // What does not drain is killed with us: a job may be stuck in an attack.
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Already ended is as good. Its members end when it does.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
