//! Enforcement points as a test reaches them, and what the roles put between rooms, without sockets.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ::queue::Minting;
use async_trait::async_trait;
use contract::signing::SigningKey;
use contract::txn_token::Minter;
use contract::{Body, Room, Route, Transport};
use http::{Request, Response};
use proxy::bundle::PeerSvid;
use proxy::enforce::{Enforcement, Proof};
use proxy::mesh::{Connector, Guard, Job};
use proxy::svid::WorkloadIdentity;
use trust::{Clock, DenyReason, Fault};

use crate::roles::rules::{FromView, MintFromView};

/// An enforcement point and what is behind it.
pub enum Door {
    Room(Arc<Enforcement>, Arc<dyn Room>),
    Guard(Arc<Guard>),
}

pub struct Point {
    pub name: &'static str,
    /// The contract's table.
    pub routes: &'static [Route],
    pub door: Door,
}

impl Point {
    pub async fn answer(&self, proof: &Proof, request: Request<Body>) -> Response<Body> {
        match (&self.door, proof) {
            (Door::Room(enforcement, _), proof) => enforcement.answer(proof, request).await,
            (Door::Guard(guard), Proof::Svid(svid)) => guard.answer(svid.clone(), request).await,
            (Door::Guard(_), other) => panic!("a guard listens for mutual TLS alone: {other:?}"),
        }
    }
}

/// The machine's clock, set forward.
#[derive(Debug)]
pub struct Forward(pub Arc<dyn Clock>, pub AtomicU64);

impl Clock for Forward {
    fn unix_ms(&self) -> u64 {
        self.0.unix_ms() + self.1.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_millis(self.1.load(Ordering::SeqCst))
    }
}

/// Leads to a room's door as one workload.
#[derive(Clone)]
pub struct Wire(pub Arc<Enforcement>, pub PeerSvid);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({} as {})", self.0.point(), self.1.id)
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Fault> {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("room"));
        Ok(self.0.answer(&Proof::Svid(self.1.clone()), request).await)
    }
}

#[derive(Debug)]
pub struct Signer(pub Arc<WorkloadIdentity>);

impl ::control::Signer for Signer {
    fn current(&self) -> (SigningKey, Vec<Vec<u8>>) {
        self.0.signing_key_and_chain()
    }
}

#[derive(Debug)]
pub struct ObjectRules(pub FromView<::objects::Rulebook>);

impl ::objects::Rules for ObjectRules {
    fn current(&self) -> Result<Arc<::objects::Rulebook>, DenyReason> {
        self.0.current()
    }
}

#[derive(Debug)]
pub struct QueueRules(pub FromView<::queue::Rulebook>);

impl ::queue::Rules for QueueRules {
    fn current(&self) -> Result<Arc<::queue::Rulebook>, DenyReason> {
        self.0.current()
    }
}

#[derive(Debug)]
pub struct QueueMinting(pub MintFromView);

impl Minting for QueueMinting {
    fn current(&self) -> Result<Minter, Fault> {
        self.0.minter()
    }
}

/// A service that answers 204 to whatever reaches it, and counts.
#[derive(Debug)]
pub struct Counting(pub std::net::SocketAddr);

#[async_trait]
impl Connector for Counting {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        std::net::TcpStream::connect(self.0)
    }
    async fn fresh(&self) -> std::io::Result<Box<dyn Job>> {
        Ok(Box::new(Self(self.0)))
    }
}

#[async_trait]
impl Job for Counting {
    async fn connect(&self) -> std::io::Result<std::net::TcpStream> {
        std::net::TcpStream::connect(self.0)
    }
    async fn end(self: Box<Self>) {}
}

pub fn counting(reached: Arc<AtomicUsize>) -> Arc<Counting> {
    let listener = proxy::listen::loopback().unwrap();
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, reached) = (stream.unwrap(), reached.clone());
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut byte = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut byte) {
                    seen.extend_from_slice(&byte[..n]);
                    if seen.windows(4).any(|w| w == b"\r\n\r\n") {
                        reached.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                        return;
                    }
                }
            });
        }
    });
    Arc::new(Counting(address))
}
