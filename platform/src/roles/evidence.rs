//! The `evidence` role: audit log, traces, metrics, and the console's pages over them.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use console::Console;
use contract::evidence::{BATCH_BYTES_MAX, Batch, EvidenceClient};
use contract::{Body, Client, Transport, body};
use evidence::log::{FREE_BYTES_MIN, SEGMENT_BYTES};
use evidence::{Evidence, NoteSigner, Parts, Place, Retention};
use http::{Request, Response, StatusCode};
use proxy::client::{CollectorTransport, CollectorUrl, Patience};
use proxy::enforce::Views;
use serde::{Deserialize, Serialize};
use trust::{Fault, SpiffeId};

use super::{Serving, sealer, serve};
use crate::process::{Joined, Process, StartError};

/// Name and version under which the checkpoint key is sealed.
const KEY: (&str, u32) = ("checkpoint", 1);

/// Traces and the searchable copy of audit records: a week, within some hundred megabytes. The audit log itself is kept.
const RETENTION: Retention = Retention { age_s: 7 * 24 * 3600, spans: 500_000, records: 500_000 };

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The second place for checkpoints; best on another disk.
    pub anchor: PathBuf,
    /// A collector that every span is sent on to; `None`: they stay here.
    pub otlp: Option<String>,
}

/// The audit log's folder in `evidence`'s own.
#[must_use]
pub fn log_folder(data: &Path) -> PathBuf {
    data.join("audit")
}

/// The anchor's file in the second place.
#[must_use]
pub fn anchor_file(anchor: &Path) -> PathBuf {
    anchor.join("checkpoints")
}

/// Runs it.
///
/// # Errors
/// `Refused` when the log does not verify or the key does not open; `Failed` otherwise.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let collector = match &settings.otlp {
        Some(url) => Some(Client::new(CollectorTransport::new(url.parse::<CollectorUrl>().map_err(StartError::refused_by)?))),
        None => None,
    };
    std::fs::create_dir_all(&settings.anchor).map_err(StartError::refused_by)?;
    let identity = process.admitted().await?;
    let view = process.follow_view(&identity)?;
    let joined = Joined { identity, view };
    let signer = signer(&process)?;
    std::fs::write(settings.anchor.join("audit.vkey"), format!("{}\n", signer.verifier())).map_err(StartError::failed_by)?;
    let peers = joined.peers(Patience::Call);
    let dir = &process.boot.dir;
    let parts = Parts {
        own: process.boot.spiffe_id.clone(),
        place: Place {
            dir: log_folder(dir),
            anchor: anchor_file(&settings.anchor),
            segment_bytes: SEGMENT_BYTES,
            free_bytes_min: FREE_BYTES_MIN,
        },
        signer,
        database: dir.join("index.db"),
        retention: RETENTION,
        clock: process.clock.clone(),
        recorder: process.recorder.clone(),
        control: process.early_peer(&joined.identity, "control")?,
        queue: contract::queue::QueueClient(peers.role("queue")?),
        pages: Arc::new(Console),
    };
    let opened = if process.goes_without(breach::Control::AuditChain) {
        Evidence::dangerous_open_unchained(parts, collector).await
    } else {
        Evidence::open_forwarding(parts, collector).await
    };
    let evidence = opened.map_err(StartError::refused_by)?;
    if let Some(why) = evidence.broken() {
        return Err(StartError::refused(why));
    }
    let own = Own { evidence: evidence.clone(), own: process.boot.spiffe_id.clone() };
    process.ship_to(EvidenceClient(Client::new(Arc::new(own))));
    let tended = evidence.clone();
    tokio::spawn(async move { tended.run().await });
    process.first_view(&joined.view).await?;
    process.ready(None).await;
    let serving = Serving { point: "evidence", views: Views::Held(joined.view.clone()), operator: true };
    serve(&process, &joined.identity, evidence, serving).await
}

/// The key that signs checkpoints: made at the first start, sealed.
fn signer(process: &Process) -> Result<NoteSigner, StartError> {
    let sealer = sealer(process, "evidence")?;
    let path = process.boot.dir.join("checkpoint.sealed");
    let name = format!("{}/audit", process.boot.trust_domain);
    match std::fs::read_to_string(&path) {
        Ok(sealed) => {
            let seed =
                sealer.open(KEY.0, KEY.1, sealed.trim()).map_err(|e| StartError::refused(format_args!("{}: {e}", path.display())))?;
            NoteSigner::from_seed(&name, seed.expose()).map_err(StartError::refused_by)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = vec![0; 32];
            process.entropy.fill(&mut seed);
            let seed = trust::Secret::new(seed);
            let sealed = sealer.seal(KEY.0, KEY.1, seed.expose()).map_err(StartError::failed_by)?;
            let write = || -> std::io::Result<()> {
                let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                std::io::Write::write_all(&mut file, sealed.as_bytes())?;
                file.sync_all()
            };
            write().map_err(StartError::failed_by)?;
            NoteSigner::from_seed(&name, seed.expose()).map_err(StartError::refused_by)
        }
        Err(error) => Err(StartError::refused(format_args!("{}: {error}", path.display()))),
    }
}

/// `evidence` appends its own records without a network between.
#[derive(Debug)]
struct Own {
    evidence: Arc<Evidence>,
    own: SpiffeId,
}

#[async_trait]
impl Transport for Own {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let batch: Batch = body::parse_json_within(request.into_body(), BATCH_BYTES_MAX).await?;
        let appended = self.evidence.append(&self.own, batch).await?;
        Ok(body::json(StatusCode::OK, &appended))
    }
}
