//! TLS of the mesh: 1.3 only, both ends show their SVID, nothing is resumed.
//!
//! Resumption is off because a resumed session would skip the check of the peer's certificate, and with it a revocation.
//!
//! Spec:       RFC 8446; SPIFFE X509-SVID section 5; RFC 7301 (ALPN).
//! Guarantees: D1 mutual TLS, strict; C9 the certificate is looked up at each handshake, so rotation needs no restart; C14 X25519MLKEM768 is preferred.
//! Not here:   the edge's public TLS (`edge`), what makes an SVID good (`bundle`).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme};
use trust::{Clock, DenyReason, SpiffeId};

use crate::bundle::{Refusal, TrustBundle, Usage};
use crate::svid::WorkloadIdentity;

/// HTTP/2.
pub const H2: &[u8] = b"h2";
/// HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";

/// The challenge by which an ACME authority finds that a host is ours (RFC 8737).
pub const ACME: &[u8] = b"acme-tls/1";

/// A raw flow between guards.
pub const TCP: &[u8] = b"palisade-tcp/1";

/// Whether a caller must show an SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerSvid {
    /// Without one there is no connection.
    Required,
    /// Only `identity`'s UNIX socket: who has none may do nothing but join.
    Optional,
}

/// The one provider of cryptography: AWS-LC, the post-quantum hybrid first. Passed explicitly, never installed process-wide.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> = std::sync::LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The accepting side.
///
/// # Errors
/// When the provider lacks TLS 1.3, which is a defect of the build.
pub fn server(identity: &Arc<WorkloadIdentity>, caller: CallerSvid) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = Arc::new(VerifiesCaller { bundle: Arc::clone(identity.bundle()), mandatory: caller == CallerSvid::Required });
    let clock = Arc::new(Clocked(Arc::clone(identity.bundle().clock())));
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Own(Arc::clone(identity))));
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The calling side, towards exactly `peer`; `identity` is absent only while joining.
///
/// # Errors
/// As `server`.
pub fn client(
    identity: Option<&Arc<WorkloadIdentity>>,
    bundle: &Arc<TrustBundle>,
    peer: &SpiffeId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = Arc::new(VerifiesPeer { bundle: Arc::clone(bundle), peer: peer.clone() });
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Clocked(Arc::clone(bundle.clock()))))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Own(Arc::clone(identity)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The refusal inside a handshake's error, on either side.
#[must_use]
pub fn refusal_of(error: &std::io::Error) -> Option<Refusal> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::NoCertificatesPresented => Some(Refusal { reason: DenyReason::ClientCertificateMissing, peer: String::new() }),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref::<Refusal>().cloned(),
        rustls::Error::InvalidCertificate(_) => Some(Refusal { reason: DenyReason::SvidMalformed, peer: String::new() }),
        _ => None,
    }
}

/// Whether a connection ended because the other side refused our certificate.
#[must_use]
pub fn refused_by_peer(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(inner, Some(rustls::Error::AlertReceived(_))) || error.to_string().contains("received fatal alert") {
            return true;
        }
        next = error.source();
    }
    false
}

fn refused(refusal: Refusal) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

/// TLS' clock is ours.
#[derive(Debug)]
pub(crate) struct Clocked(pub(crate) Arc<dyn Clock>);

impl TimeProvider for Clocked {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.unix_ms())))
    }
}

/// Shows the SVID of now.
struct Own(Arc<WorkloadIdentity>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies the SVID of who calls.
#[derive(Debug)]
struct VerifiesCaller {
    bundle: Arc<TrustBundle>,
    mandatory: bool,
}

impl ClientCertVerifier for VerifiesCaller {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.bundle.verify(leaf, rest, Usage::Client, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken in the mesh".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies that who is called is exactly who should be.
#[derive(Debug)]
struct VerifiesPeer {
    bundle: Arc<TrustBundle>,
    peer: SpiffeId,
}

impl ServerCertVerifier for VerifiesPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let svid = self.bundle.verify(leaf, rest, Usage::Server, now).map_err(refused)?;
        if svid.id == self.peer {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refused(Refusal { reason: DenyReason::PeerUndeclared, peer: svid.id.to_string() }))
        }
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken in the mesh".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
