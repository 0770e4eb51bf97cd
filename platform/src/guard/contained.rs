//! When an operator contains the service: frozen first, then cut, then what is in it is kept as evidence; and a fresh run when it is
//! released.
//!
//! Freezing comes before cutting, because a job that is given up is killed with all that could be learned from it. The report is the last
//! file that is written, in one piece: where it is, the evidence is whole. Its digest is in the audit log.
//!
//! Guarantees: L15.
//! Not here:   who contains (`control`), what everybody else does then (their views).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proxy::mesh::Guard;
use proxy::view::ViewHolder;
use sandbox::{Evidence, EvidenceLimits, Running};
use serde::{Deserialize, Serialize};
use telemetry::event::ActDone;
use tokio::sync::watch;
use trust::Digest;

use super::Settings;
use super::host::Host;
use crate::process::Process;

/// Of the files in a sandbox's `/tmp` so much is kept.
const LIMITS: EvidenceLimits = EvidenceLimits { files: 1_000, bytes: 256 * 1024 * 1024 };

/// Pause between two looks at what stands still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The name of the report in a replica's folder.
pub const REPORT: &str = "report.json";

/// What was kept of one replica.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The service.
    pub service: String,
    /// Which of its replicas, from 0.
    pub replica: u32,
    /// The epoch that contained it.
    pub epoch: u64,
    /// When everything in it stood still, in milliseconds since the epoch of UNIX.
    pub frozen_at_ms: u64,
    /// Its sandboxes: the service, or one for each job; by the number of their folder.
    pub sandboxes: BTreeMap<u32, Evidence>,
    /// What went wrong; empty when nothing did.
    pub failures: Vec<String>,
}

/// The folder of a replica's evidence, below that of the epoch.
#[must_use]
pub fn in_epoch(epoch: &Path, replica: u32) -> PathBuf {
    epoch.join(format!("replica-{replica}"))
}

/// Watches until the process is to drain.
pub(super) async fn watch(process: Arc<Process>, guard: Arc<Guard>, host: Arc<Host>, views: Arc<ViewHolder>) {
    let mut changed = views.changed();
    let Some(epoch) = until(&process, &views, &mut changed, true).await else { return };
    let held = host.close().await;
    contain(&process, &guard, held.clone(), epoch).await;
    // A view that is no longer fresh releases nobody.
    let released = tokio::select! {
        released = until(&process, &views, &mut changed, false) => released,
        () = keep_still(&process, &held) => None,
    };
    if released.is_none() {
        return;
    }
    let artefacts = views.last().and_then(|loaded| loaded.view.service.as_ref().map(|service| service.artefacts.clone()));
    process.outdated(artefacts.unwrap_or_default()).await;
    process.stop.cancelled().await;
    held.iter().for_each(|running| running.kill());
}

/// The epoch of the first view that says so; nothing when the process is to drain.
async fn until(process: &Process, views: &ViewHolder, changed: &mut watch::Receiver<u64>, contained: bool) -> Option<u64> {
    loop {
        if let Ok(loaded) = views.fresh()
            && loaded.view.contained == contained
        {
            return Some(loaded.view.epoch);
        }
        tokio::select! {
            changed = changed.changed() => changed.ok()?,
            () = process.stop.cancelled() => return None,
        }
    }
}

/// Looks at what is to stand still for as long as it is held, and kills what does not. Nothing inside can let itself go on; should a
/// kernel or somebody outside do it, what then runs is not the evidence any more.
async fn keep_still(process: &Process, held: &[Arc<Running>]) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for running in held {
            let looked = Arc::clone(running);
            let stands = tokio::task::spawn_blocking(move || looked.exited().is_some() || looked.stands_still()).await;
            if !stands.unwrap_or(false) {
                running.kill();
                let detail = "it no longer stood still".to_owned();
                let to = process.boot.spiffe_id.workload.name().to_owned();
                // It is dead whether or not this is kept.
                let _recorded = process.recorder.record(None, &ActDone { act: "service.killed", by: "guard".to_owned(), to, detail });
            }
        }
    }
}

async fn contain(process: &Process, guard: &Guard, held: Vec<Arc<Running>>, epoch: u64) {
    let mut failures = Vec::new();
    for running in &held {
        let frozen = running.clone();
        match tokio::task::spawn_blocking(move || frozen.freeze()).await {
            Ok(Ok(_frozen)) => {}
            failed => {
                // What does not stand still must not go on: then there is no evidence of it.
                running.kill();
                failures.push(format!("a sandbox could not be frozen and was killed: {failed:?}"));
            }
        }
    }
    let frozen_at_ms = process.clock.unix_ms();
    guard.cut();
    let Ok(Settings { evidence_dir, replica, .. }) = process.settings() else { return };
    let (folder, service) =
        (in_epoch(&evidence_dir.join(format!("epoch-{epoch}")), replica), process.boot.spiffe_id.workload.name().to_owned());
    let mut report = Report { service: service.clone(), replica, epoch, frozen_at_ms, sandboxes: BTreeMap::new(), failures };
    let kept = tokio::task::spawn_blocking(move || keep(&mut report, &held, &folder).map(|digest| (report, digest))).await;
    let detail = match kept {
        Ok(Ok((report, digest))) => {
            let processes: usize = report.sandboxes.values().map(|one| one.processes.len()).sum();
            let files: usize = report.sandboxes.values().map(|one| one.files.len()).sum();
            format!("{processes} processes stopped, {files} files kept, report sha256 {digest}")
        }
        Ok(Err(error)) => format!("the evidence could not be kept: {error}"),
        Err(error) => format!("the evidence could not be kept: {error}"),
    };
    // It stands still whether or not this is kept.
    let _recorded = process.recorder.record(None, &ActDone { act: "service.frozen", by: "guard".to_owned(), to: service, detail });
}

fn keep(report: &mut Report, held: &[Arc<Running>], folder: &Path) -> io::Result<Digest> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for (n, running) in (0..).zip(held) {
        match running.keep_evidence(&folder.join(format!("sandbox-{n}")), LIMITS) {
            Ok(evidence) => drop(report.sandboxes.insert(n, evidence)),
            Err(error) => report.failures.push(format!("sandbox {n}: {error}")),
        }
    }
    for (n, running) in (0..).zip(held) {
        if running.exited().is_none() && !running.stands_still() {
            running.kill();
            report.failures.push(format!("sandbox {n} did not stand still while it was copied, and was killed"));
        }
    }
    let text = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
    let (whole, beside) = (folder.join(REPORT), folder.join("report.new"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    io::Write::write_all(&mut file, &text)?;
    file.sync_all()?;
    std::fs::rename(beside, whole)?;
    Ok(Digest::of(&text))
}
