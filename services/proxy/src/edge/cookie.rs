//! Cookies: the two that the edge sets, and how it reads them.
//!
//! `__Host-` makes a browser refuse the cookie unless it is Secure, has `Path=/` and no `Domain`, so no other host and no plain-text
//! page can plant one (RFC 6265bis, section 4.1.3.2).
//!
//! Guarantees: A14 (cookie hardening). Two cookies of one name are refused, never chosen between.

use http::{HeaderMap, HeaderValue, header};
use trust::DenyReason;

use super::session::Reference;

/// Names the session.
pub const SESSION: &str = "__Host-palisade";
/// Names the browser while it signs in.
pub const SIGN_IN: &str = "__Host-palisade-sign-in";

/// The one cookie of that name.
///
/// # Errors
/// `RequestAmbiguous` when there are two.
pub fn find(headers: &HeaderMap, name: &str) -> Result<Option<String>, DenyReason> {
    let mut found = None;
    for (its_name, value) in pairs(headers) {
        if its_name == name && found.replace(value.to_owned()).is_some() {
            return Err(DenyReason::RequestAmbiguous);
        }
    }
    Ok(found)
}

/// The cookies without the edge's own, as one header value; none if none is left.
#[must_use]
pub fn without_ours(headers: &HeaderMap) -> Option<HeaderValue> {
    let rest: Vec<String> =
        pairs(headers).filter(|(name, _)| *name != SESSION && *name != SIGN_IN).map(|(name, value)| format!("{name}={value}")).collect();
    if rest.is_empty() { None } else { rest.join("; ").parse().ok() }
}

/// `Set-Cookie` for `reference` under `name`, alive for `life_s` seconds.
#[must_use]
pub fn set(name: &str, reference: &Reference, life_s: u64) -> Option<HeaderValue> {
    let text = format!("{name}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life_s}", reference.expose());
    let mut value: HeaderValue = text.parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Set-Cookie` that removes `name`.
#[must_use]
pub fn clear(name: &str) -> Option<HeaderValue> {
    format!("{name}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0").parse().ok()
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}
