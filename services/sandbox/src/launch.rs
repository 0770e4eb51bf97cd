//! The guard's side of a start.
//!
//! A thread of its own makes the child and stays with it: the kernel ties "die with my parent" to the thread that made
//! the child, and a runtime's worker threads come and go.
//!
//! Guarantees: I5 an error here means that nothing was executed, or that it is dead already.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::artefact::ArtefactMismatch;
use crate::profile::Profile;
use crate::report::LayerName;
use crate::running::{Running, Waiting};
use crate::sys;
use crate::wire::{Refusal, Wire};

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The profile contradicts itself.
    #[error("the sandbox profile is wrong: {0}")]
    Profile(String),
    /// A file is not the one that was locked (C6, I15).
    #[error(transparent)]
    ArtefactMismatch(#[from] ArtefactMismatch),
    /// A layer that the required level needs cannot be had here (I5).
    #[error("refusing to start: this host cannot give the layer `{layer}`: {why}")]
    MissingLayer {
        /// The layer.
        layer: LayerName,
        /// The kernel's answer and what to do.
        why: String,
    },
    /// A step of the setup failed.
    #[error("refusing to start: {step}: {why}")]
    Setup {
        /// Which step.
        step: String,
        /// The kernel's answer.
        why: String,
    },
    /// Init could not be started, or died without a word.
    #[error("the sandbox's init could not be run")]
    Init(#[source] io::Error),
    /// The sandbox has ended.
    #[error("the sandbox has ended")]
    Ended,
    /// The service does not accept a connection.
    #[error("no connection to the service: {0}")]
    NotConnected(String),
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Profile(why) => Self::Profile(why),
            Refusal::Mismatch(mismatch) => Self::ArtefactMismatch(mismatch),
            Refusal::Layer { layer, why } => Self::MissingLayer { layer, why },
            Refusal::Setup { step, why } => Self::Setup { step, why },
        }
    }
}

/// How init is started: a program and arguments that lead to [`crate::init_main`] before any thread is made.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launcher {
    /// This very binary with the subcommand `sandbox-init`.
    #[must_use]
    pub fn this_binary() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), arguments: vec!["sandbox-init".into()] }
    }

    /// Another way to [`crate::init_main`].
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().collect() }
    }

    /// Starts a service in a sandbox of its own. Blocks until the program executes, some milliseconds; in an async
    /// program call it by `spawn_blocking`.
    ///
    /// # Errors
    /// Every variant of [`SandboxError`] but `Ended` and `NotConnected`; nothing runs then.
    pub fn spawn(&self, profile: Profile) -> Result<Running, SandboxError> {
        profile.check().map_err(SandboxError::Profile)?;
        self.waiting()?.start(Box::new(profile))
    }

    /// An init that waits for its profile.
    fn waiting(&self) -> Result<Waiting, SandboxError> {
        let (ours, theirs) = Wire::pair().map_err(SandboxError::Init)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::arg0(&mut command, "palisade");
        sys::prepare_init(&mut command, theirs.into());
        Waiting::make(command, ours)
    }
}

/// A launcher that is one step ahead: an init runs already and waits for the next profile, so that a start does not wait for the loading of
/// a large program. It knows nothing of the service yet and has done nothing; each is used for one start (I8).
#[derive(Debug)]
pub struct Ahead {
    launcher: Launcher,
    next: Mutex<Option<Waiting>>,
}

impl Ahead {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(launcher: Launcher) -> Self {
        Self { launcher, next: Mutex::default() }
    }

    /// As [`Launcher::spawn`].
    ///
    /// # Errors
    /// As [`Launcher::spawn`].
    pub fn spawn(&self, profile: Profile) -> Result<Running, SandboxError> {
        profile.check().map_err(SandboxError::Profile)?;
        let waiting = self.take().filter(Waiting::still_waits);
        waiting.map_or_else(|| self.launcher.waiting(), Ok)?.start(Box::new(profile))
    }

    /// Lets an init wait for the next start, if none does. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `Init` if it cannot be run.
    pub fn step(&self) -> Result<(), SandboxError> {
        // Under no lock, so that nobody who starts something waits for this.
        if self.lock().as_ref().is_some_and(Waiting::still_waits) {
            return Ok(());
        }
        let fresh = self.launcher.waiting()?;
        let old = self.lock().replace(fresh);
        drop(old);
        Ok(())
    }

    /// Lets none wait any more.
    pub fn stand_down(&self) {
        drop(self.take());
    }

    /// The init that waits.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> Option<u32> {
        self.lock().as_ref().and_then(Waiting::pid)
    }

    fn take(&self) -> Option<Waiting> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waiting>> {
        // A handle is valid at every moment.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Launcher::spawn`] with this very binary.
///
/// # Errors
/// As [`Launcher::spawn`].
pub fn spawn(profile: Profile) -> Result<Running, SandboxError> {
    Launcher::this_binary().spawn(profile)
}
