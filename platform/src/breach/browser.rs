//! A browser: HTTPS to the copy's edge, with cookies, and with a key instead where a program is meant.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use breach::attacker::heard;
use breach::attacker::http::{Answer, Ask, Request};
use breach::attacker::techniques::Credential;
use contract::body;
use contract::control::Outside;
use proxy::client::{OutsideLine, Resolve};
use tokio::runtime::Handle;
use trust::SystemClock;

/// Cookie of a session at the edge.
const SESSION: &str = "__Host-palisade";
/// How long an answer may take: an attack happens before some of them.
const ANSWER_MAX: Duration = Duration::from_secs(90);
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One browser.
pub(super) struct Browser {
    handle: Handle,
    line: Arc<OutsideLine>,
    to: Arc<Outside>,
    origin: String,
    cookies: Mutex<BTreeMap<String, String>>,
    key: Option<String>,
}

/// The edge is on loopback, whatever its name.
#[derive(Debug)]
struct Here;

#[async_trait]
impl Resolve for Here {
    async fn addresses(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
}

impl Browser {
    /// A browser without cookies, of the system at `origin`, that trusts `certificate`.
    pub(super) fn new(handle: &Handle, origin: &str, certificate: &Path) -> io::Result<Self> {
        let authority = origin.strip_prefix("https://").unwrap_or(origin);
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
        let port = port.parse().map_err(io::Error::other)?;
        let loopback = "127.0.0.0/8".parse().map_err(|_| io::Error::other("not a network"))?;
        let to = Outside {
            name: "edge".to_owned(),
            host: host.to_owned(),
            port,
            networks: vec![loopback],
            root: Some(certificate.display().to_string()),
            certificate: None,
            credential: None,
            body_bytes_max: 1 << 30,
            answer_bytes_max: 1 << 30,
            wall_ms: 90_000,
            concurrency: 16,
            trace: false,
        };
        Ok(Self {
            handle: handle.clone(),
            line: Arc::new(OutsideLine::new(Arc::new(Here), SystemClock::shared())),
            to: Arc::new(to),
            origin: origin.to_owned(),
            cookies: Mutex::default(),
            key: None,
        })
    }

    /// The same place, as a program with a key.
    pub(super) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.bare() }
    }

    /// The same place, over connections of its own that show a certificate: files of its chain and key.
    pub(super) fn showing(&self, [chain, key]: [std::path::PathBuf; 2]) -> Self {
        let certificate = Some((chain.display().to_string(), key.display().to_string()));
        let line = Arc::new(OutsideLine::new(Arc::new(Here), SystemClock::shared()));
        Self { to: Arc::new(Outside { certificate, ..(*self.to).clone() }), line, ..self.bare() }
    }

    /// The same place, without any credential.
    pub(super) fn bare(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            line: Arc::clone(&self.line),
            to: Arc::clone(&self.to),
            origin: self.origin.clone(),
            cookies: Mutex::default(),
            key: None,
        }
    }

    /// What it shows, as whoever stole it has it.
    pub(super) fn credential(&self, what: &str) -> Option<Credential> {
        if let Some(key) = &self.key {
            return Some(Credential { what: what.to_owned(), home: ("x-api-key", key.clone()), text: key.clone() });
        }
        let jar = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        let text = jar.get(SESSION)?.clone();
        Some(Credential { what: what.to_owned(), home: ("cookie", format!("{SESSION}={text}")), text })
    }

    /// The path of a URL of this system.
    pub(super) fn path_of(&self, url: &str) -> String {
        url.strip_prefix(&self.origin).unwrap_or(url).to_owned()
    }

    /// Asks, and follows redirects within the system; also gives the path that it ended at.
    pub(super) fn follow(&self, mut request: Request) -> io::Result<(Answer, String)> {
        const REDIRECTS_MAX: usize = 12;
        for _ in 0..REDIRECTS_MAX {
            let at = request.target.clone();
            let answer = self.ask(&request)?;
            let Some(to) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else { return Ok((answer, at)) };
            request = Request::new("GET", self.path_of(to));
        }
        Err(io::Error::other("too many redirects"))
    }

    async fn send(&self, to: &Arc<Outside>, request: http::Request<contract::Body>) -> io::Result<Answer> {
        let sent = tokio::time::timeout(ANSWER_MAX, self.line.call(to, request));
        let answer = sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
        let (parts, stream) = answer.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let body = body::collect(stream, BODY_BYTES_MAX).await.map_err(|fault| io::Error::other(fault.to_string()))?;
        Ok(Answer { status: parts.status.as_u16(), headers, body: body.to_vec() })
    }
}

/// How often, and after what, somebody who is known asks again who was told to wait.
const AGAIN_MAX: usize = 8;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Ask for Browser {
    fn ask(&self, request: &Request) -> io::Result<Answer> {
        for _ in 0..AGAIN_MAX {
            let answer = self.ask_once(request)?;
            // A stranger's flood is refused as it should be. That somebody known asks too fast says nothing of what they may have.
            let known = self.key.is_some() || !self.cookies.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if answer.status != 429 || !known {
                return Ok(answer);
            }
            std::thread::sleep(AGAIN_AFTER);
        }
        self.ask_once(request)
    }

    fn at_once(&self, request: &Request, times: usize) -> Vec<u16> {
        let mut answers: Vec<Answer> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..times).map(|_| scope.spawn(|| self.ask_once(request))).collect();
            asking.into_iter().filter_map(|one| one.join().ok()?.ok()).collect()
        });
        // What those threads heard is theirs; of a refusal and an answer the refusal is what came of it.
        answers.sort_by_key(|answer| answer.status);
        answers.iter().for_each(|answer| heard::hear(Some(answer)));
        answers.iter().map(|answer| answer.status).collect()
    }
}

impl Browser {
    /// Asks once, whatever the answer.
    pub(super) fn ask_once(&self, request: &Request) -> io::Result<Answer> {
        // What is stored is at an origin of its own: the same edge by another name, to which no cookie goes.
        let (to, target) = match request.target.strip_prefix("https://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            Some((authority, path)) => {
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                (Arc::new(Outside { name: host.to_owned(), host: host.to_owned(), ..(*self.to).clone() }), format!("/{path}"))
            }
            None => (Arc::clone(&self.to), request.target.clone()),
        };
        let own = to.host == self.to.host;
        let mut built = http::Request::builder().method(request.method.as_str()).uri(target);
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let jar = self.cookies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if own && !jar.is_empty() && request.header("cookie").is_none() {
            let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            built = built.header("cookie", cookies.join("; "));
        }
        if let Some(key) = self.key.as_ref().filter(|_| own) {
            built = built.header("x-api-key", key);
        }
        if request.method != "GET" && request.header("origin").is_none() {
            built = built.header("origin", &self.origin);
        }
        let whole = if request.body.is_empty() { body::empty() } else { body::full(request.body.clone()) };
        let built = built.body(whole).map_err(io::Error::other)?;
        let answer = self.handle.block_on(self.send(&to, built));
        heard::hear(answer.as_ref().ok());
        let answer = answer?;
        let mut jar = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            if let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) {
                if value.is_empty() {
                    jar.remove(name);
                } else {
                    jar.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Ok(answer)
    }
}
