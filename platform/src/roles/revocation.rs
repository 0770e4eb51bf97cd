//! Revocations for the two rooms that decide without a view: `control` and `identity`, which views come from.
//!
//! Everybody else hears of a revocation with the next view. These two follow the trust bundle itself, so that a revoked SVID is refused
//! there at once too, and not only once their own SVID is renewed.
//!
//! Guarantees: C12 in part.

use std::sync::Arc;
use std::time::Duration;

use contract::identity::IdentityClient;
use identity::Ca;
use proxy::bundle::TrustBundle;

/// Pause before `identity` is asked again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Follows `identity`'s bundle; never returns. For `control`.
pub async fn follow(bundle: Arc<TrustBundle>, identity: IdentityClient) {
    let mut known = 0;
    loop {
        match identity.bundle(known).await {
            Ok(newer) => {
                known = newer.sequence;
                bundle.revoke(&newer.revoked);
            }
            // The room follows too, and says why when it cannot.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Follows the authority in the same process; returns when it is gone. For `identity`.
pub async fn follow_own(bundle: Arc<TrustBundle>, ca: Arc<Ca>) {
    let mut changed = ca.watch();
    loop {
        let asked = ca.clone();
        match tokio::task::spawn_blocking(move || asked.bundle()).await {
            Ok(Ok(now)) => bundle.revoke(&now.revoked),
            Ok(Err(error)) => tracing::error!(%error, "identity cannot read its own revocations"),
            Err(error) => tracing::error!(%error, "identity cannot read its own revocations"),
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
