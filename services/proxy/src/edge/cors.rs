//! Cross-origin requests: which pages of other origins may call a route, as the manifest names them. By default none.
//!
//! A preflight is answered here and goes no further. Pages of other origins call with a token of their own; a cookie never counts for
//! them, because no answer allows credentials. Neither an origin nor a header is ever answered with `*`.
//!
//! Spec:       Fetch Standard, "CORS protocol" (sections 3.3.2 to 3.3.5).
//! Guarantees: A14: an origin that a route does not name learns nothing, not even that the route is there.
//! Not here:   what a page of another origin may do (`entry`, as for everybody).

use std::collections::BTreeSet;

use contract::control::EdgeProfile;
use contract::{Body, body};
use http::{HeaderMap, Method, Response, StatusCode, header};

use super::destination::{Asked, Destination};
use crate::headers;

/// Headers that a page may send besides the safelisted ones.
const ALLOWED_HEADERS: &str = "authorization, content-type, dpop, if-match, if-none-match, range";
/// Headers of an answer that a page may read besides the safelisted ones.
const EXPOSED_HEADERS: &str = "content-range, dpop-nonce, etag, location, palisade-trace, ratelimit, ratelimit-policy, retry-after";
/// How long a browser may remember a preflight's answer, in seconds.
const MAX_AGE_S: &str = "600";

/// A preflight that will be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The origin that asks.
    pub origin: String,
    /// Methods that the path has for it.
    pub methods: BTreeSet<String>,
}

impl Preflight {
    /// The preflight that `method` and `fields` are, if a route of `path` is open to that origin with the method that it asks for.
    ///
    /// A preflight has none of the request's own fields, so it is about the routes that ask for none.
    #[must_use]
    pub fn find(profile: &EdgeProfile, asked: Asked<'_>, method: &Method, path: &str) -> Option<Self> {
        let fields = asked.fields;
        if *method != Method::OPTIONS {
            return None;
        }
        let wanted = single(fields, header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = single(fields, header::ORIGIN)?;
        let open = |method: &Method| match Destination::find(profile, asked, method, path) {
            Ok(Destination::Service(route)) => route.cors.contains(origin),
            _ => false,
        };
        let methods: BTreeSet<String> = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .into_iter()
            .filter(open)
            .map(|method| method.to_string())
            .collect();
        methods.contains(wanted).then(|| Self { origin: origin.to_owned(), methods })
    }

    /// The preflight of an upload or a download by presigned URL, at the host of what people have stored: from our own pages alone.
    #[must_use]
    pub fn of_content(profile: &EdgeProfile, main: &str, method: &Method, fields: &HeaderMap, path: &str) -> Option<Self> {
        if *method != Method::OPTIONS || single(fields, header::ORIGIN) != Some(main) {
            return None;
        }
        let wanted = single(fields, header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let methods: BTreeSet<String> = [Method::GET, Method::HEAD, Method::PUT]
            .into_iter()
            .filter(|method| Destination::of_content(profile, method, path).is_ok())
            .map(|method| method.to_string())
            .collect();
        methods.contains(wanted).then(|| Self { origin: main.to_owned(), methods })
    }

    /// Its answer.
    #[must_use]
    pub fn answer(&self) -> Response<Body> {
        let mut answer = body::plain(StatusCode::NO_CONTENT);
        let fields = answer.headers_mut();
        headers::set(fields, "access-control-allow-origin", &self.origin);
        headers::set(fields, "access-control-allow-methods", &self.methods.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        headers::set(fields, "access-control-allow-headers", ALLOWED_HEADERS);
        headers::set(fields, "access-control-max-age", MAX_AGE_S);
        headers::set(fields, "vary", "origin, access-control-request-method");
        answer
    }
}

/// The origin that may read the answer of `destination`, if the request names one that the route does.
#[must_use]
pub fn reader(destination: &Destination, fields: &HeaderMap) -> Option<String> {
    let route = destination.route()?;
    single(fields, header::ORIGIN).filter(|origin| route.cors.contains(*origin)).map(str::to_owned)
}

/// Our own pages' origin, if a page of theirs asks for what people have stored.
#[must_use]
pub fn reader_of_content(main: &str, fields: &HeaderMap) -> Option<String> {
    single(fields, header::ORIGIN).filter(|origin| *origin == main).map(str::to_owned)
}

/// Lets a page of `reader` read an answer. One that differs by origin says so to caches, also to who is not let.
pub fn open(answer: &mut HeaderMap, destination_has_cors: bool, reader: Option<&str>) {
    if let Some(origin) = reader {
        headers::set(answer, "access-control-allow-origin", origin);
        headers::set(answer, "access-control-expose-headers", EXPOSED_HEADERS);
    }
    if destination_has_cors {
        answer.append(header::VARY, header::HeaderValue::from_static("origin"));
    }
}

fn single(fields: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
