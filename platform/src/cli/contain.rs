//! `palisade contain` and `palisade release`: one service is cut off and frozen, and everything else stays up.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use contract::control::{Contain as Asked, Contained, Release as Undone};
use contract::{Call, Client};
use http::Method;
use serde::Serialize;
use trust::{Clock, SystemClock};

use super::people::operator;
use super::{DirArgument, Failure, Format, block_on, say};
use crate::guard::contained::{REPORT, Report, in_epoch};
use crate::system::Layout;

/// How long the guards may take to say that their service stands still.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// `palisade contain SERVICE`.
#[derive(Debug, clap::Args)]
pub(crate) struct Contain {
    /// The service's name in the manifest.
    service: String,
    /// Why, for the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    dir: DirArgument,
}

/// `palisade release SERVICE`.
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// The service's name in the manifest.
    service: String,
    #[command(flatten)]
    dir: DirArgument,
}

/// What `contain` did.
#[derive(Debug, Serialize)]
struct Done {
    service: String,
    epoch: u64,
    /// Until no enforcement point lets anything to or from it: `control` has made it so, milliseconds.
    cut_ms: u64,
    /// Until every process of it stood still and the evidence was kept, milliseconds.
    frozen_ms: u64,
    processes: usize,
    files: usize,
    evidence: PathBuf,
    failures: Vec<String>,
}

impl Contain {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        let layout = Layout { dir: self.dir.dir };
        let done = block_on(contain(&layout, Asked { service: self.service, reason: self.reason }))??;
        match format {
            Format::Json => say(serde_json::to_string(&done).map_err(Failure::failed)?),
            Format::Text => {
                let Done { service, epoch, cut_ms, frozen_ms, processes, files, .. } = &done;
                say(format_args!("{service} is contained (epoch {epoch})"));
                say(format_args!("  cut off       {cut_ms:>5} ms   nothing goes to it, nothing comes from it, its identity is refused"));
                say(format_args!("  frozen        {frozen_ms:>5} ms   {processes} processes stand still, {files} files kept"));
                say(format_args!("  evidence      {}", done.evidence.display()));
                done.failures.iter().for_each(|failure| say(format_args!("  failed        {failure}")));
                say(format_args!("everything else stays up; undo it with `palisade release {service}`"));
            }
        }
        Ok(if done.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn contain(layout: &Layout, asked: Asked) -> Result<Done, Failure> {
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    let passed = || u64::try_from(clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
    let control = operator(layout, "control")?;
    let answer: Contained = control.json(&Call::default(), Method::POST, "/contain", &asked).await.map_err(Failure::failed)?;
    let cut_ms = passed();
    let evidence = layout.contained(&asked.service);
    let mut reports = Vec::new();
    for replica in 0..answer.replicas {
        reports.push(report(&evidence, replica, answer.since_s.unwrap_or_default(), &*clock).await.ok_or_else(|| {
            Failure::failed(format_args!(
                "{} is cut off (epoch {}), but the guard of replica {replica} has not said within {} s that it is frozen; \
                 look at its log with `palisade up` still running, or stop its guard",
                asked.service,
                answer.epoch,
                PATIENCE.as_secs()
            ))
        })?);
    }
    let all = || reports.iter().flat_map(|report| report.sandboxes.values());
    Ok(Done {
        service: asked.service,
        epoch: answer.epoch,
        cut_ms,
        frozen_ms: passed(),
        processes: all().map(|one| one.processes.len()).sum(),
        files: all().map(|one| one.files.len()).sum(),
        failures: reports.iter().flat_map(|report| report.failures.iter().cloned()).collect(),
        evidence,
    })
}

/// The report of a replica about this time and no earlier one, once it is there.
async fn report(evidence: &Path, replica: u32, since_s: u64, clock: &dyn Clock) -> Option<Report> {
    let began = clock.monotonic();
    while clock.monotonic().saturating_sub(began) < PATIENCE {
        for epoch in std::fs::read_dir(evidence).into_iter().flatten().flatten() {
            let text = std::fs::read(in_epoch(&epoch.path(), replica).join(REPORT)).unwrap_or_default();
            if let Ok(report) = serde_json::from_slice::<Report>(&text)
                && report.frozen_at_ms >= since_s.saturating_mul(1000)
            {
                return Some(report);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

impl Release {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        let layout = Layout { dir: self.dir.dir };
        let answer: Contained = block_on(async {
            let control: Client = operator(&layout, "control")?;
            let asked = Undone { service: self.service.clone() };
            control.json(&Call::default(), Method::POST, "/release", &asked).await.map_err(Failure::failed)
        })??;
        match format {
            Format::Json => say(serde_json::to_string(&answer).map_err(Failure::failed)?),
            Format::Text => {
                say(format_args!("{} is released (epoch {}); its guard is started anew, with a new identity", self.service, answer.epoch));
                say(format_args!("the evidence stays at {}", layout.contained(&self.service).display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
