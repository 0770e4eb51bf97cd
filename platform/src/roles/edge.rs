//! The `edge` role: the public gateway.

use std::path::PathBuf;
use std::sync::Arc;

use contract::Transport;
use proxy::client::Patience;
use proxy::edge::{Edge, Limits, Parts, Place, PublicCertificate, Sessions};
use serde::{Deserialize, Serialize};
use trust::{Fault, SpiffeId};

use crate::process::{Peers, Process, StartError};

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Host names.
    pub hosts: Vec<String>,
    /// Port that browsers use.
    pub port: u16,
    /// Where `identity` puts the HTTPS certificate and its key.
    pub tls_dir: PathBuf,
    /// A session ends after so many seconds without a request.
    pub session_idle_s: u64,
    /// A session ends after so many seconds.
    pub session_life_s: u64,
}

/// Runs it.
///
/// # Errors
/// `Refused` when certificate or database cannot be used; `Failed` when something may be gone at the next try.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let certificate =
        PublicCertificate::load(&settings.tls_dir.join("chain.pem"), &settings.tls_dir.join("key.pem")).map_err(StartError::failed_by)?;
    let (clock, entropy) = (process.clock.clone(), process.entropy.clone());
    let database = process.boot.dir.join("sessions.db");
    let sessions = Sessions::open(&database, settings.session_idle_s, settings.session_life_s, clock.clone(), entropy.clone());
    let sessions = sessions.await.map_err(StartError::refused_by)?;
    // An upload or a long answer is under way for as long as bytes move; the head of an answer may wait for a service that starts.
    let peers = joined.peers(Patience::Call);
    let edge = Edge::new(Parts {
        place: Place { hosts: settings.hosts.iter().cloned().collect(), port: settings.port },
        limits: Limits::standard(),
        views: joined.view.clone(),
        sessions,
        peers: Arc::new(Viewed(peers)),
        recorder: process.recorder.clone(),
        clock,
        entropy,
    })
    .map_err(StartError::failed_by)?;
    let listener = process.listeners().tcp("public")?;
    process.wait_until_minting(&joined).await?;
    process.ready(None).await;
    edge.run(listener, certificate, process.stop.clone()).await.map_err(StartError::failed_by)?;
    process.finish(&joined.identity).await
}

#[derive(Debug)]
struct Viewed(Arc<Peers>);

impl proxy::edge::Peers for Viewed {
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault> {
        Ok(self.0.transport(peer)?)
    }
}
