//! The rig's world: what `identity` and `control` make in `palisade up`, made here from one key file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::control::{Outbound, ServiceLimits, ServiceProfile, SignedView, VIEW_TYP, View};
use contract::identity::{Bundle, Issued};
use contract::signing::AuthorityKey;
use contract::txn_token::Verifier;
use manifest::Manifest;
use proxy::bundle::PeerSvid;
use proxy::svid::{PendingKey, WorkloadIdentity};
use proxy::view::ViewHolder;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use telemetry::Recorder;
use trust::{Authority, SpiffeId, SystemClock, TrustDomain};

const SYSTEM: &str = r#"
[system]
name = "bench"
trust_domain = "bench.local"
purposes = ["order"]

[data.order]
sensitivity = 2

[service.app]
owner = "bench"
run = ["./app"]
data = "order"
public = [{ path = "/", methods = ["GET"], purpose = "order", scope = "orders:read" }]

[service.front]
owner = "bench"
run = ["./front"]
data = "order"
public = [{ path = "/begin", methods = ["GET"], purpose = "order" }]
calls = ["service.app:GET /"]

[service.stranger]
owner = "bench"
run = ["./stranger"]
"#;

struct Ca {
    key: KeyPair,
    params: CertificateParams,
    root: String,
}

impl Ca {
    fn of(pem: &str) -> Self {
        let key = KeyPair::from_pem(pem).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bench root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(1_u64.into());
        let root = STANDARD.encode(params.self_signed(&key).unwrap().der());
        Self { key, params, root }
    }
}

pub struct World {
    domain: TrustDomain,
    manifest: Manifest,
    policies: policy::Bundle,
    ca: Ca,
    rogue: Ca,
}

impl World {
    /// Makes the key files that the processes of a run share.
    pub fn make(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["ca", "rogue"] {
            std::fs::write(folder.join(name), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        }
    }

    pub fn open(folder: &Path) -> Self {
        let manifest = Manifest::parse("bench.toml", SYSTEM).unwrap_or_else(|error| panic!("{error:?}"));
        let policies = policy::Bundle::build(&manifest, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
        let ca = |name: &str| Ca::of(&std::fs::read_to_string(folder.join(name)).unwrap());
        Self { domain: manifest.trust_domain.clone(), manifest, policies, ca: ca("ca"), rogue: ca("rogue") }
    }

    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    pub fn identity(&self, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        self.issue(&self.ca, id)
    }

    /// The identity that the rig's names stand for: `gateway` is `id`, `evil` a declared stranger, `rogue` is `id` by another authority.
    pub fn identity_as(&self, name: &str, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        match name {
            "gateway" => self.identity(id),
            "evil" => self.identity(&self.domain.service("stranger")),
            "rogue" => self.issue(&self.rogue, id),
            other => panic!("no identity {other}"),
        }
    }

    fn issue(&self, ca: &Ca, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        let pending = PendingKey::generate().unwrap();
        let mut request = CertificateSigningRequestParams::from_der(&STANDARD.decode(pending.csr()).unwrap().into()).unwrap();
        let now = time::OffsetDateTime::now_utc();
        request.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        request.params.not_before = now - time::Duration::minutes(5);
        request.params.not_after = now + time::Duration::hours(1);
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = request.signed_by(&Issuer::from_params(&ca.params, &ca.key)).unwrap();
        let roots = BTreeSet::from([self.ca.root.clone(), ca.root.clone()]).into_iter().collect();
        let bundle = Bundle { sequence: 1, roots, authority_keys: Vec::new(), revoked: Vec::new() };
        let not_after_s = SystemClock::shared().unix_s() + 3600;
        let issued = Issued { spiffe_id: id.clone(), chain: vec![STANDARD.encode(leaf.der())], not_after_s, bundle };
        WorkloadIdentity::adopt(&pending, &issued, SystemClock::shared()).unwrap()
    }

    /// A certificate under the world's authority and its key, for targets that read files; with `names` besides the SPIFFE ID.
    pub fn pem(&self, id: &SpiffeId, names: &[String]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        // nginx reads the subject alone.
        params.distinguished_name.push(DnType::CommonName, id.to_string());
        params.subject_alt_names.push(SanType::URI(id.to_string().try_into().unwrap()));
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::minutes(5);
        params.not_after = now + time::Duration::hours(12);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.ca.params, &self.ca.key)).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The certificate of the world's authority.
    pub fn root_pem(&self) -> String {
        self.ca.params.self_signed(&self.ca.key).unwrap().pem()
    }

    /// A view for that workload, whose minters are `minting`.
    pub fn view(&self, identity: &WorkloadIdentity, minting: Vec<&Arc<WorkloadIdentity>>) -> View {
        let key = |owner: &&Arc<WorkloadIdentity>| {
            let key = owner.signing_key();
            AuthorityKey { kid: key.kid().into(), owner: owner.id().clone(), public: key.public().clone(), not_after_s: owner.life_s().1 }
        };
        View {
            subject: identity.id().clone(),
            system: "bench".into(),
            trust_domain: self.domain.clone(),
            manifest: self.manifest.digest(),
            epoch: 1,
            issued_at_ms: SystemClock::shared().unix_ms(),
            age_s_max: 3600,
            policy: serde_json::to_value(policy::slice_for(&identity.id().workload, &self.policies).unwrap()).unwrap(),
            roots: vec![self.ca.root.clone()],
            authority_keys: minting.iter().map(key).collect(),
            revoked: Vec::new(),
            callers: BTreeSet::new(),
            contained: false,
            peers: BTreeMap::new(),
            service: None,
            edge: None,
            pep: None,
            buckets: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    pub fn holder(&self, identity: &Arc<WorkloadIdentity>, recorder: &Recorder, view: &View) -> Arc<ViewHolder> {
        let (key, chain) = self.identity(&self.domain.role("control")).signing_key_and_chain();
        let holder = ViewHolder::open(Arc::clone(identity), recorder.clone(), None);
        holder.accept(&SignedView { view: key.sign(VIEW_TYP, &chain, view).unwrap() }).unwrap();
        holder
    }

    /// What a connection of that workload would have proved.
    pub fn peer(&self, identity: &WorkloadIdentity) -> PeerSvid {
        let (_, chain) = identity.signing_key_and_chain();
        let leaf = rustls_pki_types(chain.first().unwrap());
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(SystemClock::shared().unix_s()));
        identity.bundle().verify(&leaf, &[], proxy::bundle::Usage::Client, now).unwrap()
    }

    /// A transaction token of a person, for the length of a run.
    pub fn token(&self, minting: &Arc<WorkloadIdentity>, keys: &[AuthorityKey]) -> String {
        let authority = Authority {
            txn: "bench".into(),
            user: "user-1234".into(),
            purpose: "order".into(),
            scopes: BTreeSet::from(["orders:read".to_owned()]),
            roles: BTreeSet::new(),
            step_up: false,
            job: None,
        };
        let minter = minting.minter(&Verifier::new(self.domain.clone(), keys)).unwrap();
        minter.mint(&authority, 3600, &*SystemClock::shared()).unwrap()
    }
}

fn rustls_pki_types(der: &[u8]) -> rustls::pki_types::CertificateDer<'static> {
    rustls::pki_types::CertificateDer::from(der.to_vec())
}

/// Tells the next hop whose tokens count: `control` does it in the product.
pub fn publish_authority(file: Option<&String>, keys: &[AuthorityKey]) {
    let Some(file) = file else { return };
    let unfinished = format!("{file}.new");
    std::fs::write(&unfinished, serde_json::to_vec(keys).unwrap()).unwrap();
    std::fs::rename(unfinished, file).unwrap();
}

pub async fn await_authority(file: &str) -> Vec<AuthorityKey> {
    for _ in 0..2000 {
        if let Ok(keys) = serde_json::from_slice(&std::fs::read(file).unwrap_or_default()) {
            return keys;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the first hop did not say whose tokens count")
}

pub fn profile(name: &str, routes: &[&str], outbound: Vec<Outbound>) -> ServiceProfile {
    ServiceProfile {
        name: name.into(),
        run: vec![format!("/{name}")],
        artefacts: Vec::new(),
        tools: Vec::new(),
        read: Vec::new(),
        state: false,
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        consumes: Vec::new(),
        websockets: Vec::new(),
        protocol: contract::control::Protocol::Http,
        outbound,
        faults: Vec::new(),
        health: None,
        isolation: "full".into(),
        bwrap: false,
        syscalls: None,
        fresh_per_job: false,
        limits: ServiceLimits {
            memory_bytes: 0,
            cpu: 0.0,
            pids: 0,
            files: 0,
            file_bytes: 0,
            tmp_bytes: 0,
            state_bytes: 0,
            wall_s: 0,
            concurrency: 10_000,
        },
        replicas_min: 1,
        replicas_max: 1,
        idle_stop_s: 0,
    }
}
