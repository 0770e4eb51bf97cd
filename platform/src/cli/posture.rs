//! `palisade posture`: how well the system is kept, from what is there to be seen.
//!
//! Gathers evidence: the repository that the manifest is in, the lock, the sandbox that this host gives, the prediction, and a
//! measurement if one is named. What there is no evidence of is unknown, and counts as the worst.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ::breach::posture::{Area, Line, Posture, State, of_system};
use ::breach::{Report, predict};
use manifest::{Isolation, Lock, Tampering};

use super::{DirArgument, Failure, Format, ManifestArgument, say};
use crate::system::{self, Applied, Layout};

/// The posture report.
#[derive(Debug, clap::Args)]
pub(crate) struct PostureOf {
    /// What `palisade breach --format json` measured.
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
    #[command(flatten)]
    manifest: ManifestArgument,
    #[command(flatten)]
    dir: DirArgument,
}

impl PostureOf {
    pub(super) fn run(&self, format: Format) -> Result<ExitCode, Failure> {
        let applied = Applied::open(&self.manifest.manifest)?;
        let predicted = predict(&applied.manifest, &applied.policies).map_err(|error| Failure::of(64, error))?.report;
        let measured = self.measured.as_deref().map(measured).transpose()?;
        let mut lines = of_system(&applied.manifest, &predicted, measured.as_ref());
        lines.push(source(&self.manifest.manifest));
        lines.extend(built(&applied, &Layout { dir: self.dir.dir.clone() })?);
        lines.extend(machine(&applied));
        let posture = Posture::of(&applied.manifest.name, lines);
        match format {
            Format::Json => say(serde_json::to_string_pretty(&posture).map_err(Failure::failed)?),
            Format::Text => say(posture.text().trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn measured(path: &Path) -> Result<Report, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::of(64, format_args!("{}: {error}", path.display())))?;
    // As `palisade breach` writes it, with the comparison beside it, or the report alone.
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let text = whole.get("report").map_or(text, ToString::to_string);
    Report::from_json(&text).map_err(|error| Failure::of(64, format_args!("{}: {error}", path.display())))
}

fn line(area: Area, boundary: &str, claim: &str, (state, why): (State, String), evidence: &str) -> Line {
    Line { area, boundary: boundary.to_owned(), claim: claim.to_owned(), state, why, evidence: evidence.to_owned() }
}

/// Whether the manifest and its policies are those of a commit.
fn source(manifest: &Path) -> Line {
    let folder = manifest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = manifest.file_name().unwrap_or_default();
    let said = Command::new("git").arg("-C").arg(folder).args(["status", "--porcelain", "--"]).arg(name).arg("policies").output();
    let found = match said {
        Ok(said) if said.status.success() && said.stdout.is_empty() => (State::Held, "no change that is not committed".to_owned()),
        Ok(said) if said.status.success() => (State::Weak, "changed, and not committed".to_owned()),
        _ => (State::Unknown, "not in a repository of git".to_owned()),
    };
    line(Area::Sources, "operator", "manifest and policies are those of a commit", found, "git status")
}

/// What runs is what was locked; where it comes from nobody has shown.
fn built(applied: &Applied, layout: &Layout) -> Result<Vec<Line>, Failure> {
    let path = layout.lock();
    let shown = path.display().to_string();
    let own = system::own_digest()?;
    let opened = if path.exists() { Lock::open(&path).map(Some) } else { Ok(None) };
    let found: Result<Option<Vec<Tampering>>, String> = match opened {
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
        Ok(Some(lock)) => match lock.verify(&applied.manifest, &applied.policies, &applied.search, own) {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(error.to_string()),
        },
    };
    let state = |mine: &dyn Fn(&Tampering) -> bool| match &found {
        Ok(None) => (State::Unknown, "there is no lock; `palisade lock` writes one".to_owned()),
        Err(why) => (State::Broken, why.clone()),
        Ok(Some(all)) => {
            let of: Vec<String> = all.iter().filter(|one| mine(one)).map(ToString::to_string).collect();
            if of.is_empty() { (State::Held, "as locked".to_owned()) } else { (State::Broken, of.join("; ")) }
        }
    };
    let of_sources = |one: &Tampering| matches!(one, Tampering::Manifest | Tampering::Policy(_));
    let of_build = |one: &Tampering| matches!(one, Tampering::Palisade);
    let nobody = |what: &str| (State::Unknown, format!("{what} is not built yet"));
    Ok(vec![
        line(Area::Sources, "operator", "manifest and policies are the locked ones", state(&of_sources), &shown),
        line(Area::Build, "supply", "Palisade is the locked binary", state(&of_build), &shown),
        line(Area::Build, "supply", "the lock is signed by who built it", nobody("a signature over the lock"), "none"),
        line(Area::Images, "supply", "programs and files are the locked ones", state(&|one| !of_sources(one) && !of_build(one)), &shown),
        line(Area::Images, "supply", "no known weakness is in them", nobody("scanning"), "none"),
    ])
}

/// The sandbox that this host gives, for each service.
fn machine(applied: &Applied) -> Vec<Line> {
    let report = sandbox::probe();
    let services = applied.manifest.services.iter().map(|(name, service)| {
        let required = match service.isolation {
            Isolation::Full => sandbox::Level::Full,
            Isolation::Confined => sandbox::Level::Confined,
        };
        let found = match report.level {
            Some(level) if level >= required => (State::Held, format!("{level:?}").to_lowercase()),
            Some(level) => (State::Broken, format!("this host gives {level:?} at most").to_lowercase()),
            None => (State::Broken, "this host gives none: it would refuse to start".to_owned()),
        };
        let evidence = format!("palisade sandbox explain {name}");
        line(Area::Infrastructure, &format!("service.{name}"), "this host gives the sandbox that is required", found, &evidence)
    });
    let missing: Vec<String> = report.layers.iter().filter(|layer| !layer.applied).map(|layer| layer.name.to_string()).collect();
    let whole =
        if missing.is_empty() { (State::Held, "all".to_owned()) } else { (State::Weak, format!("missing: {}", missing.join(", "))) };
    services.chain([line(Area::Infrastructure, "operator", "this host has every layer", whole, "palisade sandbox explain")]).collect()
}
