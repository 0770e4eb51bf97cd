//! A1: the public socket, with real TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use contract::body;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::world::{Settings, World};
use crate::edge::{Balancers, CertificateFiles, Certificates, Entrance};

pub(super) struct Served {
    pub(super) world: World,
    pub(super) address: SocketAddr,
    pub(super) root: CertificateDer<'static>,
    pub(super) stop: CancellationToken,
    pub(super) certificates: Arc<Certificates>,
}

/// Writes a new certificate for those hosts, and its key, into `NAME.pem` and `NAME.key`.
pub(super) fn write_certificate(folder: &std::path::Path, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    write_key(folder, name, &key);
    certificate.der().clone()
}

pub(super) fn write_key(folder: &std::path::Path, name: &str, key: &KeyPair) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(format!("{name}.key"));
    std::fs::write(&path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The files that `write_certificate` wrote.
pub(super) fn files(folder: &std::path::Path, name: &str, hosts: &[&str]) -> CertificateFiles {
    CertificateFiles {
        name: name.to_owned(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        chain: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

pub(super) async fn served(settings: Settings) -> Served {
    let listener = crate::listen::loopback().unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, World::with(Settings { port, ..settings }).await).await
}

/// The same for a browser that sees another port than the one listened at.
pub async fn served_behind(settings: Settings) -> Served {
    serve(crate::listen::loopback().unwrap(), World::with(settings).await).await
}

async fn serve(listener: std::net::TcpListener, world: World) -> Served {
    let root = write_certificate(world.folder.path(), "local", &["localhost", "127.0.0.1"]);
    let certificates = Certificates::open(vec![files(world.folder.path(), "local", &["localhost", "127.0.0.1"])]).unwrap();
    serve_with(listener, world, root, certificates, Balancers::none(), false)
}

pub(super) fn serve_with(
    listener: std::net::TcpListener,
    world: World,
    root: CertificateDer<'static>,
    certificates: Arc<Certificates>,
    balancers: Balancers,
    acme: bool,
) -> Served {
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let entrance = Entrance { certificates: certificates.clone(), balancers, acme };
    tokio::spawn(world.edge.clone().run(listener, entrance, stop.clone()));
    Served { world, address, root, stop, certificates }
}

pub(super) async fn connect(
    served: &Served,
    root: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    over(TcpStream::connect(served.address).await?, root, version, alpn).await
}

/// TLS over a connection that there is already.
pub(super) async fn over(
    tcp: TcpStream,
    root: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// HTTP/2 over TLS 1.3 from that address of this machine's.
pub(super) async fn connect_from(served: &Served, from: [u8; 4]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(served.root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let tcp = socket.connect(served.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

// A1
#[tokio::test]
async fn tls_1_3_and_1_2_work_with_both_http_versions() {
    let served = served(Settings::default()).await;
    for (version, name) in [(&rustls::version::TLS13, ProtocolVersion::TLSv1_3), (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)] {
        let stream = connect(&served, &served.root, version, b"h2").await.unwrap();
        assert_eq!((stream.get_ref().1.protocol_version(), stream.get_ref().1.alpn_protocol()), (Some(name), Some(&b"h2"[..])));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://localhost:{}/auth/login", served.address.port());
        let answer = sender.send_request(Request::get(uri).body(body::empty()).unwrap()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (303, http::Version::HTTP_2));
        let mut stream = connect(&served, &served.root, version, b"http/1.1").await.unwrap();
        let asked = format!("GET /auth/login HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", served.address.port());
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 303 "), "{text}");
    }
    served.stop.cancel();
}

/// A ClientHello that offers versions up to 3.`minor` alone (RFC 5246 section 7.4.1.2), and is otherwise one that the server takes.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.push(0);
    let suites: [u16; 5] = [0xc02b, 0xc009, 0xc00a, 0x002f, 0x0035];
    hello.extend(10u16.to_be_bytes());
    hello.extend(suites.iter().flat_map(|s| s.to_be_bytes()));
    hello.extend([1, 0]);
    // supported_groups: secp256r1; ec_point_formats: uncompressed; signature_algorithms: ecdsa_secp256r1_sha256.
    let extensions: [u8; 22] = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((hello.len() as u16).to_be_bytes());
    handshake.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

// A1: the floor is 1.2.
#[tokio::test]
async fn tls_1_1_and_1_0_and_plain_http_are_refused_at_the_handshake() {
    let served = served(Settings::default()).await;
    for minor in [0, 1, 2] {
        let mut tcp = TcpStream::connect(served.address).await.unwrap();
        tcp.write_all(&old_hello(minor)).await.unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        // One alert record: fatal, protocol_version (RFC 8446, section 6.2).
        assert_eq!((answer[0], answer.len(), answer[5], answer[6]), (21, 7, 2, 70), "{minor}: {answer:?}");
    }
    // The same hello with 1.2 gets a ServerHello: it was the version that was refused.
    let mut tcp = TcpStream::connect(served.address).await.unwrap();
    tcp.write_all(&old_hello(3)).await.unwrap();
    let mut answer = [0; 6];
    tcp.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[1], answer[2], answer[5]), (22, 3, 3, 2));
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    served.stop.cancel();
}

// A4: what the screen refuses never reaches a service, and is recorded.
#[tokio::test]
async fn smuggling_shapes_are_refused_on_the_wire() {
    let served = served(Settings::default()).await;
    let host = format!("Host: localhost:{}", served.address.port());
    for head in [
        format!(
            "POST /api/videos HTTP/1.1\r\n{host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        ),
        format!("POST /api/videos HTTP/1.1\r\n{host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("POST /api/videos HTTP/1.1\r\n{host}\r\nContent-Length: +5\r\n\r\nhello"),
        format!("GET /api/videos HTTP/1.1\n{host}\r\n\r\n"),
        format!("GET /api/videos HTTP/1.1\r\n{host}\r\nX: a\r\n folded\r\n\r\n"),
    ] {
        let mut stream = connect(&served, &served.root, &rustls::version::TLS13, b"").await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some ends are abrupt by design.
        let _end = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{head:?}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!((served.world.api.count(), served.world.audited()), (0, 5));
    served.stop.cancel();
}

// A13
#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let limits = crate::edge::Limits { address_connections_max: 2, ..crate::edge::Limits::standard() };
    let served = served(Settings { limits, ..Default::default() }).await;
    // A connection that is served begins with the server's SETTINGS; one that is not ends.
    let begun = async || {
        let mut stream = connect(&served, &served.root, &rustls::version::TLS13, b"h2").await.ok()?;
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.is_ok().then_some(stream)
    };
    let first = begun().await.unwrap();
    let _second = begun().await.unwrap();
    assert!(begun().await.is_none());
    drop(first);
    for _ in 0..500 {
        if begun().await.is_some() {
            served.stop.cancel();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a place that was given back is not free");
}

// A13: silence holds no place, not even those of its own address.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let limits = crate::edge::Limits { address_connections_max: 2, ..crate::edge::Limits::standard() };
    let served = served(Settings { limits, ..Settings::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..2 * crate::limits::HANDSHAKES_PER_ADDRESS_MAX {
        silent.push(tokio::net::TcpStream::connect(served.address).await.unwrap());
    }
    let first = connect(&served, &served.root, &rustls::version::TLS13, b"").await;
    let second = connect(&served, &served.root, &rustls::version::TLS13, b"").await;
    assert!(first.is_ok() && second.is_ok(), "both places of this address are free");
    drop(silent);
    served.stop.cancel();
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

// A18: 1 GiB up through TLS; the whole process, client and peer included, grows by 16 MB at most.
#[tokio::test]
async fn a_large_upload_leaves_memory_flat() {
    let served = served(Settings::default()).await;
    let mut stream = connect(&served, &served.root, &rustls::version::TLS13, b"").await.unwrap();
    let size = 1_u64 << 30;
    let head = format!(
        "PUT /originals/7/original?X-Amz-Signature=s&X-Amz-Algorithm=a HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n",
        served.address.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let piece = vec![9; 1 << 16];
    let (mut before, mut most) = (0, 0);
    for n in 0..size >> 16 {
        stream.write_all(&piece).await.unwrap();
        if n == 64 {
            before = resident_bytes();
        }
        if n % 64 == 0 {
            most = most.max(resident_bytes());
        }
    }
    // What the last write left in the TLS session is not sent by a read.
    stream.flush().await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    assert_eq!(served.world.objects.last().bytes as u64, size);
    assert_eq!(served.world.objects.last().headers["content-length"], size.to_string().as_str());
    assert!(before > 0 && most.saturating_sub(before) <= 16 << 20, "grew by {} bytes", most.saturating_sub(before));
    served.stop.cancel();
}

// A13: what is too large is refused before it is sent.
#[tokio::test]
async fn nobody_is_told_to_continue_with_a_body_that_is_too_large() {
    let served = served(Settings::default()).await;
    let mut stream = connect(&served, &served.root, &rustls::version::TLS13, b"").await.unwrap();
    let head = format!(
        "PUT /originals/7/o?X-Amz-Signature=s&X-Amz-Algorithm=a HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        served.address.port(),
        (4_u64 << 30) + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&status));
    served.stop.cancel();
}

// Draining: what is in flight ends, nothing new begins.
#[tokio::test]
async fn a_request_in_flight_ends_after_the_stop() {
    let served = served(Settings::default()).await;
    let mut stream = connect(&served, &served.root, &rustls::version::TLS13, b"").await.unwrap();
    let head = format!(
        "PUT /originals/7/o?X-Amz-Signature=s&X-Amz-Algorithm=a HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 10\r\n\r\n12345",
        served.address.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    while served.world.objects.received.load(std::sync::atomic::Ordering::SeqCst) < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    served.stop.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let new =
        tokio::time::timeout(std::time::Duration::from_millis(200), connect(&served, &served.root, &rustls::version::TLS13, b"")).await;
    assert!(!matches!(new, Ok(Ok(_))), "nothing new begins");
    stream.write_all(b"67890").await.unwrap();
    let mut text = String::new();
    // The end may be abrupt once the answer is out.
    let _end = stream.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(served.world.objects.last().bytes, 10);
}
