//! The house that the tests live in: a provider, its audit log, browsers and clients.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::{CLIENT_HEADER, ClientProfile, Invite, Invited, SOURCE_HEADER};
use contract::{Caller, LocalPeer, Peer, Room, body};
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::Value;
use telemetry::{MemorySink, Metrics, Recorder};
use trust::{Clock, Digest, Entropy, KeySealer, Secret, SystemEntropy, TraceContext, TrustDomain};

use crate::{Login, LoginConfig};

pub(super) const ORIGIN: &str = "https://localhost:8443";
pub(super) const ISSUER: &str = "https://localhost:8443/oidc";
pub(super) const EDGE_BACK: &str = "https://localhost:8443/auth/callback";
pub(super) const CLI_BACK: &str = "http://127.0.0.1:41999/callback";
pub(super) const PASSWORD: &str = "brisk otter lantern";
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636, appendix B.
pub(super) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

#[derive(Debug)]
pub(super) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1000
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

pub(super) struct House {
    pub(super) login: Login,
    pub(super) sink: Arc<MemorySink>,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// Somebody who calls, with cookies.
pub(super) struct Browser<'h> {
    house: &'h House,
    cookies: Mutex<BTreeMap<String, String>>,
    pub(super) source: String,
}

impl House {
    pub(super) async fn new() -> Self {
        let (folder, clock, sink) = (tempfile::tempdir().unwrap(), Arc::new(TestClock(AtomicU64::new(1_800_000_000))), Arc::default());
        let login = Self::open(&folder, &clock, &sink, 7).await;
        Self { login, sink, clock, folder }
    }

    async fn open(folder: &tempfile::TempDir, clock: &Arc<TestClock>, sink: &Arc<MemorySink>, key: u8) -> Login {
        let (clock, entropy) = (Arc::clone(clock) as Arc<dyn Clock>, SystemEntropy::shared());
        let config = LoginConfig {
            database: folder.path().join("login.db"),
            public_origin: ORIGIN.to_owned(),
            system: "video <test>".to_owned(),
            trust_domain: TrustDomain::parse("video.example").unwrap(),
            scopes: ["videos".to_owned()].into(),
            clients: vec![
                ClientProfile {
                    id: "app".to_owned(),
                    returns: ["https://app.example/back?x=1".to_owned()].into(),
                    opaque: true,
                    proof_required: false,
                    certificate: None,
                },
                ClientProfile {
                    id: "native".to_owned(),
                    returns: ["http://127.0.0.1/cb".to_owned()].into(),
                    opaque: false,
                    proof_required: true,
                    certificate: None,
                },
                ClientProfile {
                    id: "batch".to_owned(),
                    returns: ["https://app.example/batch".to_owned()].into(),
                    opaque: false,
                    proof_required: false,
                    certificate: Some("batch.partner.example".to_owned()),
                },
            ],
            sealer: KeySealer::new("login", &Secret::new([key; 32]), Arc::clone(&entropy)).unwrap(),
            recorder: Recorder::new(Arc::clone(sink) as _, Arc::clone(&clock), Arc::clone(&entropy), Arc::new(Metrics::new())),
            clock,
            entropy,
        };
        Login::open(config).await.unwrap()
    }

    /// As after `kill -9`: another process opens the same file.
    pub(super) async fn restart(&mut self) {
        self.login = Self::open(&self.folder, &self.clock, &self.sink, 7).await;
    }

    pub(super) fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn browser(&self) -> Browser<'_> {
        Browser { house: self, cookies: Mutex::default(), source: "198.51.100.7".to_owned() }
    }

    pub(super) async fn send(&self, peer: Peer, request: Request<contract::Body>) -> Answer {
        let caller = Caller { peer, authority: None, trace: TraceContext::root(0, &SystemEntropy) };
        let response = self.login.call(caller, request).await;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body::collect(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A person with the usual password.
    pub(super) async fn person(&self, name: &str) -> String {
        let invited = self.invite(name).await;
        let answer = self.browser().enrol(&invited.path, &[("password", PASSWORD), ("repeat", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        invited.user
    }

    pub(super) async fn invite(&self, name: &str) -> Invited {
        let invite = Invite { name: name.to_owned(), roles: ["viewer".to_owned()].into() };
        let answer = self.operate(Method::POST, "/users", serde_json::to_vec(&invite).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        serde_json::from_str(&answer.text).unwrap()
    }

    pub(super) async fn operate(&self, method: Method, path: &str, content: Vec<u8>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body::full(content)).unwrap();
        self.send(Peer::Operator(LocalPeer { uid: 0, pid: 1, pidfd: None }), request).await
    }

    /// A request of a client to an endpoint that takes forms; `edge` says whether the edge speaks for itself.
    pub(super) async fn client(&self, edge: bool, path: &str, params: &[(&str, &str)]) -> Answer {
        let mut request = form(path, params);
        if edge {
            request.headers_mut().insert(CLIENT_HEADER, "edge".parse().unwrap());
        }
        self.send(edge_peer(), request).await
    }

    pub(super) async fn exchange(&self, edge: bool, code: &str) -> Answer {
        let back = if edge { EDGE_BACK } else { CLI_BACK };
        let params = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", back), ("code_verifier", VERIFIER)];
        let client = [("client_id", if edge { "edge" } else { "palisade-cli" })];
        self.client(edge, "/token", &[params.as_slice(), &client].concat()).await
    }

    pub(super) async fn refresh(&self, edge: bool, token: &str) -> Answer {
        let client = if edge { "edge" } else { "palisade-cli" };
        let params = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", client)];
        self.client(edge, "/token", &params).await
    }

    pub(super) async fn userinfo(&self, token: &str) -> Answer {
        let builder = Request::builder().uri("/userinfo").header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(edge_peer(), builder.body(body::empty()).unwrap()).await
    }

    pub(super) fn events(&self, name: &str) -> Vec<Value> {
        self.sink.audit.lock().unwrap().iter().filter(|r| r.event == name).map(|r| Value::Object(r.fields.clone())).collect()
    }

    pub(super) fn computed(&self) -> u64 {
        self.login.0.hasher.computed()
    }
}

impl Browser<'_> {
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::builder().uri(path.strip_prefix("/oidc").unwrap_or(path)).body(body::empty()).unwrap()).await
    }

    pub(super) async fn send(&self, mut request: Request<contract::Body>) -> Answer {
        let cookies = self.cookies.lock().unwrap().iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
        if !cookies.is_empty() {
            request.headers_mut().insert(header::COOKIE, cookies.parse().unwrap());
        }
        request.headers_mut().insert(SOURCE_HEADER, self.source.parse().unwrap());
        let answer = self.house.send(edge_peer(), request).await;
        for set in answer.headers.get_all(header::SET_COOKIE) {
            let set = set.to_str().unwrap();
            for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
                assert!(set.starts_with("__Host-") && set.contains(part) && !set.contains("Domain"), "{set}");
            }
            let (name, rest) = set.split_once('=').unwrap();
            self.cookies.lock().unwrap().insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        answer
    }

    /// Sends the form of a page back, with what a person typed.
    pub(super) async fn submit(&self, path: &str, page: &Answer, typed: &[(&str, &str)]) -> Answer {
        let mut params = page.hidden();
        params.extend(typed.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let params: Vec<(&str, &str)> = params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut request = form(path, &params);
        request.headers_mut().insert(header::ORIGIN, ORIGIN.parse().unwrap());
        self.send(request).await
    }

    pub(super) async fn enrol(&self, path: &str, typed: &[(&str, &str)]) -> Answer {
        let page = self.get(path).await;
        if page.status != StatusCode::OK {
            return page;
        }
        self.submit("/enrol", &page, typed).await
    }

    /// From the client's link to the answer of the sign-in form.
    pub(super) async fn sign_in(&self, authorize: &str, name: &str, password: &str) -> Answer {
        let sent = self.get(authorize).await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.text);
        let page = self.get(&sent.location()).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        self.submit("/sign-in", &page, &[("name", name), ("password", password)]).await
    }

    /// A code for a person with the usual password.
    pub(super) async fn code(&self, edge: bool, scope: &str, name: &str) -> String {
        let answer = self.sign_in(&authorize(edge, &[("scope", scope)]), name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.param("code").unwrap()
    }

    /// Tokens for a person with the usual password.
    pub(super) async fn tokens(&self, edge: bool, name: &str) -> Value {
        let code = self.code(edge, "openid profile offline_access videos", name).await;
        let answer = self.house.exchange(edge, &code).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }
}

impl Answer {
    pub(super) fn location(&self) -> String {
        self.headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    /// A parameter of the address that the browser is sent to.
    pub(super) fn param(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(&self.location()).unwrap();
        url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(super) fn error(&self) -> (StatusCode, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }

    fn hidden(&self) -> Vec<(String, String)> {
        let inputs = self.text.split("<input type=\"hidden\" name=\"").skip(1);
        let pairs = inputs
            .filter_map(|rest| rest.split_once("\" value=\"").and_then(|(n, v)| Some((n.to_owned(), v.split('"').next()?.to_owned()))));
        pairs.collect()
    }
}

/// The address that a client sends a person to; `changes` replace or, when empty, remove parameters.
pub(super) fn authorize(edge: bool, changes: &[(&str, &str)]) -> String {
    let usual = [
        ("response_type", "code"),
        ("client_id", if edge { "edge" } else { "palisade-cli" }),
        ("redirect_uri", if edge { EDGE_BACK } else { CLI_BACK }),
        ("scope", "openid profile offline_access videos"),
        ("state", "st&te"),
        ("nonce", "n0nce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let mut params: BTreeMap<&str, &str> = usual.into();
    params.extend(changes.iter().copied());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params.iter().filter(|(_, value)| !value.is_empty()));
    format!("/authorize?{}", query.finish())
}

pub(super) fn form(path: &str, params: &[(&str, &str)]) -> Request<contract::Body> {
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    let builder = Request::builder().method(Method::POST).uri(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    builder.body(body::full(text)).unwrap()
}

pub(super) fn edge_peer() -> Peer {
    Peer::Workload(TrustDomain::parse("video.example").unwrap().role("edge"))
}

/// The claims of a compact JWS, without a look at its signature.
pub(super) fn claims(jws: &str) -> Value {
    serde_json::from_slice(&B64.decode(jws.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A new code verifier and its challenge.
pub(super) fn pkce() -> (String, String) {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    let verifier = B64.encode(bytes);
    let challenge = B64.encode(Digest::of(verifier.as_bytes()).as_bytes());
    (verifier, challenge)
}
