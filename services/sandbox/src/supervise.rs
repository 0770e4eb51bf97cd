//! What init does while the service runs: reap, connect, pass on, and end everything in time.
//!
//! One thread, one poll loop. It ends when the service ended, the guard is gone, or the wall clock ran out; as PID 1 its
//! own end is the kernel's order to kill whatever is left in the namespace.
//!
//! Guarantees: I7 wall clock, and what the state folder holds. I15 a file that is changed under a running service ends it within two seconds. No process of the sandbox outlives init (`Full`: by the kernel; `Confined`: by search).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::artefact::Bound;
use crate::fill::{self, Filled};
use crate::net::{self, Attempt};
use crate::notify::Notifier;
use crate::profile::{Level, Profile};
use crate::running::{Exit, ExitCause};
use crate::seen::Watched;
use crate::wire::{Reply, Request, Wire};

const RETRY: Duration = Duration::from_millis(5);
/// After its start patience a service that refuses is given this long, for instance to restart its own listener.
const PATIENCE_LATER: Duration = Duration::from_millis(500);

/// Pause between two looks at what runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many times as long as a look took the next one waits.
const LOOK_SHARE: u32 = 20;

/// Everything the loop holds.
pub(crate) struct Watch<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) level: Level,
    pub(crate) guard: &'a Wire,
    pub(crate) service: Pid,
    pub(crate) children: SignalFd,
    /// Closed at its other end when the outer init ends.
    pub(crate) outer: Option<&'a OwnedFd>,
    pub(crate) notifier: Option<Notifier>,
    pub(crate) seen: Watched,
    /// What runs, as it was measured.
    pub(crate) artefacts: &'a [Bound],
    pub(crate) started: Instant,
    pub(crate) waiting: Vec<Waiting>,
}

/// An inbound connection that is not there yet.
pub(crate) struct Waiting {
    id: u64,
    pending: Option<OwnedFd>,
    until: Instant,
}

/// Blocks SIGCHLD and opens it as a descriptor. Before the service is forked.
pub(crate) fn watch_children() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

impl Watch<'_> {
    /// Runs until the end, tells the guard how it ended, and kills what is left.
    pub(crate) fn run(mut self) -> Exit {
        let exit = self.watch().unwrap_or_else(|cause| Exit { code: None, signal: None, cause: ExitCause::InitFailed(cause.to_string()) });
        self.kill_all();
        let _ = self.tell(true);
        // A guard that is gone needs no answer.
        let _ = self.guard.send(&Reply::Exited(exit.clone()), &[]);
        exit
    }

    fn watch(&mut self) -> io::Result<Exit> {
        let end = self.profile.limits.wall_ms.map(|wall| self.started + Duration::from_millis(wall));
        let mut look = now() + LOOK_EVERY;
        let mut was_hidden = false;
        loop {
            if let Some(exit) = self.reap()? {
                return Ok(exit);
            }
            if end.is_some_and(|end| now() >= end) {
                return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::WallClock });
            }
            if now() >= look {
                let begun = now();
                look = begun + LOOK_EVERY;
                if let Err(drift) = self.artefacts.iter().try_for_each(|bound| bound.drift(self.level == Level::Confined)) {
                    return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::Drifted(drift) });
                }
                was_hidden = match self.fill() {
                    Ok(()) => false,
                    // It may be executing just now.
                    Err(Filled::Hidden(_)) if !was_hidden => true,
                    Err(filled) => return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::Filled(filled.to_string()) }),
                };
                // A large folder is looked at less often, so that looking costs little.
                look = look.max(now() + now().saturating_duration_since(begun).saturating_mul(LOOK_SHARE));
            }
            self.retry_waiting()?;
            self.tell(false)?;
            let (from_guard, from_notifier) = self.poll(end, look)?;
            if self.outer_is_gone()? {
                return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::InitKilled });
            }
            if from_guard {
                match self.guard.receive::<Request>()? {
                    Some((Request::Connect { id }, _)) => self.connect(id),
                    Some((Request::Terminate, _)) => {
                        let _ = kill(self.service, Signal::SIGTERM); // Gone already: the next turn reaps it.
                    }
                    Some((Request::Kill, _)) => return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::Killed }),
                    Some((Request::Start(_), _)) => return Err(io::Error::other("started twice")),
                    None => return Ok(Exit { code: None, signal: Some(9), cause: ExitCause::GuardGone }),
                }
            }
            if from_notifier && let Some(notifier) = &self.notifier {
                notifier.answer_one(&mut self.seen);
            }
        }
    }

    /// Whether its state folder is within its limit.
    fn fill(&self) -> Result<(), Filled> {
        let Some(state) = &self.profile.state else { return Ok(()) };
        let limits = &self.profile.limits;
        fill::check(state, &self.processes(), limits.state_bytes, limits.file_bytes)
    }

    /// Everybody in the sandbox but this process, by the numbers that `/proc` has here.
    fn processes(&self) -> Vec<i32> {
        let own = std::process::id();
        if self.level == Level::Full {
            let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbers = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
            return numbers.filter(|pid| i32::try_from(own) != Ok(*pid)).collect();
        }
        let (mut found, mut left) = (Vec::new(), vec![own.to_string()]);
        while let Some(pid) = left.pop() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                left.extend(children.split_whitespace().map(str::to_owned));
            }
            found.extend(pid.parse::<i32>().ok().filter(|pid| i32::try_from(own) != Ok(*pid)));
        }
        found
    }

    /// Tells the guard what was seen, as far as it is due.
    fn tell(&mut self, all: bool) -> io::Result<()> {
        self.seen.take(now(), all).into_iter().try_for_each(|seen| self.guard.send(&Reply::Seen(seen), &[]))
    }

    /// Waits for something to do. Whether the guard says something; and whether the filters ask.
    fn poll(&self, end: Option<Instant>, look: Instant) -> io::Result<(bool, bool)> {
        let here = now();
        let until = |when: Instant| when.saturating_duration_since(here);
        let retry = (!self.waiting.is_empty()).then_some(RETRY);
        let first = [Some(until(look)), end.map(until), retry, self.seen.due_in(here)].into_iter().flatten().min().unwrap_or(LOOK_EVERY);
        // Rounded up, so that the end is not polled for.
        let timeout = PollTimeout::try_from(first.as_millis().saturating_add(1).min(60_000)).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.guard.as_fd(), PollFlags::POLLIN), PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
        let asking = self.notifier.as_ref().map(|notifier| PollFd::new(notifier.as_fd(), PollFlags::POLLIN));
        let outer = self.outer.map(|outer| PollFd::new(outer.as_fd(), PollFlags::POLLIN));
        let asks_at = asking.is_some().then_some(fds.len());
        fds.extend(asking.into_iter().chain(outer));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        while self.children.read_signal()?.is_some() {}
        let ready = |index: usize| fds.get(index).and_then(PollFd::revents);
        let guard = ready(0).is_some_and(|events| !events.is_empty());
        let notifier = asks_at.and_then(ready).is_some_and(|events| events.contains(PollFlags::POLLIN));
        Ok((guard, notifier))
    }

    /// The kernel kills PID 1 with the outer init; this holds even if it may not (another uid while it is being set up).
    fn outer_is_gone(&self) -> io::Result<bool> {
        let Some(outer) = self.outer else { return Ok(false) };
        let mut fds = [PollFd::new(outer.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    /// Reaps every child, also inherited ones; the service's own end is the result.
    fn reap(&self) -> io::Result<Option<Exit>> {
        loop {
            let exit = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.service => Exit::code(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.service => Exit::signal(signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(cause) => return Err(cause.into()),
            };
            return Ok(Some(exit));
        }
    }

    fn connect(&mut self, id: u64) {
        let patience = self.started + Duration::from_millis(self.profile.start_patience_ms);
        self.waiting.push(Waiting { id, pending: None, until: patience.max(now() + PATIENCE_LATER) });
    }

    fn retry_waiting(&mut self) -> io::Result<()> {
        let Some(port) = self.profile.port else {
            for waiting in self.waiting.drain(..) {
                self.guard.send(&refused(waiting.id, "this service has no port"), &[])?;
            }
            return Ok(());
        };
        for mut waiting in std::mem::take(&mut self.waiting) {
            let attempt = match waiting.pending.take() {
                Some(fd) => net::try_finish(fd),
                None => net::try_connect(port),
            };
            match attempt {
                Ok(Attempt::Connected(fd)) => self.guard.send(&Reply::Connected { id: waiting.id }, &[fd.as_fd()])?,
                Ok(_) if now() >= waiting.until => {
                    let why = format!("nothing accepts connections on 127.0.0.1:{port}; does the service listen on $PORT?");
                    self.guard.send(&refused(waiting.id, &why), &[])?;
                }
                Ok(Attempt::Pending(fd)) => self.waiting.push(Waiting { pending: Some(fd), ..waiting }),
                Ok(Attempt::Refused) => self.waiting.push(waiting),
                Err(cause) => self.guard.send(&refused(waiting.id, &cause.to_string()), &[])?,
            }
        }
        Ok(())
    }

    /// Kills everything in the sandbox but this process.
    pub(crate) fn kill_all(&self) {
        if self.level == Level::Full {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL); // Everything in this PID namespace but PID 1.
            return;
        }
        // Orphans come to this process, so its children are, sooner or later, all that is left.
        let children = format!("/proc/self/task/{}/children", std::process::id());
        for _ in 0..1000 {
            for pid in fs::read_to_string(&children).unwrap_or_default().split_whitespace() {
                if let Ok(pid) = pid.parse() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) => {
                    let mut fds = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, 1_u8); // Until the next one ends; at most a millisecond.
                }
                _ => {}
            }
        }
    }
}

fn refused(id: u64, why: &str) -> Reply {
    Reply::NotConnected { id, why: why.to_owned() }
}

/// Limits of processes are the kernel's time, not the system's clock: no simulation runs in here.
#[allow(clippy::disallowed_methods, reason = "init is outside of every simulation, and depends on no other crate")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
