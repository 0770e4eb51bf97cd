//! The floor: a bare reverse proxy of hyper and rustls, with a cache of verified tokens and nothing else. No limits, no policy, no records.
//! What a proxy in Rust cannot go below, and what the product is compared with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trust::{Clock, SystemClock};

use super::{Told, hop};

/// How many verified tokens are kept.
const KEPT_MAX: usize = 10_000;

/// What tokens must be.
struct Tokens {
    keys: HashMap<String, Key>,
    issuer: String,
    audience: String,
    scope: String,
    kept: RefCell<HashMap<Box<str>, u64>>,
    clock: Arc<dyn Clock>,
}

enum Key {
    Es256(Vec<u8>),
    Rs256(RsaPublicKeyComponents<Vec<u8>>),
    EdDsa(Vec<u8>),
}

impl Tokens {
    fn told(told: &Told) -> Option<Self> {
        let jwks: serde_json::Value = serde_json::from_slice(&std::fs::read(told.0.get("jwks")?).unwrap()).unwrap();
        let key = |jwk: &serde_json::Value| {
            let field = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            let key = match jwk["kty"].as_str().unwrap() {
                "EC" => Key::Es256([vec![4], field("x"), field("y")].concat()),
                "RSA" => Key::Rs256(RsaPublicKeyComponents { n: field("n"), e: field("e") }),
                _ => Key::EdDsa(field("x")),
            };
            (jwk["kid"].as_str().unwrap().to_owned(), key)
        };
        Some(Self {
            keys: jwks["keys"].as_array().unwrap().iter().map(key).collect(),
            issuer: told.text("iss").to_owned(),
            audience: told.text("aud").to_owned(),
            scope: told.text("scope").to_owned(),
            kept: RefCell::default(),
            clock: SystemClock::shared(),
        })
    }

    fn admit(&self, request: &Request<Incoming>) -> Result<(), StatusCode> {
        let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
        let now = self.clock.unix_s();
        if self.kept.borrow().get(token).is_some_and(|ends| *ends > now) {
            return Ok(());
        }
        let claims = self.verified(token).ok_or(StatusCode::UNAUTHORIZED)?;
        let ends = claims["exp"].as_u64().unwrap_or_default();
        if ends <= now || claims["iss"] != *self.issuer || claims["aud"] != *self.audience {
            return Err(StatusCode::UNAUTHORIZED);
        }
        if !claims["scope"].as_str().unwrap_or_default().split(' ').any(|scope| scope == self.scope) {
            return Err(StatusCode::FORBIDDEN);
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(token.into(), ends);
        Ok(())
    }

    fn verified(&self, token: &str) -> Option<serde_json::Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let head: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let message = signed.as_bytes();
        match (self.keys.get(head["kid"].as_str()?)?, head["alg"].as_str()?) {
            (Key::Es256(key), "ES256") => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key).verify(message, &signature),
            (Key::Rs256(key), "RS256") => key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, &signature),
            (Key::EdDsa(key), "EdDSA") => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, &signature),
            _ => return None,
        }
        .ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

/// The way on, with connections that are kept.
struct Onward {
    port: u16,
    tls: Option<TlsConnector>,
    kept: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Onward {
    async fn connected(&self) -> Option<SendRequest<Incoming>> {
        while let Some(mut sender) = { self.kept.borrow_mut().pop() } {
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let Some(tls) = &self.tls else { return driven(stream).await };
        driven(tls.connect(hop::NAME.try_into().unwrap(), stream).await.ok()?).await
    }
}

async fn driven(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Option<SendRequest<Incoming>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(connection);
    Some(sender)
}

/// The upstream's answer; its connection is kept once the answer is over.
enum Answer {
    Own,
    Passed { body: Incoming, sender: Option<SendRequest<Incoming>>, onward: Rc<Onward> },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own => Poll::Ready(None),
            Self::Passed { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own => true,
            Self::Passed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own => SizeHint::with_exact(0),
            Self::Passed { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Self::Passed { sender, onward, .. } = self
            && let Some(sender) = sender.take()
            && !sender.is_closed()
        {
            onward.kept.borrow_mut().push(sender);
        }
    }
}

fn own(status: StatusCode) -> Response<Answer> {
    let mut answer = Response::new(Answer::Own);
    *answer.status_mut() = status;
    answer
}

async fn answered(onward: Rc<Onward>, tokens: Rc<Option<Tokens>>, mut request: Request<Incoming>) -> Response<Answer> {
    if let Some(tokens) = &*tokens
        && let Err(status) = tokens.admit(&request)
    {
        return own(status);
    }
    for name in [header::CONNECTION, header::TE, header::UPGRADE] {
        request.headers_mut().remove(name);
    }
    let Some(mut sender) = onward.connected().await else { return own(StatusCode::BAD_GATEWAY) };
    let Ok(answer) = sender.send_request(request).await else { return own(StatusCode::BAD_GATEWAY) };
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONNECTION);
    Response::from_parts(parts, Answer::Passed { body, sender: Some(sender), onward })
}

fn accepting(told: &Told) -> Option<TlsAcceptor> {
    let certificate = told.0.get("cert")?;
    let builder = ServerConfig::builder_with_provider(hop::provider()).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = match told.0.get("client-ca") {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(hop::roots(file), hop::provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(hop::chain(certificate), hop::key(told.text("key"))).unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.send_tls13_tickets = 1;
    Some(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until the process ends.
pub async fn run(told: &Told) {
    let up = |name: &str| told.text(name);
    let tls = told.0.get("up-ca").map(|ca| hop::connector(ca, up("up-cert"), up("up-key"), up("up-id")));
    let onward = Rc::new(Onward { port: told.port("to"), tls, kept: RefCell::default() });
    let tokens = Rc::new(Tokens::told(told));
    let (accepting, allowed) = (accepting(told), told.0.get("allow").cloned());
    let listener = TcpListener::from_std(super::listen(told.port("listen"))).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let (onward, tokens, accepting, allowed) = (onward.clone(), tokens.clone(), accepting.clone(), allowed.clone());
        tokio::task::spawn_local(async move {
            let Some(accepting) = accepting else { return served(stream, true, onward, tokens).await };
            if let Ok(stream) = accepting.accept(stream).await {
                let known = allowed.is_none_or(|id| hop::names(stream.get_ref().1.peer_certificates().and_then(<[_]>::first), &id));
                served(stream, known, onward, tokens).await;
            }
        });
    }
}

async fn served(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, known: bool, onward: Rc<Onward>, tokens: Rc<Option<Tokens>>) {
    let answer = service_fn(move |request| {
        let (onward, tokens) = (onward.clone(), tokens.clone());
        async move { Ok::<_, Infallible>(if known { answered(onward, tokens, request).await } else { own(StatusCode::FORBIDDEN) }) }
    });
    // A client that goes away is no news.
    let _ended = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}
