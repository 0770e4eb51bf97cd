//! Ways to peers over the mesh.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contract::Transport;
use trust::{Fault, SpiffeId};

use crate::client::{Address, MeshTransport, Patience};
use crate::view::ViewHolder;

/// Ways to the peers that the edge may call: services' guards and the roles `login`, `objects` and `evidence`.
pub trait Peers: Send + Sync + std::fmt::Debug + 'static {
    /// The way to that workload, whose identity it verifies. Calls are refused while the view names no such peer.
    ///
    /// # Errors
    /// When there can be none.
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault>;
}

/// Peers by mutual TLS, at the addresses that the view says.
#[derive(Debug)]
pub struct MeshPeers {
    views: Arc<ViewHolder>,
    made: Mutex<HashMap<SpiffeId, Arc<dyn Transport>>>,
}

impl MeshPeers {
    /// None yet; each is made when it is first called.
    #[must_use]
    pub fn new(views: Arc<ViewHolder>) -> Arc<Self> {
        Arc::new(Self { views, made: Mutex::default() })
    }
}

impl Peers for MeshPeers {
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = made.get(peer) {
            return Ok(Arc::clone(transport));
        }
        let address = Address::Viewed(Arc::clone(&self.views));
        let transport: Arc<dyn Transport> = MeshTransport::new(self.views.identity(), peer.clone(), address, Patience::Call)?;
        made.insert(peer.clone(), Arc::clone(&transport));
        Ok(transport)
    }
}
