//! A running sandbox, as the guard holds it.
//!
//! One thread owns the child and reads the wire; requests are written by whoever has one (a message is sent whole). When
//! the handle is dropped, everything in the sandbox is killed.
//!
//! Not here: what is spoken on the streams (`proxy`).

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::artefact::ArtefactMismatch;
use crate::cgroup;
use crate::launch::SandboxError;
use crate::lines::{Line, read_lines};
use crate::profile::{Backend, Level, Profile};
use crate::report::Report;
use crate::seen::Seen;
use crate::sys;
use crate::wire::{Reply, Request, Wire};

/// Tellings of what was seen that wait for the guard; init sends one a second at most, but for a trace.
const SEEN_WAITING_MAX: usize = 256;

/// Why a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The program ended, by itself or by a signal.
    Service,
    /// Its wall-clock limit.
    WallClock,
    /// The guard closed the wire.
    GuardGone,
    /// The guard killed it.
    Killed,
    /// Init was killed by somebody else.
    InitKilled,
    /// Init failed, and ended the service therefore.
    InitFailed(String),
    /// A file that runs in it is not the locked one any more (I15).
    Drifted(ArtefactMismatch),
    /// Its state folder takes more of the disk than it may, or cannot be looked into: in words (I7).
    Filled(String),
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if it was killed; after a system call that only attacks need 9 (SIGKILL), or 31 (SIGSYS) where init may not see calls.
    pub signal: Option<i32>,
    /// Why.
    pub cause: ExitCause,
}

impl Exit {
    pub(crate) fn code(code: i32) -> Self {
        Self { code: Some(code), signal: None, cause: ExitCause::Service }
    }

    pub(crate) fn signal(signal: i32) -> Self {
        Self { code: None, signal: Some(signal), cause: ExitCause::Service }
    }

    /// Whether the program ended by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

type Answers = Mutex<BTreeMap<u64, oneshot::Sender<Result<OwnedFd, SandboxError>>>>;

/// Shared by the handle and its thread.
#[derive(Debug)]
struct Shared {
    wire: Wire,
    answers: Answers,
    next: AtomicU64,
    /// The end, if it comes, is the guard's wish.
    killed: AtomicBool,
    /// The outer init while it lives; killed by number only under this lock, before it is reaped.
    init: Mutex<Option<Pid>>,
}

/// A service that runs in its sandbox.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    /// Its end is a request to init: the kernel does not end all with the process that is known here.
    ends_itself: bool,
    report: Report,
    pid: u32,
    listeners: Vec<(String, TcpListener)>,
    lines: Option<mpsc::Receiver<Line>>,
    seen: Option<mpsc::Receiver<Seen>>,
    exit: watch::Receiver<Option<Exit>>,
}

struct Begun {
    shared: Arc<Shared>,
    report: Report,
    listeners: Vec<(String, TcpListener)>,
    lines: mpsc::Receiver<Line>,
    seen: mpsc::Receiver<Seen>,
    pid: u32,
}

/// What [`own`] is told to start, and whom it tells.
struct Order {
    request: Request,
    tell: blocking::SyncSender<Result<Begun, SandboxError>>,
    ended: watch::Sender<Option<Exit>>,
}

/// An init that runs and waits for its profile. When it is dropped, that is its end.
#[derive(Debug)]
pub(crate) struct Waiting {
    order: blocking::SyncSender<Order>,
    init: Pid,
}

impl Waiting {
    /// Runs `command` from a thread of its own.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn make(command: Command, wire: Wire) -> Result<Self, SandboxError> {
        let (tell, told) = blocking::sync_channel(1);
        let (order, orders) = blocking::sync_channel(1);
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || own(command, wire, &tell, &orders)).map_err(SandboxError::Init)?;
        let init = told.recv().map_err(|_| SandboxError::Ended)?.map_err(SandboxError::Init)?;
        Ok(Self { order, init })
    }

    /// Whether it still waits: it may have been killed meanwhile.
    pub(crate) fn still_waits(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        // Its number is its own: it is reaped by its thread alone, and only after an order.
        matches!(waitid(Id::Pid(self.init), flags), Ok(WaitStatus::StillAlive))
    }

    /// Its number, if it still waits.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.still_waits().then(|| u32::try_from(self.init.as_raw()).ok()).flatten()
    }

    /// Gives it its profile and waits until the service executes.
    ///
    /// # Errors
    /// As [`crate::Launcher::spawn`].
    pub(crate) fn start(self, profile: Box<Profile>) -> Result<Running, SandboxError> {
        let (tell, told) = blocking::sync_channel(1);
        let (ended, exit) = watch::channel(None);
        let by_bwrap = profile.backend == Backend::Bwrap;
        let order = Order { request: Request::Start(profile), tell, ended };
        self.order.send(order).map_err(|_| SandboxError::Ended)?;
        // The service executes already when this hears of it, and may have a whole processor.
        let begun = sys::in_short_turns(|| told.recv()).map_err(|_| SandboxError::Ended)??;
        let Begun { shared, report, listeners, lines, seen, pid } = begun;
        let ends_itself = by_bwrap || report.level == Some(Level::Confined);
        Ok(Running { shared, ends_itself, report, pid, listeners, lines: Some(lines), seen: Some(seen), exit })
    }
}

/// The owning thread: from the fork to the reaping.
fn own(mut command: Command, wire: Wire, made: &blocking::SyncSender<io::Result<Pid>>, orders: &blocking::Receiver<Order>) {
    let child = command.spawn();
    drop(command); // And with it the other end of the wire.
    let child = child.and_then(|child| Ok((i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?, child)));
    let (init, mut child) = match child {
        Ok(child) => child,
        Err(cause) => {
            let _ = made.send(Err(cause)); // The caller waits for exactly one message.
            return;
        }
    };
    sys::take_short_turns();
    let _ = made.send(Ok(init)); // A caller that went away gives no order.
    let Ok(Order { request, tell, ended }) = orders.recv() else {
        let _ = child.kill();
        let _ = child.wait(); // It did nothing yet.
        return;
    };
    let shared = Arc::new(Shared {
        wire,
        answers: Mutex::default(),
        next: AtomicU64::new(0),
        killed: AtomicBool::new(false),
        init: Mutex::new(Some(init)),
    });
    let mut exit = None;
    let (see, seen) = mpsc::channel(SEEN_WAITING_MAX);
    match begin(&mut child, &shared, &request, seen) {
        Ok(begun) => {
            // A caller that went away drops the handle, which kills.
            let _ = tell.send(Ok(begun));
            exit = serve(&shared, &see);
        }
        Err(error) => {
            let _ = child.kill();
            let _ = tell.send(Err(error));
        }
    }
    let mut exit = exit.unwrap_or(Exit { code: None, signal: Some(9), cause: ExitCause::InitKilled });
    if exit.cause == ExitCause::InitKilled && shared.killed.load(Ordering::Relaxed) {
        exit.cause = ExitCause::Killed;
    }
    let init = child.id();
    reap(&mut child, &shared);
    lock(&shared.answers).clear();
    ended.send_replace(Some(exit));
    // Nobody waits for this.
    cgroup::remove(init);
}

fn reap(child: &mut Child, shared: &Shared) {
    // Waits without reaping first, so that no other process can have the number while `kill` may use it.
    let pid = lock(&shared.init).unwrap_or(Pid::from_raw(0));
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while let Err(nix::Error::EINTR) = waitid(Id::Pid(pid), flags) {}
    *lock(&shared.init) = None;
    let _ = child.wait(); // Its exit status says nothing that the wire did not.
}

fn begin(child: &mut Child, shared: &Arc<Shared>, request: &Request, seen: mpsc::Receiver<Seen>) -> Result<Begun, SandboxError> {
    shared.wire.send(request, &[]).map_err(SandboxError::Init)?;
    let mut listeners = Vec::new();
    loop {
        match shared.wire.receive::<Reply>().map_err(SandboxError::Init)? {
            Some((Reply::Listeners { names }, fds)) if names.len() == fds.len() => {
                listeners = names.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect();
            }
            Some((Reply::Started { report, pid: _ }, _)) => {
                let lines = read_lines(child).map_err(SandboxError::Init)?;
                return Ok(Begun { shared: Arc::clone(shared), report, listeners, lines, seen, pid: child.id() });
            }
            Some((Reply::Refused(refusal), _)) => return Err(refusal.into()),
            Some(other) => return Err(SandboxError::Init(io::Error::other(format!("unexpected message {:?}", other.0)))),
            None => {
                let status = child.wait().map_err(SandboxError::Init)?;
                let why = format!("init ended with code {:?}, signal {:?}", status.code(), status.signal());
                return Err(SandboxError::Init(io::Error::other(why)));
            }
        }
    }
}

/// Hands replies to those who wait, until the end.
fn serve(shared: &Shared, see: &mpsc::Sender<Seen>) -> Option<Exit> {
    loop {
        let (id, answer) = match shared.wire.receive::<Reply>() {
            Ok(Some((Reply::Connected { id }, fds))) => {
                (id, fds.into_iter().next().ok_or_else(|| SandboxError::NotConnected("no socket came".to_owned())))
            }
            Ok(Some((Reply::NotConnected { id, why }, _))) => (id, Err(SandboxError::NotConnected(why))),
            Ok(Some((Reply::Seen(seen), _))) => {
                // A guard that does not look for minutes misses some; nothing waits for it.
                let _ = see.try_send(seen);
                continue;
            }
            Ok(Some((Reply::Exited(exit), _))) => return Some(exit),
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => return None,
        };
        if let Some(waiting) = lock(&shared.answers).remove(&id) {
            let _ = waiting.send(answer); // Who stopped waiting gets nothing; the socket closes.
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code under these locks panics, and each value is valid at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// The listening sockets of the declared flows, once; blocking mode. Empty afterwards.
    pub fn take_listeners(&mut self) -> Vec<(String, TcpListener)> {
        std::mem::take(&mut self.listeners)
    }

    /// What the service writes, once.
    pub fn take_lines(&mut self) -> Option<mpsc::Receiver<Line>> {
        self.lines.take()
    }

    /// What the service tried and was denied, or what a trace saw, once. At most one telling a second, and one before the end.
    pub fn take_seen(&mut self) -> Option<mpsc::Receiver<Seen>> {
        self.seen.take()
    }

    /// Every layer, applied or not.
    #[must_use]
    pub fn applied(&self) -> &Report {
        &self.report
    }

    /// The outer init's pid in the guard's PID namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Every process of this sandbox, with both inits, as pids of the guard's PID namespace. Processes that begin or end
    /// meanwhile may be missing.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.pid];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            next += 1;
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        all
    }

    /// Opens a connection to the service's port; non-blocking mode, ready for a runtime. Any number may be under way.
    ///
    /// # Errors
    /// `NotConnected` if nothing listens in time; `Ended` if the sandbox did.
    pub async fn connect(&self) -> Result<TcpStream, SandboxError> {
        let stream: TcpStream = self.ask()?.await.map_err(|_| SandboxError::Ended)??.into();
        stream.set_nonblocking(true).map_err(SandboxError::Init)?;
        Ok(stream)
    }

    /// As [`Running::connect`] for a thread that may wait; blocking mode.
    ///
    /// # Errors
    /// As [`Running::connect`].
    pub fn connect_blocking(&self) -> Result<TcpStream, SandboxError> {
        let stream: TcpStream = self.ask()?.blocking_recv().map_err(|_| SandboxError::Ended)??.into();
        stream.set_nonblocking(false).map_err(SandboxError::Init)?;
        Ok(stream)
    }

    fn ask(&self) -> Result<oneshot::Receiver<Result<OwnedFd, SandboxError>>, SandboxError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        lock(&self.shared.answers).insert(id, tell);
        // After the insertion, so that the end of the sandbox is seen either by the clearing or here.
        if self.exit.borrow().is_some() || self.shared.wire.send(&Request::Connect { id }, &[]).is_err() {
            lock(&self.shared.answers).remove(&id);
            return Err(SandboxError::Ended);
        }
        Ok(told)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        self.end().await
    }

    /// The end, for who does not hold it.
    pub fn end(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            let ended = exit.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            // The thread always says how it ended before it goes.
            ended.unwrap_or(Exit { code: None, signal: Some(9), cause: ExitCause::InitKilled })
        }
    }

    /// Asks the service to end (SIGTERM), and kills it after `grace`. Needs a runtime with time.
    pub async fn terminate(&self, grace: Duration) -> Exit {
        let _ = self.shared.wire.send(&Request::Terminate, &[]); // Ended already: `wait` returns at once.
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.kill();
                self.wait().await
            }
        }
    }

    /// Asks the service to end (SIGTERM) and returns at once.
    pub fn request_end(&self) {
        let _ = self.shared.wire.send(&Request::Terminate, &[]); // Ended already.
    }

    /// Kills everything in the sandbox.
    pub fn kill(&self) {
        self.shared.killed.store(true, Ordering::Relaxed);
        // Without a PID namespace the kernel does not kill all with init, and bwrap's other end may not. So init does, and it
        // ends at once when the wire does. It runs none of the service's code.
        if self.ends_itself && self.shared.wire.send(&Request::Kill, &[]).is_ok() {
            return;
        }
        if let Some(init) = *lock(&self.shared.init) {
            let _ = kill(init, Signal::SIGKILL); // A zombie already: nothing left to kill.
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
