//! The SVID of the enforcement point: asked for by its decision point, kept renewed, and handed on.
//!
//! Its key leaves this process, so it is no key of this process: it signs no tokens, and is not what `control`, `evidence` or `login` know
//! the decision point by. Whoever takes it out of the proxy may call what the proxy may call, until it ends or is revoked.
//!
//! Spec:       SPIFFE X509-SVID.
//! Guarantees: C9 renewed at half of its life; C12 without a good one nothing is decided and nothing handed on.
//! Not here:   how it travels (`discovery`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::identity::{IdentityClient, Issued, Renew};
use contract::transport::Client;
use rustls::pki_types::{CertificateDer, UnixTime};
use telemetry::Recorder;
use telemetry::event::FaultRaised;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trust::{DenyReason, Digest, Entropy, Fault, Secret, SpiffeId};

use crate::bundle::{PeerSvid, TrustBundle, Usage};
use crate::client::IdentityTransport;
use crate::pause::Backoff;
use crate::renewal::half_of;
use crate::svid::{PendingKey, SvidError, WorkloadIdentity};
use crate::{limits, renewal};

/// Characters of a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Key and chain of an enforcement point.
#[derive(Debug)]
pub struct ProxySvid {
    /// As its peers see it.
    pub peer: PeerSvid,
    /// The chain without the root, leaf first: PEM.
    pub chain: String,
    /// Its key: PKCS #8, PEM.
    pub key: Secret<String>,
    /// Names this one.
    pub digest: Digest,
}

/// The identity of an enforcement point, as its decision point holds it.
#[derive(Debug)]
pub struct ProxyIdentity {
    id: SpiffeId,
    bundle: Arc<TrustBundle>,
    current: watch::Sender<Option<Arc<ProxySvid>>>,
}

impl ProxyIdentity {
    /// Of `id`, without an SVID yet.
    #[must_use]
    pub fn new(id: SpiffeId, bundle: Arc<TrustBundle>) -> Arc<Self> {
        Arc::new(Self { id, bundle, current: watch::Sender::new(None) })
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Hears of each SVID.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Option<Arc<ProxySvid>>> {
        self.current.subscribe()
    }

    /// Its SVID, while its peers would take it.
    ///
    /// # Errors
    /// `SvidExpired` when there is none, or none any more; `SvidRevoked`.
    pub fn standing(&self) -> Result<Arc<ProxySvid>, DenyReason> {
        let svid = self.current.borrow().clone().ok_or(DenyReason::SvidExpired)?;
        self.bundle.still_good(&svid.peer)?;
        Ok(svid)
    }

    /// Takes what was issued for `key`.
    ///
    /// # Errors
    /// See `SvidError`; then the present one stays.
    pub fn adopt(&self, key: &PendingKey, issued: &Issued) -> Result<(), SvidError> {
        if issued.spiffe_id != self.id {
            return Err(SvidError::Stranger(issued.spiffe_id.clone()));
        }
        let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from).map_err(|_| SvidError::Chain);
        let chain = issued.chain.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let (leaf, rest) = chain.split_first().ok_or(SvidError::Chain)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.bundle.clock().unix_s()));
        let peer = self.bundle.verify(leaf, rest, Usage::Client, now)?;
        if peer.id != self.id {
            return Err(SvidError::Stranger(peer.id));
        }
        let digest = Digest::of(leaf);
        let key = Secret::new(pem("PRIVATE KEY", key.pkcs8().expose()));
        let chain = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        self.current.send_replace(Some(Arc::new(ProxySvid { peer, chain, key, digest })));
        Ok(())
    }

    /// Asks for the first one, and for the next at half of each one's life, until `stop`. While `identity` is away or refuses it asks
    /// again.
    pub async fn keep(
        self: Arc<Self>,
        ours: Arc<WorkloadIdentity>,
        socket: PathBuf,
        recorder: Recorder,
        entropy: Arc<dyn Entropy>,
        stop: CancellationToken,
    ) {
        let asking = async {
            let mut backoff = Backoff::new(limits::RENEW_RETRY_MS, limits::RENEW_RETRY_MS_MAX, Arc::clone(&entropy));
            let mut told = false;
            loop {
                match self.ask(&ours, &socket).await {
                    Ok(()) => {
                        (told, backoff) = (false, Backoff::new(limits::RENEW_RETRY_MS, limits::RENEW_RETRY_MS_MAX, Arc::clone(&entropy)));
                        let life = self.current.borrow().as_ref().map(|svid| (svid.peer.not_before_s, svid.peer.not_after_s));
                        half_of(life.unwrap_or_default(), &**self.bundle.clock(), &*entropy).await;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            let raised =
                                FaultRaised { point: super::POINT, action: "identity.pep.issue".to_owned(), cause: error.to_string() };
                            // Nothing is handed on or decided without one, whether or not this is kept.
                            let _recorded = recorder.record(None, &raised);
                        }
                        backoff.pause().await;
                    }
                }
            }
        };
        tokio::select! {
            () = asking => {}
            () = stop.cancelled() => {}
        }
    }

    async fn ask(&self, ours: &Arc<WorkloadIdentity>, socket: &Path) -> Result<(), renewal::JoinError> {
        let asked = |fault: Fault| renewal::JoinError::Identity(fault);
        let transport = IdentityTransport::new(socket.to_owned(), ours.bundle(), Some(ours)).map_err(asked)?;
        let key = PendingKey::generate()?;
        let request = Renew { csr: key.csr().to_owned() };
        let issued = IdentityClient(Client::new(transport)).pep(&request).await.map_err(asked)?;
        Ok(self.adopt(&key, &issued)?)
    }
}

/// RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (i, character) in STANDARD.encode(der).chars().enumerate() {
        if i > 0 && i % PEM_LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}
