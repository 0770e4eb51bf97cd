//! The roles: how each service crate becomes a process. One file each, and nothing in them but putting parts together.

pub mod control;
pub mod edge;
pub mod evidence;
pub mod identity;
pub mod login;
pub mod objects;
pub mod queue;
pub mod revocation;
pub mod rules;

use std::sync::Arc;

use breach::Control;
use contract::Room;
use proxy::enforce::{Enforcement, Views};
use proxy::svid::WorkloadIdentity;
use serde::{Deserialize, Serialize};
use trust::KeySealer;

use crate::process::{Process, StartError, peer_pidfd};

/// Settings of a role that only has to know the public address.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginSettings {
    /// `https://HOST[:PORT]`.
    pub origin: String,
}

/// How a room is served.
pub struct Serving {
    /// The role's name, in records.
    pub point: &'static str,
    /// Where its decisions come from.
    pub views: Views,
    /// Whether it has an operator's socket.
    pub operator: bool,
}

/// Seals what a role keeps.
///
/// # Errors
/// `Refused` when the supervisor passed no key for it.
pub fn sealer(process: &Process, realm: &str) -> Result<KeySealer, StartError> {
    let sealer = KeySealer::new(realm, &process.sealing_key()?, process.entropy.clone()).map_err(StartError::refused_by)?;
    Ok(if process.goes_without(Control::Sealing) { sealer.dangerous_unsealed() } else { sealer })
}

/// Serves `room` on the mesh, and on its operator's socket if it has one, until the process is to end.
///
/// # Errors
/// `Failed` when a listener cannot be used.
pub async fn serve(
    process: &Arc<Process>,
    identity: &Arc<WorkloadIdentity>,
    room: Arc<dyn Room>,
    serving: Serving,
) -> Result<(), StartError> {
    let bundle = Some(identity.bundle().clone());
    let enforcement = Enforcement::new(room, serving.point, process.recorder.clone(), process.clock.clone(), bundle, serving.views);
    let dangerous = process.goes_without(Control::Role);
    let enforcement = Arc::new(if dangerous { enforcement.dangerous_without_roles() } else { enforcement });
    let mesh = process.listeners().tcp("mesh")?;
    let mesh = proxy::serve::mesh(enforcement.clone(), identity, mesh, process.stop.clone());
    let served = if serving.operator {
        let socket = process.listeners().unix("operator")?;
        let operator = proxy::serve::operator(enforcement, socket, peer_pidfd, process.stop.clone());
        tokio::try_join!(mesh, operator).map(|((), ())| ())
    } else {
        mesh.await
    };
    served.map_err(StartError::failed_by)?;
    process.finish(identity).await
}
