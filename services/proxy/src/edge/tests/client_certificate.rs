//! Clients' certificates, and tokens that are bound to one (A10; RFC 8705), with real TLS.

use std::sync::Arc;

use contract::login::Confirmation;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use trust::Digest;

use super::tls::{Served, served};
use super::world::{START_MS, Settings};
use crate::edge::ClientAuthorities;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
struct Shown {
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Shown {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let chain = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Shown { chain, key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())) }
    }

    fn client(&self, name: &str) -> Shown {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One that ends so long after the world's beginning.
    fn client_for(&self, name: &str, seconds: u64) -> Shown {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = time::OffsetDateTime::from_unix_timestamp(i64::try_from(START_MS / 1000 + seconds).unwrap()).unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Shown { chain, key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())) }
    }
}

impl Shown {
    fn thumbprint(&self) -> String {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Digest::of(&self.chain).as_bytes())
    }
}

/// An edge that asks for certificates of an authority, and the authority.
async fn asking() -> (Served, Authority) {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.pem");
    std::fs::write(&path, &authority.pem).unwrap();
    let clients = ClientAuthorities::load(&path).unwrap();
    (served(Settings { clients, ..Settings::default() }).await, authority)
}

/// Asks over a new connection on which that certificate is shown; the answer's head, or nothing when there is no connection.
async fn ask(served: &Served, shown: Option<&Shown>, request: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(served.root.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some(shown) => builder.with_client_auth_cert(vec![shown.chain.clone()], shown.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()?;
    let head = format!("{request}\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", served.address.port());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

async fn status(served: &Served, shown: Option<&Shown>, token: &str) -> Option<String> {
    let request = format!("GET /api/videos HTTP/1.1\r\nAuthorization: Bearer {token}");
    ask(served, shown, &request).await.map(|text| text.split(' ').nth(1).unwrap_or_default().to_owned())
}

// A10: a token with its certificate passes, with another or with none it does not; other tokens need none.
#[tokio::test]
async fn a_token_counts_only_with_the_certificate_that_it_is_bound_to() {
    let (served, authority) = asking().await;
    let (own, other) = (authority.client("batch.partner.example"), authority.client("batch.partner.example"));
    served.world.login.at(&format!("https://localhost:{}", served.address.port()));
    let plain = served.world.login.token();
    *served.world.login.bound_to.lock().unwrap() = Some(Confirmation { jkt: None, x5t_s256: Some(own.thumbprint()) });
    let bound = served.world.login.token();
    let ok = Some("200".to_owned());
    let refused = Some("401".to_owned());
    assert_eq!(status(&served, Some(&own), &bound).await, ok);
    assert_eq!(status(&served, Some(&other), &bound).await, refused, "another certificate of the same name");
    assert_eq!(status(&served, None, &bound).await, refused);
    assert_eq!((status(&served, Some(&own), &plain).await, status(&served, None, &plain).await), (ok.clone(), ok));
    assert_eq!(served.world.refusals(), ["certificate_mismatch", "certificate_mismatch"]);
    *served.world.login.bound_to.lock().unwrap() = Some(Confirmation { jkt: None, x5t_s256: None });
    let odd = served.world.login.token();
    assert_eq!(status(&served, Some(&own), &odd).await, Some("401".to_owned()), "bound, but to nothing that it says");
    served.stop.cancel();
}

// A10: a stranger's certificate, and one that is not for clients, make no connection; `login` hears of the good ones alone.
#[tokio::test]
async fn a_certificate_of_a_stranger_makes_no_connection() {
    let (served, authority) = asking().await;
    let server = authority.issue("batch.partner.example", ExtendedKeyUsagePurpose::ServerAuth);
    let asked = "GET /oidc/style.css HTTP/1.1\r\nPalisade-Client-Certificate: forged\r\nPalisade-Client-Names: forged.example";
    for shown in [&Authority::new().client("batch.partner.example"), &server] {
        let answered = ask(&served, Some(shown), asked).await;
        assert!(answered.is_none_or(|text| text.is_empty()), "no answer");
    }
    let good = authority.client("Batch.partner.example");
    assert!(ask(&served, Some(&good), asked).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(&served, None, asked).await.unwrap().starts_with("HTTP/1.1 200"));
    let heard: Vec<_> = served.world.login.passed_on.lock().unwrap().iter().map(|seen| seen.headers.clone()).collect();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0]["palisade-client-certificate"], good.thumbprint().as_str());
    assert_eq!(heard[0]["palisade-client-names"], "batch.partner.example");
    assert!(!heard[1].contains_key("palisade-client-certificate") && !heard[1].contains_key("palisade-client-names"));
    served.stop.cancel();
}

/// A client that shows that certificate where it is asked, and remembers tickets.
fn remembering(served: &[&Served], shown: &Shown) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    served.iter().for_each(|served| roots.add(served.root.clone()).unwrap());
    let builder = ClientConfig::builder_with_provider(crate::tls::provider()).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(vec![shown.chain.clone()], shown.key.clone_key()).unwrap())
}

/// How the handshake went, and the status of a request with that token.
async fn over(served: &Served, config: &Arc<ClientConfig>, token: &str) -> (HandshakeKind, String) {
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let mut stream = TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let port = served.address.port();
    let head = format!("GET /api/videos HTTP/1.1\r\nAuthorization: Bearer {token}\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (stream.get_ref().1.handshake_kind().unwrap(), text.split(' ').nth(1).unwrap_or_default().to_owned())
}

// A10: a resumed session is the certificate's that it began with, and no longer than that lives.
#[tokio::test]
async fn a_resumed_session_counts_with_its_certificate_and_ends_with_it() {
    let (served, authority) = asking().await;
    let (own, other) = (authority.client_for("batch.partner.example", 60), authority.client("batch.partner.example"));
    served.world.login.at(&format!("https://localhost:{}", served.address.port()));
    *served.world.login.bound_to.lock().unwrap() = Some(Confirmation { jkt: None, x5t_s256: Some(own.thumbprint()) });
    let token = served.world.login.token();
    let (its, others) = (remembering(&[&served], &own), remembering(&[&served], &other));
    let ok = |kind| (kind, "200".to_owned());
    let refused = |kind| (kind, "401".to_owned());
    assert_eq!(over(&served, &its, &token).await, ok(HandshakeKind::Full));
    assert_eq!(over(&served, &its, &token).await, ok(HandshakeKind::Resumed), "nothing is shown again, and it is known all the same");
    assert_eq!(over(&served, &others, &token).await, refused(HandshakeKind::Full));
    assert_eq!(over(&served, &others, &token).await, refused(HandshakeKind::Resumed), "another's session stays another's");
    served.world.clock.forward_s(60);
    assert_eq!(over(&served, &its, &token).await, ok(HandshakeKind::Resumed), "its last second");
    served.world.clock.forward_s(1);
    let later = served.world.login.token();
    assert_eq!(over(&served, &its, &later).await, refused(HandshakeKind::Resumed), "a ticket does not outlive the certificate");
    assert_eq!(served.world.refusals(), ["certificate_mismatch"; 3]);
    served.stop.cancel();
}

// A10: a ticket of another edge (or of this one before it was started anew) brings no certificate along: it must be shown again.
#[tokio::test]
async fn a_ticket_of_another_edge_brings_no_certificate_along() {
    let (one, authority) = asking().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("clients.pem"), &authority.pem).unwrap();
    let clients = ClientAuthorities::load(&folder.path().join("clients.pem")).unwrap();
    let two = served(Settings { clients, ..Settings::default() }).await;
    let own = authority.client("batch.partner.example");
    two.world.login.at(&format!("https://localhost:{}", two.address.port()));
    *two.world.login.bound_to.lock().unwrap() = Some(Confirmation { jkt: None, x5t_s256: Some(own.thumbprint()) });
    let token = two.world.login.token();
    let client = remembering(&[&one, &two], &own);
    assert_eq!(over(&one, &client, "none").await, (HandshakeKind::Full, "401".to_owned()));
    assert_eq!(over(&two, &client, &token).await, (HandshakeKind::Full, "200".to_owned()), "shown anew");
    one.stop.cancel();
    two.stop.cancel();
}

// A10: what is not PEM of authorities is no start.
#[test]
fn authorities_that_cannot_be_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.pem");
    assert!(ClientAuthorities::load(&path).unwrap_err().to_string().contains("cannot read"));
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(ClientAuthorities::load(&path).unwrap_err().to_string().contains("does not hold"), "{text}");
    }
}
