//! One of Palisade's processes, from its first line to its drain: boot, join, serve, renew, end.

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use breach::Control;
use contract::Client;
use contract::evidence::EvidenceClient;
use contract::identity::Artefact;
use proxy::client::{Address, MeshTransport, Patience};
use proxy::renewal::{self, Invitation};
use proxy::svid::WorkloadIdentity;
use proxy::view::ViewHolder;
use telemetry::event::FaultRaised;
use telemetry::{Metrics, Recorder};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use trust::{Clock, Digest, Entropy, Fault, SpiffeId, SystemClock, SystemEntropy};

use crate::boot::{self, Boot, BootError, Line, Listeners};
use crate::dangerous::Without;
use crate::spool::Spool;
use crate::{dangerous, memory, roles};

/// Exit code of a process that will not start however often it is tried (sysexits.h, EX_CONFIG).
const EXIT_CONFIG: u8 = 78;
/// How long the last records may take to reach `evidence`.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How often counts of refusals are looked at when nothing else is recorded.
const GATHERED_EVERY: Duration = Duration::from_secs(5);

/// Why a process cannot do its work. `Refused` ones are not tried again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The supervisor's channel or description.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// It cannot run here, or not with this configuration; says what to do.
    #[error("{0}")]
    Refused(String),
    /// Something that may be gone at the next try.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    /// A failure that may be gone at the next try.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
    /// The same, with all causes of an error.
    pub fn failed_by(error: impl std::error::Error) -> Self {
        Self::Failed(with_causes(&error))
    }
    /// The same as `refused`, with all causes of an error.
    pub fn refused_by(error: impl std::error::Error) -> Self {
        Self::Refused(with_causes(&error))
    }
    /// A refusal that trying again does not change.
    pub fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What every process has.
#[derive(Debug)]
pub struct Process {
    /// Who it is to be, and what it was told.
    pub boot: Boot,
    pub(crate) dangerous_without: Without,
    listeners: std::sync::Mutex<Listeners>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Says what happens.
    pub recorder: Recorder,
    /// Cancelled when it is to drain.
    pub stop: CancellationToken,
    spool: Arc<Spool>,
    to_supervisor: Mutex<tokio::net::unix::OwnedWriteHalf>,
}

/// A process that has joined: its identity, and its view of what it may decide.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its SVID.
    pub identity: Arc<WorkloadIdentity>,
    /// Its view.
    pub view: Arc<ViewHolder>,
}

/// Runs a role.
pub fn run_role(name: &str) -> ExitCode {
    run(name, |process| async move {
        match process.boot.spiffe_id.as_role() {
            Some("identity") => roles::identity::run(process).await,
            Some("control") => roles::control::run(process).await,
            Some("login") => roles::login::run(process).await,
            Some("objects") => roles::objects::run(process).await,
            Some("queue") => roles::queue::run(process).await,
            Some("evidence") => roles::evidence::run(process).await,
            Some("edge") => roles::edge::run(process).await,
            _ => Err(StartError::refused("there is no such role")),
        }
    })
}

/// Runs the guard of a service.
pub fn run_guard(service: &str) -> ExitCode {
    run(service, crate::guard::run)
}

/// Runs the decision point of an enforcement point.
pub fn run_pdp(pep: &str) -> ExitCode {
    run(pep, crate::pdp::run)
}

/// Log lines as JSON on standard error; `PALISADE_LOG` chooses how much (`tracing` filter syntax).
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PALISADE_LOG").unwrap_or_else(|_| "info".into());
    // A second call finds the first one's subscriber in place, which is as good.
    let _already = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

fn run<F: Future<Output = Result<(), StartError>>>(name: &str, role: impl FnOnce(Arc<Process>) -> F) -> ExitCode {
    log_to_stderr();
    let (boot, listeners, channel) = match boot::receive() {
        Ok(received) => received,
        Err(error) => {
            crate::cli::complain(format_args!("error: {error}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if boot.spiffe_id.workload.name() != name {
        crate::cli::complain(format_args!("asked to be {name}, but told to be {}", boot.spiffe_id));
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = match runtime_of(&boot).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let mut process = match Process::open(boot, listeners, channel) {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return ExitCode::FAILURE;
            }
        };
        let admitted = dangerous::admit(&process.boot, &process.recorder).map(|without| process.dangerous_without = without);
        let process = Arc::new(process);
        let started = match admitted {
            Ok(()) => role(process.clone()).await,
            Err(refused) => Err(refused),
        };
        match started {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "ends");
                if let StartError::Refused(why) = &error {
                    process.tell(&Line::Refused { why: why.clone() }).await;
                    return ExitCode::from(EXIT_CONFIG);
                }
                ExitCode::FAILURE
            }
        }
    });
    // Blocking work that still hangs must not keep an ended process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// Those that only the house itself calls get by with one thread; those that carry people's bytes, or hash, have two more.
fn runtime_of(boot: &Boot) -> tokio::runtime::Builder {
    if matches!(boot.spiffe_id.as_role(), Some("control" | "login")) {
        return tokio::runtime::Builder::new_current_thread();
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2);
    builder
}

impl Process {
    fn open(boot: Boot, listeners: Listeners, channel: std::os::unix::net::UnixStream) -> Result<Self, StartError> {
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let metrics = Arc::new(Metrics::new());
        let spool = Spool::open(&boot.dir.join("spool"), &*entropy, metrics.clone()).map_err(StartError::failed_by)?;
        let recorder = Recorder::new(spool.clone(), clock.clone(), entropy.clone(), metrics);
        channel.set_nonblocking(true).map_err(BootError::from)?;
        let (from_supervisor, to_supervisor) = tokio::net::UnixStream::from_std(channel).map_err(BootError::from)?.into_split();
        let stop = CancellationToken::new();
        tokio::spawn(obey(from_supervisor, stop.clone(), recorder.clone()));
        tokio::spawn(memory::stay_lean());
        let gathering = recorder.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHERED_EVERY).await;
                gathering.tell_gathered(false);
            }
        });
        Ok(Self {
            boot,
            dangerous_without: Without::default(),
            listeners: std::sync::Mutex::new(listeners),
            clock,
            entropy,
            recorder,
            stop,
            spool,
            to_supervisor: Mutex::new(to_supervisor),
        })
    }

    /// Its listeners, to take them from.
    pub fn listeners(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A folder below its own, made if missing.
    ///
    /// # Errors
    /// `Refused` when it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StartError> {
        let folder = self.boot.dir.join(name);
        std::fs::create_dir_all(&folder).map_err(StartError::refused_by)?;
        Ok(folder)
    }

    /// What this role alone was told.
    ///
    /// # Errors
    /// `Refused` when it is not what this version of the role takes.
    pub fn settings<T: serde::de::DeserializeOwned>(&self) -> Result<T, StartError> {
        serde_json::from_value(self.boot.settings.clone()).map_err(StartError::refused_by)
    }

    /// The key under which this role seals what it keeps.
    ///
    /// # Errors
    /// `Refused` when the supervisor passed none.
    pub fn sealing_key(&self) -> Result<trust::Secret<[u8; 32]>, StartError> {
        let bytes = hex::decode(self.boot.sealing_key.trim()).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
        bytes
            .map(trust::Secret::new)
            .ok_or_else(|| StartError::refused("the sealing key is not 32 bytes in hexadecimal; restore the file in keys/"))
    }

    /// Joins: gets an SVID by token and attestation, keeps it renewed, ships records, and follows the view.
    ///
    /// # Errors
    /// `Refused` when an artefact cannot be measured; `Failed` when `identity` does not admit this process.
    pub async fn join(self: &Arc<Self>) -> Result<Joined, StartError> {
        let identity = self.admitted().await?;
        self.ship(&identity)?;
        let view = self.follow_view(&identity)?;
        Ok(Joined { identity, view })
    }

    /// The first half of `join`: an SVID, kept renewed.
    ///
    /// # Errors
    /// As `join`.
    pub async fn admitted(self: &Arc<Self>) -> Result<Arc<WorkloadIdentity>, StartError> {
        let artefacts = measure(self.boot.artefacts.clone()).await?;
        let invitation = Invitation {
            spiffe_id: self.boot.spiffe_id.clone(),
            socket: self.boot.identity_socket.clone(),
            roots: self.boot.roots.clone(),
            token: trust::Secret::new(self.boot.token.clone()),
            artefacts,
        };
        let identity = renewal::join(invitation, self.clock.clone(), self.entropy.clone()).await.map_err(StartError::failed_by)?;
        // From here on the process holds keys. Before, `identity` had to read which program this is, which a kernel does not allow of a
        // process that forbids dumps.
        memory::keep_keys()?;
        let identity = if self.goes_without(Control::Mtls) { identity.dangerous_believing_any_caller() } else { identity };
        tokio::spawn(keep_renewed(identity.clone(), self.clone()));
        Ok(identity)
    }

    /// Ships audit records and spans to `evidence` from now on.
    ///
    /// # Errors
    /// `Failed` when the supervisor did not say where it is.
    pub fn ship(self: &Arc<Self>, identity: &Arc<WorkloadIdentity>) -> Result<(), StartError> {
        self.ship_to(EvidenceClient(self.early_peer(identity, "evidence")?));
        Ok(())
    }

    /// Ships them to this `evidence`; for `evidence` itself.
    pub fn ship_to(self: &Arc<Self>, evidence: EvidenceClient) {
        tokio::spawn(self.spool.clone().ship(evidence));
    }

    /// Follows this process's view.
    ///
    /// # Errors
    /// `Failed` when the supervisor did not say where `control` is.
    pub fn follow_view(self: &Arc<Self>, identity: &Arc<WorkloadIdentity>) -> Result<Arc<ViewHolder>, StartError> {
        let kept: PathBuf = self.boot.dir.join("view.json");
        let view = dangerous::opener_of_views(self)(identity.clone(), self.recorder.clone(), Some(kept));
        let control = self.early_transport(identity, "control")?;
        tokio::spawn(proxy::view::subscribe(view.clone(), control, self.entropy.clone(), CancellationToken::new()));
        Ok(view)
    }

    /// A client of a role whose address is known before there is a view.
    ///
    /// # Errors
    /// `Failed` when the supervisor did not say where it is.
    pub fn early_peer(&self, identity: &Arc<WorkloadIdentity>, role: &str) -> Result<Client, StartError> {
        Ok(Client::new(self.early_transport(identity, role)?))
    }

    fn early_transport(&self, identity: &Arc<WorkloadIdentity>, role: &str) -> Result<Arc<MeshTransport>, StartError> {
        let id = self.boot.trust_domain.role(role);
        let address = self.boot.addresses.get(&id).and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| StartError::failed(format_args!("nobody said where {id} is")))?;
        MeshTransport::new(identity, id, Address::Fixed(address), Patience::Call).map_err(StartError::failed_by)
    }

    /// Waits for the first view.
    ///
    /// # Errors
    /// `Failed` when the process is to end before there is one.
    pub async fn first_view(&self, view: &ViewHolder) -> Result<Arc<proxy::view::Loaded>, StartError> {
        let mut changed = view.changed();
        loop {
            if let Ok(loaded) = view.fresh() {
                return Ok(loaded);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = self.stop.cancelled() => return Err(StartError::failed("asked to end before there was a view")),
            }
        }
    }

    /// Waits until the view names our key, so that what we mint is accepted everywhere.
    ///
    /// # Errors
    /// `Failed` when the process is to end before that.
    pub async fn wait_until_minting(&self, joined: &Joined) -> Result<(), StartError> {
        let mut changed = joined.view.changed();
        loop {
            if joined.view.fresh().is_ok_and(|loaded| joined.identity.minter(&loaded.verifier).is_some()) {
                return Ok(());
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = self.stop.cancelled() => return Err(StartError::failed("asked to end before the view named our key")),
            }
        }
    }

    /// Tells the supervisor that this process serves.
    pub async fn ready(&self, notice: Option<String>) {
        self.tell(&Line::Ready { notice }).await;
    }

    /// Tells the supervisor that this run is not what it should be any more, but one that runs `artefacts`.
    pub async fn outdated(&self, artefacts: Vec<Artefact>) {
        self.tell(&Line::Outdated { artefacts }).await;
    }

    async fn tell(&self, line: &Line) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            // A supervisor that is gone is seen by `obey`.
            let _gone = self.to_supervisor.lock().await.write_all(&text).await;
        }
    }

    /// After everything has drained: the last records leave.
    pub async fn finish(&self, identity: &Arc<WorkloadIdentity>) -> Result<(), StartError> {
        self.recorder.tell_gathered(true);
        // `evidence` has gone before these three; what they still have is shipped by the next run.
        if !matches!(self.boot.spiffe_id.as_role(), Some("evidence" | "control" | "identity")) {
            self.spool.flush(&EvidenceClient(self.early_peer(identity, "evidence")?), FLUSH_MAX).await;
        }
        Ok(())
    }
}

impl Joined {
    /// Ways to the peers that the view names.
    #[must_use]
    pub fn peers(&self, patience: Patience) -> Arc<Peers> {
        Arc::new(Peers { joined: self.clone(), patience, known: std::sync::Mutex::default() })
    }
}

/// Ways to peers, each made once.
#[derive(Debug)]
pub struct Peers {
    joined: Joined,
    patience: Patience,
    known: std::sync::Mutex<HashMap<SpiffeId, Arc<MeshTransport>>>,
}

impl Peers {
    /// The way to `peer`. Where it is, and whether it may be called at all, the view says at each call.
    ///
    /// # Errors
    /// `Internal` when TLS cannot be configured.
    pub fn transport(&self, peer: &SpiffeId) -> Result<Arc<MeshTransport>, Fault> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(transport) = known.get(peer) {
            return Ok(transport.clone());
        }
        let address = Address::Viewed(self.joined.view.clone());
        let transport = MeshTransport::new(&self.joined.identity, peer.clone(), address, self.patience)?;
        known.insert(peer.clone(), transport.clone());
        Ok(transport)
    }

    /// A client of a role.
    ///
    /// # Errors
    /// As `transport`.
    pub fn role(&self, name: &str) -> Result<Client, StartError> {
        let id = self.joined.identity.id().trust_domain.role(name);
        Ok(Client::new(self.transport(&id).map_err(StartError::failed_by)?))
    }
}

/// Renews until the end. An SVID that ended cannot be renewed: then this process ends too, and is started anew with a new token.
async fn keep_renewed(identity: Arc<WorkloadIdentity>, process: Arc<Process>) {
    let never = CancellationToken::new();
    let socket = process.boot.identity_socket.clone();
    renewal::keep(identity, socket, process.recorder.clone(), process.entropy.clone(), never).await;
    tracing::error!("the SVID ended before it could be renewed; starting anew");
    std::process::exit(1);
}

/// An error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// Follows the supervisor: a line asks for a drain; its silence for ever means that this process must not outlive it.
async fn obey(channel: tokio::net::unix::OwnedReadHalf, stop: CancellationToken, recorder: Recorder) {
    let mut lines = BufReader::new(channel).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Line>(&line) {
            Ok(Line::Drain) => stop.cancel(),
            Ok(Line::Kept { why }) => {
                tracing::error!(why, "this run is outdated, and stays because the next did not get ready");
                // It stays whether or not this is kept.
                let _recorded = recorder.record(None, &FaultRaised { point: "guard", action: "service.replace".to_owned(), cause: why });
            }
            Ok(Line::Ready { .. } | Line::Refused { .. } | Line::Outdated { .. }) | Err(_) => {
                tracing::warn!("the supervisor said something that it never says");
            }
        }
    }
    if !stop.is_cancelled() {
        tracing::error!("the supervisor is gone");
        std::process::exit(1);
    }
}

/// Measures files: what a guard claims of its service when it joins.
async fn measure(paths: Vec<String>) -> Result<Vec<Artefact>, StartError> {
    let measured = tokio::task::spawn_blocking(move || {
        let mut artefacts = Vec::new();
        for path in paths {
            let file =
                std::fs::File::open(&path).map_err(|e| StartError::refused(format_args!("{path}: {e}; it is pinned in palisade.lock")))?;
            let digest = Digest::of_reader(file).map_err(StartError::failed_by)?;
            artefacts.push(Artefact { path, digest });
        }
        Ok(artefacts)
    });
    measured.await.map_err(StartError::failed_by)?
}

/// A handle on the process at the other end of a UNIX socket (`SO_PEERPIDFD`, Linux 6.5); none on older kernels.
#[must_use]
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerPidfd).ok()
}
