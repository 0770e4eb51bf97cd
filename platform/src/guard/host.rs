//! The service of a guard: its sandbox, started when needed, started again when it dies, stopped when idle.
//!
//! Each start is a fresh sandbox (I8). A service with `replicas_min = 0` is started by the first connection to it and stopped after a
//! while without requests (N11).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::control::{Outbound, ServiceProfile};
use sandbox::{Artefact, Flow, Launcher, Level, Limits, Profile, Running, SandboxError};
use telemetry::Recorder;
use telemetry::event::{ActDone, TamperingFound};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use trust::{Clock, Fault};

use super::lines::Pace;

/// Where every service listens, inside its own network namespace.
const SERVICE_PORT: u16 = 8080;
/// How long an inbound connection waits for a service that is starting, in milliseconds.
const START_PATIENCE_MS: u64 = 20_000;
/// How long a service may take to end when asked.
const END_GRACE: Duration = Duration::from_secs(5);
/// User and group of services when Palisade itself is run by root (`nobody`).
const RUN_AS_ID: u32 = 65_534;
/// First pause before a service that died is started again; doubled up to the longest.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Serves the listeners of one sandbox until it is cancelled.
pub type ServeOutbound = Box<dyn Fn(Vec<(Outbound, TcpListener)>, CancellationToken) + Send + Sync>;

/// A guard's service.
pub struct Host {
    profile: ServiceProfile,
    state_dir: PathBuf,
    serve_outbound: ServeOutbound,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    started: Mutex<Option<Started>>,
    /// Milliseconds on the monotonic clock of the last connection.
    last_used_ms: AtomicU64,
}

struct Started {
    running: Arc<Running>,
    outbound: CancellationToken,
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
        state_dir: PathBuf,
        serve_outbound: ServeOutbound,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self { profile, state_dir, serve_outbound, recorder, clock, started: Mutex::new(None), last_used_ms: AtomicU64::new(0) })
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

    async fn start(&self) -> Result<Started, SandboxError> {
        let profile = self.sandbox_profile();
        let spawned = tokio::task::spawn_blocking(move || Launcher::this_binary().spawn(profile));
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
        if let Some(mut lines) = running.take_lines() {
            let clock = self.clock.clone();
            tokio::spawn(async move {
                let mut pace = Pace::new(clock.monotonic());
                while let Some(line) = lines.recv().await {
                    if let Some(lost) = pace.keep(&line.text, line.lost, clock.monotonic()) {
                        tracing::info!(service_line = line.text, lost);
                    }
                }
            });
        }
        let outbound = CancellationToken::new();
        let by_name: BTreeMap<&str, &Outbound> = self.profile.outbound.iter().map(|o| (o.env.as_str(), o)).collect();
        let listeners = running.take_listeners();
        let listeners =
            listeners.into_iter().filter_map(|(name, listener)| Some(((*by_name.get(name.as_str())?).clone(), listener))).collect();
        (self.serve_outbound)(listeners, outbound.clone());
        let report = running.applied();
        let detail = format!("level {:?}, pid {}", report.level, running.pid());
        let act = ActDone { act: "sandbox.start", by: "guard".into(), to: self.profile.name.clone(), detail };
        // The service is confined whether or not this is kept; every request to it is recorded by itself or refused.
        let _recorded = self.recorder.record(None, &act);
        Ok(Started { running: Arc::new(running), outbound })
    }

    /// Keeps it as its profile says until `stop`: always running, or stopped when `busy` says that nothing is under way for a while.
    pub async fn look_after(self: Arc<Self>, busy: impl Fn() -> bool + Send, stop: CancellationToken) {
        if self.profile.replicas_min == 0 {
            self.stop_when_idle(busy, &stop).await;
        } else {
            self.keep_running(&stop).await;
        }
        if let Some(started) = self.started.lock().await.take() {
            started.running.terminate(END_GRACE).await;
        }
    }

    async fn keep_running(&self, stop: &CancellationToken) {
        let mut pause = RESTART_PAUSE;
        loop {
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

    fn sandbox_profile(&self) -> Profile {
        let service = &self.profile;
        let artefact = |path: &str| {
            let digest = service.artefacts.iter().find(|a| a.path == path).map(|a| a.digest.to_hex());
            // Without a digest nothing matches, and nothing starts.
            Artefact { path: PathBuf::from(path), sha256: digest.unwrap_or_default() }
        };
        let program = service.run.first().map(String::as_str).unwrap_or_default();
        let tools: Vec<Artefact> = service.tools.iter().map(|path| artefact(path)).collect();
        let is_executed = |path: &String| path == program || service.tools.contains(path);
        let scripts = service.artefacts.iter().filter(|a| !is_executed(&a.path)).map(|a| artefact(&a.path)).collect();
        let mut read = Profile::system_read();
        read.extend(service.read.iter().map(PathBuf::from));
        let limits = &service.limits;
        let some = |n: u64| if n == 0 { u64::MAX } else { n };
        Profile {
            name: service.name.clone(),
            required_level: if service.isolation == "confined" { Level::Confined } else { Level::Full },
            program: artefact(program),
            arguments: service.run.iter().skip(1).cloned().collect(),
            environment: self.environment(),
            port: Some(SERVICE_PORT),
            flows: service.outbound.iter().map(|o| Flow { name: o.env.clone(), port: o.port }).collect(),
            tools,
            scripts,
            read,
            state: service.state.then(|| self.state_dir.clone()),
            work_dir: None,
            limits: Limits {
                memory_bytes: some(limits.memory_bytes),
                processes: some(limits.pids),
                open_files: some(limits.files),
                file_bytes: some(limits.file_bytes),
                cpu_seconds: None,
                cpu_cores: (limits.cpu > 0.0).then_some(limits.cpu),
                wall_ms: None,
                tmp_bytes: some(limits.tmp_bytes),
            },
            run_as_id: RUN_AS_ID,
            start_patience_ms: START_PATIENCE_MS,
            dangerous_simulate: sandbox::Simulate::default(),
        }
    }

    /// What the service finds in its environment: where its neighbours are, all on loopback, and nothing secret (F8).
    fn environment(&self) -> BTreeMap<String, String> {
        let fixed = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME", "/tmp".to_owned()),
            ("TMPDIR", "/tmp".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("PORT", SERVICE_PORT.to_string()),
            // The guard signs for the service: any S3 client is content with these.
            ("AWS_ACCESS_KEY_ID", "palisade".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "palisade".to_owned()),
            ("AWS_REGION", "local".to_owned()),
        ];
        let mut environment: BTreeMap<String, String> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if self.profile.state {
            environment.insert("STATE_DIR".to_owned(), self.state_dir.display().to_string());
        }
        for outbound in &self.profile.outbound {
            let scheme = if outbound.is_tcp() { "tcp" } else { "http" };
            environment.insert(outbound.env.clone(), format!("{scheme}://127.0.0.1:{}", outbound.port));
        }
        environment
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("service", &self.profile.name).finish_non_exhaustive()
    }
}
