//! Who asks, and whether the request comes from our own pages.
//!
//! Spec:       RFC 6265bis (`__Host-`), Fetch Metadata.
//! Guarantees: N3 whose request it is says the session alone; a request from another site changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::accounts::Person;
use crate::{App, log};

/// The cookie of a session.
const COOKIE: &str = "__Host-session";

/// An answer that is no success, in words for a person.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str, pub(crate) &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1, "hint": self.2 }))).into_response()
    }
}

/// Something of ours is at fault: the log hears what, the person that it is not theirs.
pub(crate) fn ours(error: &dyn std::fmt::Display) -> Refusal {
    log(&error.to_string());
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong.", "Try again in a moment.")
}

/// The value of the session's cookie.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

/// The header that gives a browser its session, or takes it.
pub(crate) fn set_cookie(value: Option<&str>) -> Option<HeaderValue> {
    let (value, life) = value.map_or(("", "; Max-Age=0"), |value| (value, ""));
    HeaderValue::from_str(&format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{life}")).ok()
}

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let found = match cookie(&parts.headers) {
            Some(cookie) => app.accounts.person(&cookie).await.map_err(|error| ours(&error))?,
            None => None,
        };
        found.ok_or(Refusal(StatusCode::UNAUTHORIZED, "You are not signed in.", "Sign in and try again."))
    }
}

/// Refuses what another site's page asks for, and hardens every answer.
pub(crate) async fn at_the_door(request: Request, next: Next) -> Response {
    let mut answer = if cross_site(request.method(), request.headers()) {
        Refusal(StatusCode::FORBIDDEN, "This must be started from this site's own pages.", "Open the page and try there.").into_response()
    } else {
        next.run(request).await
    };
    let fields = answer.headers_mut();
    for (name, value) in [
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ));
    fields.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Whether a browser says that another site made it ask for a change. Programs say neither field; they have no cookies of others.
fn cross_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site));
    if method.is_safe() {
        return false;
    }
    let ours = text("host").map(|host| format!("https://{host}"));
    foreign || text("origin").is_some_and(|origin| Some(origin) != ours.as_deref())
}

#[cfg(test)]
mod tests {
    //! Tests of the door.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_change_that_another_site_asks_for_is_refused() {
        let asks = |method: Method, fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("localhost:1"));
            for (name, value) in fields {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            cross_site(&method, &headers)
        };
        assert!(asks(Method::POST, &[("origin", "https://evil.example")]));
        assert!(asks(Method::DELETE, &[("sec-fetch-site", "cross-site")]));
        assert!(asks(Method::PUT, &[("origin", "null")]));
        assert!(!asks(Method::POST, &[("origin", "https://localhost:1"), ("sec-fetch-site", "same-origin")]));
        assert!(!asks(Method::PUT, &[]));
        assert!(!asks(Method::GET, &[("sec-fetch-site", "cross-site")]));
    }
}
