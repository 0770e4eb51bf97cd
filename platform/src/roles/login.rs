//! The `login` role: people, and OpenID Connect.

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::login::ClientProfile;
use login::{Login, LoginConfig};
use proxy::enforce::Views;
use serde::{Deserialize, Serialize};

use super::{Serving, sealer, serve};
use crate::process::{Process, StartError};

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://HOST[:PORT]`.
    pub origin: String,
    /// The system's name.
    pub system: String,
    /// Scopes of the manifest's routes.
    pub scopes: BTreeSet<String>,
    /// Applications that the manifest declares.
    pub clients: Vec<ClientProfile>,
}

/// Runs it.
///
/// # Errors
/// `Refused` when its database or keys cannot be used; `Failed` otherwise.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let config = LoginConfig {
        database: process.boot.dir.join("people.db"),
        public_origin: settings.origin,
        system: settings.system,
        trust_domain: process.boot.trust_domain.clone(),
        scopes: settings.scopes,
        clients: settings.clients,
        sealer: sealer(&process, "login")?,
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        recorder: process.recorder.clone(),
    };
    let login = Login::open(config).await.map_err(StartError::refused_by)?;
    let link = login.first_link().await.map_err(StartError::failed_by)?;
    process.ready(link.map(|invited| format!("{}{}", contract::login::ISSUER_PATH, invited.path))).await;
    serve(&process, &joined.identity, Arc::new(login), Serving { point: "login", views: Views::Held(joined.view.clone()), operator: true })
        .await
}
