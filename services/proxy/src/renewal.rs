//! Joining and renewing: how this process gets its SVID and keeps it.
//!
//! Both go over `identity`'s UNIX socket inside TLS. While joining there is no SVID of ours yet, but the roots came from the supervisor,
//! so the token is told only to the real `identity`.
//!
//! Spec:       SPIFFE X509-SVID; RFC 2986.
//! Guarantees: C7 join token, server authenticated first; C9 renewed at half of its life; `identity` may be away until the SVID ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::identity::{Artefact, IdentityClient, Join, Renew};
use contract::transport::Client;
use telemetry::Recorder;
use telemetry::event::{ActDone, FaultRaised};
use tokio_util::sync::CancellationToken;
use trust::{Clock, Entropy, Fault, FaultKind, Secret, SpiffeId};

use crate::bundle::{BundleError, TrustBundle};
use crate::client::IdentityTransport;
use crate::limits;
use crate::pause::{Backoff, jittered};
use crate::svid::{PendingKey, SvidError, WorkloadIdentity};

/// What a process was started with.
#[derive(Debug)]
pub struct Invitation {
    /// Who it is to be.
    pub spiffe_id: SpiffeId,
    /// `identity`'s socket.
    pub socket: PathBuf,
    /// The single-use token.
    pub token: Secret<String>,
    /// Root certificates, handed in by the supervisor; DER, base64.
    pub roots: Vec<String>,
    /// What a guard measured of its service's artefacts; empty for a role.
    pub artefacts: Vec<Artefact>,
}

/// Why a process has no SVID.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// `identity` could not be reached, or refused.
    #[error("identity gave no SVID: {0}")]
    Identity(#[source] Fault),
    /// What it gave is not usable.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The supervisor's roots are not usable.
    #[error(transparent)]
    Roots(#[from] BundleError),
}

/// How keeping an SVID ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The process drains.
    Stopped,
    /// The SVID ended before it could be renewed: only a new start with a new token helps.
    Ended,
}

/// Joins. `identity` may be starting at the same time, so not being reachable is no reason to give up at once; a refusal is.
///
/// # Errors
/// See `JoinError`.
pub async fn join(invitation: Invitation, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<WorkloadIdentity>, JoinError> {
    let bundle = TrustBundle::new(invitation.spiffe_id.trust_domain.clone(), &invitation.roots, Arc::clone(&clock))?;
    let transport = IdentityTransport::new(invitation.socket, &bundle, None).map_err(JoinError::Identity)?;
    let client = IdentityClient(Client::new(transport));
    let key = PendingKey::generate()?;
    let request = Join { token: invitation.token.expose().clone(), csr: key.csr().to_owned(), artefacts: invitation.artefacts };
    let mut backoff = Backoff::new(limits::RENEW_RETRY_MS, 1_000, entropy);
    let mut attempts = 0;
    loop {
        match client.join(&request).await {
            Ok(issued) if issued.spiffe_id == invitation.spiffe_id => return Ok(WorkloadIdentity::adopt(&key, &issued, clock)?),
            Ok(issued) => return Err(SvidError::Stranger(issued.spiffe_id).into()),
            Err(fault) if !may_come_back(&fault) || attempts >= limits::JOIN_ATTEMPTS_MAX => return Err(JoinError::Identity(fault)),
            Err(_) => attempts += 1,
        }
        backoff.pause().await;
    }
}

/// Keeps `identity` renewed at half of each SVID's life (a little earlier, at random), until `stop` or until it could not be.
pub async fn keep(
    identity: Arc<WorkloadIdentity>,
    socket: PathBuf,
    recorder: Recorder,
    entropy: Arc<dyn Entropy>,
    stop: CancellationToken,
) -> Kept {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Kept::Stopped,
            () = half_life(&identity, &*entropy) => {}
        }
        let renewed = tokio::select! {
            () = stop.cancelled() => return Kept::Stopped,
            renewed = renew(&identity, &socket, &recorder, &entropy) => renewed,
        };
        if !renewed {
            return Kept::Ended;
        }
    }
}

async fn half_life(identity: &WorkloadIdentity, entropy: &dyn Entropy) {
    half_of(identity.life_s(), &**identity.bundle().clock(), entropy).await;
}

/// Waits for about half of that life (its start and end, seconds since the epoch).
pub(crate) async fn half_of((from, to): (u64, u64), clock: &dyn Clock, entropy: &dyn Entropy) {
    let half_ms = to.saturating_sub(from).saturating_mul(500);
    // Between 90 % and 100 % of the half, so that a fleet started at once does not renew at once.
    let early_ms = jittered(half_ms / 10, entropy);
    let at_ms = from.saturating_mul(1000).saturating_add(half_ms).saturating_sub(early_ms);
    // In steps, because a timer stands still while the machine sleeps and the SVID's end does not.
    loop {
        let left_ms = at_ms.saturating_sub(clock.unix_ms());
        if left_ms == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left_ms.min(limits::RENEW_LOOK_MS))).await;
    }
}

/// Renews once, however often it has to ask; whether that worked before the SVID ended.
async fn renew(identity: &Arc<WorkloadIdentity>, socket: &std::path::Path, recorder: &Recorder, entropy: &Arc<dyn Entropy>) -> bool {
    let mut backoff = Backoff::new(limits::RENEW_RETRY_MS, limits::RENEW_RETRY_MS_MAX, Arc::clone(entropy));
    let mut told = false;
    while identity.bundle().clock().unix_s() < identity.life_s().1 {
        match renew_once(identity, socket).await {
            Ok(()) => {
                let (_, until_s) = identity.life_s();
                let act = ActDone {
                    act: "svid.renewed",
                    by: identity.id().to_string(),
                    to: identity.id().to_string(),
                    detail: format!("until {until_s}"),
                };
                // The SVID is in use already; `identity` has its own record of having issued it.
                let _recorded = recorder.record(None, &act);
                return true;
            }
            Err(error) if !told => {
                told = true;
                let _recorded =
                    recorder.record(None, &FaultRaised { point: "svid", action: "identity.renew".to_owned(), cause: error.to_string() });
            }
            Err(_) => {}
        }
        backoff.pause().await;
    }
    false
}

/// Asks once.
///
/// # Errors
/// See `JoinError`.
pub async fn renew_once(identity: &Arc<WorkloadIdentity>, socket: &std::path::Path) -> Result<(), JoinError> {
    let transport = IdentityTransport::new(socket.to_owned(), identity.bundle(), Some(identity)).map_err(JoinError::Identity)?;
    let key = PendingKey::generate()?;
    let request = Renew { csr: key.csr().to_owned() };
    let issued = IdentityClient(Client::new(transport)).renew(&request).await.map_err(JoinError::Identity)?;
    Ok(identity.renewed(&key, &issued)?)
}

fn may_come_back(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Unavailable | FaultKind::Broken | FaultKind::TimedOut)
}
