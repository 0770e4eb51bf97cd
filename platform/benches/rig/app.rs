//! What stands around the product in the rig: the app's place, a plain upstream, the shim before a guard's way out.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use contract::{Body, Transport, body, txn_token};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::bundle::PeerSvid;
use proxy::mesh::{Connector, Guard, Job};
use proxy::passage::Passage;
use tokio::net::{TcpListener, TcpStream};
use trust::Fault;

/// Connects to the app, which stands beside the guard and not in a sandbox.
#[derive(Debug)]
pub struct Beside(pub u16);

#[async_trait]
impl Connector for Beside {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        TcpStream::connect(("127.0.0.1", self.0)).await?.into_std()
    }

    async fn fresh(&self) -> std::io::Result<Box<dyn Job>> {
        // The app consumes no queue, so there are no jobs.
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

type Sender = http1::SendRequest<Body>;

/// A plain HTTP/1.1 upstream with kept connections: what an edge without a mesh behind it would have.
pub struct Plain {
    port: u16,
    idle: Arc<Mutex<Vec<Sender>>>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({})", self.port)
    }
}

impl Plain {
    pub fn new(port: u16) -> Arc<Self> {
        Arc::new(Self { port, idle: Arc::default() })
    }
}

#[async_trait]
impl Transport for Plain {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let kept = self.idle.lock().unwrap().pop();
        let mut sender = match kept {
            Some(sender) if sender.is_ready() => sender,
            _ => connected(self.port).await,
        };
        let response = sender.send_request(request).await.map_err(|error| Fault::unavailable("the app").because(error))?;
        let idle = Arc::clone(&self.idle);
        Ok(response.map(|body| Passage::new(body).at_end(move |_| idle.lock().unwrap().push(sender)).into_body()))
    }
}

async fn connected(port: u16) -> Sender {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A service that writes down the transaction token of a request and keeps the request in flight.
pub fn holding(file: PathBuf) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let file = file.clone();
            let hold = service_fn(move |request: Request<hyper::body::Incoming>| {
                let unfinished = file.with_extension("new");
                std::fs::write(&unfinished, request.headers().get(txn_token::HEADER).unwrap().as_bytes()).unwrap();
                std::fs::rename(unfinished, &file).unwrap();
                std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
            });
            tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hold).await });
        }
    });
    port
}

/// A request that stays in flight, so that its token counts on the way out.
pub async fn begin(guard: Arc<Guard>, peer: PeerSvid, token: String) {
    let request = Request::builder().uri("/begin").header("host", "front").header(txn_token::HEADER, token).body(body::empty()).unwrap();
    let answer = guard.answer(peer, request).await;
    eprintln!("the request that should stay in flight was answered: {}", answer.status());
}

/// Gives the load generator's requests the token that a service passes along.
pub async fn shim(port: u16, to: u16) {
    let file = std::env::var("RIG_TOKEN").unwrap();
    let listener = TcpListener::from_std(super::listen(port)).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (file, kept) = (file.clone(), Arc::new(tokio::sync::Mutex::new(None::<Sender>)));
        let pass = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (file, kept) = (file.clone(), kept.clone());
            async move {
                let mut kept = kept.lock().await;
                let ready = kept.as_mut().is_some_and(|sender| sender.is_ready());
                if !ready {
                    *kept = Some(connected(to).await);
                }
                let token = std::fs::read(&file).unwrap_or_default();
                let (mut parts, sent) = request.into_parts();
                if let Ok(token) = HeaderValue::from_bytes(&token) {
                    parts.headers.insert(txn_token::HEADER, token);
                }
                let request = Request::from_parts(parts, sent.map_err(Into::into).boxed_unsync());
                let answer = match kept.as_mut() {
                    Some(sender) => sender.send_request(request).await.ok(),
                    None => None,
                };
                let Some(answer) = answer else { return Ok(super::plain(StatusCode::BAD_GATEWAY)) };
                // Whole, so that the connection is free for the next request.
                let (parts, sent) = answer.into_parts();
                let bytes = sent.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                Ok::<_, std::convert::Infallible>(Response::from_parts(parts, body::full(bytes)))
            }
        });
        tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await });
    }
}
