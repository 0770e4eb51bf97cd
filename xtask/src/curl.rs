//! An independent HTTP client: curl, as a person's scripts would use it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Outcome;

/// "Stream error in the HTTP/2 framing layer".
const CURLE_HTTP2_STREAM: i32 = 92;

/// One person's browser, as far as HTTP goes: an address, a certificate to trust, and a jar of cookies.
#[derive(Debug, Clone)]
pub struct Curl {
    address: String,
    folder: PathBuf,
    certificate: PathBuf,
    jar: PathBuf,
    /// Microseconds that all its requests took together, by curl's own clock; its copies count together.
    spent_us: Arc<AtomicU64>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers of the last answer, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Where it came from in the end, after redirects.
    pub url: String,
    /// Body.
    pub body: Vec<u8>,
}

/// A request; what is not said is not sent.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// Method; GET when empty.
    pub method: &'a str,
    /// Headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub data: Option<&'a [u8]>,
    /// Body from a file, streamed; sent as PUT.
    pub file: Option<&'a Path>,
    /// Whether redirects are followed.
    pub follow: bool,
    /// Where the body goes instead of into memory.
    pub save: Option<&'a Path>,
    /// Certificate and key that it shows, as PEM files.
    pub shows: Option<(&'a Path, &'a Path)>,
}

impl Curl {
    /// A client of the system at `address` that trusts `certificate`, with its cookies in `folder`.
    #[must_use]
    pub fn new(address: &str, certificate: &Path, folder: &Path, person: &str) -> Self {
        let jar = folder.join(format!("{person}.cookies"));
        Self {
            address: address.to_owned(),
            folder: folder.to_path_buf(),
            certificate: certificate.to_path_buf(),
            jar,
            spent_us: Arc::default(),
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Seconds that all its requests took together, from the first byte of the connection to the last of the answer.
    #[must_use]
    pub fn spent_s(&self) -> f64 {
        self.spent_us.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Its cookies as a `Cookie` header has them.
    ///
    /// # Errors
    /// When there is no jar.
    pub fn cookies(&self) -> Outcome<String> {
        let jar = std::fs::read_to_string(&self.jar)?;
        // Netscape's format: seven fields; HttpOnly ones stand behind a mark that looks like a comment's.
        let lines = jar.lines().map(|line| line.strip_prefix("#HttpOnly_").unwrap_or(line)).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            Some(format!("{}={}", fields.get(5)?, fields.get(6)?))
        });
        Ok(pairs.collect::<Vec<_>>().join("; "))
    }

    /// Asks for a page, following redirects.
    ///
    /// # Errors
    /// As `ask`.
    pub fn page(&self, path: &str) -> Outcome<Answer> {
        self.ask(path, &Ask { follow: true, ..Ask::default() })
    }

    /// Asks; `path` may also be a whole URL.
    ///
    /// # Errors
    /// When curl cannot be run or gets no answer.
    pub fn ask(&self, path: &str, ask: &Ask<'_>) -> Outcome<Answer> {
        let url = if path.starts_with("https://") { path.to_owned() } else { format!("{}{path}", self.address) };
        let unique = format!("{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "");
        let head = self.folder.join(format!("{unique}.head"));
        let saved = self.folder.join(format!("{unique}.body"));
        let sent = self.folder.join(format!("{unique}.sent"));
        let body_file = ask.save.unwrap_or(&saved);
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--globoff",
            "--max-time",
            "900",
            "--write-out",
            "%{http_code} %{time_total} %{url_effective}",
        ]);
        command.arg("--cacert").arg(&self.certificate).arg("--cookie").arg(&self.jar).arg("--cookie-jar").arg(&self.jar);
        command.arg("--dump-header").arg(&head).arg("--output").arg(body_file);
        if let Some((certificate, key)) = ask.shows {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        if ask.follow {
            command.args(["--location", "--max-redirs", "10"]);
        }
        if let Some(file) = ask.file {
            command.arg("--upload-file").arg(file);
        }
        if let Some(data) = ask.data {
            std::fs::write(&sent, data)?;
            command.arg("--data-binary").arg(format!("@{}", sent.display()));
        }
        if !ask.method.is_empty() && ask.file.is_none() {
            if ask.method == "HEAD" {
                command.arg("--head");
            } else if !(ask.data.is_some() && ask.method == "POST") {
                command.args(["--request", ask.method]);
            }
        }
        for (name, value) in ask.headers {
            command.arg("--header").arg(if value.is_empty() { format!("{name}:") } else { format!("{name}: {value}") });
        }
        let output = command.arg(&url).output().map_err(|e| format!("curl cannot be run: {e}"))?;
        // A refusal may come before the whole request was sent, and the rest is then not wanted: RST_STREAM with NO_ERROR after the answer
        // (RFC 9113 section 8.1). curl 7.88 takes that for a failure now and then; the answer is there, and is a refusal.
        let is_early_refusal = output.status.code() == Some(CURLE_HTTP2_STREAM) && output.stdout.first() == Some(&b'4');
        if !output.status.success() && !is_early_refusal {
            return Err(format!("{} {url}: {}", ask.method, String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let line = String::from_utf8(output.stdout)?;
        let (status, rest) = line.split_once(' ').ok_or("curl said nothing")?;
        let (seconds, url) = rest.split_once(' ').ok_or("curl said too little")?;
        let spent = Duration::from_secs_f64(seconds.parse()?);
        self.spent_us.fetch_add(u64::try_from(spent.as_micros())?, Ordering::Relaxed);
        let body = if ask.save.is_some() { Vec::new() } else { std::fs::read(&saved).unwrap_or_default() };
        let headers = headers(&std::fs::read_to_string(&head).unwrap_or_default());
        for file in [&head, &saved, &sent] {
            // Files that were not written need no removal.
            let _absent = std::fs::remove_file(file);
        }
        Ok(Answer { status: status.parse()?, headers, url: url.to_owned(), body })
    }
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, when the status is the expected one.
    ///
    /// # Errors
    /// With status and body when it is not.
    pub fn json(&self, expected: u16) -> Outcome<serde_json::Value> {
        if self.status != expected {
            return Err(format!("{}: expected {expected}, got {}: {}", self.url, self.status, self.text()).into());
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// The headers of the last answer in a dump.
fn headers(dump: &str) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for line in dump.lines() {
        if line.starts_with("HTTP/") {
            last.clear();
        } else if let Some((name, value)) = line.split_once(':') {
            last.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    last
}
