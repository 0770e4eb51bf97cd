//! Headers that must not pass: those of one hop, and those by which somebody claims to be somebody.
//!
//! Spec:       RFC 9110 section 7.6.1 (hop-by-hop), RFC 7239 (Forwarded).
//! Guarantees: A5 every identity header of a client is removed.

use http::{HeaderMap, HeaderName, HeaderValue, header};

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

/// Removes what RFC 9110 section 7.6.1 says an intermediary removes.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
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
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header by which a caller could claim an identity, an origin or another method.
pub fn strip_identity(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| claims_identity(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn claims_identity(name: &str) -> bool {
    let name = name.replace('_', "-");
    IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes what a service's client library adds for a peer that it believes to be remote: dummy signatures and cookies.
pub fn strip_credentials(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        headers.remove(name);
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
