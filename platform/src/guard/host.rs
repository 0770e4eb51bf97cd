//! The service of a guard: its sandbox, started when needed, started again when it dies, stopped when idle.
//!
//! Each start is a fresh sandbox (I8). A service with `replicas_min = 0` is started by the first connection to it and stopped after a
//! while without requests (N11). A service whose jobs each get a sandbox of their own is started for each (`job`).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::control::{Outbound, ServiceProfile};
use sandbox::{Ahead, Launcher, LayerName, Running, SandboxError};
use telemetry::Recorder;
use telemetry::event::{ActDone, TamperingFound};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use trust::{Clock, Fault};

use super::Settings;
use super::job::Jobs;
use super::lines::Pace;
use super::{profile, watched};

/// How long a service may take to end when asked.
pub(super) const END_GRACE: Duration = Duration::from_secs(5);
/// First pause before a service that died is started again; doubled up to the longest.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a restart.
pub(super) const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Serves the listeners of one sandbox until it is cancelled.
pub type ServeOutbound = Box<dyn Fn(Vec<(Outbound, TcpListener)>, CancellationToken) + Send + Sync>;

/// A guard's service.
pub struct Host {
    pub(super) profile: ServiceProfile,
    settings: Settings,
    serve_outbound: ServeOutbound,
    recorder: Recorder,
    pub(super) clock: Arc<dyn Clock>,
    /// For all its sandboxes together, so that short jobs cannot talk more than a long one.
    pace: Arc<std::sync::Mutex<Pace>>,
    started: Mutex<Option<Started>>,
    pub(super) jobs: Jobs,
    ahead: Arc<Ahead>,
    /// Milliseconds on the monotonic clock of the last connection.
    last_used_ms: AtomicU64,
    /// Cancelled when the service is contained: nothing is started any more.
    closed: CancellationToken,
}

/// A sandbox with the listeners of its flows served. When it is dropped, everything in it is killed.
pub(super) struct Started {
    pub(super) running: Arc<Running>,
    outbound: CancellationToken,
    /// The host's: a sandbox of a contained service is evidence, and is ended by nobody but the end of its guard.
    pub(super) closed: CancellationToken,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.outbound.cancel();
    }
}

impl Host {
    /// A service that is not started yet.
    #[must_use]
    pub fn new(
        profile: ServiceProfile,
        settings: Settings,
        serve_outbound: ServeOutbound,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let pace = Arc::new(std::sync::Mutex::new(Pace::new(clock.monotonic())));
        Arc::new(Self {
            profile,
            settings,
            serve_outbound,
            recorder,
            clock,
            pace,
            started: Mutex::new(None),
            jobs: Jobs::default(),
            ahead: Arc::new(Ahead::new(Launcher::this_binary())),
            last_used_ms: AtomicU64::new(0),
            closed: CancellationToken::new(),
        })
    }

    /// Starts what runs before there is work: the service, or the spare sandbox for the next job.
    ///
    /// # Errors
    /// Those of the sandbox: nothing runs then.
    pub async fn prepare(&self) -> Result<(), SandboxError> {
        match (self.profile.replicas_min, self.profile.fresh_per_job) {
            (0, _) => {
                self.step_ahead();
                Ok(())
            }
            (_, true) => self.spare().await.map(drop),
            (_, false) => self.running().await.map(drop),
        }
    }

    /// What is started by its work, job by job, has an init that waits for the next start.
    fn step_ahead(&self) {
        let (ahead, closed, service) = (self.ahead.clone(), self.closed.clone(), self.profile.name.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = ahead.step() {
                // The next start makes its own, or says why it cannot.
                tracing::warn!(service, %error, "no init waits for the next start, which will take longer");
            }
            if closed.is_cancelled() {
                ahead.stand_down();
            }
        });
    }

    /// A connection to the service, which is started if it does not run.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be started or does not listen in time.
    pub async fn connect(&self) -> Result<std::net::TcpStream, Fault> {
        self.used();
        let running = self.running().await.map_err(|error| Fault::unavailable("the service could not be started").because(error))?;
        running.connect().await.map_err(|error| Fault::unavailable("the service does not answer").because(error))
    }

    /// Starts nothing any more, and gives everything that runs, which nobody else ends from now on.
    pub(super) async fn close(&self) -> Vec<Arc<Running>> {
        self.closed.cancel();
        self.ahead.stand_down();
        // Whatever is being started is waited for, and then found here or not kept.
        let started = self.started.lock().await.as_ref().map(|started| started.running.clone());
        started.into_iter().chain(self.all_jobs().await).collect()
    }

    /// Whether the service is contained.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the service is contained.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Notes that the service is in use.
    pub fn used(&self) {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.last_used_ms.store(now, Ordering::Relaxed);
    }

    /// Starts it if it does not run.
    ///
    /// # Errors
    /// Those of the sandbox: nothing runs then.
    pub async fn running(&self) -> Result<Arc<Running>, SandboxError> {
        let mut started = self.started.lock().await;
        if let Some(now) = &*started
            && now.running.exited().is_none()
        {
            return Ok(now.running.clone());
        }
        *started = None;
        let fresh = self.start().await?;
        let running = fresh.running.clone();
        *started = Some(fresh);
        Ok(running)
    }

    pub(super) async fn start(&self) -> Result<Started, SandboxError> {
        if self.closed.is_cancelled() {
            return Err(SandboxError::NotConnected("the service is contained".to_owned()));
        }
        let (service, settings, ahead) = (self.profile.clone(), self.settings.clone(), self.ahead.clone());
        let spawned = tokio::task::spawn_blocking(move || profile::of(&service, &settings).and_then(|one| ahead.spawn(one)));
        let spawned = spawned.await.map_err(|error| SandboxError::Init(std::io::Error::other(error)))?;
        let mut running = match spawned {
            Ok(running) => running,
            Err(error) => {
                if let SandboxError::ArtefactMismatch(mismatch) = &error {
                    // Nothing runs either way; losing the record does not change that.
                    let found = TamperingFound { what: "artefact", which: self.profile.name.clone(), detail: mismatch.to_string() };
                    let _recorded = self.recorder.record(None, &found);
                }
                return Err(error);
            }
        };
        if self.profile.replicas_min == 0 {
            self.step_ahead();
        }
        if let Some(mut lines) = running.take_lines() {
            let (clock, pace) = (self.clock.clone(), self.pace.clone());
            tokio::spawn(async move {
                while let Some(line) = lines.recv().await {
                    let now = clock.monotonic();
                    let kept = pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner).keep(&line.text, line.lost, now);
                    if let Some(lost) = kept {
                        tracing::info!(service_line = line.text, lost);
                    }
                }
            });
        }
        watched::watch(&mut running, &self.profile.name, self.recorder.clone(), self.settings.trace.clone());
        let outbound = CancellationToken::new();
        let by_name: BTreeMap<&str, &Outbound> = self.profile.outbound.iter().map(|o| (o.env.as_str(), o)).collect();
        let listeners = running.take_listeners();
        let listeners =
            listeners.into_iter().filter_map(|(name, listener)| Some(((*by_name.get(name.as_str())?).clone(), listener))).collect();
        (self.serve_outbound)(listeners, outbound.clone());
        let report = running.applied();
        let calls = report.layers.iter().find(|layer| layer.name == LayerName::Seccomp).map_or("", |layer| layer.detail.as_str());
        let detail = format!("level {:?}, pid {}, {calls}", report.level, running.pid());
        let act = ActDone { act: "sandbox.start", by: "guard".into(), to: self.profile.name.clone(), detail };
        // The service is confined whether or not this is kept; every request to it is recorded by itself or refused.
        let _recorded = self.recorder.record(None, &act);
        if self.closed.is_cancelled() {
            return Err(SandboxError::NotConnected("the service is contained".to_owned()));
        }
        Ok(Started { running: Arc::new(running), outbound, closed: self.closed.clone() })
    }

    /// Keeps it as its profile says until `stop`: always running, or stopped when `busy` says that nothing is under way for a while.
    pub async fn look_after(self: Arc<Self>, busy: impl Fn() -> bool + Send, stop: CancellationToken) {
        match (self.profile.fresh_per_job, self.profile.replicas_min) {
            // Started for a job and ended with it, there is nothing to keep or to stop.
            (true, 0) => stop.cancelled().await,
            (true, _) => self.keep_spare(&stop).await,
            (false, 0) => self.stop_when_idle(busy, &stop).await,
            (false, _) => self.keep_running(&stop).await,
        }
        // What is frozen cannot end when it is asked.
        let grace = if self.closed.is_cancelled() { Duration::ZERO } else { END_GRACE };
        self.end_jobs(grace).await;
        if let Some(started) = self.started.lock().await.take() {
            started.running.terminate(grace).await;
        }
    }

    async fn keep_running(&self, stop: &CancellationToken) {
        let mut pause = RESTART_PAUSE;
        loop {
            if self.closed.is_cancelled() {
                return stop.cancelled().await;
            }
            let ended = async {
                match self.running().await {
                    Ok(running) => {
                        let exit = running.wait().await;
                        tracing::warn!(service = self.profile.name, ?exit, "the service ended; it is started again");
                    }
                    Err(error) => tracing::error!(service = self.profile.name, %error, "the service cannot be started"),
                }
            };
            let before = self.clock.monotonic();
            tokio::select! {
                () = ended => {}
                () = stop.cancelled() => return,
            }
            let lasted = self.clock.monotonic().saturating_sub(before);
            pause = if lasted > RESTART_PAUSE_MAX { RESTART_PAUSE } else { (pause * 2).min(RESTART_PAUSE_MAX) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn stop_when_idle(&self, busy: impl Fn() -> bool + Send, stop: &CancellationToken) {
        let idle_ms = self.profile.idle_stop_s.saturating_mul(1000);
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = stop.cancelled() => return,
            }
            if self.closed.is_cancelled() {
                return stop.cancelled().await;
            }
            if busy() {
                self.used();
                continue;
            }
            let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
            if now.saturating_sub(self.last_used_ms.load(Ordering::Relaxed)) < idle_ms {
                continue;
            }
            // Taken out under the lock: a connection that comes now starts a new one.
            if let Some(started) = self.started.lock().await.take() {
                started.running.terminate(END_GRACE).await;
            }
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("service", &self.profile.name).finish_non_exhaustive()
    }
}
