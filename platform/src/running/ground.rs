//! What tests of a running mesh stand on: a real authority behind its UNIX socket, the real `control` behind its mTLS listener, and
//! workloads with SVIDs that hold its views.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ::control::{Control, ControlConfig};
use ::identity::{Ca, CaConfig, Identity};
use contract::control::Apply;
use contract::identity::IdentityClient;
use contract::{Client, LocalPeer, Room, body};
use manifest::{Lock, Manifest, Search};
use proxy::bundle::PeerSvid;
use proxy::client::{Address, IdentityTransport, MeshTransport, Patience};
use proxy::enforce::{Enforcement, Proof, Views};
use proxy::svid::{PendingKey, WorkloadIdentity};
use proxy::view::{ViewHolder, subscribe};
use telemetry::{AuditLost, Metrics, NewRecord, NewSpan, Recorder, Sink};
use tokio_util::sync::CancellationToken;
use trust::{Clock, Digest, KeySealer, Secret, SpiffeId, SystemEntropy, TrustDomain, limits};

use crate::coverage::door::Signer;
use crate::roles::revocation;

/// Keeps nothing, so that memory shows what the code itself keeps.
#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn audit(&self, _record: NewRecord<'_>) -> Result<(), AuditLost> {
        Ok(())
    }
    fn span(&self, _span: NewSpan<'_>) {}
}

/// All of it.
pub struct Ground {
    pub domain: TrustDomain,
    pub ca: Arc<Ca>,
    pub control: Arc<Enforcement>,
    pub control_at: SocketAddr,
    pub own: Arc<WorkloadIdentity>,
    /// `identity`'s own, which nobody renews but who holds the authority.
    pub authority: Arc<WorkloadIdentity>,
    /// `identity`'s socket.
    pub socket: PathBuf,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub stop: CancellationToken,
    search: Search,
    _folder: tempfile::TempDir,
}

fn sealer(realm: &str) -> KeySealer {
    KeySealer::new(realm, &Secret::new([7; 32]), SystemEntropy::shared()).unwrap()
}

fn applied(text: String, search: &Search) -> Apply {
    let parsed = Manifest::parse("palisade.toml", &text).unwrap_or_else(|error| panic!("{error:?}"));
    let lock = Lock::create(&parsed, &BTreeMap::new(), search, Digest::of(b"palisade")).unwrap().to_toml();
    Apply { manifest: text, policies: BTreeMap::new(), lock }
}

/// An SVID as a handshake would give it.
pub fn svid(identity: &WorkloadIdentity) -> PeerSvid {
    let (not_before_s, not_after_s) = identity.life_s();
    PeerSvid { id: identity.id().clone(), not_before_s, not_after_s }
}

fn admitted(ca: &Ca, id: &SpiffeId, clock: &Arc<dyn Clock>) -> Arc<WorkloadIdentity> {
    let key = PendingKey::generate().unwrap();
    let issued = ca.admit(id, key.csr()).unwrap();
    WorkloadIdentity::adopt(&key, &issued, clock.clone()).unwrap()
}

impl Ground {
    /// `identity` and `control` under this manifest (its programs are all `./prog`); SVIDs live for `svid_life_s`. `after_ca` is called
    /// between the authority's making and everything else.
    pub async fn open(text: String, clock: Arc<dyn Clock>, svid_life_s: u64, after_ca: impl FnOnce()) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { folder.path().join(name) };
        std::fs::create_dir_all(at("app")).unwrap();
        std::fs::write(at("app").join("prog"), "prog").unwrap();
        let search = Search { folder: at("app"), bin: None };
        let parsed = Manifest::parse("palisade.toml", &text).unwrap_or_else(|error| panic!("{error:?}"));
        let domain = parsed.trust_domain.clone();
        let entropy = SystemEntropy::shared();
        let recorder = Recorder::new(Arc::new(Nowhere), clock.clone(), entropy.clone(), Arc::new(Metrics::new()));
        let config = CaConfig {
            folder: at("ca"),
            trust_domain: domain.clone(),
            sealer: sealer("identity"),
            svid_life_s,
            clock: clock.clone(),
            entropy: entropy.clone(),
        };
        let ca = Arc::new(Ca::open(config).unwrap());
        after_ca();
        let (own, authority) = (admitted(&ca, &domain.role("control"), &clock), admitted(&ca, &domain.role("identity"), &clock));
        let stop = CancellationToken::new();
        let room = Arc::new(Identity::new(ca.clone(), recorder.clone(), clock.clone()));
        let bundle = Some(authority.bundle().clone());
        let identity = Arc::new(Enforcement::new(room, "identity", recorder.clone(), clock.clone(), bundle, Views::Unneeded));
        tokio::spawn(revocation::follow_own(authority.bundle().clone(), ca.clone()));
        let socket = at("identity.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (serving, until) = (authority.clone(), stop.clone());
        tokio::spawn(async move { proxy::serve::joining(identity, &serving, listener, |_| None, until).await });
        let client = IdentityClient(Client::new(IdentityTransport::new(socket.clone(), own.bundle(), Some(&own)).unwrap()));

        let config = ControlConfig {
            folder: at("epochs"),
            sealer: sealer("control"),
            search: search.clone(),
            palisade: Digest::of(b"palisade"),
            addresses: parsed.services.keys().map(|name| (domain.service(name), vec!["127.0.0.1:9".to_owned()])).collect(),
            age_s_max: limits::VIEW_AGE_S_MAX,
            start: applied(text, &search),
        };
        let parts = ::control::Parts {
            signer: Arc::new(Signer(own.clone())),
            identity: client.clone(),
            recorder: recorder.clone(),
            clock: clock.clone(),
        };
        let room = tokio::task::spawn_blocking(move || Control::open(config, parts)).await.unwrap().unwrap();
        let follower = room.clone();
        tokio::spawn(async move { follower.follow_identity().await });
        tokio::spawn(revocation::follow(own.bundle().clone(), client));
        let bundle = Some(own.bundle().clone());
        let room: Arc<dyn Room> = Arc::new(room);
        let control = Arc::new(Enforcement::new(room, "control", recorder.clone(), clock.clone(), bundle, Views::Unneeded));
        let listener = proxy::listen::loopback().unwrap();
        let control_at = listener.local_addr().unwrap();
        let (served, serving, until) = (control.clone(), own.clone(), stop.clone());
        tokio::spawn(async move { proxy::serve::mesh(served, &serving, listener, until).await });
        Self { domain, ca, control, control_at, own, authority, socket, recorder, clock, stop, search, _folder: folder }
    }

    /// A workload with an SVID.
    pub fn admitted(&self, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        admitted(&self.ca, id, &self.clock)
    }

    /// A way from a workload to `control`.
    pub fn to_control(&self, identity: &Arc<WorkloadIdentity>) -> Arc<MeshTransport> {
        MeshTransport::new(identity, self.domain.role("control"), Address::Fixed(self.control_at), Patience::Call).unwrap()
    }

    /// A workload that holds the views that `control` sends.
    pub fn subscribed(&self, identity: Arc<WorkloadIdentity>) -> Arc<ViewHolder> {
        let transport = self.to_control(&identity);
        let holder = ViewHolder::open(identity, self.recorder.clone(), None);
        tokio::spawn(subscribe(holder.clone(), transport, SystemEntropy::shared(), self.stop.clone()));
        holder
    }

    /// What the operator's command asks of `control`.
    pub async fn operate(&self, path: &str, question: &impl serde::Serialize) -> serde_json::Value {
        let request = http::Request::post(path)
            .header(http::header::HOST, "control")
            .body(body::full(serde_json::to_vec(question).unwrap()))
            .unwrap();
        let operator = Proof::Operator(LocalPeer { uid: 1, pid: 1, pidfd: None });
        let answer = self.control.answer(&operator, request).await;
        let status = answer.status();
        let said = body::collect(answer.into_body(), 1 << 20).await.unwrap();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&said));
        serde_json::from_slice(&said).unwrap()
    }

    /// Applies a manifest; its epoch.
    pub async fn apply(&self, text: String) -> u64 {
        self.operate("/apply", &applied(text, &self.search)).await["epoch"].as_u64().unwrap()
    }
}
