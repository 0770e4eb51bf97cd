//! The `queue` role.

use std::sync::Arc;

use async_trait::async_trait;
use contract::Client;
use contract::queue::{Deliver, Leased};
use contract::txn_token::Minter;
use proxy::client::Patience;
use proxy::enforce::Views;
use proxy::view::Loaded;
use queue::{Dispatcher, Minting, Parts, Queue, Rulebook, Rules};
use trust::{DenyReason, Fault, SpiffeId, TraceContext};

use super::rules::{FromView, MintFromView};
use super::{Serving, serve};
use crate::process::{Peers, Process, StartError};

/// Runs it.
///
/// # Errors
/// `Refused` when its folder cannot be used; `Failed` when something may be gone at the next try.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let parts = Parts {
        folder: process.folder("store")?,
        rules: Arc::new(QueueRules(FromView::new(joined.view.clone(), rulebook))),
        minting: Arc::new(QueueMinting(MintFromView { identity: joined.identity.clone(), view: joined.view.clone() })),
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        recorder: process.recorder.clone(),
    };
    let queue = Queue::open(parts).await.map_err(StartError::refused_by)?;
    let deliver = Arc::new(ToGuards { peers: joined.peers(Patience::Delivery) });
    let (mut changed, stirred) = (joined.view.changed(), queue.clone());
    tokio::spawn(async move {
        while changed.changed().await.is_ok() {
            stirred.stir();
        }
    });
    let dispatcher = tokio::spawn(Dispatcher::new(queue.clone(), deliver).run());
    process.wait_until_minting(&joined).await?;
    process.ready(None).await;
    let serving = Serving { point: "queue", views: Views::Held(joined.view.clone()), operator: false };
    let served = serve(&process, &joined.identity, Arc::new(queue), serving).await;
    // Deliveries under way end unacknowledged and are made again after the next start.
    dispatcher.abort();
    served
}

fn rulebook(loaded: &Arc<Loaded>) -> Rulebook {
    Rulebook { queues: loaded.view.queues.clone(), decide: loaded.engine.policy().clone() }
}

#[derive(Debug)]
struct QueueRules(FromView<Rulebook>);

impl Rules for QueueRules {
    fn current(&self) -> Result<Arc<Rulebook>, DenyReason> {
        self.0.current()
    }
}

#[derive(Debug)]
struct QueueMinting(MintFromView);

impl Minting for QueueMinting {
    fn current(&self) -> Result<Minter, Fault> {
        self.0.minter()
    }
}

/// Hands messages to the consumers' guards.
#[derive(Debug)]
struct ToGuards {
    peers: Arc<Peers>,
}

#[async_trait]
impl Deliver for ToGuards {
    async fn deliver(&self, consumer: &SpiffeId, queue: &str, leased: &Leased, trace: Option<TraceContext>) -> Result<u16, Fault> {
        let transport = self.peers.transport(consumer)?;
        contract::guard::deliver(&Client::new(transport), queue, leased, trace).await
    }
}
