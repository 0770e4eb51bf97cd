//! Access: what one request was, for the access log: who asked for what, and what became of it.
//!
//! It is put together from what the enforcement point holds anyway, and handed over when the request has ended; it is written as text
//! elsewhere, later. Queries, header fields and bodies are not in it, so tokens and presigned URLs are not either.
//!
//! The audit log is the record that binds: it is kept before a decision takes effect. An access log may lose lines, and counts them.
//!
//! Spec:       RFC 8259, RFC 3339 for the text.
//! Guarantees: J1 in part. No line can look like two, and none can steer a terminal: see `Line`.
//! Not here:   files, rotation, the thread that writes (the assembly).

use std::fmt;
use std::net::IpAddr;

use http::{HeaderValue, Method, Uri, Version};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use trust::{Decision, TraceContext};

use crate::event::CallDecided;

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

/// A request that has ended.
#[derive(Debug)]
pub struct Access {
    /// What was asked.
    pub asked: Asked,
    /// Who, on whose authority, and the decision.
    pub event: CallDecided,
    /// `SERVICE:METHOD /path/{template}` at the edge, `METHOD /path/{template}` at a guard.
    pub route: String,
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

/// Takes what has ended. It never waits and never fails: what cannot be taken is counted.
pub trait AccessSink: Send + Sync + fmt::Debug + 'static {
    /// Takes one.
    fn take(&self, access: Access);
}

/// A request as one line: a JSON object. Whatever a stranger sent is cut to its limit, and what could end a line, steer a terminal or turn
/// its text around is replaced by U+FFFD.
#[derive(Debug)]
pub struct Line<'a> {
    /// The request.
    pub access: &'a Access,
    /// When it ended, as RFC 3339 has it.
    pub time: &'a str,
    /// The service that a guard stands before; empty at the edge, where the route says it.
    pub service: &'a str,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Access { asked, event, route, .. } = self.access;
        let (service, route) = match route.split_once(':') {
            Some((service, route)) if self.service.is_empty() => (service, route),
            _ => (self.service, route.as_str()),
        };
        let host = asked.target.authority().map(|host| host.as_str().as_bytes()).or_else(|| asked.host.as_ref().map(HeaderValue::as_bytes));
        let (reason, policies, epoch) = match &event.decision {
            Decision::Allow { policies, epoch, .. } => ("", policies, *epoch),
            Decision::Deny { reason, policies, epoch, .. } => (reason.code(), policies, *epoch),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", self.time)?;
        map.serialize_entry("duration_ms", &Millis(self.access.took_ns))?;
        map.serialize_entry("point", event.point)?;
        map.serialize_entry("method", &cleaned(asked.method.as_str().as_bytes(), TEXT_BYTES_MAX))?;
        map.serialize_entry("host", &cleaned(host.unwrap_or_default(), HOST_BYTES_MAX))?;
        map.serialize_entry("path", &cleaned(asked.target.path().as_bytes(), PATH_BYTES_MAX))?;
        map.serialize_entry("service", service)?;
        map.serialize_entry("route", route)?;
        map.serialize_entry("status", &self.access.status)?;
        map.serialize_entry("bytes_in", &self.access.bytes_in)?;
        map.serialize_entry("bytes_out", &self.access.bytes_out)?;
        map.serialize_entry("protocol", protocol(asked.version))?;
        map.serialize_entry("tls", asked.tls)?;
        map.serialize_entry("address", &asked.from.map(|from| from.to_string()).unwrap_or_default())?;
        map.serialize_entry("caller", &cleaned(event.principal.as_bytes(), TEXT_BYTES_MAX))?;
        map.serialize_entry("shown", asked.shown.word())?;
        map.serialize_entry("person", &cleaned(event.user.as_bytes(), TEXT_BYTES_MAX))?;
        map.serialize_entry("decision", if event.decision.is_allow() { "allow" } else { "deny" })?;
        map.serialize_entry("reason", reason)?;
        map.serialize_entry("policy", &policies.join(" "))?;
        if let Some(shadow) = event.decision.shadow() {
            map.serialize_entry("shadow", if shadow.allow { "allow" } else { "deny" })?;
        }
        map.serialize_entry("epoch", &epoch)?;
        map.serialize_entry("trace", &self.access.trace.trace_hex())?;
        map.serialize_entry("user_agent", &cleaned(asked.agent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default(), AGENT_BYTES_MAX))?;
        map.end()
    }
}

/// Nanoseconds, written in milliseconds to the microsecond.
struct Millis(u64);

impl Serialize for Millis {
    #[expect(clippy::cast_precision_loss, reason = "a request of a hundred days is told to the microsecond all the same")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.0 / 1_000) as f64 / 1_000.0)
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
