//! Canonical paths and unambiguous requests: what the policy is asked about is what the service sees.
//!
//! Nothing is rewritten. A request that two parsers could read in two ways is refused, so the text that was checked is the text that
//! goes on. The edge, the guards and every room use these functions and no others: `request` reads a request whole and gives its
//! path, `choose` finds the route of that path, once as it stands and once decoded, and both must lead to the same.
//!
//! Spec:       RFC 3986 sections 2.1, 2.3, 3.3, 5.2.4 and 6.2.2; RFC 9110 sections 4.2.3, 5.3 and 7.2; RFC 9112 section 3.2; RFC 9113
//!             section 8.2.2. Deviations: absolute form is refused; so are `;` and needless percent-encodings in a path.
//! Guarantees: A4 canonical path shared with policy.
//! Not here:   the framing of HTTP/1.1 messages (`serve::screen`).

use std::borrow::Cow;

use contract::route::{Found, Route};
use http::{HeaderMap, Method, Uri, Version, header};

pub use crate::choice::{Choice, choose};
use crate::limits;

/// Fields that say where a message or a connection ends. Written with `_` they are the same to a server that makes variables of them
/// (RFC 3875, section 4.1.18), and not to us.
const FRAMING: &[&str] = &["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "expect", "host", "te", "trailer"];
/// Fields of HTTP/1.1's connections, which a message of HTTP/2 must not have (RFC 9113, section 8.2.2).
const CONNECTION: &[&str] = &["transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade"];

/// The request could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is ambiguous: {0}")]
pub struct Ambiguous(pub &'static str);

/// Checks a path (no query). It begins with `/`, has no empty segment but a last one, no dot segments however encoded, no
/// backslash, NUL or control character however encoded, no `;`, and only well-formed percent-encodings of UTF-8 where they are needed.
/// So each path has one spelling but for the case of its percent-encodings' digits.
///
/// # Errors
/// `Ambiguous` naming the first rule that it breaks.
pub fn path(text: &str) -> Result<&str, Ambiguous> {
    let Some(rest) = text.strip_prefix('/') else { return Err(Ambiguous("the path does not begin with a slash")) };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() {
            if segments.peek().is_some() {
                return Err(Ambiguous("the path has an empty segment"));
            }
            continue;
        }
        self::segment(segment)?;
    }
    Ok(text)
}

fn segment(text: &str) -> Result<(), Ambiguous> {
    let decoded = decode(text)?;
    // An encoded slash makes segments too, once somebody decodes it.
    let mut inner = decoded.split('/');
    if inner.any(|s| s == "." || s == ".." || (s.is_empty() && decoded.contains('/'))) {
        return Err(Ambiguous("the path has a dot segment or an empty one"));
    }
    if decoded.contains('\\') || decoded.chars().any(char::is_control) {
        return Err(Ambiguous("the path has a backslash or a control character"));
    }
    // A path parameter after a dot segment is a dot segment to some servers.
    if decoded.starts_with(".;") || decoded.starts_with("..;") {
        return Err(Ambiguous("the path has a dot segment with a parameter"));
    }
    Ok(())
}

fn decode(text: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(Ambiguous("the path has a broken percent-encoding"));
                };
                // RFC 3986 section 6.2.2.2: what need not be encoded has two spellings once it is.
                let meant = char::from_u32(high << 4 | low).unwrap_or_default();
                if meant.is_ascii_alphanumeric() || matches!(meant, '-' | '.' | '_' | '~') {
                    return Err(Ambiguous("the path has a percent-encoding that it does not need"));
                }
            }
            // What follows a `;` is dropped by some servers before they look for a route, and not by others.
            b';' => return Err(Ambiguous("the path has a parameter")),
            b'!'..=b'~' if !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {}
            _ => return Err(Ambiguous("the path has a character that must be percent-encoded")),
        }
    }
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| Ambiguous("the path is not UTF-8 once decoded"))
}

/// Checks the values that a template gave: only a rest (`{*name}`) may hold a slash or a semicolon, however encoded.
///
/// # Errors
/// `Ambiguous` when another value does.
pub fn values(template: &str, values: &[(&str, Cow<'_, str>)]) -> Result<(), Ambiguous> {
    let is_rest = |name: &str| template.ends_with(&format!("{{*{name}}}"));
    if values.iter().any(|(name, value)| value.contains(['/', ';']) && !is_rest(name)) {
        return Err(Ambiguous("the path has an encoded slash or semicolon where one segment is expected"));
    }
    Ok(())
}

/// Looks a path up in a contract's table.
///
/// # Errors
/// `Ambiguous`, as `path`, `choose` and `values`.
pub fn find<'r, 'p>(routes: &'r [Route], method: &str, text: &'p str) -> Result<Found<'r, 'p>, Ambiguous> {
    let text = path(text)?;
    Ok(match choose(routes.iter().map(|route| (route.method, route.path, route)), method, text)? {
        Choice::Row(route, values) => Found::Route(route, values),
        Choice::MethodUnlisted(_) => Found::MethodUnlisted,
        Choice::Unknown => Found::Unknown,
    })
}

/// Reads a request in the one way that it can be read; gives its path, which is what is decided on and what goes on.
///
/// # Errors
/// `Ambiguous` for: `CONNECT` and `TRACE`, a target that is not in origin form, one over 8 KiB, a path that `path` refuses, a query with
/// other than visible ASCII characters, a missing, repeated or contradicted host, a repeated or malformed `Content-Length`, a repeated
/// `Txn-Token`, a `Transfer-Encoding` beside a length, fields of the connection in HTTP/2, too many or too long fields, a framing field spelt with `_`.
pub fn request<'r>(method: &Method, uri: &'r Uri, version: Version, headers: &HeaderMap) -> Result<&'r str, Ambiguous> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Ambiguous("this method has no place here"));
    }
    let target = uri.path_and_query().ok_or(Ambiguous("the target has no path"))?;
    if target.as_str().len() > limits::TARGET_BYTES_MAX || uri.path() == "*" {
        return Err(Ambiguous("the target is too long or not a path"));
    }
    if !target.query().unwrap_or_default().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Ambiguous("the query has a character that must be percent-encoded"));
    }
    fields(version, headers)?;
    host(uri, version, headers)?;
    path(uri.path())
}

fn fields(version: Version, headers: &HeaderMap) -> Result<(), Ambiguous> {
    let (mut hosts, mut lengths, mut encodings, mut tokens, mut bytes) = (0_usize, 0_usize, 0_usize, 0_usize, 0_usize);
    let (mut aliased, mut of_connection) = (false, false);
    for (name, value) in headers {
        let name = name.as_str();
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        let counted = match name {
            "host" => &mut hosts,
            "content-length" => &mut lengths,
            "transfer-encoding" => {
                of_connection = true;
                &mut encodings
            }
            contract::txn_token::HEADER => &mut tokens,
            _ => {
                of_connection |= CONNECTION.contains(&name);
                aliased |= name.bytes().any(|byte| byte == b'_') && FRAMING.contains(&name.replace('_', "-").as_str());
                continue;
            }
        };
        *counted = counted.saturating_add(1);
    }
    if headers.len() > trust::limits::HEADERS_MAX || bytes > trust::limits::HEADER_BYTES_MAX {
        return Err(Ambiguous("the header is too long"));
    }
    if hosts > 1 || lengths > 1 || encodings > 1 {
        return Err(Ambiguous("a header that must be single is repeated"));
    }
    if tokens > 1 {
        return Err(Ambiguous("more than one transaction token"));
    }
    if lengths > 0 {
        if encodings > 0 {
            return Err(Ambiguous("a length and a transfer encoding"));
        }
        let is_number = |length: &http::HeaderValue| (1..=19).contains(&length.len()) && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !headers.get(header::CONTENT_LENGTH).is_some_and(is_number) {
            return Err(Ambiguous("the length is not a number"));
        }
    }
    if aliased {
        return Err(Ambiguous("a framing field is spelt with an underscore"));
    }
    if version == Version::HTTP_2 && of_connection {
        return Err(Ambiguous("a field of HTTP/1.1's connection in HTTP/2"));
    }
    Ok(())
}

fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Ambiguous> {
    let host = headers.get(header::HOST).map(http::HeaderValue::as_bytes);
    if version == Version::HTTP_2 {
        let authority = uri.authority().map(|a| a.as_str().as_bytes());
        return match (authority, host) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(Ambiguous("host contradicts :authority")),
            (None, None) => Err(Ambiguous("the request names no host")),
            _ => Ok(()),
        };
    }
    if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(Ambiguous("the target is not in origin form"));
    }
    if host.is_none_or(<[u8]>::is_empty) {
        return Err(Ambiguous("the request names no host"));
    }
    Ok(())
}
