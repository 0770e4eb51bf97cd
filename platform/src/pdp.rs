//! The process of a decision point: one for each enforcement point that the manifest declares.
//!
//! It joins as any role does, gets its enforcement point's SVID beside its own, and serves the one socket on which that proxy may ask.
//!
//! Spec:       docs/adr/0012.
//! Guarantees: E21. Not here: what is answered (`proxy::pdp`).

use std::sync::Arc;

use proxy::client::Patience;
use proxy::pdp::{DecisionPoint, Parts, ProxyIdentity};
use serde::{Deserialize, Serialize};

use crate::process::{Process, StartError};
use crate::roles::edge::Told;

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://HOST[:PORT]` of the edge: access tokens are for it.
    pub origin: String,
    /// The user that the enforcement point runs as, to whom the socket belongs.
    pub uid: u32,
    /// Those of the edge: a person's rate holds here too.
    pub limits: Told,
}

/// Runs it.
///
/// # Errors
/// `Failed` when the socket cannot be used, or the process is to end before it can decide.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let name = process.boot.spiffe_id.as_pdp().ok_or_else(|| StartError::refused("not told to be a decision point"))?;
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let proxy = ProxyIdentity::new(process.boot.trust_domain.pep(name), joined.identity.bundle().clone());
    tokio::spawn(proxy.clone().keep(
        joined.identity.clone(),
        process.boot.identity_socket.clone(),
        process.recorder.clone(),
        process.entropy.clone(),
        process.stop.clone(),
    ));
    let point = DecisionPoint::new(Parts {
        views: joined.view.clone(),
        proxy: proxy.clone(),
        uid: settings.uid,
        own_uid: rustix::process::geteuid().as_raw(),
        login: joined.peers(Patience::Call).role("login")?,
        origin: settings.origin,
        limits: settings.limits.limits(),
        recorder: process.recorder.clone(),
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        stop: process.stop.clone(),
    });
    let listener = process.listeners().unix("pep")?;
    process.wait_until_minting(&joined).await?;
    let mut issued = proxy.changed();
    tokio::select! {
        first = issued.wait_for(Option::is_some) => drop(first.map_err(StartError::failed_by)?),
        () = process.stop.cancelled() => return Err(StartError::failed("asked to end before the enforcement point had an SVID")),
    }
    process.ready(None).await;
    point.serve(listener).await.map_err(StartError::failed_by)?;
    process.finish(&joined.identity).await
}
