//! Answers: the headers that every one has, and what a refusal or a failure looks like.
//!
//! People get a small page, programs get JSON; neither learns more than the reason's code and the trace's id. What a service answers
//! passes without the headers by which it could speak for the gateway: cookies, CORS, HSTS, identity.
//!
//! Spec:       RFC 6797 (HSTS), CSP Level 3, Fetch (CORP, `nosniff`), RFC 9110 sections 10.2.3, 10.2.1 and 11.6.1, RFC 6750 section 3, RFC 9470 section 3, RFC 9449 section 7.1.
//! Guarantees: A14 the header checklist; A5 in the direction of the answer.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::body::Own;
use contract::login::STEP_UP_CHALLENGE;
use contract::{Body, body, dpop};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use trust::{DenyReason, Digest, Fault, FaultKind, TraceContext};

use super::admission::Standing;
use super::stop::Refusal;
use crate::headers;

/// Header of every answer with the trace's id.
pub const TRACE_HEADER: &str = "palisade-trace";

/// An answer from the host of what people have stored.
#[derive(Debug, Clone, Copy)]
pub struct Apart;

/// What pages may load: their own origin's, and pictures, media and data of the origin of what people have stored, if it has one.
#[must_use]
pub fn policy(content: Option<&str>) -> HeaderValue {
    let (apart, data) = content.map_or_else(Default::default, |origin| (format!(" {origin}"), format!(" connect-src 'self' {origin};")));
    let text = format!(
        "default-src 'self';{data} img-src 'self' blob: data:{apart}; media-src 'self' blob:{apart}; object-src 'none'; base-uri 'none'; \
         frame-ancestors 'none'; form-action 'self'"
    );
    // A host is of letters that a header takes; should one not be, nothing is loaded.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

const STYLE: &str = include_str!("page.css");

static TRACE: HeaderName = HeaderName::from_static(TRACE_HEADER);
static QUOTAS: HeaderName = HeaderName::from_static("ratelimit-policy");
static LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// What every answer has.
static FIXED: [(HeaderName, HeaderValue); 7] = [
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    // Not `no-referrer`: under it a browser sends `Origin: null` with a form's POST to our own origin.
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// Who gave an answer that passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// One of Palisade's roles, or the edge itself: its own policy for its content counts.
    Role,
    /// `login`, which also keeps a cookie of its own.
    Login,
    /// A service: it may tighten the policy for its content, never loosen it.
    Service,
}

/// Headers by which an answer would speak for the whole gateway.
const GATEWAY_ONLY: &[&str] = &[
    "strict-transport-security",
    "alt-svc",
    "clear-site-data",
    "server",
    "x-powered-by",
    "via",
    "service-worker-allowed",
    "public-key-pins",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-expose-headers",
    "access-control-max-age",
    "x-frame-options",
    "origin-agent-cluster",
    "nel",
    "report-to",
    "reporting-endpoints",
    "www-authenticate",
    "ratelimit",
    "ratelimit-policy",
    "dpop-nonce",
];

/// Makes a peer's answer one that may leave the house.
pub fn cleanse(source: Source, answer: &mut HeaderMap, csp: &HeaderValue) {
    let logins_own = |name: &str| source == Source::Login && matches!(name, "www-authenticate" | "set-cookie" | dpop::NONCE_HEADER);
    headers::strip_hop_by_hop_and(answer, |name| {
        let gateways = (GATEWAY_ONLY.contains(&name) || name == "set-cookie") && !logins_own(name);
        gateways || headers::claims_identity(name) || headers::names_trace(name)
    });
    if source == Source::Service {
        // Several policies are enforced together (CSP Level 3, section 8.1): its own can only narrow ours.
        answer.append(header::CONTENT_SECURITY_POLICY, csp.clone());
    }
}

/// Adds what every answer has.
pub fn harden(answer: &mut HeaderMap, trace: TraceContext, csp: &HeaderValue, apart: Option<Apart>) {
    // Once for all that follow, with the quotas'.
    answer.reserve(FIXED.len().saturating_add(5));
    for (name, value) in &FIXED {
        answer.insert(name, value.clone());
    }
    if apart.is_some() {
        // Pages show it from another origin; which origins may *read* it is CORS's to say.
        answer.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    }
    answer.entry(header::CONTENT_SECURITY_POLICY).or_insert_with(|| csp.clone());
    answer.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers::put(answer, &TRACE, trace.trace_hex());
}

/// Says what is left of the quotas that counted (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4): `q` requests at once in a
/// window of `w` seconds, `r` of them left, all of them again in `t` seconds.
pub fn quotas(answer: &mut HeaderMap, standings: &[(&'static str, Standing)]) {
    if standings.is_empty() {
        return;
    }
    let (mut policies, mut left) = (String::new(), String::new());
    for (n, (name, standing)) in standings.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a text never fails.
        let _written = write!(policies, "{comma}\"{name}\";q={};w={}", standing.quota, standing.window_s);
        let _written = write!(left, "{comma}\"{name}\";r={};t={}", standing.remaining, standing.reset_s);
    }
    headers::put(answer, &QUOTAS, policies);
    headers::put(answer, &LEFT, left);
}

/// The answer for a refusal.
#[must_use]
pub fn refusal(refusal: &Refusal, page: bool, trace: TraceContext) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.reason.status()).unwrap_or(StatusCode::FORBIDDEN);
    let mut answer = if page { refusal_page(refusal.reason, status, trace) } else { body::denied(refusal.reason) };
    answer.extensions_mut().insert(Own::Refusal(refusal.reason));
    let fields = answer.headers_mut();
    quotas(fields, refusal.standing.as_slice());
    if let Some(seconds) = refusal.retry_after_s {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = refusal.allow.as_ref().and_then(|allow| allow.parse().ok()) {
        fields.insert(header::ALLOW, allow);
    }
    if refusal.reason == DenyReason::RequestAmbiguous {
        // Nothing that follows on this connection is believed to begin where it seems to (HTTP/2 has frames; there it is left out).
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = match refusal.reason {
            DenyReason::CredentialMissing | DenyReason::SessionEnded => "Bearer",
            DenyReason::StepUpMissing => STEP_UP_CHALLENGE,
            DenyReason::ProofNonceWanted => "DPoP error=\"use_dpop_nonce\", algs=\"ES256 EdDSA\"",
            DenyReason::ProofMissing | DenyReason::TokenUnbound => "DPoP error=\"invalid_token\", algs=\"ES256 EdDSA\"",
            reason if dpop::is_about_proof(reason) => "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 EdDSA\"",
            _ => "Bearer error=\"invalid_token\"",
        };
        fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        if challenge == "Bearer" {
            fields.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("DPoP algs=\"ES256 EdDSA\""));
        }
    }
    answer
}

/// The answer for something that was allowed but could not be done.
#[must_use]
pub fn failure(fault: &Fault, page: bool, trace: TraceContext) -> Response<Body> {
    // What a peer did wrong is a bad gateway's, not the caller's (RFC 9110, section 15.6.3).
    let status = match fault.kind {
        // To a person it is the same whether nobody answered or somebody broke off.
        FaultKind::Unavailable | FaultKind::Broken => StatusCode::SERVICE_UNAVAILABLE,
        FaultKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        FaultKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        FaultKind::BadRequest => StatusCode::BAD_REQUEST,
        FaultKind::Refused | FaultKind::NotFound | FaultKind::Conflict | FaultKind::Unprocessable => StatusCode::BAD_GATEWAY,
    };
    let (title, text) = match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            ("Back in a moment", "A part of this site is starting or not reachable right now. Please try again.")
        }
        StatusCode::GATEWAY_TIMEOUT => ("That took too long", "A part of this site did not answer in time. Please try again."),
        StatusCode::PAYLOAD_TOO_LARGE => ("Too large", "What you sent is larger than this page accepts."),
        StatusCode::BAD_REQUEST => ("Not understood", "The request arrived incomplete. Please try again."),
        _ => ("Something went wrong", "It is not your fault. Please try again; if it stays, tell us the number below."),
    };
    let mut answer = if page { self::page(status, title, text, trace) } else { body::json(status, &serde_json::json!({ "error": title })) };
    answer.extensions_mut().insert(Own::Failure);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Sends a browser on with GET; `to` is a local path, or begins with an origin of ours.
#[must_use]
pub fn redirect(to: &str) -> Response<Body> {
    let mut answer = body::plain(StatusCode::SEE_OTHER);
    headers::set(answer.headers_mut(), "location", to);
    answer
}

/// A page with one message. Title and text are the edge's own words, never a request's bytes.
#[must_use]
pub fn page(status: StatusCode, title: &'static str, text: &'static str, trace: TraceContext) -> Response<Body> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><p class=\"status\">{}</p><h1>{title}</h1><p>{text}</p>\
         <p><a href=\"/\">Go to the start</a></p><footer>Trace <code>{}</code></footer></main></body></html>",
        status.as_u16(),
        trace.trace_hex()
    );
    let mut answer = body::with_type(status, "text/html; charset=utf-8", html);
    let style = STANDARD.encode(Digest::of(STYLE.as_bytes()).as_bytes());
    let csp = format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'");
    headers::set(answer.headers_mut(), "content-security-policy", &csp);
    answer
}

fn refusal_page(reason: DenyReason, status: StatusCode, trace: TraceContext) -> Response<Body> {
    let (title, text) = match (status, reason) {
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => ("Nothing here", "There is no such page."),
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            ("Slow down a little", "There were many requests from you in a short time. Please wait a moment.")
        }
        (StatusCode::SERVICE_UNAVAILABLE, DenyReason::Overloaded | DenyReason::ConcurrencyExceeded) => {
            ("Back in a moment", "There is more to do right now than can be done in time. Please try again.")
        }
        (StatusCode::SERVICE_UNAVAILABLE, _) => {
            ("Back in a moment", "A part that must agree cannot be asked right now, so nothing is let through. Please try again.")
        }
        (StatusCode::PAYLOAD_TOO_LARGE, _) => ("Too large", "What you sent is larger than this page accepts."),
        (StatusCode::REQUEST_TIMEOUT, _) => ("Too slow", "What you sent came so slowly that it was given up. Please try again."),
        (StatusCode::BAD_REQUEST, _) => ("Not understood", "The request could be read in two ways, so it was not read at all."),
        (_, DenyReason::SignInFailed) => {
            ("Sign-in was not completed", "It was interrupted, took too long, or was begun in another window. Please start again.")
        }
        (_, DenyReason::StepUpMissing) => (
            "One more proof",
            "This takes your second factor, proved within the last five minutes. Go back, load the page again, and repeat it.",
        ),
        (StatusCode::UNAUTHORIZED, _) => ("Please sign in", "This page is for people who are signed in."),
        (_, DenyReason::CrossSite) => ("Not from here", "This action must be started from this site's own pages."),
        _ => ("Not for you", "You are signed in, but this page is not open to you."),
    };
    page(status, title, text, trace)
}
