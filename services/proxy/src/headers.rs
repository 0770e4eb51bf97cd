//! Headers that must not pass: those of one hop, those by which somebody claims to be somebody, and those that name a trace.
//!
//! Spec:       RFC 9110 section 7.6.1 (hop-by-hop), RFC 7239 (Forwarded), W3C Trace Context, B3 propagation.
//! Guarantees: A5 every identity header of a client is removed; J2 both ways to name a trace are read.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use trust::TraceContext;
use trust::trace::B3Fields;

/// Fields of one connection, besides those that `Connection` names. `te: trailers` is kept, since gRPC needs it.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

/// Beginnings of names by which proxies tell backends who is calling; `_` counts as `-`, because many backends cannot tell them apart.
const IDENTITY_PREFIXES: &[&str] = &[
    "palisade-",
    "txn-token",
    "x-forwarded",
    "forwarded",
    "x-real-ip",
    "x-client",
    "x-remote",
    "remote-user",
    "x-user",
    "x-auth",
    "x-ssl",
    "ssl-client",
    "x-original",
    "x-rewrite",
    "x-http-method",
    "x-method-override",
    "x-envoy",
    "x-amzn-oidc",
    "x-ms-client-principal",
    "x-goog-",
    "x-webauth",
    "x-spiffe",
    "x-cluster-client",
    "true-client-ip",
    "cf-connecting",
    "x-email",
    "x-groups",
    "x-roles",
    "x-consumer",
    "x-credential",
    "x-authenticated",
];

/// W3C Trace Context.
const W3C: &[&str] = &["traceparent", "tracestate"];
/// B3 propagation.
const B3: &[&str] = &["b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"];

/// Removes what RFC 9110 section 7.6.1 says an intermediary removes.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_hop_by_hop_and(headers, |_| false);
}

/// The same, and the fields whose name `is_meant`, all in one pass.
pub fn strip_hop_by_hop_and(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named {
        headers.remove(name);
    }
    remove(headers, |name| HOP_BY_HOP.contains(&name) || is_meant(name));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header by which a caller could claim an identity, an origin or another method.
pub fn strip_identity(headers: &mut HeaderMap) {
    remove(headers, claims_identity);
}

/// Removes the fields whose name `is_meant`; most requests have few fields, and none of these.
pub fn remove(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
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
    IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether it is a credential: a service's client library adds dummy signatures and cookies for a peer that it believes to be remote.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "proxy-authorization")
}

/// Whether it names a trace.
#[must_use]
pub fn names_trace(name: &str) -> bool {
    W3C.contains(&name) || B3.contains(&name)
}

/// The span that a request says it belongs to: by `traceparent`, else by `b3`, else by the `X-B3-…` headers. One that is there counts
/// even when it is malformed or there twice: then there is no such span, and the others are not asked.
#[must_use]
pub fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    // `tracestate` may be split over several lines (W3C Trace Context, section 3.3.1) and says nothing here.
    if ["traceparent"].iter().chain(B3).any(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        return None;
    }
    // A value that is no text is as malformed as an empty one.
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (said("traceparent"), said("b3")) {
        (Some(traceparent), _) => TraceContext::parse(traceparent),
        (None, Some(b3)) => TraceContext::parse_b3(b3),
        (None, None) => TraceContext::parse_b3_fields(&B3Fields {
            trace: said("x-b3-traceid")?,
            span: said("x-b3-spanid")?,
            parent: said("x-b3-parentspanid"),
            sampled: said("x-b3-sampled"),
            flags: said("x-b3-flags"),
        }),
    }
}

/// Sets `name` to `value` when it is a header value, and removes what was there in any case.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.remove(name);
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether the request asks to change the protocol of its connection.
#[must_use]
pub fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}
