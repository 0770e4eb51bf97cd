//! Access: what one request was, for the access log: who asked for what, and what became of it.
//!
//! It is put together from what the enforcement point holds anyway, and written as text where the request ends, into a buffer that is on
//! its way to a file: nothing is kept of it, so nothing is allocated for it. Queries, header fields and bodies are not in it, so tokens and presigned URLs are not either.
//!
//! The audit log is the record that binds: it is kept before a decision takes effect. An access log may lose lines, and counts them.
//!
//! Spec:       RFC 8259, RFC 3339 for the text.
//! Guarantees: J1 in part. No line can look like two, and none can steer a terminal: see `Access::write`.
//! Not here:   files, rotation, the thread that writes (the assembly).

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

use http::{HeaderValue, Method, Uri, Version};
use trust::{Decision, TraceContext};

use crate::decided::Decided;
use crate::json::{self, Object};

/// Longest path that is written, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest user agent that is written, in bytes.
pub const AGENT_BYTES_MAX: usize = 256;
/// Longest host that is written, in bytes.
pub const HOST_BYTES_MAX: usize = 255;
/// Longest of the other texts, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;

/// What a request showed to say who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// Nothing.
    #[default]
    Nothing,
    /// A session's cookie.
    Session,
    /// An access token.
    Token,
    /// An API key.
    Key,
    /// A presigned URL.
    Presigned,
    /// A workload's SVID.
    Workload,
}

impl Shown {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Session => "session",
            Self::Token => "token",
            Self::Key => "key",
            Self::Presigned => "presigned",
            Self::Workload => "workload",
        }
    }
}

/// What was asked, as it is known when a request begins. Cloned parts share their bytes.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method.
    pub method: Method,
    /// Target; its query is never written.
    pub target: Uri,
    /// `Host`, where the target has none.
    pub host: Option<HeaderValue>,
    /// `User-Agent`.
    pub agent: Option<HeaderValue>,
    /// Version of HTTP.
    pub version: Version,
    /// `1.3`, `1.2`.
    pub tls: &'static str,
    /// Address of the caller; none in the mesh, where it has an identity.
    pub from: Option<IpAddr>,
    /// What it showed.
    pub shown: Shown,
}

/// A request that has ended. All of it is borrowed: it is written, or it is gone.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// Who, on whose authority, and the decision.
    pub decided: Decided<'a>,
    /// `SERVICE:METHOD /path/{template}` at the edge, `METHOD /path/{template}` at a guard.
    pub route: &'a str,
    /// HTTP status.
    pub status: u16,
    /// Bytes of the request's body that came.
    pub bytes_in: u64,
    /// Bytes of the answer's body that went.
    pub bytes_out: u64,
    /// When it began, in nanoseconds since the epoch.
    pub began_ns: u64,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// Its trace.
    pub trace: TraceContext,
}

/// Takes what has ended. It never waits for a disk and never fails: what cannot be taken is counted.
pub trait AccessSink: Send + Sync + fmt::Debug + 'static {
    /// Takes one.
    fn take(&self, access: &Access<'_>);
}

impl Access<'_> {
    /// Writes it as one line: a JSON object, without its line feed. Whatever a stranger sent is cut to its limit, and what could end a
    /// line, steer a terminal or turn its text around is replaced by U+FFFD.
    ///
    /// `time` says when it ended, as RFC 3339 has it; `service` is the one that a guard stands before, and empty at the edge, where the
    /// route says it.
    pub fn write(&self, time: &str, service: &str, out: &mut Vec<u8>) {
        let Self { asked, decided, .. } = self;
        let (service, route) = match self.route.split_once(':') {
            Some(both) if service.is_empty() => both,
            _ => (service, self.route),
        };
        let host = asked.target.authority().map(|host| host.as_str().as_bytes()).or_else(|| asked.host.as_ref().map(HeaderValue::as_bytes));
        let (word, reason, policies, epoch) = match decided.decision {
            Decision::Allow { policies, epoch, .. } => ("allow", "", policies, *epoch),
            Decision::Deny { reason, policies, epoch, .. } => ("deny", reason.code(), policies, *epoch),
        };
        let mut line = Object::begin(out);
        line.text("time", time);
        millis(line.member("duration_ms"), self.took_ns);
        line.text("point", decided.point);
        strange(line.member("method"), asked.method.as_str().as_bytes(), TEXT_BYTES_MAX);
        strange(line.member("host"), host.unwrap_or_default(), HOST_BYTES_MAX);
        strange(line.member("path"), asked.target.path().as_bytes(), PATH_BYTES_MAX);
        line.text("service", service);
        line.text("route", route);
        line.number("status", self.status.into());
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.text("protocol", protocol(asked.version));
        line.text("tls", asked.tls);
        address(line.member("address"), asked.from);
        strange(line.member("caller"), decided.principal.as_bytes(), TEXT_BYTES_MAX);
        line.text("shown", asked.shown.word());
        strange(line.member("person"), decided.user.as_bytes(), TEXT_BYTES_MAX);
        line.text("decision", word);
        line.text("reason", reason);
        line.joined("policy", policies);
        if let Some(shadow) = decided.decision.shadow() {
            line.text("shadow", if shadow.allow { "allow" } else { "deny" });
        }
        line.number("epoch", epoch);
        let trace = line.member("trace");
        trace.push(b'"');
        json::hex(trace, self.trace.trace_id.to_be_bytes());
        trace.push(b'"');
        strange(line.member("user_agent"), asked.agent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default(), AGENT_BYTES_MAX);
        line.end();
    }
}

/// Nanoseconds, written in milliseconds to the microsecond.
fn millis(out: &mut Vec<u8>, took_ns: u64) {
    json::number(out, took_ns / 1_000_000);
    let rest = took_ns / 1_000 % 1_000;
    let digit = |of: u64| b'0' | u8::try_from(rest / of % 10).unwrap_or_default();
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

fn address(out: &mut Vec<u8>, from: Option<IpAddr>) {
    out.push(b'"');
    if let Some(from) = from {
        // A list of bytes takes everything.
        let _written = write!(out, "{from}");
    }
    out.push(b'"');
}

/// A stranger's text: as it is where nothing is in it but what is for eyes, else `cleaned`.
fn strange(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) {
    let most = text.get(..bytes_max.min(text.len())).unwrap_or_default();
    let is_plain = most.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    match std::str::from_utf8(most) {
        Ok(plain) if is_plain => json::text(out, &[plain]),
        _ => json::text(out, &[&cleaned(text, bytes_max)]),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP",
    }
}

/// At most `bytes_max` bytes of a stranger's text, with nothing in it that is not for eyes.
#[must_use]
pub fn cleaned(text: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(text.get(..bytes_max.min(text.len())).unwrap_or_default());
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }) {
        if out.len().saturating_add(c.len_utf8()) > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
