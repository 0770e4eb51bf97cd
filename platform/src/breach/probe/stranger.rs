//! A stranger: calls the copy's guards with a genuine certificate of a service from which no flow leads there.
//!
//! Nobody of the model comes so far: a sandbox has no way to a service that it has no flow to. The run is the operator of the copy, so that
//! it can have the copy's authority issue what it needs.
//!
//! Guarantees: D4 measured, L13.
//! Not here:   certificates that are not genuine (`breach::nearby`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use breach::Control;
use contract::body;
use contract::control::{SignedView, View};
use evidence::log::Entry;
use identity::{Ca, CaConfig};
use proxy::client::{Address, MeshTransport, Patience};
use proxy::svid::{PendingKey, WorkloadIdentity};
use serde_json::Value;
use tokio::runtime::Handle;
use trust::{Clock, Entropy, KeySealer, Secret, SpiffeId, SystemClock, SystemEntropy, TrustDomain};

use super::Probed;
use crate::system::Layout;

/// Where everybody is, as the views that lie on the copy's disk say.
struct Doors {
    at: BTreeMap<SpiffeId, SocketAddr>,
    /// By service: who may call it.
    callers: BTreeMap<String, Vec<SpiffeId>>,
    domain: TrustDomain,
}

/// Doors that were called with a genuine certificate of somebody who is no caller: by service, as whom.
pub(in crate::breach) type Called = BTreeMap<String, SpiffeId>;

/// Calls every guard as a service that is none of its callers; what each made of it is in its records (`judged`).
pub(in crate::breach) fn as_no_caller(handle: &Handle, dir: &Path, scratch: &Path) -> io::Result<Called> {
    let doors = Doors::read(dir)?;
    let genuine = Authority::of_the_copy(dir, scratch, &doors)?;
    let services: Vec<&SpiffeId> = doors.at.keys().filter(|id| id.as_service().is_some()).collect();
    let mut called = Called::new();
    for (name, callers) in &doors.callers {
        // Nobody calls itself.
        let stranger = services.iter().find(|id| !callers.contains(id));
        let to = services.iter().find(|id| id.as_service() == Some(name));
        if let (Some(stranger), Some(to)) = (stranger, to)
            && answers(handle, &genuine.identity(stranger)?, to, &doors)
        {
            called.insert(name.clone(), (*stranger).clone());
        }
    }
    Ok(called)
}

/// What the guards' records say of calls by strangers.
pub(in crate::breach) fn judged(called: &Called, entries: &[Entry]) -> Vec<Probed> {
    let mut probed = Vec::new();
    for (service, stranger) in called {
        let text = |entry: &Entry, name: &str| entry.record.fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (stranger, own) = (stranger.to_string(), |entry: &&Entry| entry.workload.as_service() == Some(service));
        let about = entries.iter().filter(own).filter(|entry| text(entry, "point") == "guard" && text(entry, "principal") == stranger);
        let reason = |entry: &Entry| entry.record.fields.get("decision")?.get("deny")?.get("reason")?.as_str().map(str::to_owned);
        let reasons: Vec<String> = about.filter_map(reason).collect();
        let stands = reasons.iter().any(|reason| reason == "peer_undeclared");
        let what = match (stands, reasons.first()) {
            (true, _) => "a caller that no flow names is refused".to_owned(),
            (false, Some(other)) => format!("a caller that no flow names is let in, and stopped by what comes next ({other})"),
            (false, None) => continue,
        };
        probed.push(Probed::new(Control::GuardIn, service, stands, what));
    }
    probed
}

impl Doors {
    fn read(dir: &Path) -> io::Result<Self> {
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
}

/// The copy's authority, which issues whatever it is asked for.
struct Authority {
    ca: Ca,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// Its folder, copied once more.
    fn of_the_copy(dir: &Path, scratch: &Path, doors: &Doors) -> io::Result<Self> {
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
    fn identity(&self, id: &SpiffeId) -> io::Result<Arc<WorkloadIdentity>> {
        let key = PendingKey::generate().map_err(io::Error::other)?;
        let issued = self.ca.admit(id, key.csr()).map_err(io::Error::other)?;
        WorkloadIdentity::adopt(&key, &issued, Arc::clone(&self.clock)).map_err(io::Error::other)
    }
}

/// Whether a door answers whoever has this certificate, whatever the answer.
fn answers(handle: &Handle, identity: &Arc<WorkloadIdentity>, to: &SpiffeId, doors: &Doors) -> bool {
    let Some(at) = doors.at.get(to) else { return false };
    let Ok(request) = http::Request::builder().uri("/").body(body::empty()) else { return false };
    let Ok(transport) = MeshTransport::new(identity, to.clone(), Address::Fixed(*at), Patience::Call) else { return false };
    handle.block_on(transport.call(request)).is_ok()
}
