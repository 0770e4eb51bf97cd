//! The `objects` role.

use std::sync::Arc;

use contract::queue::QueueClient;
use objects::{FREE_BYTES_MIN, Messenger, Objects, Parts, Rulebook, Rules};
use proxy::client::Patience;
use proxy::enforce::Views;
use proxy::view::Loaded;
use trust::DenyReason;

use super::rules::FromView;
use super::{OriginSettings, Serving, serve};
use crate::process::{Process, StartError};

/// Runs it.
///
/// # Errors
/// `Refused` when its folder cannot be used; `Failed` otherwise.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: OriginSettings = process.settings()?;
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let parts = Parts {
        folder: process.folder("store")?,
        free_bytes_min: FREE_BYTES_MIN,
        origin: settings.origin,
        rules: Arc::new(ObjectRules(FromView::new(joined.view.clone(), rulebook))),
        queue: QueueClient(joined.peers(Patience::Call).role("queue")?),
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        recorder: process.recorder.clone(),
    };
    let opened = if process.goes_without(breach::Control::Lease) {
        Objects::dangerous_open_without_leases(parts).await
    } else {
        Objects::open(parts).await
    };
    let objects = opened.map_err(StartError::refused_by)?;
    let messenger = tokio::spawn(Messenger::new(objects.clone()).run());
    process.ready(None).await;
    let serving = Serving { point: "objects", views: Views::Held(joined.view.clone()), operator: false };
    let served = serve(&process, &joined.identity, Arc::new(objects), serving).await;
    // What was not told yet is in the outbox and is told after the next start.
    messenger.abort();
    served
}

fn rulebook(loaded: &Arc<Loaded>) -> Rulebook {
    Rulebook { buckets: loaded.view.buckets.clone(), decide: loaded.engine.policy().clone() }
}

#[derive(Debug)]
struct ObjectRules(FromView<Rulebook>);

impl Rules for ObjectRules {
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason> {
        self.0.current()
    }
}
