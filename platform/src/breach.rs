//! `palisade breach`: breaks into a throw-away copy of a system, and measures what is reached.
//!
//! ```text
//! palisade breach ── makes a scratch folder, starts ── breach-inside (an outer network without a way out)
//!                    and removes it, whatever happens      ├─ doors: a metadata service, a neighbour, "the internet"
//!                                                          ├─ breach-system: `palisade up` of the copy
//!                                                          │     └─ guards ── sandboxes ── breach-service, in every service's place
//!                                                          └─ people, rounds, tails of logs ── the report, as JSON
//! ```
//!
//! Guarantees: L7, L8: everything that happens is inside; the system that the manifest is of is not touched.
//! Not here:   what is tried (`breach::attacker`), what is predicted and how the two are compared (`breach`).
#![allow(clippy::disallowed_methods, reason = "a command that waits for processes in real time")]

mod another;
pub(crate) mod authenticator;
mod bound;
mod browser;
mod copy;
mod doors;
mod form;
mod inside;
mod measured;
mod nearby;
mod neighbours;
mod people;
mod probe;
mod review;
mod rounds;
mod stage;
mod watch;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breach::{Profile, Report};
use serde::{Deserialize, Serialize};

pub(crate) use copy::run_of;
pub(crate) use doors::ADDRESSES;
pub(crate) use inside::{EXIT_UNAVAILABLE, INSIDE, SYSTEM, run as run_inside, run_system};

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// The manifest of the system.
    pub(crate) manifest: PathBuf,
    /// Techniques, by the beginning of their ids; empty for all.
    pub(crate) only: Vec<String>,
    /// Attackers; empty for all.
    pub(crate) profiles: Vec<Profile>,
    /// Whether the copy has no user namespaces, so that its services have the weaker isolation that the manifest accepts.
    pub(crate) confined: bool,
    /// Controls that the copy goes without, `CONTROL` or `CONTROL@PLACE`.
    pub(crate) dangerous_without: Vec<String>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BreachError {
    /// The manifest, its folder, or a program.
    #[error(transparent)]
    System(#[from] crate::system::SystemError),
    /// The folder of the copy.
    #[error("the throw-away copy cannot be made: {0}")]
    Copy(#[source] std::io::Error),
    /// A process of the run.
    #[error("a process of the run: {0}")]
    Process(#[source] std::io::Error),
    /// It said no report.
    #[error("nothing was measured: {0}")]
    Ended(String),
}

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The longest that a run may take; a system that hangs must not hang its CI.
const RUN_MAX: Duration = Duration::from_secs(600);
/// How long the run has to end by itself when it is asked to.
const END_MAX: Duration = Duration::from_secs(30);

/// Breaks in, and gives what was reached. Everything that was made for it is gone when this returns, also after an error or a signal.
///
/// # Errors
/// The manifest is not one; there is no way to an outer network here; the copy does not come up.
pub(crate) fn measure(wish: &Wish) -> Result<Report, BreachError> {
    let scratch = copy::Scratch::make().map_err(BreachError::Copy)?;
    let text = serde_json::to_string(wish).map_err(|error| BreachError::Ended(error.to_string()))?;
    std::fs::write(scratch.wish(), text).map_err(BreachError::Copy)?;
    let asked = Arc::new(AtomicBool::new(false));
    let watching = interrupted(&asked).map_err(BreachError::Process)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(inside::INSIDE)
        .arg(&scratch.0)
        .args(wish.confined.then_some(inside::CONFINED))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Its own group: a Ctrl-C is for this process, which ends the run in order.
    command.process_group(0);
    let mut run = command.spawn().map_err(BreachError::Process)?;
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // What could be read is what there is.
            let _broken = pipe.map(|mut pipe| pipe.read_to_string(&mut text));
            text
        })
    };
    let progress = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut whole = String::new();
            for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok) {
                crate::cli::complain(&line);
                whole.push_str(&line);
                whole.push('\n');
            }
            whole
        })
    };
    let said = reader(run.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let complained = progress(run.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let status = wait(&mut run, &asked).map_err(BreachError::Process)?;
    drop(watching);
    let (said, complained) = (said.join().unwrap_or_default(), complained.join().unwrap_or_default());
    if asked.load(Ordering::Relaxed) {
        return Err(BreachError::Ended("it was interrupted; everything that it had made is gone".to_owned()));
    }
    let report = said.lines().last().and_then(|line| Report::from_json(line).ok());
    match report {
        Some(report) if status.success() => Ok(report),
        // Its complaints were told as they came.
        _ if status.code().is_some() && !complained.trim().is_empty() => Err(BreachError::Ended("why is said above".to_owned())),
        _ => Err(BreachError::Ended(format!("the run ended without a word ({status})"))),
    }
}

/// Waits for the run; asks it to end when we are, and kills it when it does not.
fn wait(run: &mut std::process::Child, asked: &AtomicBool) -> std::io::Result<std::process::ExitStatus> {
    let (mut waited, mut ending) = (Duration::ZERO, None::<Duration>);
    loop {
        if let Some(status) = run.try_wait()? {
            return Ok(status);
        }
        if ending.is_none() && (asked.load(Ordering::Relaxed) || waited > RUN_MAX) {
            ending = Some(waited);
            if let Ok(pid) = i32::try_from(run.id()) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
            }
        }
        if ending.is_some_and(|since| waited.saturating_sub(since) > END_MAX) {
            run.kill()?;
        }
        std::thread::sleep(LOOK);
        waited = waited.saturating_add(LOOK);
    }
}

/// Notes SIGINT and SIGTERM from now on, for as long as what it gives lives.
fn interrupted(asked: &Arc<AtomicBool>) -> std::io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    use tokio::signal::unix::{SignalKind, signal};
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, asked) = (signal(kind)?, Arc::clone(asked));
        runtime.spawn(async move {
            while signal.recv().await.is_some() {
                asked.store(true, Ordering::Relaxed);
            }
        });
    }
    drop(_inside);
    Ok(runtime)
}
