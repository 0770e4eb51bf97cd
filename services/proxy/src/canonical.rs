//! Canonical paths and unambiguous requests: what the policy is asked about is what the service sees.
//!
//! Nothing is rewritten. A request that two parsers could read in two ways is refused, so the text that was checked is the text that
//! goes on. The edge, the guards and every room use these functions and no others.
//!
//! Spec:       RFC 3986 sections 2.1, 3.3 and 5.2.4; RFC 9110 sections 4.2.3, 5.3 and 7.2; RFC 9112 section 3.2.
//! Guarantees: A4 canonical path shared with policy.
//! Not here:   the framing of HTTP/1.1 messages (`serve::screen`).

use std::borrow::Cow;

use contract::route::{self, Found, Route};
use http::{HeaderMap, Method, Uri, Version, header};

use crate::limits;

/// The request could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is ambiguous: {0}")]
pub struct Ambiguous(pub &'static str);

/// Checks a path (no query). It begins with `/`, has no empty segment but a last one, no dot segments however encoded, no
/// backslash, NUL or control character however encoded, and only well-formed percent-encodings of UTF-8.
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
                let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
                if !(hex(bytes.next()) && hex(bytes.next())) {
                    return Err(Ambiguous("the path has a broken percent-encoding"));
                }
            }
            b'!'..=b'~' if !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {}
            _ => return Err(Ambiguous("the path has a character that must be percent-encoded")),
        }
    }
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| Ambiguous("the path is not UTF-8 once decoded"))
}

/// Checks the values that a template gave: only a rest (`{*name}`) may hold a slash, however encoded.
///
/// # Errors
/// `Ambiguous` when another value does.
pub fn values(template: &str, values: &[(&str, Cow<'_, str>)]) -> Result<(), Ambiguous> {
    let is_rest = |name: &str| template.ends_with(&format!("{{*{name}}}"));
    if values.iter().any(|(name, value)| value.contains('/') && !is_rest(name)) {
        return Err(Ambiguous("the path has an encoded slash where one segment is expected"));
    }
    Ok(())
}

/// Looks a canonical path up in a contract's table.
///
/// # Errors
/// `Ambiguous`, as `path` and `values`.
pub fn find<'r, 'p>(routes: &'r [Route], method: &str, text: &'p str) -> Result<Found<'r, 'p>, Ambiguous> {
    let found = route::find(routes, method, path(text)?);
    if let Found::Route(route, named) = &found {
        values(route.path, named)?;
    }
    Ok(found)
}

/// Checks method, target and headers of a request as a whole; the path's own rules are `path`'s.
///
/// # Errors
/// `Ambiguous` for: `CONNECT` and `TRACE`, a target that is not in origin form, one over 8 KiB, a missing, repeated or contradicted
/// host, a repeated `Content-Length` or `Txn-Token`, a `Transfer-Encoding` beside a length.
pub fn request(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Ambiguous> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Ambiguous("this method has no place here"));
    }
    let target = uri.path_and_query().ok_or(Ambiguous("the target has no path"))?;
    if target.as_str().len() > limits::TARGET_BYTES_MAX || uri.path() == "*" {
        return Err(Ambiguous("the target is too long or not a path"));
    }
    let once = |name: header::HeaderName| headers.get_all(name).iter().count() <= 1;
    if !once(header::HOST) || !once(header::CONTENT_LENGTH) || !once(header::TRANSFER_ENCODING) {
        return Err(Ambiguous("a header that must be single is repeated"));
    }
    if headers.get_all(contract::txn_token::HEADER).iter().count() > 1 {
        return Err(Ambiguous("more than one transaction token"));
    }
    if headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Ambiguous("a length and a transfer encoding"));
    }
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
