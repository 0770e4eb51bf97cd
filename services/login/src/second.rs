//! The second step of signing in: a code, from whoever has just shown the right password of an account with a second factor.
//!
//! Between the two steps there is no session. That the password was right travels with the browser for some minutes, under our MAC and
//! bound to the cookie of its forms. The attempt at the password counts as failed until the code was right, too, so that nobody who has
//! half of it gets anything cleared.
//!
//! Guarantees: B13 in part: no session without the second factor of who has one; B12: whether somebody has one is told after the right
//!             password alone, and codes have a count of their own that grows as passwords' do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::SOURCE_HEADER;
use contract::{Body, Caller};
use http::{HeaderMap, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use telemetry::event::{SignInRefused, SignInSucceeded};
use trust::DenyReason;

use crate::answer::Refusal;
use crate::authorize::Wanted;
use crate::factor::Proof;
use crate::form::{self, Params};
use crate::page::{FORM_COOKIE, Second};
use crate::people::name_key;
use crate::provider::{Inner, LoginError};
use crate::sign_in::foreign_form;
use crate::throttle::{self, Counted};

/// A person may take this long for the code.
const HALF_LIFE_S: u64 = 300;
const MAC_PURPOSE: &str = "half signed in";
const WRONG: &str = "That code is not right, was used before, or there were too many attempts. Wait for the next one, and try again.";

/// Who has shown the right password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Half {
    /// Who.
    pub(crate) user: String,
    /// What they typed as their name, as it is compared.
    pub(crate) key: String,
    /// When.
    pub(crate) at_s: u64,
}

/// What an attempt at a password is counted under.
#[derive(Debug)]
pub(crate) struct Counts {
    /// For the audit log.
    pub(crate) account: String,
    /// The network, for this account.
    pub(crate) place: String,
    /// What counts.
    pub(crate) counted: Vec<Counted>,
}

impl Inner {
    /// What an attempt of this browser at that account is counted under.
    pub(crate) async fn counts(&self, headers: &HeaderMap, key: &str) -> Result<Counts, LoginError> {
        let source = headers.get(SOURCE_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (account, place) = (self.mac("account", key), self.mac("network", &format!("{key}\0{}", throttle::network_of(source))));
        let mut counted = Vec::new();
        match self.device(headers, key) {
            Some(device) => counted.push(Counted::device(self.mac("device", &format!("{key}\0{device}")))),
            None => {
                counted.extend([Counted::here(place.clone()), Counted::source(self.mac("source", source))]);
                if !throttle::is_known(&self.store, &place, self.now_s()).await? {
                    counted.push(Counted::everywhere(account.clone()));
                }
            }
        }
        Ok(Counts { account, place, counted })
    }

    /// The page that asks for the code, for who has just shown the right password.
    pub(crate) fn ask_second(&self, headers: &HeaderMap, user: String, name: &str, carried: &str) -> Result<Response<Body>, Refusal> {
        let half = Half { user, key: name_key(name), at_s: self.now_s() };
        let text = B64.encode(serde_json::to_vec(&half).map_err(LoginError::from)?);
        let proof = format!("{text}.{}", self.mac(MAC_PURPOSE, &bound(headers, &text)));
        self.second_page(
            headers,
            StatusCode::OK,
            Second { request: carried, client: self.brought_with_client(carried)?.1, proof: &proof, error: None },
        )
    }

    /// `POST /sign-in/second`.
    pub(crate) async fn sign_in_second(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await?;
        if !self.is_own_form(&headers, &params) {
            return Err(foreign_form());
        }
        let carried = params.get("request").unwrap_or_default();
        let (wanted, client) = self.brought_with_client(carried)?;
        let proof = params.get("proof").unwrap_or_default();
        let half = self.half(&headers, proof).ok_or(Refusal::Page {
            status: StatusCode::BAD_REQUEST,
            title: "This sign-in has ended",
            text: "The code was asked for too long ago. Go back to the application and start again; nothing is lost.",
            reason: None,
        })?;
        let mut counts = self.counts(&headers, &half.key).await?;
        let second = match self.device(&headers, &half.key) {
            Some(device) => Counted::second(self.mac("second", &format!("{}\0{device}", half.user))),
            None => Counted::second(self.mac("second", &half.user)),
        };
        let refuse = |reason| -> Result<Response<Body>, Refusal> {
            let account = counts.account.get(..16).unwrap_or_default().to_owned();
            self.record(caller.trace, &SignInRefused { account, reason })?;
            self.second_page(
                &headers,
                StatusCode::UNAUTHORIZED,
                Second { request: carried, client: client.clone(), proof, error: Some(WRONG) },
            )
        };
        if !throttle::attempt(&self.store, std::slice::from_ref(&second), self.now_s()).await? {
            return refuse(DenyReason::RateExceeded);
        }
        let (shown, recovery) = match (params.get("code"), params.get("recovery")) {
            (_, Some(recovery)) => (Proof::Recovery(recovery), true),
            (code, None) => (Proof::Code(code.unwrap_or_default()), false),
        };
        if !self.prove(&half.user, shown).await? {
            return refuse(DenyReason::SecondFactorFailed);
        }
        if recovery {
            self.act(caller.trace, "login.recovery.use", &half.user, &half.user, "")?;
        }
        counts.counted.push(second);
        self.signed_in(caller, &headers, &wanted, &half, true, &counts).await
    }

    /// Begins the session of who has proved all that they have, and sends them on.
    pub(crate) async fn signed_in(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        wanted: &Wanted,
        half: &Half,
        second: bool,
        counts: &Counts,
    ) -> Result<Response<Body>, Refusal> {
        throttle::succeeded(&self.store, &counts.counted, &counts.place, self.now_s()).await?;
        let (session, cookie) = self.begin_session(headers, &half.user, second).await?;
        self.record(caller.trace, &SignInSucceeded { user: half.user.clone(), session: session.sid.clone() })?;
        let mut answer = if wanted.takes_second() && !second {
            self.back_unmet(wanted, Some(&cookie))?
        } else {
            self.back_with_code(caller, wanted, &session, Some(&cookie)).await?
        };
        let device = http::HeaderValue::from_str(&self.device_cookie(&half.key)).map_err(trust::Fault::internal)?;
        answer.headers_mut().append(http::header::SET_COOKIE, device);
        Ok(answer)
    }

    /// Who has shown the right password with this browser, not too long ago.
    fn half(&self, headers: &HeaderMap, proof: &str) -> Option<Half> {
        let (text, mac) = proof.split_once('.')?;
        if !self.is_mac(MAC_PURPOSE, &bound(headers, text), mac) {
            return None;
        }
        let half: Half = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
        (self.now_s() <= half.at_s.saturating_add(HALF_LIFE_S)).then_some(half)
    }
}

/// The text with the cookie that this browser's forms are bound to.
fn bound(headers: &HeaderMap, text: &str) -> String {
    format!("{text}\0{}", form::cookie(headers, FORM_COOKIE).unwrap_or_default())
}
