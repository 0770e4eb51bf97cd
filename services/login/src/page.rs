//! Pages: written on this side, escaped by their templates, complete without a script.
//!
//! Spec:       CSP level 3; WCAG 2.2 AA (labels, contrast, focus, error messages tied to their fields).
//! Guarantees: nothing that a person typed is ever markup; a form works only from the page that it was on (cookie, token and origin).

use askama::Template;
use contract::{Body, body};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use trust::{Digest, Fault};

use crate::answer::{self, Refusal};
use crate::client::Client;
use crate::credential::Credential;
use crate::form::{self, Params};
use crate::password::{LENGTH_MAX, LENGTH_MIN};
use crate::provider::Inner;

mod factor;

pub(crate) use factor::{FactorState, Second};

/// The cookie that forms are bound to.
pub(crate) const FORM_COOKIE: &str = "__Host-palisade-form";
const FORM_COOKIE_LIFE_S: u64 = 12 * 3600;
const STYLE: &str = include_str!("../templates/style.css");

/// What every page shows.
#[derive(Debug)]
struct Frame<'a> {
    system: &'a str,
    style: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    frame: Frame<'a>,
    token: &'a str,
    request: &'a str,
    name: &'a str,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "enrol.html")]
struct EnrolPage<'a> {
    frame: Frame<'a>,
    token: &'a str,
    link: &'a str,
    fixed_name: Option<&'a str>,
    name: &'a str,
    error: Option<&'a str>,
    length_min: usize,
    length_max: usize,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct NoticePage<'a> {
    frame: Frame<'a>,
    title: &'a str,
    text: &'a str,
    action: Option<(&'a str, &'a str)>,
}

/// What the sign-in page is filled with.
#[derive(Debug, Clone)]
pub(crate) struct SignIn<'a> {
    /// The authorization request that it serves.
    pub(crate) request: &'a str,
    /// The client of that request.
    pub(crate) client: Client,
    /// What was typed.
    pub(crate) name: &'a str,
    /// What was wrong.
    pub(crate) error: Option<&'a str>,
}

/// What the enrolment page is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enrol<'a> {
    /// The one-time token.
    pub(crate) link: &'a str,
    /// The name, when the invitation has one.
    pub(crate) fixed_name: Option<&'a str>,
    /// What was typed.
    pub(crate) name: &'a str,
    /// What was wrong.
    pub(crate) error: Option<&'a str>,
}

impl Inner {
    /// The sign-in page.
    pub(crate) fn sign_in_page(&self, headers: &HeaderMap, status: StatusCode, filled: SignIn<'_>) -> Result<Response<Body>, Refusal> {
        let (token, cookie) = self.form_token(headers);
        let SignIn { request, client, name, error } = filled;
        let page = SignInPage { frame: self.frame(), token: &token, request, name, error };
        html(status, page.render(), &client.form_targets(), cookie.as_deref())
    }

    /// The enrolment page.
    pub(crate) fn enrol_page(&self, headers: &HeaderMap, status: StatusCode, filled: Enrol<'_>) -> Result<Response<Body>, Refusal> {
        let (token, cookie) = self.form_token(headers);
        let Enrol { link, fixed_name, name, error } = filled;
        let (length_min, length_max) = (LENGTH_MIN, LENGTH_MAX);
        let page = EnrolPage { frame: self.frame(), token: &token, link, fixed_name, name, error, length_min, length_max };
        html(status, page.render(), "'self'", cookie.as_deref())
    }

    /// A page that says something, with one way on (address and label).
    pub(crate) fn notice(
        &self,
        status: StatusCode,
        title: &str,
        text: &str,
        action: Option<(&str, &str)>,
    ) -> Result<Response<Body>, Refusal> {
        html(status, NoticePage { frame: self.frame(), title, text, action }.render(), "'none'", None)
    }

    /// The style sheet.
    pub(crate) fn style(&self) -> Response<Body> {
        let mut response = body::with_type(StatusCode::OK, "text/css; charset=utf-8", STYLE);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Whether a form comes from a page that this browser was given: its token fits its cookie, and it comes from our own origin.
    pub(crate) fn is_own_form(&self, headers: &HeaderMap, params: &Params) -> bool {
        let origin = headers.get(header::ORIGIN).map(|v| v.as_bytes() == self.public_origin.as_bytes());
        let same_site = headers.get("sec-fetch-site").map(|v| v == "same-origin");
        let from_here = match (origin, same_site) {
            (Some(origin), fetch) => origin && fetch != Some(false),
            (None, fetch) => fetch == Some(true),
        };
        let (Some(cookie), Some(token)) = (form::cookie(headers, FORM_COOKIE), params.get("form")) else { return false };
        from_here && self.is_mac("form", cookie, token)
    }

    /// The token for a form, and the cookie to set if the browser has none.
    fn form_token(&self, headers: &HeaderMap) -> (String, Option<String>) {
        match form::cookie(headers, FORM_COOKIE).filter(|value| value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(value) => (self.mac("form", value), None),
            None => {
                let fresh = Credential::new(&*self.entropy);
                (self.mac("form", fresh.expose()), Some(form::set_cookie(FORM_COOKIE, fresh.expose(), FORM_COOKIE_LIFE_S)))
            }
        }
    }

    fn frame(&self) -> Frame<'_> {
        let version = Digest::of(STYLE.as_bytes()).to_hex();
        Frame {
            system: &self.system,
            style: format!("{}/style.css?v={}", contract::login::ISSUER_PATH, version.get(..12).unwrap_or_default()),
        }
    }
}

fn html(status: StatusCode, text: askama::Result<String>, form_targets: &str, cookie: Option<&str>) -> Result<Response<Body>, Refusal> {
    let mut response = body::with_type(status, "text/html; charset=utf-8", text.map_err(Fault::internal)?);
    answer::private(&mut response);
    let headers = response.headers_mut();
    let policy = format!("default-src 'none'; style-src 'self'; form-action {form_targets}; frame-ancestors 'none'; base-uri 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).map_err(Fault::internal)?);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, HeaderValue::from_str(cookie).map_err(Fault::internal)?);
    }
    Ok(response)
}
