//! Headers that must not pass: those of one hop, those by which somebody claims to be somebody, and those that name a trace.
//!
//! Spec:       RFC 9110 section 7.6.1 (hop-by-hop), RFC 7239 (Forwarded), W3C Trace Context, B3 propagation.
//! Guarantees: A5 every identity header of a client is removed; J2 both ways to name a trace are read.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use trust::TraceContext;
use trust::trace::B3Fields;

/// Names that are set on every way, made once.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// B3's single header.
pub static B3: HeaderName = HeaderName::from_static("b3");
/// The transaction token's.
pub static TXN_TOKEN: HeaderName = HeaderName::from_static(contract::txn_token::HEADER);

/// Fields of one connection, besides those that `Connection` names. `te: trailers` is kept, since gRPC needs it.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

/// Beginnings of names by which proxies tell backends who is calling, besides those that begin with `x-`; `_` counts as `-`, because
/// many backends cannot tell them apart.
const IDENTITY_PREFIXES: &[&str] = &["palisade-", "txn-token", "forwarded", "remote-user", "ssl-client", "true-client-ip", "cf-connecting"];

/// The same of those that begin with `x-`, without it.
const IDENTITY_PREFIXES_X: &[&str] = &[
    "forwarded",
    "real-ip",
    "client",
    "remote",
    "user",
    "auth",
    "ssl",
    "original",
    "rewrite",
    "http-method",
    "method-override",
    "envoy",
    "amzn-oidc",
    "ms-client-principal",
    "goog-",
    "webauth",
    "spiffe",
    "cluster-client",
    "email",
    "groups",
    "roles",
    "consumer",
    "credential",
    "authenticated",
];

/// Bytes of names that are removed together.
const NAMES_BYTES: usize = 256;

/// Removes what RFC 9110 section 7.6.1 says an intermediary removes.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_hop_by_hop_and(headers, |_| false);
}

/// The same, and the fields whose name `is_meant`, all in one pass.
pub fn strip_hop_by_hop_and(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    // What `Connection` names and what goes in any case are mostly the same.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim_ascii)
        .filter(|name| !matches!(*name, "keep-alive" | "close"))
        .filter_map(|name| name.parse().ok())
        .collect();
    let trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named {
        headers.remove(name);
    }
    remove(headers, |name| is_hop_by_hop(name) || is_meant(name));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header by which a caller could claim an identity, an origin or another method.
pub fn strip_identity(headers: &mut HeaderMap) {
    remove(headers, claims_identity);
}

/// Removes the fields whose name `is_meant`.
pub fn remove(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    // A name cannot be borrowed while it is removed; copied here, the few that are meant cost no allocation.
    let (mut names, mut ends, mut all) = ([0_u8; NAMES_BYTES], [0_usize; 16], false);
    while !all {
        let (mut end, mut count) = (0_usize, 0_usize);
        all = true;
        for name in headers.keys().map(HeaderName::as_str).filter(|name| is_meant(name)) {
            let next = end.saturating_add(name.len());
            let (Some(to), Some(last)) = (names.get_mut(end..next), ends.get_mut(count)) else {
                all = false;
                break;
            };
            to.copy_from_slice(name.as_bytes());
            (*last, end, count) = (next, next, count.saturating_add(1));
        }
        if count == 0 && !all {
            // One name that is longer than all the room.
            return remove_one_by_one(headers, is_meant);
        }
        let mut begin = 0;
        for end in ends.iter().take(count) {
            if let Some(name) = names.get(begin..*end).and_then(|name| std::str::from_utf8(name).ok()) {
                headers.remove(name);
            }
            begin = *end;
        }
    }
}

fn remove_one_by_one(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let meant: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    for name in meant {
        headers.remove(name);
    }
}

/// Whether a field of this name claims an identity, an origin or another method.
#[must_use]
pub fn claims_identity(name: &str) -> bool {
    // Every prefix begins with one of these letters, and most fields do not.
    if !matches!(name.as_bytes().first(), Some(b'c' | b'f' | b'p' | b'r' | b's' | b't' | b'x')) {
        return false;
    }
    let name = if name.contains('_') { Cow::from(name.replace('_', "-")) } else { Cow::from(name) };
    match name.strip_prefix("x-") {
        Some(rest) => IDENTITY_PREFIXES_X.iter().any(|prefix| rest.starts_with(prefix)),
        None => IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)),
    }
}

/// Whether it is a credential: a service's client library adds dummy signatures and cookies for a peer that it believes to be remote.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "proxy-authorization")
}

/// Whether it names a trace.
#[must_use]
pub fn names_trace(name: &str) -> bool {
    matches!(name, "traceparent" | "tracestate") || is_b3(name)
}

fn is_b3(name: &str) -> bool {
    matches!(name, "b3" | "x-b3-traceid" | "x-b3-spanid" | "x-b3-parentspanid" | "x-b3-sampled" | "x-b3-flags")
}

/// The span that a request says it belongs to: by `traceparent`, else by `b3`, else by the `X-B3-…` headers. One that is there counts
/// even when it is malformed or there twice: then there is no such span, and the others are not asked.
#[must_use]
pub fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let (mut traceparent, mut b3, mut spread) = (None, None, [None; 5]);
    for (name, value) in headers {
        let place = match name.as_str() {
            "traceparent" => &mut traceparent,
            "b3" => &mut b3,
            "x-b3-traceid" => &mut spread[0],
            "x-b3-spanid" => &mut spread[1],
            "x-b3-parentspanid" => &mut spread[2],
            "x-b3-sampled" => &mut spread[3],
            "x-b3-flags" => &mut spread[4],
            // `tracestate` may be split over several lines (W3C Trace Context, section 3.3.1) and says nothing here.
            _ => continue,
        };
        // A value that is no text is as malformed as an empty one.
        if place.replace(value.to_str().unwrap_or_default()).is_some() {
            return None;
        }
    }
    let [trace, span, parent, sampled, flags] = spread;
    match (traceparent, b3) {
        (Some(traceparent), _) => TraceContext::parse(traceparent),
        (None, Some(b3)) => TraceContext::parse_b3(b3),
        (None, None) => TraceContext::parse_b3_fields(&B3Fields { trace: trace?, span: span?, parent, sampled, flags }),
    }
}

/// Sets `name` to `value` when it is a header value, and removes what was there in any case.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    put(headers, &HeaderName::from_static(name), value);
}

/// The same for a name that is made already; a text that is given away is not copied.
pub fn put<V>(headers: &mut HeaderMap, name: &HeaderName, value: V)
where
    HeaderValue: TryFrom<V>,
{
    match HeaderValue::try_from(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

/// Whether the request asks to change the protocol of its connection.
#[must_use]
pub fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}
