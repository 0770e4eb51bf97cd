//! The last steps of the child that becomes the service.
//!
//! Order matters: whatever needs a call that a later layer forbids comes before that layer; seccomp is last.
//!
//! Guarantees: I5 if any step fails the child says so and ends; it never executes the program without it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, dup2_stdin, execve, getppid, setsid};

use crate::artefact::Bound;
use crate::landlock::{self, Places};
use crate::limits;
use crate::profile::{DangerousWithout, Level, Profile};
use crate::report::LayerName;
use crate::seccomp::Filters;
use crate::sys;
use crate::wire::{ChildNote, Refusal, Wire};

/// What the child is given.
pub(crate) struct Plan<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) artefacts: &'a [Bound],
    pub(crate) level: Level,
    pub(crate) landlock_abi: i32,
    pub(crate) tasks_already: u64,
    pub(crate) filters: &'a Filters,
    pub(crate) tmp: &'a Path,
    pub(crate) proc: bool,
    pub(crate) parent: Pid,
}

/// Confines this process and executes the program. Returns only if that failed; `to_init` was told why.
pub(crate) fn become_service(plan: &Plan<'_>, to_init: &Wire) -> ! {
    let refusal = match confine(plan, to_init) {
        Ok(()) => execute(plan),
        Err(refusal) => refusal,
    };
    // If init is gone too, there is nobody left to tell.
    let _ = to_init.send(&ChildNote::Refused(refusal), &[]);
    sys::exit_now(127)
}

fn step<T, E: std::fmt::Display>(name: &str, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|cause| Refusal::Setup { step: name.to_owned(), why: cause.to_string() })
}

fn layer<T, E: std::fmt::Display>(layer: LayerName, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|cause| Refusal::Layer { layer, why: cause.to_string() })
}

fn confine(plan: &Plan<'_>, to_init: &Wire) -> Result<(), Refusal> {
    step("parent-death signal", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if getppid() != plan.parent {
        sys::exit_now(126);
    }
    step("session", setsid())?;
    let null: OwnedFd = step("/dev/null", open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))?;
    step("stdin", dup2_stdin(null.as_fd()))?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let work_dir = plan.profile.work_dir.as_deref().or(plan.profile.state.as_deref()).unwrap_or(plan.tmp);
    step("working directory", chdir(work_dir).map_err(|cause| format!("{}: {cause}", work_dir.display())))?;
    step("descriptors", sys::cloexec_from(3))?;
    step("signals", sys::reset_signals())?;
    let dangerous_without = plan.profile.dangerous_without.as_ref();
    if dangerous_without != Some(&DangerousWithout::Limits) {
        layer(LayerName::Rlimits, limits::apply(&plan.profile.limits, plan.tasks_already))?;
    }
    layer(LayerName::Capabilities, prctl::set_no_new_privs())?;

    let scripts = plan.profile.scripts.len();
    let (executables, readables) = plan.artefacts.split_at(plan.artefacts.len().saturating_sub(scripts));
    let reals = |all: &[Bound]| -> Vec<PathBuf> { all.iter().map(|bound| bound.real.clone()).collect() };
    let places = Places {
        executables: &reals(executables),
        readables: &reals(readables),
        tmp: plan.tmp,
        own_root: plan.level == Level::Full && plan.profile.dangerous_tmp().is_none(),
        proc: plan.proc,
    };
    if dangerous_without != Some(&DangerousWithout::Landlock) {
        layer(LayerName::LandlockFiles, landlock::restrict(plan.profile, &places, plan.landlock_abi))?;
    }
    if dangerous_without == Some(&DangerousWithout::Seccomp) {
        return Ok(());
    }
    let seccomp = if plan.level == Level::Confined { LayerName::SeccompNotify } else { LayerName::Seccomp };
    layer(seccomp, plan.filters.install(|listener| to_init.send(&ChildNote::Listener, &[listener.as_fd()])))
}

fn execute(plan: &Plan<'_>) -> Refusal {
    let failed = |why: String| Refusal::Setup { step: "executing the program".to_owned(), why };
    let Some(program) = plan.artefacts.first() else {
        return failed("no program".to_owned());
    };
    match try_execute(plan, program) {
        Ok(cause) | Err(cause) => failed(format!("{}: {cause}", program.real.display())),
    }
}

fn try_execute(plan: &Plan<'_>, program: &Bound) -> io::Result<io::Error> {
    let profile = plan.profile;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let mut arguments = vec![text(profile.program.path.as_os_str().as_bytes())?];
    for argument in &profile.arguments {
        arguments.push(text(argument.as_bytes())?);
    }
    let mut environment = Vec::new();
    for (key, value) in &profile.environment {
        // Without a root of its own the private temporary folder has a name of its own.
        let moved = key == "TMPDIR" && plan.tmp != Path::new("/tmp");
        let value = if moved { plan.tmp.as_os_str().as_bytes() } else { value.as_bytes() };
        environment.push(text(&[key.as_bytes(), b"=", value].concat())?);
    }
    if plan.level == Level::Full {
        // By path: what is mounted there is the very file that was measured, and `#!` works.
        let path = text(program.real.as_os_str().as_bytes())?;
        return match execve(&path, &arguments, &environment) {
            Err(cause) => Ok(cause.into()),
        };
    }
    Ok(sys::execute(program.file.as_fd(), &arguments, &environment))
}
