//! A destination outside, with real TLS on loopback, and a service behind a guard that calls it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::control::{OUTSIDE_ROLE, Outbound, Outside};
use contract::{Body, body};
use http::{HeaderMap, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::world::{World, request};
use crate::client::Resolve;
use crate::mesh::Guard;
use crate::tls;

/// What the operator gave for the destination.
pub const SECRET: &str = "Bearer operators-own-secret";

/// A request as the destination saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub fields: HeaderMap,
    pub bytes: usize,
    pub trailers: bool,
    pub shown: bool,
}

/// An authority for names outside.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Chain and key for a name, in PEM.
    pub fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Answers in turn what it was told; the last answer for ever.
#[derive(Debug, Default)]
pub struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    pub asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Resolve for Names {
    async fn addresses(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// How a destination is.
pub struct Place {
    pub certificate_for: &'static str,
    pub asks_certificate: bool,
    pub alpn: &'static [&'static [u8]],
}

impl Default for Place {
    fn default() -> Self {
        Self { certificate_for: "shop.test", asks_certificate: false, alpn: &[tls::H2, tls::HTTP1] }
    }
}

/// All of it: destination, guard, service.
pub struct Outdoors {
    pub world: World,
    pub names: Arc<Names>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// Has the roots.
    _folder: tempfile::TempDir,
    pub authority: Authority,
    pub port: u16,
    front: SocketAddr,
    out: SocketAddr,
    _guard: Arc<Guard>,
}

impl Outdoors {
    pub async fn new() -> Self {
        Self::at(Place::default(), |_| {}).await
    }

    /// A destination like `place`, declared as usual but for `change`.
    pub async fn at(place: Place, change: impl FnOnce(&mut Outside)) -> Self {
        let (world, authority, folder) = (World::new(), Authority::new(), tempfile::tempdir().unwrap());
        let (seen, connections): (Arc<Mutex<Vec<Seen>>>, Arc<AtomicUsize>) = Default::default();
        let port = destination(&place, &authority, &seen, &connections).await;
        let root = folder.path().join("root.pem");
        std::fs::write(&root, &authority.pem).unwrap();
        let mut outside = Outside {
            name: "shop".into(),
            host: "shop.test".into(),
            port,
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            root: Some(root.display().to_string()),
            certificate: None,
            credential: None,
            body_bytes_max: 1000,
            answer_bytes_max: 1000,
            wall_ms: 20_000,
            concurrency: 2,
            trace: false,
        };
        change(&mut outside);
        let names = Arc::new(Names::default());
        names.answers.lock().unwrap().push_back(vec!["127.0.0.1".parse().unwrap()]);
        let listener = crate::listen::loopback().unwrap();
        let out = listener.local_addr().unwrap();
        let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
        let profile = view.service.as_mut().unwrap();
        profile.routes.push("GET /jobs/{*rest}".into());
        profile.outbound = vec![Outbound {
            port: 9400,
            env: "SHOP_URL".into(),
            peer: world.ca.domain.role(OUTSIDE_ROLE),
            routes: vec!["POST /v1/charges/{id}".into(), "GET /v1/{*rest}".into()],
            outside: Some(Arc::new(outside)),
        }];
        let service = super::super::world::service(move |request| relay(out, request), world.stop.clone());
        let guard = Guard::resolving_by(
            world.holder(&world.identity("front"), &view),
            world.recorder.clone(),
            world.clock.clone(),
            Arc::new(super::super::contact::To(service)),
            names.clone(),
        );
        let mesh = crate::listen::loopback().unwrap();
        let front = mesh.local_addr().unwrap();
        tokio::spawn(Arc::clone(&guard).inbound(mesh, world.stop.clone()));
        tokio::spawn(Arc::clone(&guard).outbound(9400, listener, world.stop.clone()));
        Self { world, names, seen, connections, _folder: folder, authority, port, front, out, _guard: guard }
    }

    /// What the resolver says from now on.
    pub fn resolves_to(&self, answers: &[&[&str]]) {
        let parse = |all: &&[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
        *self.names.answers.lock().unwrap() = answers.iter().map(parse).collect();
    }

    /// The service asks the destination on Ann's authority: status and whole text of what it got.
    pub async fn ask(&self, line: &str) -> (u16, String) {
        self.ask_with(line, "", "/relay/x", "view").await
    }

    /// With more fields (`A: b|C: d`), on a route and for a purpose.
    pub async fn ask_with(&self, line: &str, fields: &str, route: &str, purpose: &str) -> (u16, String) {
        let edge = self.world.transport(&self.world.edge, &self.world.service("front"), self.front);
        let token = self.world.token("ann", purpose);
        let more = [("txn-token", token.as_str()), ("x-line", line), ("x-fields", fields)];
        let answer = edge.call(request("GET", route, &more, body::empty())).await.unwrap();
        let bytes = body::collect(answer.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status(&text), text)
    }

    /// Somebody writes to the service's socket who has no authority, or one of another time.
    pub async fn ask_raw(&self, line: &str, fields: &str) -> (u16, String) {
        let text = exchange(self.out, line, fields).await;
        (status(&text), text)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Everything that was recorded: audit, spans, log.
    pub fn records(&self) -> String {
        format!("{:?} {:?}", self.world.sink.audit.lock().unwrap(), self.world.sink.spans.lock().unwrap())
    }
}

pub fn write(path: &std::path::Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn status(text: &str) -> u16 {
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// What the service does: it asks what it is told, with the token that it got, and says what came back.
async fn relay(out: SocketAddr, request: Request<Body>) -> Response<Body> {
    let (head, _empty) = request.into_parts();
    let field = |name: &str| head.headers[name].to_str().unwrap().to_owned();
    let (line, fields) = (field("x-line"), format!("Txn-Token: {}|{}", field("txn-token"), field("x-fields")));
    let text = exchange(out, &line, &fields).await;
    body::with_type(http::StatusCode::OK, "text/plain", text)
}

/// One exchange of the service's own client. `BODY n` and `CHUNKED n` in the fields send so many bytes.
async fn exchange(out: SocketAddr, line: &str, fields: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(out).await.unwrap();
    let (mut head, mut rest) = (format!("{line} HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n"), Vec::new());
    for field in fields.split('|').filter(|field| !field.is_empty()) {
        if let Some(bytes) = field.strip_prefix("BODY ") {
            head.push_str(&format!("Content-Length: {bytes}\r\n"));
            rest = vec![b'x'; bytes.parse().unwrap()];
        } else if let Some(bytes) = field.strip_prefix("CHUNKED ") {
            let bytes: usize = bytes.parse().unwrap();
            head.push_str("Transfer-Encoding: chunked\r\n");
            rest = format!("{bytes:x}\r\n{}\r\n0\r\nX-Trail: 1\r\n\r\n", "x".repeat(bytes)).into_bytes();
        } else {
            head.push_str(&format!("{field}\r\n"));
        }
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // Who is refused may be gone before the body is written.
    let _sent = stream.write_all(&rest).await;
    let mut back = Vec::new();
    let _ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut back)).await;
    String::from_utf8_lossy(&back).into_owned()
}

async fn destination(place: &Place, authority: &Authority, seen: &Arc<Mutex<Vec<Seen>>>, connections: &Arc<AtomicUsize>) -> u16 {
    let (chain, key) = authority.issue(place.certificate_for, ExtendedKeyUsagePurpose::ServerAuth);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = if place.asks_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build().unwrap();
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
    } else {
        builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
    };
    config.alpn_protocols = place.alpn.iter().map(|one| one.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, connections) = (seen.clone(), connections.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| {
                    let seen = seen.clone();
                    async move { Ok::<_, std::convert::Infallible>(answer(request, shown, &seen).await) }
                });
                // It ends when the guard has gone.
                let _ended = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

async fn answer(request: Request<hyper::body::Incoming>, shown: bool, seen: &Mutex<Vec<Seen>>) -> Response<Body> {
    use http_body_util::BodyExt;
    let (head, sent) = request.into_parts();
    let whole = sent.collect().await;
    let trailers = whole.as_ref().is_ok_and(|whole| whole.trailers().is_some());
    let bytes = whole.map(|whole| whole.to_bytes().len()).unwrap_or_default();
    let mut fields = head.headers;
    if let Some(authority) = head.uri.authority() {
        fields.insert("host", authority.as_str().parse().unwrap());
    }
    let credential = fields.get("authorization").cloned();
    let line = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
    seen.lock().unwrap().push(Seen { line, fields, bytes, trailers, shown });
    let mut answer = body::with_type(http::StatusCode::OK, "text/plain", "thank you");
    match head.uri.path() {
        "/v1/redirect" => {
            *answer.status_mut() = http::StatusCode::FOUND;
            answer.headers_mut().insert("location", "http://169.254.169.254/latest/meta-data".parse().unwrap());
        }
        "/v1/echo" => {
            answer.headers_mut().insert("x-echo", credential.unwrap());
            answer.headers_mut().insert("palisade-user", "root".parse().unwrap());
        }
        "/v1/1000" => *answer.body_mut() = body::full("x".repeat(1000)),
        "/v1/1001" => *answer.body_mut() = body::full("x".repeat(1001)),
        "/v1/streamed" => {
            let (mut sender, channel) = http_body_util::channel::Channel::<bytes::Bytes, contract::BoxError>::new(1);
            tokio::spawn(async move { while sender.send_data(bytes::Bytes::from_static(&[b'x'; 600])).await.is_ok() {} });
            *answer.body_mut() = crate::passage::Passage::new(channel).into_body();
        }
        "/v1/bye" => drop(answer.headers_mut().insert("connection", "close".parse().unwrap())),
        "/v1/never" => std::future::pending().await,
        _ => {}
    }
    answer
}
