//! A1: sessions are resumed by ticket, without 0-RTT; C14: the hybrid key exchange is what is negotiated.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{Served, served, write_certificate};
use super::world::Settings;

fn config(served: &Served) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(served.root.clone()).unwrap();
    ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A connection with one request on it; how its handshake went, and with which group.
async fn visit(served: &Served, config: &Arc<ClientConfig>) -> std::io::Result<(HandshakeKind, Option<NamedGroup>)> {
    let tcp = TcpStream::connect(served.address).await?;
    let mut stream = TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), tcp).await?;
    let asked = format!("GET /auth/login HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", served.address.port());
    stream.write_all(asked.as_bytes()).await?;
    stream.flush().await?;
    let mut text = Vec::new();
    // Tickets come with the first bytes of the answer.
    stream.read_to_end(&mut text).await?;
    assert!(text.starts_with(b"HTTP/1.1 303"), "{}", String::from_utf8_lossy(&text));
    let session = stream.get_ref().1;
    Ok((session.handshake_kind().unwrap(), session.negotiated_key_exchange_group().map(|group| group.name())))
}

// A1
#[tokio::test]
async fn a_session_is_resumed_by_ticket_in_both_versions() {
    let served = served(Settings::default()).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut roots = RootCertStore::empty();
        roots.add(served.root.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        assert_eq!(visit(&served, &config).await.unwrap().0, HandshakeKind::Full);
        assert_eq!(visit(&served, &config).await.unwrap().0, HandshakeKind::Resumed, "{:?}", version.version);
    }
    served.stop.cancel();
}

// A1: a ticket is one process's: what another made, or this one before it was started anew, counts for nothing.
#[tokio::test]
async fn a_ticket_of_another_process_is_a_full_handshake() {
    let (one, other) = (served(Settings::default()).await, served(Settings::default()).await);
    let mut roots = RootCertStore::empty();
    roots.add(one.root.clone()).unwrap();
    roots.add(other.root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    assert_eq!(visit(&one, &config).await.unwrap().0, HandshakeKind::Full);
    assert_eq!(visit(&other, &config).await.unwrap().0, HandshakeKind::Full, "the ticket was not its own");
    one.stop.cancel();
    other.stop.cancel();
}

// A1: no request travels in the first flight, so none can be recorded and sent again.
#[tokio::test]
async fn no_early_data_is_taken() {
    let served = served(Settings::default()).await;
    let mut config = config(&served);
    config.enable_early_data = true;
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    visit(&served, &config).await.unwrap();
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let mut client = rustls::ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    assert!(client.early_data().is_none(), "the ticket allows none");
    drop((tcp, client.write_tls(&mut Vec::new())));
    served.stop.cancel();
}

// A1: a session begun under one certificate says nothing about the next.
#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_without_a_ticket() {
    let served = served(Settings::default()).await;
    let before = Arc::new(config(&served));
    visit(&served, &before).await.unwrap();
    write_certificate(served.world.folder.path(), "local", &["localhost", "127.0.0.1"]);
    assert_eq!(served.certificates.look().len(), 1);
    assert_eq!(visit(&served, &before).await.unwrap().0, HandshakeKind::Resumed, "nobody who was here is thrown out");
    assert!(visit(&served, &Arc::new(config(&served))).await.is_err(), "the old root does not vouch for the new certificate");
    served.stop.cancel();
}

// C14
#[tokio::test]
async fn the_hybrid_key_exchange_is_negotiated_and_older_clients_get_theirs() {
    let served = served(Settings::default()).await;
    assert_eq!(visit(&served, &Arc::new(config(&served))).await.unwrap().1, Some(NamedGroup::X25519MLKEM768));
    let mut provider = (*crate::tls::provider()).clone();
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let mut roots = RootCertStore::empty();
    roots.add(served.root.clone()).unwrap();
    let older = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(visit(&served, &Arc::new(older)).await.unwrap().1, Some(NamedGroup::X25519));
    served.stop.cancel();
}
