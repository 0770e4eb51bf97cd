//! mTLS as the floor and the load have it: chains to the rig's authority, and one SPIFFE ID on the other end.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// What clients ask for by SNI.
pub const NAME: &str = "app.bench.local";

/// The product's cryptography, cut down to one suite and one group, as the peers of the rig have it.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
    Arc::new(provider)
}

pub fn chain(file: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

pub fn key(file: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(file).unwrap()
}

pub fn roots(file: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    chain(file).into_iter().for_each(|root| roots.add(root).unwrap());
    Arc::new(roots)
}

/// Whether a certificate has that URI among its names. Looked at once for a connection, so a search of the bytes does.
pub fn names(leaf: Option<&CertificateDer<'_>>, id: &str) -> bool {
    let entry = [&[0x86, u8::try_from(id.len()).unwrap()], id.as_bytes()].concat();
    leaf.is_some_and(|leaf| leaf.windows(entry.len()).any(|window| window == entry))
}

/// Connects with that certificate to the workload `id` alone.
pub fn connector(ca: &str, certificate: &str, key_file: &str, id: &str) -> TlsConnector {
    let other = Other { id: id.to_owned(), roots: roots(ca), provider: provider() };
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(other));
    TlsConnector::from(Arc::new(config.with_client_auth_cert(chain(certificate), key(key_file)).unwrap()))
}

/// The other end: a name in a URI, not of a host.
#[derive(Debug)]
struct Other {
    id: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Other {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(leaf)?, &self.roots, intermediates, now, algorithms)?;
        if names(Some(leaf), &self.id) { Ok(ServerCertVerified::assertion()) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
