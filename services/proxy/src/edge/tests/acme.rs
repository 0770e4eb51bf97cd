//! A2: certificates from a real ACME server (Debian's `pebble`, with its DNS server), and renewed under load.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use instant_acme::{BodyWrapper, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use trust::{Clock, KeySealer, Secret, SystemClock, SystemEntropy};

use super::tls::{Served, files, serve_with, write_certificate};
use super::world::{Hand, Settings, World};
use crate::edge::acme::{Acme, AcmeSettings};
use crate::edge::{Balancers, Certificates};

const HOST: &str = "shop.example";
const YEAR_S: u64 = 365 * 86_400;

/// An authority: `pebble` and the DNS server that tells it that every name is this machine.
struct Pebble {
    processes: Vec<Child>,
    directory: String,
    management: String,
    root: PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ended = process.kill();
            let _reaped = process.wait();
        }
    }
}

fn free_port() -> u16 {
    crate::listen::loopback().unwrap().local_addr().unwrap().port()
}

impl Pebble {
    /// An authority that reaches the edge at that port.
    async fn start(edge_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificate(folder.path(), "directory", &["localhost", "127.0.0.1"]);
        let (listen, manage, dns, dns_manage) = (free_port(), free_port(), free_port(), free_port());
        let path = |name: &str| folder.path().join(name);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{manage}"),
            "certificate": path("directory.pem"), "privateKey": path("directory.key"),
            "httpPort": free_port(), "tlsPort": edge_port, "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        std::fs::write(path("pebble.json"), config.to_string()).unwrap();
        let spawn = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("install Debian's package pebble")
        };
        let dns_server = spawn(
            Command::new("pebble-challtestsrv")
                .args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{dns_manage}")])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]),
        );
        let authority = spawn(
            Command::new("pebble")
                .args(["-dnsserver", &format!("127.0.0.1:{dns}"), "-config"])
                .arg(path("pebble.json"))
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "0"),
        );
        let pebble = Self {
            processes: vec![dns_server, authority],
            directory: format!("https://localhost:{listen}/dir"),
            management: format!("https://localhost:{manage}"),
            root: path("directory.pem"),
            folder,
        };
        for _ in 0..1500 {
            if pebble.get(&pebble.directory).await.is_some() {
                return pebble;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pebble does not answer");
    }

    async fn get(&self, url: &str) -> Option<Bytes> {
        let client = crate::edge::acme::authority::Directory::new(Some(&self.root)).unwrap();
        let request = Request::get(url).body(BodyWrapper::default()).unwrap();
        client.request(request).await.ok()?.body.into_bytes().await.ok()
    }

    /// The root that its certificates end in, made anew at each of its starts.
    async fn issuing_root(&self) -> CertificateDer<'static> {
        let pem = self.get(&format!("{}/roots/0", self.management)).await.unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap()
    }
}

/// An edge with a certificate for `localhost`, which waits for one for `HOST`.
async fn edge(acme: bool) -> Served {
    let listener = crate::listen::loopback().unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::with(Settings { port, hosts: &["localhost", HOST], ..Settings::default() }).await;
    let folder = world.folder.path().to_owned();
    let root = write_certificate(&folder, "local", &["localhost"]);
    let certificates = Certificates::open(vec![files(&folder, "local", &["localhost"])]).unwrap();
    serve_with(listener, world, root, certificates, Balancers::none(), acme)
}

fn sealer(byte: u8) -> KeySealer {
    KeySealer::new("edge", &Secret::new([byte; 32]), SystemEntropy::shared()).unwrap()
}

fn keeper(served: &Served, pebble: &Pebble, clock: Arc<dyn Clock>, sealing: u8) -> Acme {
    let settings = AcmeSettings {
        directory: pebble.directory.clone(),
        hosts: vec![HOST.to_owned()],
        contact: vec!["mailto:operator@shop.example".to_owned()],
        root: Some(pebble.root.clone()),
        folder: pebble.folder.path().join("kept"),
    };
    let recorder = served.world.edge.recorder.clone();
    Acme::open(settings, sealer(sealing), served.certificates.clone(), recorder, clock, SystemEntropy::shared()).unwrap()
}

async fn connect(served: &Served, root: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(served.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), tcp).await
}

/// One request; whether it was answered as it should be.
async fn answered(served: &Served, stream: &mut TlsStream<TcpStream>) -> std::io::Result<bool> {
    let asked = format!("GET /auth/login HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", served.address.port());
    stream.write_all(asked.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head.starts_with(b"HTTP/1.1 303"))
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn recorded(served: &Served, event: &str) -> usize {
    served.world.sink.kept.audit.lock().unwrap().iter().filter(|record| record.event == event).count()
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}");
}

// A2: issued by the challenge that the edge answers itself, and renewed under load without a request lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_issued_and_renewed_under_load_with_no_request_lost() {
    let served = Arc::new(edge(true).await);
    let pebble = Pebble::start(served.address.port()).await;
    let root = pebble.issuing_root().await;
    assert!(connect(&served, &root).await.is_err(), "no certificate stands in for one that there is not");
    let clock = Hand::at(SystemClock::shared().unix_ms());
    let stop = CancellationToken::new();
    tokio::spawn(keeper(&served, &pebble, clock.clone(), 1).run_looking(Duration::from_millis(20), stop.clone()));
    until("a certificate is issued", async || connect(&served, &root).await.is_ok()).await;
    let first = leaf(&connect(&served, &root).await.unwrap());

    let (ending, asked, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut load = Vec::new();
    for kept_open in [true, true, false, false] {
        let (served, root, ending) = (served.clone(), root.clone(), ending.clone());
        let (asked, lost) = (asked.clone(), lost.clone());
        load.push(tokio::spawn(async move {
            let mut stream = connect(&served, &root).await.unwrap();
            while !ending.load(Ordering::SeqCst) {
                if !kept_open {
                    match connect(&served, &root).await {
                        Ok(new) => stream = new,
                        Err(_) => drop(lost.fetch_add(1, Ordering::SeqCst)),
                    }
                }
                if !answered(&served, &mut stream).await.unwrap_or(false) {
                    lost.fetch_add(1, Ordering::SeqCst);
                }
                asked.fetch_add(1, Ordering::SeqCst);
                // Slow enough for the limits of one address.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    let renewed = async || leaf(&connect(&served, &root).await.unwrap()) != first;
    // pebble's certificates live for five years: after three more than a third is left, after four less.
    clock.forward_s(3 * YEAR_S);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!renewed().await, "too early");
    clock.forward_s(YEAR_S);
    until("it is renewed", renewed).await;
    let before = asked.load(Ordering::SeqCst);
    until("requests go on", async || asked.load(Ordering::SeqCst) > before + 40).await;
    ending.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let (asked, lost) = (asked.load(Ordering::SeqCst), lost.load(Ordering::SeqCst));
    assert!(asked > 50 && lost == 0, "{lost} of {asked} requests were lost");
    assert_eq!((recorded(&served, "CertificateTaken"), recorded(&served, "CertificateOrderFailed")), (2, 0));
    let text = served.world.edge.recorder.metrics().render();
    let end = text.lines().find_map(|line| line.strip_prefix("palisade_certificate_end_timestamp_seconds{host=\"shop.example\"} "));
    assert!(end.unwrap().parse::<u64>().unwrap() > clock.unix_s(), "{text}");
    stop.cancel();
    served.stop.cancel();
    kept_and_sealed(&pebble, &root).await;
}

/// What was kept serves the next run without the authority, and says nothing to who reads the files.
async fn kept_and_sealed(pebble: &Pebble, root: &CertificateDer<'static>) {
    let kept = pebble.folder.path().join("kept");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    for name in ["account", "certificate-shop.example"] {
        let text = std::fs::read_to_string(kept.join(name)).unwrap();
        assert!(text.starts_with("sealed1.") && !text.contains("PRIVATE") && !text.contains("key"), "{name}");
        assert_eq!(mode(&kept.join(name)), 0o600);
    }
    let next = edge(true).await;
    drop(keeper(&next, pebble, SystemClock::shared(), 1));
    connect(&next, root).await.unwrap();
    assert_eq!(recorded(&next, "TamperingFound"), 0);
    next.stop.cancel();
    // Sealed under another key, or edited: found, said, and not used.
    let other = edge(true).await;
    drop(keeper(&other, pebble, SystemClock::shared(), 2));
    assert!(connect(&other, root).await.is_err());
    assert_eq!(recorded(&other, "TamperingFound"), 1);
    other.stop.cancel();
}

// A2: an authority that cannot prove the host gives nothing; that is recorded, and asked again later and not at once.
#[tokio::test]
async fn a_failed_order_is_recorded_and_tried_again_after_a_pause() {
    let served = edge(false).await;
    let pebble = Pebble::start(served.address.port()).await;
    let clock = Hand::at(SystemClock::shared().unix_ms());
    let stop = CancellationToken::new();
    tokio::spawn(keeper(&served, &pebble, clock.clone(), 1).run_looking(Duration::from_millis(20), stop.clone()));
    until("a failure is recorded", async || recorded(&served, "CertificateOrderFailed") == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(recorded(&served, "CertificateOrderFailed"), 1, "not at once");
    clock.forward_s(600);
    until("it is tried again", async || recorded(&served, "CertificateOrderFailed") == 2).await;
    let failures: Vec<u64> = {
        let kept = served.world.sink.kept.audit.lock().unwrap();
        kept.iter().filter_map(|record| record.fields.get("failures")?.as_u64()).collect()
    };
    assert_eq!(failures, [1, 2]);
    assert_eq!(recorded(&served, "CertificateTaken"), 0);
    assert!(connect(&served, &pebble.issuing_root().await).await.is_err());
    stop.cancel();
    served.stop.cancel();
}

// A2: who asks for a challenge that nobody set gets no certificate, and no connection.
#[tokio::test]
async fn a_challenge_that_is_not_under_way_is_not_answered() {
    let served = edge(true).await;
    for (alpn, shown) in [(&[b"acme-tls/1".to_vec()][..], false), (&[b"http/1.1".to_vec(), b"acme-tls/1".to_vec()][..], true)] {
        let mut roots = RootCertStore::empty();
        roots.add(served.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.to_vec();
        let tcp = TcpStream::connect(served.address).await.unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await;
        assert_eq!(connected.is_ok(), shown, "{alpn:?}");
        if let Ok(stream) = connected {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
    served.stop.cancel();
}
