//! Who may connect: each wrong identity is refused for its own reason.

use std::net::SocketAddr;
use std::sync::Arc;

use contract::identity::Revocation;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trust::Clock;

use super::world::{MovedClock, TestCa, World, get, mirror, read};
use crate::svid::WorkloadIdentity;
use crate::tls;

/// Connects to the guard of `back` with these credentials and sends a request; the status, or none when the connection was refused.
async fn dial(world: &World, address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Option<u16> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("mesh.invalid").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.ok()?;
    let token = world.token("ann", "view");
    let text = format!("GET /things/1 HTTP/1.1\r\nHost: back\r\nConnection: close\r\nTxn-Token: {token}\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut back = String::new();
    // A refused certificate shows as an alert on the first read.
    let _ended = stream.read_to_string(&mut back).await;
    back.split(' ').nth(1)?.parse().ok()
}

fn config(world: &World, identity: Option<&Arc<WorkloadIdentity>>) -> Arc<rustls::ClientConfig> {
    tls::client(identity, world.edge.bundle(), &world.service("back"), &[tls::HTTP1]).unwrap()
}

async fn refused_for(identity: impl FnOnce(&World) -> Option<Arc<WorkloadIdentity>>, reason: &str) {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let identity = identity(&world);
    assert_eq!(dial(&world, address, config(&world, identity.as_ref())).await, None, "{reason}");
    assert!(world.saw("ConnectionRefused", reason).await, "{reason} is in the audit log");
}

// D1, issue point 5.
#[tokio::test]
async fn a_caller_without_an_svid_is_refused() {
    refused_for(|_| None, "client_certificate_missing").await;
}

// D1
#[tokio::test]
async fn expired_svid_is_refused_at_handshake() {
    let expired = |world: &World| {
        let key = crate::svid::PendingKey::generate().unwrap();
        let issued = world.ca.issue(key.csr(), &world.service("front"), -7200, -3600);
        Some(WorkloadIdentity::adopt(&key, &issued, MovedClock::by(-5400)).unwrap())
    };
    refused_for(expired, "svid_expired").await;
}

// D1
#[tokio::test]
async fn svid_of_another_trust_domain_is_refused_at_handshake() {
    let foreign = |world: &World| {
        let ca = TestCa::new("other.example");
        Some(ca.identity(&ca.domain.service("front"), world.clock.clone()))
    };
    refused_for(foreign, "trust_domain_foreign").await;
}

// D1: the right name, but not from our authority.
#[tokio::test]
async fn svid_of_an_unknown_authority_is_refused_at_handshake() {
    let forged = |world: &World| {
        let ca = TestCa::new("pair.example");
        Some(ca.identity(&ca.domain.service("front"), world.clock.clone()))
    };
    refused_for(forged, "svid_untrusted").await;
}

// C12
#[tokio::test]
async fn revoked_svid_is_refused_at_handshake_and_on_live_connections() {
    let world = World::new();
    let mut view = world.back_view();
    let holder = world.holder(&world.identity("back"), &view);
    let service = super::world::service(mirror, world.stop.clone());
    let guard = crate::mesh::Guard::new(holder.clone(), world.recorder.clone(), world.clock.clone(), Arc::new(To(service)));
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(guard.inbound(listener, world.stop.clone()));
    let front = world.identity("front");
    let live = world.transport(&front, &world.service("back"), address);
    let token = world.token("ann", "view");
    assert_eq!(read(live.call(get("/things/1", &[("txn-token", &token)])).await.unwrap()).await.0, 200);

    view.epoch += 1;
    view.revoked = vec![Revocation { spiffe_id: world.service("front"), before_s: world.clock.unix_s() }];
    holder.accept(&world.sign(&view)).unwrap();
    let (status, said) = read(live.call(get("/things/1", &[("txn-token", &token)])).await.unwrap()).await;
    assert_eq!((status, said["reason"].as_str()), (401, Some("svid_revoked")), "on the live connection");
    assert_eq!(dial(&world, address, config(&world, Some(&front))).await, None);
    assert!(world.saw("ConnectionRefused", "svid_revoked").await);
}

#[derive(Debug)]
pub struct To(pub SocketAddr);

#[async_trait::async_trait]
impl crate::mesh::Connector for To {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        tokio::net::TcpStream::connect(self.0).await?.into_std()
    }
    async fn fresh(&self) -> std::io::Result<Box<dyn crate::mesh::Job>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

// D1, A13: half-open handshakes, twice as many as there may be: the oldest give way, and a peer that shows its SVID gets in.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let mut silent = Vec::new();
    for _ in 0..2 * crate::limits::HANDSHAKES_PER_ADDRESS_MAX {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(dial(&world, address, config(&world, Some(&world.identity("front")))).await, Some(200));
    // The oldest was closed to make room for the later ones.
    let mut byte = [0; 1];
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), silent[0].read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
}

// C1: exactly one URI name, and it is a SPIFFE ID.
#[tokio::test]
async fn svids_with_two_names_or_none_of_ours_are_refused_as_malformed() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let front = world.service("front").to_string();
    for uris in [vec![front.clone(), world.service("back").to_string()], vec![], vec!["https://pair.example/front".to_owned()]] {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let csr = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, csr.der());
        let leaf = CertificateDer::from(world.ca.certify(&csr, &uris, -60, 600));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let certified = CertifiedKey::from_der(vec![leaf], key, &tls::provider()).unwrap();
        let mut config = rustls::ClientConfig::clone(&config(&world, None));
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        world.sink.audit.lock().unwrap().clear();
        assert_eq!(dial(&world, address, Arc::new(config)).await, None, "{uris:?}");
        assert!(world.saw("ConnectionRefused", "svid_malformed").await, "{uris:?}");
    }
}

// D1, issue point 5: a good SVID, but no flow.
#[tokio::test]
async fn an_undeclared_service_gets_403_with_its_own_reason() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let stranger = world.identity("stranger");
    assert_eq!(dial(&world, address, config(&world, Some(&stranger))).await, Some(403));
    assert!(world.saw("CallDecided", "peer_undeclared").await);
    // The declared one is not refused: the test above can fail.
    assert_eq!(dial(&world, address, config(&world, Some(&world.identity("front")))).await, Some(200));
}

// The calling side verifies too.
#[tokio::test]
async fn a_server_that_is_somebody_else_is_not_told_anything() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let wrong = world.transport(&world.identity("front"), &world.service("stranger"), address);
    let failed = wrong.call(get("/things/1", &[])).await.unwrap_err();
    assert!(matches!(failed, crate::client::CallFailed::WrongPeer(trust::DenyReason::PeerUndeclared)), "{failed}");
}

// C14
#[tokio::test]
async fn the_post_quantum_hybrid_is_negotiated_and_tls_1_2_is_refused() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let name = ServerName::try_from("mesh.invalid").unwrap();
    let config = config(&world, Some(&world.identity("front")));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);

    let old = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("mesh.invalid").unwrap();
    assert!(tokio_rustls::TlsConnector::from(Arc::new(old)).connect(name, stream).await.is_err());
}

// C9
#[tokio::test]
async fn rotation_on_both_ends_drops_no_request() {
    let world = World::new();
    let back = world.identity("back");
    let holder = world.holder(&back, &world.back_view());
    let service = super::world::service(mirror, world.stop.clone());
    let guard = crate::mesh::Guard::new(holder, world.recorder.clone(), world.clock.clone(), Arc::new(To(service)));
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(guard.inbound(listener, world.stop.clone()));
    let front = world.identity("front");
    let transport = world.transport(&front, &world.service("back"), address);
    let token = world.token("ann", "view");
    // One request that is under way all the time.
    let (sender, slow) = http_body_util::channel::Channel::<bytes::Bytes, contract::BoxError>::new(1);
    let mut sender = sender;
    let long = {
        let request =
            super::world::request("POST", "/things/long", &[("txn-token", &token)], crate::passage::Passage::new(slow).into_body());
        let transport = Arc::clone(&transport);
        tokio::spawn(async move { read(transport.call(request).await.unwrap()).await })
    };
    for round in 0_u64..10 {
        sender.send_data(bytes::Bytes::from_static(b"x")).await.unwrap();
        for _ in 0..10 {
            let answered = read(transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap()).await;
            assert_eq!(answered.0, 200, "round {round}");
        }
        world.ca.renew(&front);
        world.ca.renew(&back);
        assert_eq!(front.generation(), round + 1);
    }
    drop(sender);
    let (status, said) = long.await.unwrap();
    assert_eq!((status, said["bytes"].as_u64()), (200, Some(10)));
}

// D1, C12: nothing is resumed, whatever a caller keeps, so each connection checks the SVID anew, and a revocation holds at once.
#[tokio::test]
async fn no_session_of_the_mesh_is_resumed_so_none_outlives_a_revocation() {
    let world = World::new();
    let back = world.identity("back");
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let caller = world.identity("front");
    let mut keeping = (*config(&world, Some(&caller))).clone();
    keeping.resumption = rustls::client::Resumption::in_memory_sessions(64);
    let keeping = Arc::new(keeping);
    for _ in 0..3 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("mesh.invalid").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(keeping.clone()).connect(name, stream).await.unwrap();
        let token = world.token("ann", "view");
        let text = format!("GET /things/1 HTTP/1.1\r\nHost: back\r\nConnection: close\r\nTxn-Token: {token}\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = Vec::new();
        let _ended = stream.read_to_end(&mut back).await;
        assert!(back.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&back));
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0, "no ticket is ever given");
    }
    drop(back);
}
