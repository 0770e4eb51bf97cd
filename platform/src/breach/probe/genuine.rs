//! Genuine certificates for the run, which is the operator of its copy: the copy's own authority issues them, and the views on the copy's
//! disk say where everybody is.
//!
//! Guarantees: L13 (what the probes show is what somebody with such a certificate would see).
//! Not here:   certificates that are not genuine (`breach::nearby`), what is done with these (`stranger`, `page`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::control::{SignedView, View};
use identity::{Ca, CaConfig};
use proxy::client::{Address, MeshTransport, Patience};
use proxy::svid::{PendingKey, WorkloadIdentity};
use trust::{Clock, Entropy, KeySealer, Secret, SpiffeId, SystemClock, SystemEntropy, TrustDomain};

use crate::system::Layout;

/// Where everybody is, as the views that lie on the copy's disk say.
pub(super) struct Doors {
    pub(super) at: BTreeMap<SpiffeId, SocketAddr>,
    /// By service: who may call it.
    pub(super) callers: BTreeMap<String, Vec<SpiffeId>>,
    pub(super) domain: TrustDomain,
}

impl Doors {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let (mut at, mut callers, mut domain) = (BTreeMap::new(), BTreeMap::new(), None);
        for entry in fs::read_dir(dir.join("data"))?.flatten() {
            let Ok(text) = fs::read(entry.path().join("view.json")) else { continue };
            let signed: SignedView = serde_json::from_slice(&text)?;
            // Whether it is genuine is of no matter to whoever looks for doors.
            let claims = signed.view.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
            let view: View = serde_json::from_slice(&claims.ok_or(io::ErrorKind::InvalidData)?)?;
            let peers = view.peers.iter().filter_map(|(id, all)| Some((id.clone(), all.first()?.parse::<SocketAddr>().ok()?)));
            at.extend(peers);
            if let Some(service) = view.subject.as_service() {
                callers.insert(service.to_owned(), view.callers.iter().cloned().collect());
            }
            domain = Some(view.trust_domain);
        }
        let domain = domain.ok_or_else(|| io::Error::other("nobody of the copy has a view"))?;
        Ok(Self { at, callers, domain })
    }

    /// The way to a door, as whoever this certificate names.
    pub(super) fn way(&self, identity: &Arc<WorkloadIdentity>, to: &SpiffeId) -> io::Result<Arc<MeshTransport>> {
        let at = self.at.get(to).ok_or_else(|| io::Error::other(format!("no view says where {to} is")))?;
        MeshTransport::new(identity, to.clone(), Address::Fixed(*at), Patience::Call).map_err(io::Error::other)
    }
}

/// The copy's authority, which issues whatever it is asked for.
pub(super) struct Authority {
    ca: Ca,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// Its folder, copied once more.
    pub(super) fn of_the_copy(dir: &Path, scratch: &Path, doors: &Doors) -> io::Result<Self> {
        let key = fs::read_to_string(dir.join("keys/identity.key"))?;
        let key = hex::decode(key.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let folder = scratch.join("authority");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(Layout { dir: dir.to_path_buf() }.data("identity").join("ca"))?.flatten() {
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (SystemClock::shared(), SystemEntropy::shared());
        let key = Secret::new(key.ok_or(io::ErrorKind::InvalidData)?);
        // Of a copy whose keys lie open it takes those as well.
        let sealer = KeySealer::new("identity", &key, Arc::clone(&entropy)).map_err(io::Error::other)?.dangerous_unsealed();
        let trust_domain = doors.domain.clone();
        let ca = Ca::open(CaConfig { folder, trust_domain, sealer, svid_life_s: 600, clock: Arc::clone(&clock), entropy });
        Ok(Self { ca: ca.map_err(io::Error::other)?, clock })
    }

    /// A certificate of this name.
    pub(super) fn identity(&self, id: &SpiffeId) -> io::Result<Arc<WorkloadIdentity>> {
        let key = PendingKey::generate().map_err(io::Error::other)?;
        let issued = self.ca.admit(id, key.csr()).map_err(io::Error::other)?;
        WorkloadIdentity::adopt(&key, &issued, Arc::clone(&self.clock)).map_err(io::Error::other)
    }
}
