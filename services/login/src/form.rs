//! What browsers and clients send: query strings, forms, cookies. Read strictly: a name that comes twice is refused, since two readers
//! could take different ones.
//!
//! Spec: RFC 6749, section 3.1 (no parameter twice, empty ones are omitted); RFC 6265, section 5.4.

use std::collections::BTreeMap;

use contract::{Body, body};
use http::request::Parts;
use http::{HeaderMap, Request, header};
use trust::Fault;

/// Longest form.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// Parameters, each at most once, none empty.
#[derive(Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Parses `application/x-www-form-urlencoded`; nothing when a name comes twice.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut params = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if params.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
        params.retain(|_, value| !value.is_empty());
        Some(Self(params))
    }

    /// Those of a query.
    pub(crate) fn of_query(request: &Parts) -> Option<Self> {
        Self::parse(request.uri.query().unwrap_or_default().as_bytes())
    }

    /// Those of a form.
    ///
    /// # Errors
    /// `BadRequest` for another media type, a name that comes twice, or a body that breaks off; `TooLarge` over 16 KiB.
    pub(crate) async fn of_form(request: Request<Body>) -> Result<Self, Fault> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Fault::bad_request("the body must be application/x-www-form-urlencoded"));
        }
        let bytes = body::collect(request.into_body(), FORM_BYTES_MAX).await?;
        Self::parse(&bytes).ok_or_else(|| Fault::bad_request("a parameter comes twice"))
    }

    /// A parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A cookie; nothing when it comes twice.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|line| line.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(n, _)| *n == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// A cookie that this host alone sets and reads, over TLS alone, never from a script.
pub(crate) fn set_cookie(name: &str, value: &str, life_s: u64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life_s}")
}

/// Appends parameters to a URI that may have some.
pub(crate) fn with_params(uri: &str, params: &[(&str, Option<&str>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in params.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        query.append_pair(name, value);
    }
    let (query, join) = (query.finish(), if uri.contains('?') { '&' } else { '?' });
    if query.is_empty() { uri.to_owned() } else { format!("{uri}{join}{query}") }
}
