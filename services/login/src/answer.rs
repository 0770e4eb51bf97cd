//! Answers: redirects and JSON with the headers that all of them carry, and what a request comes to when it is refused.

use contract::{Body, body};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use trust::{DenyReason, Fault};

use crate::password::HashError;
use crate::provider::LoginError;

/// Why a request got something else than it asked for.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A page for people; `reason` is for the audit log, if it was a refusal and not a mistake.
    Page { status: StatusCode, title: &'static str, text: &'static str, reason: Option<DenyReason> },
    /// An OAuth error for clients (RFC 6749, section 5.2).
    OAuth { status: StatusCode, error: &'static str, text: &'static str, reason: Option<DenyReason> },
    /// A refusal without more.
    Denied(DenyReason),
    /// Something that did not work.
    Fault(Fault),
}

impl Refusal {
    /// `invalid_grant`: whatever was shown is no good, and that is all that is said.
    pub(crate) fn grant() -> Self {
        let reason = Some(DenyReason::TokenInvalid);
        Self::OAuth { status: StatusCode::BAD_REQUEST, error: "invalid_grant", text: "the grant is not valid, or no longer", reason }
    }
    /// `invalid_client`.
    pub(crate) fn client() -> Self {
        let reason = Some(DenyReason::CallerNotAdmitted);
        Self::OAuth { status: StatusCode::UNAUTHORIZED, error: "invalid_client", text: "no such client, or not shown to be it", reason }
    }
    /// `invalid_request`, with what to change.
    pub(crate) fn request(text: &'static str) -> Self {
        Self::OAuth { status: StatusCode::BAD_REQUEST, error: "invalid_request", text, reason: None }
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        Self::Fault(Fault::internal(error))
    }
}

impl From<state::StateError> for Refusal {
    fn from(error: state::StateError) -> Self {
        LoginError::from(error).into()
    }
}

impl From<state::sqlx::Error> for Refusal {
    fn from(error: state::sqlx::Error) -> Self {
        LoginError::from(error).into()
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HashError> for Refusal {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Page {
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "A moment, please",
                text: "Many people are signing in right now. Wait a few seconds, go back, and try again.",
                reason: Some(DenyReason::ConcurrencyExceeded),
            },
            HashError::Failed => Self::Fault(Fault::internal(error)),
        }
    }
}

/// Sends the browser elsewhere, with a GET (RFC 9700, section 4.12: 303, so that no form is sent along).
pub(crate) fn redirect(to: &str, cookie: Option<&str>) -> Result<Response<Body>, Refusal> {
    let mut response = body::plain(StatusCode::SEE_OTHER);
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).map_err(Fault::internal)?);
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(cookie).map_err(Fault::internal)?);
    }
    private(&mut response);
    Ok(response)
}

/// JSON for one client's eyes.
pub(crate) fn private_json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = body::json(status, value);
    private(&mut response);
    response
}

/// JSON that is the same for everybody.
pub(crate) fn public_json(value: &serde_json::Value) -> Response<Body> {
    let mut response = body::json(StatusCode::OK, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An OAuth error.
pub(crate) fn oauth(status: StatusCode, error: &'static str, text: &'static str) -> Response<Body> {
    let mut response = private_json(status, &json!({ "error": error, "error_description": text }));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = match error {
            "invalid_token" => "Bearer error=\"invalid_token\"",
            "invalid_dpop_proof" => "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 EdDSA\"",
            "use_dpop_nonce" => "DPoP error=\"use_dpop_nonce\", algs=\"ES256 EdDSA\"",
            _ => "Bearer",
        };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// Kept by no cache, told to no other site.
pub(crate) fn private(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
