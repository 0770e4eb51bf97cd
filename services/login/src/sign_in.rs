//! The sign-in page.
//!
//! Guarantees: B12. Whatever was wrong (name, password, too many attempts), the answer is the same; the work is the same whether or not
//!             anybody has the name. Not here: the code of who has a second factor (`second`).

use contract::{Body, Caller};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use sqlx::Row;
use state::{sqlx, uint};
use telemetry::event::SignInRefused;
use trust::DenyReason;

use crate::answer::{self, Refusal};
use crate::authorize::Wanted;
use crate::form::Params;
use crate::page::SignIn;
use crate::password::Kept;
use crate::people::name_key;
use crate::provider::{Inner, LoginError};
use crate::second::Half;
use crate::throttle;

const WRONG: &str = "That name and password do not go together, or there were too many attempts. Check both, wait a moment, and try again.";
const INPUT_BYTES_MAX: usize = 1024;

impl Inner {
    /// `GET /sign-in`.
    pub(crate) fn sign_in_form(&self, request: &Parts) -> Result<Response<Body>, Refusal> {
        let params = Params::of_query(request).unwrap_or_default();
        let Some(carried) = params.get("request") else { return answer::redirect(&format!("{}/", self.public_origin), None) };
        let (wanted, client) = self.brought_with_client(carried)?;
        drop(wanted);
        self.sign_in_page(&request.headers, StatusCode::OK, SignIn { request: carried, client, name: "", error: None })
    }

    /// `POST /sign-in`.
    pub(crate) async fn sign_in(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await?;
        if !self.is_own_form(&headers, &params) {
            return Err(foreign_form());
        }
        let carried = params.get("request").unwrap_or_default();
        let (wanted, client) = self.brought_with_client(carried)?;
        let (name, password) = (params.get("name").unwrap_or_default().trim(), params.get("password").unwrap_or_default());
        let key = name_key(name);
        let counts = self.counts(&headers, &key).await?;
        let refuse = |reason| -> Result<Response<Body>, Refusal> {
            let short = counts.account.get(..16).unwrap_or_default().to_owned();
            self.record(caller.trace, &SignInRefused { account: short, reason })?;
            let filled = SignIn {
                request: carried,
                client: client.clone(),
                name: if name.len() <= INPUT_BYTES_MAX { name } else { "" },
                error: Some(WRONG),
            };
            self.sign_in_page(&headers, StatusCode::UNAUTHORIZED, filled)
        };
        if !throttle::attempt(&self.store, &counts.counted, self.now_s()).await? {
            return refuse(DenyReason::RateExceeded);
        }
        let known = self.password_of(&key).await?;
        let typed = if password.len() <= INPUT_BYTES_MAX { password } else { "" };
        let right = self.hasher.verify(typed, known.as_ref().map(|(_, kept)| kept)).await?;
        let Some((user, _)) = known.filter(|_| right) else { return refuse(DenyReason::SignInFailed) };
        if self.has_factor(&user).await? {
            return self.ask_second(&headers, user, name, carried);
        }
        let half = Half { user, key, at_s: self.now_s() };
        self.signed_in(caller, &headers, &wanted, &half, false, &counts).await
    }

    /// The authorization request that travelled with the browser, and its client.
    pub(crate) fn brought_with_client(&self, carried: &str) -> Result<(Wanted, crate::client::Client), Refusal> {
        let wanted = self.brought(carried);
        let pair = wanted.and_then(|wanted| self.client(wanted.client()).map(|client| (wanted, client)));
        pair.ok_or(Refusal::Page {
            status: StatusCode::BAD_REQUEST,
            title: "This sign-in has ended",
            text: "It was begun too long ago. Go back to the application and start again; nothing is lost.",
            reason: None,
        })
    }

    async fn password_of(&self, key: &str) -> Result<Option<(String, Kept)>, LoginError> {
        let sql = "SELECT user, salt, hash, memory_kib, passes, lanes FROM person WHERE name_key = ? AND hash IS NOT NULL";
        let row = sqlx::query(sql).bind(key).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let number = |at: usize| -> Result<u32, LoginError> { Ok(u32::try_from(uint(row.try_get(at)?)).unwrap_or(u32::MAX)) };
        let kept = Kept { salt: row.try_get(1)?, hash: row.try_get(2)?, memory_kib: number(3)?, passes: number(4)?, lanes: number(5)? };
        Ok(Some((row.try_get(0)?, kept)))
    }
}

/// A form that did not come from a page of ours.
pub(crate) fn foreign_form() -> Refusal {
    Refusal::Page {
        status: StatusCode::FORBIDDEN,
        title: "This form has ended",
        text: "It was opened too long ago, in another browser, or by another site. Go back to the application and start again; cookies must be allowed for this address.",
        reason: Some(DenyReason::CrossSite),
    }
}
