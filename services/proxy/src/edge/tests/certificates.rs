//! A1: each host has its certificate, and gets a new one while connections go on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{Served, files, serve_with, write_certificate, write_key};
use super::world::{Settings, World};
use crate::edge::{Balancers, CertificateError, Certificates, Looked};

/// A handshake that asks for `host`; the certificate that it was shown.
async fn shown(served: &Served, host: &str, roots: &[&CertificateDer<'static>]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add((*root).clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let tcp = TcpStream::connect(served.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), tcp).await
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn served_with(hosts: &[(&str, &[&str])]) -> (Served, Vec<CertificateDer<'static>>) {
    let listener = crate::listen::loopback().unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::with(Settings { port, ..Settings::default() }).await;
    let folder = world.folder.path().to_owned();
    let roots: Vec<_> = hosts.iter().map(|(name, hosts)| write_certificate(&folder, name, hosts)).collect();
    let pairs = hosts
        .iter()
        .map(|(name, hosts)| {
            let own: Vec<String> = hosts.iter().map(|host| host.replace('*', "api")).collect();
            files(&folder, name, &own.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let certificates = Certificates::open(pairs).unwrap();
    (serve_with(listener, world, roots[0].clone(), certificates, Balancers::none(), false), roots)
}

// A1: the name in the hello chooses; a name that nobody declared gets no certificate at all, nor does a client that names none.
#[tokio::test]
async fn each_host_is_shown_its_own_certificate_and_unknown_names_none() {
    let (served, roots) = served_with(&[("shop", &["shop.example"]), ("rest", &["*.shop.example"]), ("local", &["localhost"])]).await;
    let all: Vec<_> = roots.iter().collect();
    for (host, root) in [("shop.example", 0), ("SHOP.example", 0), ("api.shop.example", 1), ("localhost", 2)] {
        assert_eq!(leaf(&shown(&served, host, &all).await.unwrap()), roots[root], "{host}");
    }
    for unknown in ["other.example", "shop.example.org", "a.api.shop.example", "www.shop.example", "example", "127.0.0.1"] {
        let refused = shown(&served, unknown, &all).await.expect_err(unknown);
        assert!(refused.to_string().contains("AccessDenied"), "{unknown}: {refused}");
    }
    served.stop.cancel();
}

// A client that asked for an address names nobody (RFC 6066): it is shown the certificate of the address, if one was declared.
#[tokio::test]
async fn who_asks_for_an_address_is_shown_the_addresses_certificate() {
    let (served, roots) = served_with(&[("shop", &["shop.example"]), ("local", &["localhost", "127.0.0.1"])]).await;
    assert_eq!(leaf(&shown(&served, "127.0.0.1", &[&roots[1]]).await.unwrap()), roots[1]);
    served.stop.cancel();
}

async fn asked(stream: &mut TlsStream<TcpStream>, served: &Served) -> String {
    let asked = format!("GET /auth/login HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", served.address.port());
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    let mut rest = vec![0; 64 * 1024];
    let _read = stream.read(&mut rest).await.unwrap();
    String::from_utf8_lossy(&status).into_owned()
}

// A1
#[tokio::test]
async fn a_new_certificate_is_shown_without_a_connection_lost_and_a_broken_one_never() {
    let (served, roots) = served_with(&[("local", &["localhost"]), ("shop", &["shop.example"])]).await;
    let folder = served.world.folder.path().to_owned();
    let mut live = shown(&served, "localhost", &[&roots[0]]).await.unwrap();
    assert_eq!(asked(&mut live, &served).await, "HTTP/1.1 303");

    let new = write_certificate(&folder, "local", &["localhost"]);
    let [Looked::Taken(taken)] = &served.certificates.look()[..] else { panic!("a new certificate") };
    assert_eq!((taken.name.as_str(), &taken.hosts[..]), ("local", &["localhost".to_owned()][..]));
    assert!(shown(&served, "localhost", &[&roots[0]]).await.is_err(), "the old one is no longer shown");
    assert_eq!(leaf(&shown(&served, "localhost", &[&new]).await.unwrap()), new);
    assert_eq!(leaf(&shown(&served, "shop.example", &[&roots[1]]).await.unwrap()), roots[1], "others are as they were");
    assert_eq!(asked(&mut live, &served).await, "HTTP/1.1 303", "who was connected still is");

    let broken = |break_it: &dyn Fn(&Path), why: &str| {
        write_certificate(&folder, "local", &["localhost"]);
        break_it(&folder);
        assert!(served.certificates.look().is_empty(), "{why}: it may be half written");
        let [Looked::Refused(refused)] = &served.certificates.look()[..] else { panic!("{why}: said at the second look") };
        assert!(refused.why.contains(why), "{why}: {}", refused.why);
        assert!(served.certificates.look().is_empty(), "{why}: said once");
    };
    let other = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    broken(&|folder| write_key(folder, "local", &other()), "does not fit");
    broken(&|folder| std::fs::write(folder.join("local.pem"), "nothing").unwrap(), "in PEM");
    broken(&|folder| std::fs::remove_file(folder.join("local.key")).unwrap(), "cannot read");
    broken(&|folder| drop(write_certificate(folder, "local", &["other.example"])), "not for the host 'localhost'");
    broken(&|folder| std::fs::write(folder.join("local.pem"), vec![b'x'; 256 * 1024 + 1]).unwrap(), "larger than");
    let open = |folder: &Path| std::fs::set_permissions(folder.join("local.key"), std::fs::Permissions::from_mode(0o604)).unwrap();
    broken(&open, "everybody on this machine");
    assert_eq!(leaf(&shown(&served, "localhost", &[&new]).await.unwrap()), new, "the last good one is still shown");
    assert_eq!(asked(&mut live, &served).await, "HTTP/1.1 303");
    served.stop.cancel();
}

// A1: the edge itself looks, every few seconds, and what it finds is in the audit log.
#[tokio::test]
async fn changed_files_are_found_and_recorded() {
    let (served, _) = served_with(&[("local", &["localhost"])]).await;
    let folder = served.world.folder.path().to_owned();
    let recorded = async |event: &str| {
        for _ in 0..3000 {
            if served.world.sink.kept.audit.lock().unwrap().iter().any(|record| record.event == event) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("no {event}");
    };
    let new = write_certificate(&folder, "local", &["localhost"]);
    recorded("CertificateTaken").await;
    assert_eq!(leaf(&shown(&served, "localhost", &[&new]).await.unwrap()), new);
    std::fs::write(folder.join("local.pem"), "nothing").unwrap();
    recorded("CertificateRefused").await;
    let text = served.world.edge.recorder.metrics().render();
    assert!(text.contains("palisade_certificate_end_timestamp_seconds{host=\"localhost\"} "), "{text}");
    served.stop.cancel();
}

#[test]
fn a_pair_that_cannot_be_shown_is_a_refusal_to_start() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path(), "local", &["localhost"]);
    let open = |hosts: &[&str]| Certificates::open(vec![files(folder.path(), "local", hosts)]);
    assert!(open(&["localhost"]).is_ok());
    assert!(matches!(open(&["localhost", "other.example"]), Err(CertificateError::HostMissing(host)) if host == "other.example"));
    std::fs::remove_file(folder.path().join("local.key")).unwrap();
    assert!(matches!(open(&["localhost"]), Err(CertificateError::File { .. })));
}

async fn status(served: &Served, stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    let asked = format!("GET /auth/login HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n\r\n", served.address.port());
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut text = Vec::new();
    let _end = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).chars().take(12).collect()
}

// A3: a connection carries requests for the hosts of its own certificate alone.
#[tokio::test]
async fn a_request_for_the_host_of_another_certificate_is_misdirected() {
    let (served, roots) = served_with(&[("local", &["localhost", "127.0.0.1"]), ("partner", &["partner.localhost"])]).await;
    for (shown_for, asks, expected) in [
        ("localhost", "localhost", "HTTP/1.1 303"),
        ("localhost", "127.0.0.1", "HTTP/1.1 303"),
        ("127.0.0.1", "localhost", "HTTP/1.1 303"),
        ("localhost", "partner.localhost", "HTTP/1.1 421"),
        ("partner.localhost", "localhost", "HTTP/1.1 421"),
        ("127.0.0.1", "partner.localhost", "HTTP/1.1 421"),
        ("partner.localhost", "partner.localhost", "HTTP/1.1 404"),
        ("localhost", "other.example", "HTTP/1.1 421"),
    ] {
        let mut stream = shown(&served, shown_for, &roots.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(status(&served, &mut stream, asks).await, expected, "{shown_for} {asks}");
    }
    served.stop.cancel();
}
