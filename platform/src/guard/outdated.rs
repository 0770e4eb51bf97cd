//! When a view says something new of the service that its sandbox cannot take while it runs: the supervisor is asked for a fresh run.
//!
//! Routes, websockets, queues, faults, health checks and the details of destinations are read from the view at each request and need none; programs, files, limits and flows are what a
//! sandbox is built of.
//!
//! Guarantees: M9 (this half; the other is `supervisor::child`).

use std::sync::Arc;

use contract::control::ServiceProfile;
use proxy::view::ViewHolder;

use crate::process::Process;

/// Watches until the process is to drain. Each new profile is told once.
pub(super) async fn watch(process: Arc<Process>, views: Arc<ViewHolder>, started: ServiceProfile) {
    let started = built_in(started);
    let mut told = started.clone();
    let mut changed = views.changed();
    loop {
        let now = views.fresh().ok().and_then(|loaded| loaded.view.service.clone()).map(built_in);
        if let Some(now) = now.filter(|now| *now != told) {
            if now != started {
                process.outdated(now.artefacts.clone()).await;
            }
            told = now;
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = process.stop.cancelled() => return,
        }
    }
}

/// What of a profile is built into a sandbox.
fn built_in(mut profile: ServiceProfile) -> ServiceProfile {
    profile.routes.clear();
    profile.websockets.clear();
    profile.consumes.clear();
    profile.faults.clear();
    profile.health = None;
    // How a destination outside is reached is read from the view with each call.
    profile.outbound.iter_mut().for_each(|flow| (flow.routes, flow.outside) = (Vec::new(), None));
    profile
}
