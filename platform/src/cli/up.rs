//! `palisade up`.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use proxy::client::CollectorUrl;
use rustix::fs::FlockOperation;
use trust::{SystemClock, SystemEntropy};

use super::{Failure, Format, say};
use crate::dangerous;
use crate::supervisor::{Standings, Supervisor};
use crate::system::{self, Applied, Layout, SystemError};

/// Exit code of what is refused however often it is tried (sysexits.h, EX_CONFIG).
const EXIT_CONFIG: u8 = 78;
/// How long everything may take to be ready; a first start makes keys and databases.
const READY_MAX: Duration = Duration::from_secs(60);

/// Run the whole system of a manifest on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(super) manifest: super::ManifestArgument,
    #[command(flatten)]
    pub(super) dir: super::DirArgument,
    /// Address of the edge, instead of the manifest's; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Also send every span to an OpenTelemetry collector on this machine, by OTLP/HTTP; audit records stay here.
    #[arg(long, value_name = "http://ADDRESS:PORT")]
    otlp: Option<CollectorUrl>,
    /// No option: `palisade breach` says it to its own copy, and nobody else can.
    #[arg(skip)]
    dangerous_without: Vec<String>,
}

impl Up {
    /// `up` of this manifest in this folder, on loopback, without these controls.
    pub(crate) fn on_a_free_port(manifest: PathBuf, dir: PathBuf, dangerous_without: Vec<String>) -> Self {
        let listen = Some(SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)));
        Self { manifest: super::ManifestArgument { manifest }, dir: super::DirArgument { dir }, listen, otlp: None, dangerous_without }
    }

    pub(crate) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        self.traced(None, format)
    }

    /// With the system calls of one service traced.
    pub(super) fn traced(self, service: Option<&str>, format: Format) -> Result<ExitCode, Failure> {
        let applied = Applied::open(&self.manifest.manifest)?;
        let layout = Layout { dir: crate::folder::claim(&self.dir.dir)? };
        let _held = hold(&layout)?;
        let lock = applied.check_lock(&layout.lock())?;
        let listen = self.listen.unwrap_or(applied.manifest.edge.listen);
        let mut system = system::build(&applied, &lock, &layout, listen, self.otlp.as_ref(), service, &SystemEntropy)?;
        crate::process::log_to_stderr();
        if !self.dangerous_without.is_empty() {
            dangerous::in_a_copy(&layout.dir)
                .map_err(|why| Failure::of(EXIT_CONFIG, format_args!("no control is switched off here: {why}")))?;
            let services = applied.manifest.services.keys().map(String::as_str).collect();
            let switches =
                dangerous::dangerous_switches(&self.dangerous_without, &services).map_err(|why| Failure::of(EXIT_CONFIG, why))?;
            system.dangerous_switch_off(&switches);
        }
        for warning in [system::faults_warning(&applied.manifest), system::unserved_warning(&applied.manifest)].into_iter().flatten() {
            tracing::warn!("{warning}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        runtime.block_on(serve(system, lock.palisade, applied.manifest.name.clone(), layout, format))
    }
}

/// One system at a time in a folder.
fn hold(layout: &Layout) -> Result<std::fs::File, Failure> {
    let path = layout.dir.join("held");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Failure::failed)?;
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| SystemError::InUse(layout.dir.display().to_string()))?;
    Ok(file)
}

async fn serve(system: system::System, binary: trust::Digest, name: String, layout: Layout, format: Format) -> Result<ExitCode, Failure> {
    let (origin, peps) = (system.origin.clone(), system.peps.clone());
    // Listen for the end before anything is started: a Ctrl-C in between must not leave processes behind.
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let supervisor = Supervisor::start(system.members, binary, layout.logs(), SystemClock::shared(), SystemEntropy::shared())
        .map_err(Failure::failed)?;
    let mut standings = supervisor.standings();
    let settled = tokio::select! {
        settled = tokio::time::timeout(READY_MAX, standings.wait_for(|all| all.values().all(|s| s.ready) || all.values().any(|s| s.refused.is_some()))) => {
            match settled { Ok(Ok(all)) => Some(all.clone()), _ => None }
        }
        _ = interrupt.recv() => { supervisor.drain().await; return Ok(ExitCode::SUCCESS); }
        _ = terminate.recv() => { supervisor.drain().await; return Ok(ExitCode::SUCCESS); }
    };
    let settled = settled.unwrap_or_else(|| supervisor.standings().borrow().clone());
    if !settled.values().all(|s| s.ready) {
        let why = unready(&settled, &layout);
        supervisor.drain().await;
        return Err(Failure::failed(why));
    }
    announce(&settled, &name, &origin, &peps, &layout, format);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    if format == Format::Text {
        say("Draining: what is under way is finished first.");
    }
    supervisor.drain().await;
    Ok(ExitCode::SUCCESS)
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    tokio::signal::unix::signal(kind).map_err(Failure::failed)
}

fn announce(standings: &Standings, name: &str, origin: &str, peps: &[(String, PathBuf)], layout: &Layout, format: Format) {
    let notice = standings.values().find_map(|s| s.notice.clone());
    let link = notice.map(|path| format!("{origin}{path}"));
    let ca: PathBuf = layout.local_ca();
    if format == Format::Json {
        let sockets: serde_json::Map<_, _> = peps.iter().map(|(name, path)| (name.clone(), path.display().to_string().into())).collect();
        let members: serde_json::Map<_, _> = standings.iter().map(|(name, s)| (name.clone(), s.pid.into())).collect();
        say(
            serde_json::json!({ "system": name, "address": origin, "first_link": link, "local_ca": ca, "dir": layout.dir, "members": members, "peps": sockets }),
        );
        return;
    }
    say(format_args!("\n  {name} is up: {} processes, each with its own identity and sandbox.\n", standings.len()));
    say(format_args!("  Open         {origin}"));
    say(format_args!("  Console      {origin}/console"));
    if let Some(link) = link {
        say(format_args!("  First visit  {link}\n               (works once; whoever opens it becomes the administrator)"));
    }
    if ca.exists() {
        say(format_args!("  Certificate  {}\n               (made here; trust it in your browser, or accept its warning)", ca.display()));
    }
    for (name, socket) in peps {
        say(format_args!("  Decisions    {} (for {name})", socket.display()));
    }
    say(format_args!("  Logs         {}", layout.logs().display()));
    say("\n  Ctrl-C ends it.");
}

/// Why the system is not up: those that refused, since others may only have waited for them; else those that are not ready.
fn unready(standings: &Standings, layout: &Layout) -> String {
    let mut lines = vec!["the system did not come up".to_owned()];
    let refused = standings.values().any(|s| s.refused.is_some());
    for (name, standing) in standings.iter().filter(|(_, s)| !s.ready) {
        match &standing.refused {
            Some(why) => lines.push(format!("  {name}: {why}")),
            None if !refused => lines.push(format!("  {name}: not ready; see {}", layout.logs().join(format!("{name}.log")).display())),
            None => {}
        }
    }
    lines.join("\n")
}
