//! The supervisor: starts every process of the system, keeps it running, and ends it in order.
//!
//! It binds each listener once and hands it to each new run of its process, so a restarted role keeps its address and a client that
//! connects in between waits instead of being refused (D3). It announces every process to `identity` before it starts it: nobody gets
//! an identity that the supervisor did not just ask for (C7).
//!
//! When something new is in force for a service, its guards say so and are replaced one after the other (`child`, M9).
//!
//! Not here: what the processes are (`system`), how one of them boots (`boot`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::identity::{Artefact, IdentityClient};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use trust::{Clock, Digest, Entropy};

use crate::boot::Boot;

mod child;
mod run;

pub use run::SUPERVISOR_STREAM;

/// First pause before a restart, doubled up to the longest.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A run that lasted this long ends the doubling.
const STEADY: Duration = Duration::from_secs(10);
/// How long a process may take to finish what is under way, and a guard's service to end after that, before it is killed.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long a run that is to take another's place may take to get ready.
const SUCCESSOR_MAX: Duration = Duration::from_secs(60);

/// One process of the system.
#[derive(Debug)]
pub struct Member {
    /// `identity`, `edge`, `service/api`: its place in lists and the name of its log.
    pub name: String,
    /// Arguments of the Palisade binary.
    pub args: Vec<String>,
    /// Digests of its service's artefacts, from the lock.
    pub artefacts: Vec<Artefact>,
    /// Its listeners, by name; kept open for ever, passed on at each start.
    pub listeners: Vec<(String, std::os::fd::OwnedFd)>,
    /// What it is told; `token`, `roots` and `listeners` are filled in at each start.
    pub boot: BootTemplate,
    /// Members of lower stages are ready before it starts, and drain after it has drained.
    pub stage: u8,
    /// How it is replaced while it runs.
    pub replacement: Replacement,
}

/// Gives the present artefacts of a service, from the lock as it is now.
pub type Artefacts = Arc<dyn Fn() -> Result<Vec<Artefact>, String> + Send + Sync>;

/// How a member is replaced while it runs.
#[derive(Clone)]
pub enum Replacement {
    /// Only with the whole system.
    Never,
    /// The next run gets ready beside this one, which then drains: nobody waits.
    Beside(Artefacts),
    /// This run drains before the next starts, since two cannot share its service's folder: who connects meanwhile waits.
    After(Artefacts),
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Never => "Never",
            Self::Beside(_) => "Beside",
            Self::After(_) => "After",
        })
    }
}

/// A `Boot` before the parts that differ from start to start.
#[derive(Debug)]
pub struct BootTemplate(pub Boot);

/// How a process is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Process id, 0 when it does not run.
    pub pid: u32,
    /// Whether it serves.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// What it wants people to know.
    pub notice: Option<String>,
    /// Why it will not start, if it said so.
    pub refused: Option<String>,
}

/// Standing of all, by name.
pub type Standings = BTreeMap<String, Standing>;

/// What all members' tasks share.
#[derive(Debug)]
struct Shared {
    standings: watch::Sender<Standings>,
    identity: watch::Sender<Option<IdentityClient>>,
    stop_from: watch::Sender<u8>,
    binary: Digest,
    log_dir: PathBuf,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Held by the member that is being replaced: one at a time.
    replacing: tokio::sync::Mutex<()>,
}

/// Nobody drains: no stage is as high.
const NOBODY: u8 = u8::MAX;

/// A running system.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    stages: BTreeMap<u8, JoinSet<()>>,
}

impl Supervisor {
    /// Starts all members, which run this very binary with the digest `binary`, each stage when the one before is ready.
    ///
    /// # Errors
    /// When the folder for logs cannot be made.
    pub fn start(
        members: Vec<Member>,
        binary: Digest,
        log_dir: PathBuf,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&log_dir)?;
        let standings: Standings = members.iter().map(|m| (m.name.clone(), Standing::default())).collect();
        let shared = Arc::new(Shared {
            standings: watch::Sender::new(standings),
            identity: watch::Sender::new(None),
            stop_from: watch::Sender::new(NOBODY),
            binary,
            log_dir,
            clock,
            entropy,
            replacing: tokio::sync::Mutex::new(()),
        });
        let mut earlier_of: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for member in &members {
            let earlier = members.iter().filter(|m| m.stage < member.stage).map(|m| m.name.clone()).collect();
            earlier_of.insert(member.stage, earlier);
        }
        let mut stages: BTreeMap<u8, JoinSet<()>> = BTreeMap::new();
        for member in members {
            let earlier = earlier_of.get(&member.stage).cloned().unwrap_or_default();
            stages.entry(member.stage).or_default().spawn(child::keep_running(shared.clone(), member, earlier));
        }
        Ok(Self { shared, stages })
    }

    /// Follows how everybody is doing.
    #[must_use]
    pub fn standings(&self) -> watch::Receiver<Standings> {
        self.shared.standings.subscribe()
    }

    /// Drains stage by stage, the last started first, and ends.
    pub async fn drain(mut self) {
        while let Some((stage, mut tasks)) = self.stages.pop_last() {
            self.shared.stop_from.send_replace(stage);
            while tasks.join_next().await.is_some() {}
        }
    }
}

impl Shared {
    fn update(&self, name: &str, change: impl FnOnce(&mut Standing)) {
        self.standings.send_modify(|all| {
            if let Some(standing) = all.get_mut(name) {
                change(standing);
            }
        });
    }

    /// Resolves once members of `stage` are to drain.
    async fn stopped(&self, stage: u8) {
        let mut stop_from = self.stop_from.subscribe();
        // The sender lives as long as `self`.
        let _closed = stop_from.wait_for(|from| stage >= *from).await;
    }
}
