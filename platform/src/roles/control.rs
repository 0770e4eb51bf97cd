//! The `control` role: the manifest in force, and everybody's signed view of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use contract::Client;
use contract::control::Apply;
use contract::identity::IdentityClient;
use contract::signing::SigningKey;
use control::{Control, ControlConfig, Parts, Signer};
use manifest::Search;
use proxy::client::IdentityTransport;
use proxy::enforce::Views;
use proxy::svid::WorkloadIdentity;
use serde::{Deserialize, Serialize};
use trust::{Digest, SpiffeId, limits};

use super::{Serving, revocation, sealer, serve};
use crate::process::{Process, StartError};

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The manifest's text.
    pub manifest: String,
    /// Hand-written policies by file name.
    pub policies: BTreeMap<String, String>,
    /// The lock's text.
    pub lock: String,
    /// The manifest's folder.
    pub folder: PathBuf,
    /// Where its programs are besides.
    pub bin: Option<PathBuf>,
    /// The digest of Palisade's own binary, which is what this process was attested by.
    pub palisade: Digest,
    /// Where every workload listens.
    pub addresses: BTreeMap<SpiffeId, Vec<String>>,
}

/// Runs it.
///
/// # Errors
/// `Refused` when the manifest does not pass its checks or what was kept was edited; `Failed` otherwise.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let identity = process.admitted().await?;
    process.ship(&identity)?;
    let transport =
        IdentityTransport::new(process.boot.identity_socket.clone(), identity.bundle(), Some(&identity)).map_err(StartError::failed_by)?;
    let config = ControlConfig {
        folder: process.boot.dir.join("epochs"),
        sealer: sealer(&process, "control")?,
        search: Search { folder: settings.folder, bin: settings.bin },
        palisade: settings.palisade,
        addresses: settings.addresses,
        age_s_max: limits::VIEW_AGE_S_MAX,
        start: Apply { manifest: settings.manifest, policies: settings.policies, lock: settings.lock },
    };
    let client = IdentityClient(Client::new(transport));
    let revoked = revocation::follow(identity.bundle().clone(), client.clone());
    let parts = Parts {
        signer: Arc::new(OfIdentity(identity.clone())),
        identity: client,
        recorder: process.recorder.clone(),
        clock: process.clock.clone(),
    };
    let control = tokio::task::spawn_blocking(move || Control::open(config, parts)).await.map_err(StartError::failed_by)?;
    let control = control.map_err(StartError::refused_by)?;
    let follower = control.clone();
    tokio::spawn(async move { follower.follow_identity().await });
    tokio::spawn(revoked);
    process.ready(None).await;
    serve(&process, &identity, Arc::new(control), Serving { point: "control", views: Views::Unneeded, operator: true }).await
}

#[derive(Debug)]
struct OfIdentity(Arc<WorkloadIdentity>);

impl Signer for OfIdentity {
    fn current(&self) -> (SigningKey, Vec<Vec<u8>>) {
        self.0.signing_key_and_chain()
    }
}
