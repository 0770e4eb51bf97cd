//! Certificates for public names: A1, A2. A real ACME authority (Debian's `pebble`), and a system that an unprivileged user runs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use xtask::demo::Scratch;

use crate::contained;

/// Who runs the system, where root runs the tests.
const NOBODY: u32 = 65_534;

/// Processes that end with the test.
struct Ended(Vec<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // It may have ended by itself.
            let _ended = process.kill();
            let _reaped = process.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A self-signed certificate and its key, as `NAME.pem` and `NAME.key`.
pub fn certificate(folder: &Path, name: &str, hosts: &[&str]) {
    let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-subj", "/CN=test", "-addext", &format!("subjectAltName={}", names.join(","))]);
    openssl.arg("-keyout").arg(folder.join(format!("{name}.key"))).arg("-out").arg(folder.join(format!("{name}.pem")));
    xtask::tree::run(openssl.stderr(Stdio::null())).unwrap();
}

/// What the authority takes for port 443: what comes there goes to the edge, once it is known where that is.
fn port_443() -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, edge) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU16::new(0)));
    let target = edge.clone();
    std::thread::spawn(move || {
        for caller in listener.incoming().map_while(Result::ok) {
            let target = target.clone();
            std::thread::spawn(move || {
                let start = Instant::now();
                while target.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(60) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let edge = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))).unwrap();
                let (caller_back, edge_back) = (caller.try_clone().unwrap(), edge.try_clone().unwrap());
                std::thread::spawn(move || pass(edge_back, caller_back));
                pass(caller, edge);
            });
        }
    });
    (port, edge)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(read) = from.read(&mut piece) {
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ended = to.shutdown(std::net::Shutdown::Write);
}

/// The authority; its own certificate is `directory.pem` in `folder`.
fn authority(folder: &Path, listen: u16, manage: u16, port_443: u16) -> Ended {
    certificate(folder, "directory", &["localhost"]);
    let dns = free_port();
    let config = serde_json::json!({ "pebble": {
        "listenAddress": format!("127.0.0.1:{listen}"), "managementListenAddress": format!("127.0.0.1:{manage}"),
        "certificate": folder.join("directory.pem"), "privateKey": folder.join("directory.key"),
        "httpPort": free_port(), "tlsPort": port_443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
    }});
    std::fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Debian's package pebble")
    };
    let names = quiet(
        Command::new("pebble-challtestsrv")
            .args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{}", free_port())])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]),
    );
    let mut pebble = Command::new("pebble");
    pebble.args(["-dnsserver", &format!("127.0.0.1:{dns}"), "-config"]).arg(folder.join("pebble.json")).env("PEBBLE_VA_NOSLEEP", "1");
    let both = Ended(vec![names, quiet(&mut pebble)]);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", listen)).is_err() || TcpStream::connect(("127.0.0.1", manage)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "pebble does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    both
}

/// Asks `host` at the edge with one root to trust; the status, or nothing without a good handshake.
fn status(host: &str, port: u16, root: &Path) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &format!("{host}:{port}:127.0.0.1"), "--cacert"]).arg(root);
    let output = curl.arg(format!("https://{host}:{port}/auth/login")).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

// A1, A2: one system with three kinds of certificates. The one that is brought is exchanged while it runs; the one of the authority is
// there again after a restart without the authority; a name that nobody declared has none.
#[test]
fn an_unprivileged_users_system_gets_its_certificate_from_an_acme_authority() {
    let scratch = Scratch::new().unwrap();
    let tls = scratch.0.join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    let (listen, manage, (port_443, edge)) = (free_port(), free_port(), port_443());
    let authority = authority(&tls, listen, manage, port_443);
    certificate(&tls, "shop", &["shop.example"]);
    let shown = tls.display();
    let hosts = format!(
        r#"hosts = ["localhost", "127.0.0.1", "shop.example", "new.example"]
[edge.certificate.shop]
hosts = ["shop.example"]
chain = "{shown}/shop.pem"
key = "{shown}/shop.key"
[edge.acme]
directory = "https://localhost:{listen}/dir"
hosts = ["new.example"]
contact = ["mailto:operator@shop.example"]
terms_agreed = true
root = "{shown}/directory.pem""#
    );
    let mut setting = contained::copied(&scratch, &[("hosts = [\"localhost\", \"127.0.0.1\"]", &hosts)]);
    if xtask::tree::output(Command::new("id").arg("-u")).unwrap().trim() == "0" {
        setting.user = Some(NOBODY);
        xtask::tree::run(Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(&scratch.0)).unwrap();
    }
    let running = setting.start().unwrap();
    let port: u16 = running.address.rsplit_once(':').unwrap().1.parse().unwrap();
    edge.store(port, Ordering::SeqCst);
    let root: PathBuf = tls.join("issuing.pem");
    let mut curl = Command::new("curl");
    curl.args(["-s", "-S", "--cacert"]).arg(tls.join("directory.pem")).arg("-o").arg(&root);
    xtask::tree::run(curl.arg(format!("https://localhost:{manage}/roots/0"))).unwrap();

    let failed = || std::fs::read_to_string(running.dir.join("log/edge.log")).unwrap_or_default().contains("CertificateOrderFailed");
    until("the authority's certificate is shown", || {
        assert!(!failed(), "the order failed; {}", running.dir.join("log/edge.log").display());
        status("new.example", port, &root).is_some()
    });
    assert_eq!(status("shop.example", port, &tls.join("shop.pem")).as_deref(), Some("303"));
    assert_eq!(status("localhost", port, &running.certificate).as_deref(), Some("303"));
    assert_eq!(status("other.example", port, &root), None, "nobody declared it");
    // Another certificate for the same host: no restart, no signal.
    certificate(&tls, "shop", &["shop.example"]);
    xtask::tree::run(Command::new("chown").arg(format!("--reference={}", tls.display())).arg(tls.join("shop.key"))).unwrap();
    until("the new one is shown", || status("shop.example", port, &tls.join("shop.pem")).is_some());
    assert!(running.cli(&["metrics"]).unwrap().contains("palisade_certificate_end_timestamp_seconds"));
    let dir = running.dir.clone();
    running.stop().unwrap();
    let audit = crate::audit_text(&dir);
    assert_eq!(audit.matches("CertificateTaken").count(), 2, "one from the authority, one exchanged");
    let key = std::fs::read_to_string(dir.join("data/edge/acme/certificate-new.example")).unwrap();
    assert!(key.starts_with("sealed1."));

    drop(authority);
    let again = setting.start().unwrap();
    let port: u16 = again.address.rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(status("new.example", port, &root).is_some(), "kept, and shown without the authority");
    again.stop().unwrap();
}
