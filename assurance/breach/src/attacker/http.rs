//! As much of HTTP/1.1 as the attacker needs: it writes requests byte for byte, also such as no client library would.
//!
//! Spec:       RFC 9112, sections 3, 6 and 7.1; requests and answers with `content-length` or in chunks.
//! Not here:   TLS: inside a sandbox there is only loopback.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::heard;

/// Longest head and body that are read, in bytes.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// Something that requests can be sent to.
pub trait Ask {
    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    fn ask(&self, request: &Request) -> io::Result<Answer>;

    /// Sends a request so many times at once, and does not wait when it is told to; the statuses of the answers that came.
    fn at_once(&self, request: &Request, times: usize) -> Vec<u16> {
        (0..times).filter_map(|_| self.ask(request).ok()).map(|answer| answer.status).collect()
    }
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        Self { method: method.to_owned(), target: target.into(), ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with("content-type", media_type)
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// As bytes on a connection.
    fn write(&self, to: &mut impl Write, host: &str) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let own = ["host", "content-length", "transfer-encoding"].map(|name| self.header(name).is_some());
        if !own[0] {
            head.push_str(&format!("host: {host}\r\n"));
        }
        if !own[1] && !own[2] && (!self.body.is_empty() || self.method != "GET") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        to.write_all(&self.body)?;
        to.flush()
    }

    /// Reads one; nothing when the connection has ended.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some((line, headers)) = head(from)? else { return Ok(None) };
        let mut parts = line.split(' ');
        let (method, target) = (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default().to_owned());
        let body = body(from, &headers, false)?;
        Ok(Some(Self { method, target, headers, body }))
    }
}

impl Answer {
    /// Whether it was done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        // A refusal of a gRPC call is an answer like any other, but for this field.
        (200..300).contains(&self.status) && self.header("grpc-status").is_none_or(|status| status == "0")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// As bytes on a connection.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let reason = if self.is_success() { "OK" } else { "No" };
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        if self.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        to.write_all(&self.body)?;
        to.flush()
    }
}

/// A plain port, a connection for each request.
#[derive(Debug, Clone, Copy)]
pub struct Port(pub SocketAddr);

impl Port {
    /// That of a URL of loopback: `http://127.0.0.1:9000`.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let rest = url.split_once("://")?.1;
        rest.split('/').next()?.parse().ok().map(Self)
    }
}

impl Port {
    fn ask_now(self, request: &Request) -> io::Result<Answer> {
        // On loopback there is an answer at once; to wait for one takes calls that a sandbox may lack.
        let stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        exchange(stream, &self.0.to_string(), request)
    }
}

impl Ask for Port {
    fn ask(&self, request: &Request) -> io::Result<Answer> {
        let answer = self.ask_now(request);
        heard::hear(answer.as_ref().ok());
        answer
    }
}

/// One request and its answer, on a connection that is made.
pub(crate) fn exchange(mut stream: impl Read + Write, host: &str, request: &Request) -> io::Result<Answer> {
    // An answer may come before the whole request was read: then it is read all the same.
    let written = request.write(&mut stream, host);
    let mut reader = BufReader::new(stream);
    let Some((line, headers)) = head(&mut reader)? else {
        written?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let body = if request.method == "HEAD" || status == 204 || status == 304 { Vec::new() } else { body(&mut reader, &headers, true)? };
    Ok(Answer { status, headers, body })
}

type Headers = Vec<(String, String)>;

fn header<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// The first line and the headers.
fn head(from: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let mut limited = from.take(HEAD_BYTES_MAX);
    let mut line = || -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    };
    let Some(first) = line()? else { return Ok(None) };
    let mut headers = Vec::new();
    while let Some(text) = line()? {
        if text.is_empty() {
            return Ok(Some((first, headers)));
        }
        if let Some((name, value)) = text.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn body(from: &mut impl BufRead, headers: &Headers, until_end: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            from.take(64).read_line(&mut size)?;
            let size = size.trim().split(';').next().and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or(io::ErrorKind::InvalidData)?;
            let whole = u64::try_from(body.len()).unwrap_or(u64::MAX).saturating_add(size);
            if whole > BODY_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            from.take(size).read_to_end(&mut body)?;
            let mut end = String::new();
            from.take(2).read_line(&mut end)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match header(headers, "content-length").and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > BODY_BYTES_MAX => return Err(io::ErrorKind::FileTooLarge.into()),
        Some(length) => {
            from.take(length).read_to_end(&mut body)?;
        }
        None if until_end => {
            from.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
        }
        None => {}
    }
    Ok(body)
}

/// A field of a JSON object, if it is a text.
#[must_use]
pub fn text_of<'v>(value: &'v serde_json::Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(serde_json::Value::as_str)
}

/// The value of a parameter of a query, percent-decoded as far as tokens need it.
#[must_use]
pub fn parameter(target: &str, name: &str) -> Option<String> {
    let query = target.split_once('?')?.1;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = Vec::new();
        Request::new("POST", "/a?b=c").with("txn-token", "t").body("text/plain", "hello").write(&mut bytes, "h").unwrap();
        let read = Request::read(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(
            (read.method.as_str(), read.path(), read.header("txn-token"), read.body.as_slice()),
            ("POST", "/a", Some("t"), &b"hello"[..])
        );
        assert_eq!(parameter(&read.target, "b").as_deref(), Some("c"));
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(Request::read(&mut &chunked[..]).unwrap().unwrap().body, b"hello");
        assert!(Request::read(&mut &b""[..]).unwrap().is_none());
        assert!(Request::read(&mut &b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n"[..]).is_err());
    }
}
