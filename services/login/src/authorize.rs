//! The authorization endpoint: a client sends a person here and gets a code back.
//!
//! What is wrong with the client or its redirect URI is told to the person; what is wrong with the rest is told to the client, through
//! its redirect URI. Nothing is kept for a person who has not signed in yet: the request travels with the browser, under our MAC.
//!
//! Spec:       OpenID Connect Core, section 3.1.2; RFC 6749, section 4.1; RFC 7636, section 4.3; RFC 9207, section 2; RFC 9470, section 5.
//! Guarantees: B1, B2, B13 (`acr_values`, `max_age`).
//! Not here:   consent (the operator declares every client; B11), pushed requests (B3).

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::dpop::is_thumbprint;
use contract::login::{ACR_PASSWORD, ACR_SECOND, ISSUER_PATH, UNMET};
use contract::{Body, Caller};
use http::request::Parts;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use state::{int, sqlx};
use trust::DenyReason;

use crate::answer::{self, Refusal};
use crate::client::Client;
use crate::credential::{Credential, new_id};
use crate::form::{Params, with_params};
use crate::provider::{Inner, LoginError};
use crate::session::Session;

/// A code lives this long.
pub(crate) const CODE_LIFE_S: u64 = 60;
/// A person may take this long to sign in.
const REQUEST_LIFE_S: u64 = 3600;
const MAC_PURPOSE: &str = "authorization request";
const STATE_BYTES_MAX: usize = 2048;

/// An authorization request whose client and redirect URI are known to be right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    client: String,
    redirect_uri: String,
    state: Option<String>,
    nonce: Option<String>,
    scope: BTreeSet<String>,
    challenge: String,
    #[serde(default)]
    jkt: Option<String>,
    /// It takes a second factor (`acr_values`).
    #[serde(default)]
    second: bool,
    at_s: u64,
}

/// Whether the person must prove themselves again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Freshness {
    again: bool,
    silently: bool,
    age_s_max: Option<u64>,
}

impl Wanted {
    /// The client's `client_id`.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }
    /// Whether it takes a second factor.
    pub(crate) fn takes_second(&self) -> bool {
        self.second
    }
}

impl Inner {
    /// `GET /authorize`.
    pub(crate) async fn authorize(&self, caller: &Caller, request: &Parts) -> Result<Response<Body>, Refusal> {
        let unusable = |text| Refusal::Page { status: StatusCode::BAD_REQUEST, title: "This link does not work", text, reason: None };
        let params =
            Params::of_query(request).ok_or_else(|| unusable("It says the same thing twice. Start again from the application."))?;
        let stranger = || Refusal::Page {
            status: StatusCode::BAD_REQUEST,
            title: "This link does not work",
            text: "The application that sent you here is not known, or asked to send you somewhere that it must not. You have not been signed in.",
            reason: Some(DenyReason::CallerNotAdmitted),
        };
        let client = params.get("client_id").and_then(|id| self.client(id)).ok_or_else(stranger)?;
        let redirect_uri = params.get("redirect_uri").filter(|uri| client.may_return_to(uri, &self.public_origin)).ok_or_else(stranger)?;
        let (wanted, freshness) = match self.wanted(&params, &client, redirect_uri) {
            Ok(understood) => understood,
            Err(error) => return self.back_with_error(redirect_uri, params.get("state"), error, None),
        };
        let session = self.session(&request.headers).await?;
        let now_s = self.now_s();
        let fresh = |s: &Session| freshness.age_s_max.is_none_or(|max| now_s.saturating_sub(s.auth_time_s) <= max);
        let has_second = match &session {
            Some(session) => self.has_factor(&session.user).await?,
            None => false,
        };
        if wanted.second && !has_second && !freshness.again && session.is_some() {
            return self.back_unmet(&wanted, None);
        }
        // Who has a second factor is never let in by less, whatever was enough when the session began.
        let enough = |s: &Session| s.second || !(wanted.second || has_second);
        match session.filter(|s| !freshness.again && fresh(s) && enough(s)) {
            Some(session) => self.back_with_code(caller, &wanted, &session, None).await,
            None if freshness.silently => self.back_with_error(redirect_uri, params.get("state"), "login_required", None),
            None => answer::redirect(&format!("{ISSUER_PATH}/sign-in?request={}", self.carried(&wanted)?), None),
        }
    }

    /// The request in the form that travels with the browser.
    pub(crate) fn carried(&self, wanted: &Wanted) -> Result<String, LoginError> {
        let text = B64.encode(serde_json::to_vec(wanted)?);
        Ok(format!("{text}.{}", self.mac(MAC_PURPOSE, &text)))
    }

    /// The request that travelled with the browser, if it is ours and not too old.
    pub(crate) fn brought(&self, carried: &str) -> Option<Wanted> {
        let (text, mac) = carried.split_once('.')?;
        if !self.is_mac(MAC_PURPOSE, text, mac) {
            return None;
        }
        let wanted: Wanted = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
        (self.now_s() <= wanted.at_s.saturating_add(REQUEST_LIFE_S)).then_some(wanted)
    }

    /// Sends the browser back with a code for `session`.
    pub(crate) async fn back_with_code(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        session: &Session,
        cookie: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let (code, family, now_s) = (Credential::new(&*self.entropy), new_id(&*self.entropy), self.now_s());
        let scope = wanted.scope.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        self.act(caller.trace, "login.authorize", &session.user, &wanted.client, &scope)?;
        let expires_s = int(now_s.saturating_add(CODE_LIFE_S));
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM family WHERE ends_s <= ?").bind(int(now_s)).execute(&mut *txn).await?;
        sqlx::query(
            "INSERT INTO family (family, client, user, sid, scope, auth_time_s, ends_s, jkt, second) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&family)
        .bind(&wanted.client)
        .bind(&session.user)
        .bind(&session.sid)
        .bind(&scope)
        .bind(int(session.auth_time_s))
        .bind(expires_s)
        .bind(&wanted.jkt)
        .bind(session.second)
        .execute(&mut *txn)
        .await?;
        sqlx::query("INSERT INTO code (digest, family, redirect_uri, challenge, nonce, expires_s) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(code.digest())
            .bind(&family)
            .bind(&wanted.redirect_uri)
            .bind(&wanted.challenge)
            .bind(&wanted.nonce)
            .bind(expires_s)
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        let to = with_params(
            &wanted.redirect_uri,
            &[("code", Some(code.expose())), ("state", wanted.state.as_deref()), ("iss", Some(&self.issuer))],
        );
        answer::redirect(&to, cookie)
    }

    /// Sends the browser back without a code: the person has no second factor, and one was asked for. A code for less could be taken for
    /// what was asked for, by a client that does not look.
    pub(crate) fn back_unmet(&self, wanted: &Wanted, cookie: Option<&str>) -> Result<Response<Body>, Refusal> {
        self.back_with_error(&wanted.redirect_uri, wanted.state.as_deref(), UNMET, cookie)
    }

    fn back_with_error(
        &self,
        redirect_uri: &str,
        state: Option<&str>,
        error: &str,
        cookie: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let state = state.filter(|s| s.len() <= STATE_BYTES_MAX);
        answer::redirect(&with_params(redirect_uri, &[("error", Some(error)), ("state", state), ("iss", Some(&self.issuer))]), cookie)
    }

    /// What the parameters ask for, or the error code for the client.
    fn wanted(&self, params: &Params, client: &Client, redirect_uri: &str) -> Result<(Wanted, Freshness), &'static str> {
        if params.get("request").is_some() {
            return Err("request_not_supported");
        }
        if params.get("request_uri").is_some() {
            return Err("request_uri_not_supported");
        }
        let (state, nonce) = (params.get("state"), params.get("nonce"));
        if params.get("response_mode").is_some_and(|mode| mode != "query")
            || [state, nonce].iter().flatten().any(|s| s.len() > STATE_BYTES_MAX)
        {
            return Err("invalid_request");
        }
        match params.get("response_type") {
            Some("code") => {}
            Some(_) => return Err("unsupported_response_type"),
            None => return Err("invalid_request"),
        }
        let challenge = params.get("code_challenge").filter(|c| is_challenge(c)).ok_or("invalid_request")?;
        // RFC 7636, section 4.3: an absent method means "plain", which is refused (B2).
        if params.get("code_challenge_method") != Some("S256") {
            return Err("invalid_request");
        }
        // RFC 9449, section 10: the code is for who has this key.
        let jkt = params.get("dpop_jkt");
        if jkt.is_some_and(|jkt| !is_thumbprint(jkt)) {
            return Err("invalid_request");
        }
        let asked: BTreeSet<String> = params.get("scope").unwrap_or_default().split(' ').map(str::to_owned).collect();
        if !asked.contains("openid") {
            return Err("invalid_scope");
        }
        let wanted = Wanted {
            client: client.id().to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            state: state.map(str::to_owned),
            nonce: nonce.map(str::to_owned),
            // Core, section 3.1.2.1: scopes that are not understood are left out; the token's answer says what was granted.
            scope: asked.intersection(&self.scopes).cloned().collect(),
            challenge: challenge.to_owned(),
            jkt: jkt.map(str::to_owned),
            second: params.get("acr_values").is_some_and(takes_second),
            at_s: self.now_s(),
        };
        let prompts: BTreeSet<&str> = params.get("prompt").unwrap_or_default().split_whitespace().collect();
        let silently = prompts.contains("none");
        if silently && prompts.len() > 1 {
            return Err("invalid_request");
        }
        let age_s_max = params.get("max_age").map(str::parse::<u64>).transpose().map_err(|_| "invalid_request")?;
        let again = prompts.contains("login") || prompts.contains("select_account");
        Ok((wanted, Freshness { again, silently, age_s_max }))
    }
}

/// Whether the first that is known of these, in order of preference, takes a second factor (Core, section 3.1.2.1).
fn takes_second(acr_values: &str) -> bool {
    acr_values.split(' ').find(|acr| [ACR_PASSWORD, ACR_SECOND].contains(acr)) == Some(ACR_SECOND)
}

/// The base64url of 32 bytes: the only form that S256 has.
fn is_challenge(text: &str) -> bool {
    text.len() == 43 && B64.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}
