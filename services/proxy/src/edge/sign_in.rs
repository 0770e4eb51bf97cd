//! Signing in and out: the edge's own pages, as OpenID Connect relying party of `login`.
//!
//! `/auth/login` begins (state, nonce and PKCE verifier are kept here, bound to the browser by a cookie), `login` asks who it is, and
//! `/auth/callback` redeems the code. Every sign-in begins a session under a new id.
//!
//! Spec:       OpenID Connect Core 1.0 section 3.1; RFC 7636 (S256 alone); RFC 9207 (`iss`); RFC 9700 section 2.1;
//!             OpenID Connect RP-Initiated Logout 1.0 section 2; RFC 9470 section 4 (a page leads to the step-up that it asks for).
//! Guarantees: B2 and B3 at the client's side; A14; B13; no open redirect, no session fixation, no code used twice.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::control::EdgeProfile;
use contract::login::{ACR_SECOND, EDGE_CALLBACK, EDGE_CLIENT, FACTOR_PATH, ISSUER_PATH, STEP_UP_S, UNMET};
use contract::{Body, body};
use http::{HeaderValue, Method, Response, StatusCode, header};
use telemetry::Recorder;
use telemetry::event::ActDone;
use trust::{DenyReason, Digest, Entropy, TraceContext};

use super::answer;
use super::cookie;
use super::oidc::{GrantError, Granted, Login, issuer};
use super::person::Person;
use super::session::{Reference, SIGN_IN_LIFE_S, Sessions, SignIn, Tokens};
use super::stop::{Refusal, Stop};
use super::visit::{Credential, Visit};

/// Longest path to return to, in bytes.
const RETURN_BYTES_MAX: usize = 2048;

/// Begins a sign-in.
///
/// # Errors
/// `Unavailable` when the database fails.
pub async fn begin(sessions: &Sessions, visit: &Visit, profile: &EdgeProfile, entropy: &dyn Entropy) -> Result<Response<Body>, Stop> {
    let browser = visit.browser.clone().unwrap_or_else(|| Reference::random(entropy));
    let (nonce, verifier) = (Reference::random(entropy).expose(), Reference::random(entropy).expose());
    let challenge = B64.encode(Digest::of(verifier.as_bytes()).as_bytes());
    let return_to = visit.single("return").filter(|path| is_local(path)).unwrap_or_else(|| "/".to_owned());
    let sign_in = SignIn { origin: visit.origin.clone(), nonce: nonce.clone(), verifier, return_to };
    let state = sessions.expect(&browser, &sign_in).await?;
    let scopes: BTreeSet<&str> = profile.routes.iter().filter_map(|route| route.scope.as_deref()).collect();
    // `offline_access` is what a refresh token is asked for by (Core, section 11): the session outlives an access token.
    let scope = ["openid", "profile", "offline_access"].into_iter().chain(scopes).collect::<Vec<_>>().join(" ");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(more(visit))
        .append_pair("response_type", "code")
        .append_pair("client_id", EDGE_CLIENT)
        .append_pair("redirect_uri", &format!("{}{EDGE_CALLBACK}", visit.origin))
        .append_pair("scope", &scope)
        .append_pair("state", &state.expose())
        .append_pair("nonce", &nonce)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .finish();
    let mut answer = answer::redirect(&format!("{ISSUER_PATH}/authorize?{query}"));
    bake(&mut answer, cookie::set(cookie::SIGN_IN, &browser, SIGN_IN_LIFE_S));
    Ok(answer)
}

/// Takes `login`'s answer: a session begins.
///
/// # Errors
/// `StepUpMissing`, with where to go, when a second factor was asked of somebody who has none; `SignInFailed` for an answer that was not asked for by this browser, a code that `login` refuses, or tokens that do not verify;
/// `DependencyDown` when `login` cannot be asked.
pub async fn complete(
    sessions: &Sessions,
    login: &Login,
    recorder: &Recorder,
    visit: &Visit,
    trace: TraceContext,
) -> Result<Response<Body>, Stop> {
    let failed = DenyReason::SignInFailed;
    let browser = visit.browser.as_ref().ok_or(failed)?;
    let state = visit.single("state").and_then(|text| Reference::parse(&text)).ok_or(failed)?;
    let sign_in = sessions.redeem(&state, browser).await?.filter(|s| s.origin == visit.origin).ok_or(failed)?;
    if visit.single("iss").as_deref() != Some(&issuer(&visit.origin)) {
        return Err(failed.into());
    }
    if visit.single("error").as_deref() == Some(UNMET) {
        // Nobody can be asked for what they do not have: they are led to where they get it.
        return Err(Stop::Redirected { reason: DenyReason::StepUpMissing, to: format!("{ISSUER_PATH}{FACTOR_PATH}") });
    }
    let code = visit.single("code").ok_or(failed)?;
    let granted = login.redeem(&code, &sign_in.verifier, &visit.origin, trace).await.map_err(|error| match error {
        GrantError::Refused => failed,
        GrantError::Down => DenyReason::DependencyDown,
    })?;
    let Granted { access, refresh, id: Some((id_token, id_claims)) } = granted else { return Err(failed.into()) };
    if id_claims.nonce.as_deref() != Some(&sign_in.nonce) {
        return Err(failed.into());
    }
    if let Credential::Session(old) = &visit.credential {
        sessions.remove(old).await?;
    }
    let begun =
        ActDone { act: "session.begin", by: access.sub.clone(), to: "edge".to_owned(), detail: format!("session {} of login", access.sid) };
    recorder.record(Some(trace), &begun).map_err(|_| DenyReason::AuditUnavailable)?;
    let name = id_claims.name.or(id_claims.preferred_username).unwrap_or_default();
    let session = sessions.begin(&visit.origin, &name, &access, &Tokens { refresh, id: id_token }).await?;
    let mut answer = answer::redirect(&sign_in.return_to);
    bake(&mut answer, cookie::set(cookie::SESSION, &session, sessions.life_s()));
    bake(&mut answer, cookie::clear(cookie::SIGN_IN));
    Ok(answer)
}

/// Ends the session here, revokes its refresh token, and sends the browser to end the one at `login`.
///
/// # Errors
/// `Unavailable` when the database fails.
pub async fn end(
    sessions: &Sessions,
    login: &Login,
    recorder: &Recorder,
    visit: &Visit,
    trace: TraceContext,
) -> Result<Response<Body>, Stop> {
    let session = match &visit.credential {
        Credential::Session(id) => {
            let session = sessions.find(id).await?;
            sessions.remove(id).await?;
            session
        }
        _ => None,
    };
    let mut to = "/".to_owned();
    if let Some(session) = session {
        let ended = ActDone {
            act: "session.end",
            by: session.claims.sub.clone(),
            to: "edge".to_owned(),
            detail: format!("session {} of login", session.claims.sid),
        };
        recorder.record(Some(trace), &ended).map_err(|_| DenyReason::AuditUnavailable)?;
        if let Some(refresh) = &session.tokens.refresh {
            // Best effort: what is not revoked now ends at `login` with the session there, where the browser goes next.
            let _revoked = login.revoke(refresh, &session.origin, trace).await;
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", EDGE_CLIENT)
            .append_pair("id_token_hint", session.tokens.id.expose())
            .append_pair("post_logout_redirect_uri", &format!("{}/", visit.origin))
            .finish();
        to = format!("{ISSUER_PATH}/end-session?{query}");
    }
    let mut answer = answer::redirect(&to);
    bake(&mut answer, cookie::clear(cookie::SESSION));
    Ok(answer)
}

/// Who is signed in, for pages' scripts.
#[must_use]
pub fn me(person: &Person) -> Response<Body> {
    let claims = &person.claims;
    body::json(
        StatusCode::OK,
        &serde_json::json!({
            "user": claims.sub, "name": person.name, "roles": claims.roles,
            "scopes": claims.scope.split_whitespace().collect::<Vec<_>>(), "auth_time": claims.auth_time, "acr": claims.acr,
        }),
    )
}

/// Where a page without a session sends the browser; or one whose session has no second proof of just now.
#[must_use]
pub fn address(return_to: &str, step_up: bool) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("return", return_to);
    if step_up {
        query.append_pair("acr_values", ACR_SECOND).append_pair("max_age", &STEP_UP_S.to_string());
    }
    format!("/auth/login?{}", query.finish())
}

/// Where a refusal leads a browser that may look at the page once its person has proved themselves again.
#[must_use]
pub fn led(stop: Stop, visit: &Visit, person: Option<&Person>) -> Stop {
    match stop {
        Stop::Refused(Refusal { reason: reason @ DenyReason::StepUpMissing, .. })
            if visit.destination.is_page() && visit.head.method == Method::GET && person.is_some_and(|person| person.by_cookie) =>
        {
            Stop::Redirected { reason, to: address(visit.target(), true) }
        }
        stop => stop,
    }
}

/// What the page that began it may ask of a sign-in: a second factor, of how long ago, or all of it anew (Core, section 3.1.2.1).
fn more(visit: &Visit) -> Vec<(&'static str, String)> {
    let acr = visit.single("acr_values").filter(|acr| acr == ACR_SECOND).map(|acr| ("acr_values", acr));
    let age = visit.single("max_age").filter(|age| age.parse::<u32>().is_ok()).map(|age| ("max_age", age));
    let prompt = visit.single("prompt").filter(|prompt| prompt == "login").map(|prompt| ("prompt", prompt));
    [acr, age, prompt].into_iter().flatten().collect()
}

/// Whether a browser would stay on this origin: one leading slash, nothing that a URL parser drops or turns into another slash.
#[must_use]
pub fn is_local(path: &str) -> bool {
    let mut chars = path.chars();
    chars.next() == Some('/')
        && !path.starts_with("//")
        && !path.starts_with("/auth/")
        && path.len() <= RETURN_BYTES_MAX
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn bake(answer: &mut Response<Body>, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
