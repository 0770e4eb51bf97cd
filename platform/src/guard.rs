//! The guard's process: parent of its service, and the only way in and out of it.
//!
//! It joins with the digests of what its service runs, gets its view, builds the sandbox, and only then does the service start. If the
//! guard dies, so does the service.

pub mod contained;
mod host;
mod job;
mod lines;
mod outdated;
mod profile;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use breach::Control;
use proxy::mesh::{Connector, Guard, Job};
use sandbox::{Level, SandboxError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::access_log::{self, AccessLog};
use crate::dangerous;
use crate::process::{Process, StartError};
use host::{Host, ServeOutbound};

/// File in a guard's folder with the names of the system calls that a traced service was seen to make, one a line.
pub const TRACED: &str = "traced";

/// What a guard is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The service's own folder, if its manifest gives it one.
    pub state_dir: PathBuf,
    /// User and group of the service when root runs Palisade.
    pub run_as_id: u32,
    /// Where the evidence goes if the service is contained.
    pub evidence_dir: PathBuf,
    /// Which replica of its service this is, from 0.
    pub replica: u32,
    /// Where the names of the system calls that are seen go, when its service is traced.
    #[serde(default)]
    pub trace: Option<PathBuf>,
    /// Where each request gets a line, if the manifest asks for it.
    pub access_log: Option<access_log::Settings>,
    /// The wall that its sandboxes go without, in a throw-away copy of a system alone: it is never read from anywhere.
    #[serde(skip)]
    pub(crate) dangerous_without: Option<sandbox::DangerousWithout>,
    /// What lies there counts as locked, in a throw-away copy of a system alone: as above.
    #[serde(skip)]
    pub(crate) dangerous_unlocked: bool,
}

/// Runs the guard of a service.
///
/// # Errors
/// `Refused` when the service may not start here: its level cannot be reached, or its artefacts are not the locked ones.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let mut settings: Settings = process.settings()?;
    settings.dangerous_without = dangerous::dangerous_wall(&process)?;
    settings.dangerous_unlocked = process.goes_without(Control::ArtefactDigest);
    let joined = process.join().await?;
    let loaded = process.first_view(&joined.view).await?;
    let mut profile = loaded.view.service.clone().ok_or_else(|| StartError::failed("the view describes no service"))?;
    let started = profile.clone();
    // `replicas_min` of all replicas run all the time; the others wait for work.
    profile.replicas_min = u32::from(settings.replica < profile.replicas_min);
    let without = |control| process.goes_without(control);
    let dangerous_shared = profile.fresh_per_job && without(Control::FreshSandbox);
    // Its host then keeps one sandbox, as that of any other service.
    profile.fresh_per_job = profile.fresh_per_job && !dangerous_shared;
    let required = if profile.isolation == "confined" { Level::Confined } else { Level::Full };
    let here = sandbox::probe();
    if here.level.is_none_or(|level| level < required) {
        return Err(StartError::refused(format_args!("this host cannot give the isolation that the manifest requires\n{here}")));
    }
    let link = Arc::new(Link { dangerous_shared, ..Link::default() });
    let (mut recorder, metrics) = (process.recorder.clone(), process.recorder.metrics().clone());
    let log = settings.access_log.clone().map(|log| AccessLog::start(log, process.clock.clone(), metrics)).transpose();
    let log = log.map_err(StartError::refused_by)?;
    if let Some(log) = &log {
        recorder = recorder.with_access_log(log.clone());
    }
    let dangerous_without = proxy::mesh::DangerousWithout {
        flight: without(Control::TransactionToken),
        routes: without(Control::GuardOut),
        callers: without(Control::GuardIn),
        destinations: without(Control::EgressList),
    };
    let guard = if dangerous_without == proxy::mesh::DangerousWithout::default() {
        Guard::new(joined.view.clone(), recorder, process.clock.clone(), link.clone())
    } else {
        Guard::dangerous_new(joined.view.clone(), recorder, process.clock.clone(), link.clone(), dangerous_without)
    };
    let host = Host::new(profile, settings, outbound_of(&guard), process.recorder.clone(), process.clock.clone());
    link.set(&host);
    if loaded.view.contained {
        // It was contained when this process began: there is nothing to freeze, and nothing is started.
        host.close().await;
    } else {
        host.prepare().await.map_err(refusal)?;
    }
    let busy = guard.clone();
    let answered = CancellationToken::new();
    let looked_after = tokio::spawn(host.clone().look_after(move || busy.in_flight() > 0, answered.clone()));
    let listener = process.listeners().tcp("mesh")?;
    tokio::spawn(contained::watch(process.clone(), guard.clone(), host.clone(), joined.view.clone()));
    let probing = tokio::spawn(guard.clone().probe(answered.clone()));
    // Who has not yet been well takes nobody's place.
    tokio::select! {
        () = guard.well() => {}
        () = host.closed() => {}
        () = process.stop.cancelled() => {}
    }
    process.ready(None).await;
    tokio::spawn(outdated::watch(process.clone(), joined.view.clone(), started));
    let served = guard.clone().inbound(listener, process.stop.clone()).await;
    // The service ends only now: what was under way when the drain began has been answered.
    answered.cancel();
    if let Err(error) = looked_after.await {
        tracing::error!(%error, "the service's keeper failed");
    }
    if let Err(error) = probing.await {
        tracing::error!(%error, "asking the service failed");
    }
    if let Some(log) = log {
        log.finish();
    }
    served.map_err(StartError::failed_by)?;
    process.finish(&joined.identity).await
}

/// What trying again does not change is a refusal. A step of the setup may have failed for want of memory or processes: that passes.
fn refusal(error: SandboxError) -> StartError {
    match error {
        SandboxError::Init(_) | SandboxError::Ended | SandboxError::NotConnected(_) | SandboxError::Setup { .. } => {
            StartError::failed(error)
        }
        SandboxError::Profile(_) | SandboxError::ArtefactMismatch(_) | SandboxError::MissingLayer { .. } => StartError::refused(error),
    }
}

fn outbound_of(guard: &Arc<Guard>) -> ServeOutbound {
    let guard = Arc::downgrade(guard);
    Box::new(move |listeners, stop| {
        let Some(guard) = guard.upgrade() else { return };
        for (outbound, listener) in listeners {
            let (guard, stop) = (guard.clone(), stop.clone());
            tokio::spawn(async move {
                let env = outbound.env.clone();
                if let Err(error) = guard.outbound(outbound.port, listener, stop).await {
                    tracing::error!(%error, flow = env, "a flow's listener cannot be served");
                }
            });
        }
    })
}

/// The guard needs the service, and the service's listeners need the guard: this end is tied once both are there.
#[derive(Debug, Default)]
struct Link {
    host: std::sync::OnceLock<std::sync::Weak<Host>>,
    /// All jobs get the one sandbox; in a throw-away copy of a system alone.
    dangerous_shared: bool,
}

impl Link {
    fn set(&self, host: &Arc<Host>) {
        // It is tied once, in `run`.
        let _tied = self.host.set(Arc::downgrade(host));
    }

    fn host(&self) -> std::io::Result<Arc<Host>> {
        self.host.get().and_then(std::sync::Weak::upgrade).ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

#[async_trait]
impl Connector for Link {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        self.host()?.connect().await.map_err(std::io::Error::other)
    }

    async fn fresh(&self) -> std::io::Result<Box<dyn Job>> {
        if self.dangerous_shared {
            return Ok(Box::new(DangerousShared(self.host()?)));
        }
        Ok(Box::new(self.host()?.fresh().await.map_err(std::io::Error::other)?))
    }
}

/// A job in the sandbox of all jobs, which stays as the job left it.
#[derive(Debug)]
struct DangerousShared(Arc<Host>);

#[async_trait]
impl Job for DangerousShared {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        self.0.connect().await.map_err(std::io::Error::other)
    }

    async fn end(self: Box<Self>) {}
}
