//! Signing out.
//!
//! A client that shows an ID token of the session signs the person out at once. Anybody else only gets a page that asks, so that no
//! other site can sign people out by a link.
//!
//! Spec:     OpenID Connect RP-Initiated Logout 1.0, sections 2 and 3.
//! Not here: telling clients (back-channel logout, B18).

use contract::login::{ID_TYP, ISSUER_PATH};
use contract::{Body, Caller, signing};
use http::request::Parts;
use http::{Response, StatusCode};
use serde::Deserialize;

use crate::answer::{self, Refusal};
use crate::form::{Params, set_cookie, with_params};
use crate::provider::Inner;
use crate::session;

const MAC_PURPOSE: &str = "end session";

#[derive(Debug, Clone, Deserialize)]
struct Hint {
    iss: String,
    aud: String,
    sid: String,
    sub: String,
}

impl Inner {
    /// `GET /end-session`.
    pub(crate) async fn end_session(&self, caller: &Caller, request: &Parts) -> Result<Response<Body>, Refusal> {
        let params = Params::of_query(request).unwrap_or_default();
        let hint = params.get("id_token_hint").and_then(|token| self.hint(token));
        let session = self.session(&request.headers).await?;
        let confirmed = session.as_ref().is_some_and(|s| params.get("confirm").is_some_and(|mac| self.is_mac(MAC_PURPOSE, &s.sid, mac)));
        let (sid, user) = match (&hint, &session) {
            (Some(hint), _) => (hint.sid.clone(), hint.sub.clone()),
            (None, Some(session)) if confirmed => (session.sid.clone(), session.user.clone()),
            (None, Some(session)) => {
                let to = format!("{ISSUER_PATH}/end-session?confirm={}", self.mac(MAC_PURPOSE, &session.sid));
                let text = "You will be signed out of every application that you opened with this sign-in.";
                return self.notice(StatusCode::OK, "Sign out?", text, Some((&to, "Sign out")));
            }
            (None, None) => return self.signed_out(),
        };
        self.act(caller.trace, "login.end_session", &user, &sid, "")?;
        self.end_session_of(&sid).await?;
        let own = session.as_ref().is_some_and(|s| s.sid == sid);
        let cookie = own.then(|| set_cookie(session::COOKIE, "", 0));
        let client = hint.as_ref().and_then(|hint| self.client(&hint.aud));
        let to =
            params.get("post_logout_redirect_uri").filter(|uri| client.as_ref().is_some_and(|c| c.may_end_at(uri, &self.public_origin)));
        match (to, cookie) {
            (Some(uri), cookie) => answer::redirect(&with_params(uri, &[("state", params.get("state"))]), cookie.as_deref()),
            (None, Some(cookie)) => answer::redirect(&format!("{ISSUER_PATH}/end-session"), Some(&cookie)),
            (None, None) => self.signed_out(),
        }
    }

    fn signed_out(&self) -> Result<Response<Body>, Refusal> {
        let to = format!("{}/", self.public_origin);
        self.notice(StatusCode::OK, "You are signed out", "It is safe to leave this browser.", Some((&to, "Back to the application")))
    }

    /// What an ID token of ours says, also one that has ended (section 4).
    fn hint(&self, token: &str) -> Option<Hint> {
        let (kid, _) = signing::header_of(token, ID_TYP).ok()?;
        let key = self.keys.find(&kid?)?.public().decoding().ok()?;
        signing::verify::<Hint>(token, ID_TYP, &key).ok().filter(|hint| hint.iss == self.issuer)
    }
}
