//! Commands about files: `check`, `lock`, `schema`, `apply`.

use std::path::Path;
use std::process::ExitCode;

use contract::control::Apply;
use http::Method;
use manifest::Lock;

use super::{Failure, Format, block_on, people, say};
use crate::system::{self, Applied, Layout};

/// `palisade check`.
pub(super) fn check(path: &Path, format: Format) -> Result<ExitCode, Failure> {
    let applied = Applied::open(path)?;
    let manifest = &applied.manifest;
    let faults: Vec<&String> = manifest.faults.keys().collect();
    match format {
        Format::Json => {
            let services = manifest.services.len();
            let (name, digest) = (&manifest.name, manifest.digest());
            say(
                serde_json::json!({ "system": name, "digest": digest, "services": services, "egress": manifest.egress, "faults": faults, "unserved": manifest.unserved() }),
            )
        }
        Format::Text => say(format_args!(
            "{}: {} services, {} buckets, {} queues\n{}",
            manifest.name,
            manifest.services.len(),
            manifest.buckets.len(),
            manifest.queues.len(),
            manifest.digest()
        )),
    }
    for (name, to) in manifest.egress.iter().filter(|_| format == Format::Text) {
        let why = to.declassified.as_ref().map_or_else(String::new, |why| format!("; declassified: {why}"));
        say(format_args!("egress.{name}: {}:{} may have '{}'{why}", to.host, to.port, to.data));
    }
    let warnings = [system::faults_warning(manifest), system::unserved_warning(manifest)];
    for warning in warnings.into_iter().flatten().filter(|_| format == Format::Text) {
        say(warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// `palisade lock`.
pub(super) fn lock(path: &Path, dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let applied = Applied::open(path)?;
    let layout = Layout { dir: crate::folder::claim(dir)? };
    let lock = Lock::create(&applied.manifest, &applied.policies, &applied.search, system::own_digest()?).map_err(Failure::failed)?;
    lock.write(&layout.lock()).map_err(Failure::failed)?;
    let artefacts: usize = applied.manifest.services.keys().filter_map(|s| lock.artefacts(s)).map(std::collections::BTreeMap::len).sum();
    match format {
        Format::Json => say(serde_json::json!({ "lock": layout.lock(), "artefacts": artefacts })),
        Format::Text => say(format_args!("{}: {artefacts} artefacts pinned", layout.lock().display())),
    }
    Ok(ExitCode::SUCCESS)
}

/// `palisade schema`.
pub(super) fn schema() -> Result<ExitCode, Failure> {
    say(serde_json::to_string_pretty(&manifest::json_schema()).map_err(Failure::failed)?);
    Ok(ExitCode::SUCCESS)
}

/// `palisade apply`.
pub(super) fn apply(path: &Path, dir: &Path, format: Format) -> Result<ExitCode, Failure> {
    let applied = Applied::open(path)?;
    let layout = Layout { dir: dir.to_path_buf() };
    let lock = Lock::create(&applied.manifest, &applied.policies, &applied.search, system::own_digest()?).map_err(Failure::failed)?;
    let request = Apply { manifest: applied.text.clone(), policies: applied.policies.clone(), lock: lock.to_toml() };
    let answer: serde_json::Value = block_on(async {
        let client = people::operator(&layout, "control")?;
        client.json(&contract::Call::default(), Method::POST, "/apply", &request).await.map_err(Failure::failed)
    })??;
    lock.write(&layout.lock()).map_err(Failure::failed)?;
    match format {
        Format::Json => say(answer),
        Format::Text => say(format_args!("applied: epoch {}", answer.get("epoch").and_then(serde_json::Value::as_u64).unwrap_or_default())),
    }
    Ok(ExitCode::SUCCESS)
}
