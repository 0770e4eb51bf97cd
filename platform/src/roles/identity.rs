//! The `identity` role: the certificate authority, on its UNIX socket and on the supervisor's pair.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::{Ca, CaConfig, Identity, PublicCa};
use proxy::enforce::{Enforcement, Views};
use proxy::svid::{PendingKey, WorkloadIdentity};
use serde::{Deserialize, Serialize};

use super::{revocation, sealer};
use crate::process::{Process, StartError, peer_pidfd};
use crate::supervisor::SUPERVISOR_STREAM;

/// How often the HTTPS certificate and our own SVID are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Hosts of this machine alone, for whose HTTPS certificate this is the authority; there may be none.
    pub hosts: Vec<String>,
    /// Life of an SVID, in seconds.
    pub svid_life_s: u64,
}

/// Runs it.
///
/// # Errors
/// `Refused` when keys or folder cannot be used; `Failed` when something may be gone at the next try.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let sealer = sealer(&process, "identity")?;
    let public = PublicCa::open(&process.boot.dir.join("https"), &sealer, process.clock.clone(), process.entropy.clone())
        .map_err(StartError::refused_by)?;
    let config = CaConfig {
        folder: process.boot.dir.join("ca"),
        trust_domain: process.boot.trust_domain.clone(),
        sealer,
        svid_life_s: settings.svid_life_s,
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
    };
    crate::memory::keep_keys()?;
    let ca = Arc::new(Ca::open(config).map_err(StartError::refused_by)?);
    publish(&process, &public, &settings.hosts)?;
    let key = PendingKey::generate().map_err(StartError::failed_by)?;
    let issued = ca.admit(&process.boot.spiffe_id, key.csr()).map_err(StartError::failed_by)?;
    let identity = WorkloadIdentity::adopt(&key, &issued, process.clock.clone()).map_err(StartError::failed_by)?;
    process.ship(&identity)?;

    let room = Arc::new(Identity::new(ca.clone(), process.recorder.clone(), process.clock.clone()));
    let bundle = Some(identity.bundle().clone());
    let enforcement =
        Arc::new(Enforcement::new(room, "identity", process.recorder.clone(), process.clock.clone(), bundle, Views::Unneeded));
    let from_supervisor = process.listeners().stream(SUPERVISOR_STREAM)?;
    let joining = process.listeners().unix("join")?;
    tokio::spawn(revocation::follow_own(identity.bundle().clone(), ca.clone()));
    tokio::spawn(look_after(process.clone(), ca, identity.clone(), public, settings.hosts));
    process.ready(None).await;
    // The supervisor's connection is idle for most of the time; only the socket's end counts.
    let supervisor = proxy::serve::supervisor(enforcement.clone(), from_supervisor, process.stop.clone());
    let joining = proxy::serve::joining(enforcement, &identity, joining, peer_pidfd, process.stop.clone());
    let (_, served) = tokio::join!(supervisor, joining);
    served.map_err(StartError::failed_by)?;
    process.finish(&identity).await
}

/// Renews our own SVID at half of its life, and the HTTPS certificate in its last month.
async fn look_after(process: Arc<Process>, ca: Arc<Ca>, identity: Arc<WorkloadIdentity>, public: PublicCa, hosts: Vec<String>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (from, to) = identity.life_s();
        let now = process.clock.unix_s();
        if now > from.saturating_add(to) / 2 {
            let renewed = PendingKey::generate().map_err(StartError::failed_by).and_then(|key| {
                let issued = ca.admit(&process.boot.spiffe_id, key.csr()).map_err(StartError::failed_by)?;
                identity.renewed(&key, &issued).map_err(StartError::failed_by)
            });
            if let Err(error) = renewed {
                tracing::error!(%error, "identity cannot renew its own SVID");
            }
        }
        if let Err(error) = publish(&process, &public, &hosts) {
            tracing::error!(%error, "the HTTPS certificate cannot be renewed");
        }
    }
}

/// Writes the edge's HTTPS certificate where the edge reads it, when there is none or it ends within 30 days.
fn publish(process: &Process, public: &PublicCa, hosts: &[String]) -> Result<(), StartError> {
    const MONTH_S: u64 = 30 * 24 * 3600;
    if hosts.is_empty() {
        return Ok(());
    }
    let folder = process.boot.dir.join("public");
    let mark = folder.join("hosts");
    let end: Option<(u64, Vec<String>)> = std::fs::read(&mark).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let good = end.is_some_and(|(not_after_s, of)| not_after_s > process.clock.unix_s().saturating_add(MONTH_S) && of == hosts);
    if good {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(StartError::failed_by)?;
    let certificate = public.issue(hosts).map_err(StartError::refused_by)?;
    write(&folder.join("chain.pem"), certificate.chain_pem.as_bytes())?;
    write(&folder.join("key.pem"), certificate.key_pem.expose().as_bytes())?;
    write(&folder.join("local-ca.pem"), certificate.root_pem.as_bytes())?;
    // Written last: without it all of the above is done again.
    write(&mark, &serde_json::to_vec(&(certificate.not_after_s, hosts)).map_err(StartError::failed_by)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let next = path.with_extension("next");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next).map_err(StartError::failed_by)?;
    std::io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()).map_err(StartError::failed_by)?;
    std::fs::rename(&next, path).map_err(StartError::failed_by)
}
