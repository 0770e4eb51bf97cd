//! Second factors: what is kept of them, and the page on which people look after their own.
//!
//! A secret is sealed, bound to its person, and counts only once a code of it has come back. With it ten recovery codes are handed out,
//! of which keyed digests are kept; each works once. Who sets one up is signed out everywhere else, since those sessions proved less;
//! who loses it, by their own will or the operator's, is signed out everywhere.
//!
//! The page takes a sign-in of just now: with the second factor, where there is one.
//!
//! Spec:       RFC 6238, section 5.2 (a code is accepted once: the last step is kept); NIST SP 800-63B, section 5.1.2 (look-up secrets).
//! Guarantees: B13 in part. Not here: asking for it at sign-in (`second`), passkeys.

use contract::login::{FACTOR_PATH, ISSUER_PATH, STEP_UP_S};
use contract::{Body, Caller, body};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use sqlx::Row;
use state::{WriteTxn, int, sqlx, uint};
use trust::Fault;

use crate::answer::{self, Refusal};
use crate::form::{Params, set_cookie, with_params};
use crate::page::FactorState;
use crate::provider::{Inner, LoginError};
use crate::session::{self, Session};
use crate::sign_in::foreign_form;
use crate::totp::{Totp, base32, plain};

/// Recovery codes that are handed out at once.
pub(crate) const CODES: usize = 10;
/// 80 bits: nothing to guess.
const CODE_BYTES: usize = 10;
/// A secret that was shown and not confirmed for this long is none.
const PENDING_LIFE_S: u64 = 900;
const MAC_PURPOSE: &str = "recovery";
/// Where the edge signs people out.
const SIGN_OUT: &str = "/auth/logout";
const WRONG: &str = "That is not the code of this moment. Wait for the next one, and see that the clock of your device is right.";

/// What somebody shows as second proof.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// What an authenticator shows.
    Code(&'a str),
    /// One of those that were handed out for the day when it is lost.
    Recovery(&'a str),
}

impl Inner {
    /// Whether the person has one that counts.
    pub(crate) async fn has_factor(&self, user: &str) -> Result<bool, LoginError> {
        let sql = "SELECT 1 FROM factor WHERE user = ? AND confirmed_s IS NOT NULL";
        Ok(sqlx::query(sql).bind(user).fetch_optional(self.store.reader()).await?.is_some())
    }

    /// Whether it is a proof, which is used up by that.
    pub(crate) async fn prove(&self, user: &str, proof: Proof<'_>) -> Result<bool, LoginError> {
        let mut txn = self.store.write().await?;
        let sql = "SELECT sealed, step FROM factor WHERE user = ? AND confirmed_s IS NOT NULL";
        let Some(row) = sqlx::query(sql).bind(user).fetch_optional(&mut *txn).await? else { return Ok(false) };
        let proven = match proof {
            Proof::Code(typed) => {
                let totp = self.opened(user, &row.try_get::<String, _>(0)?)?;
                let step = totp.step_of(&plain(typed), self.now_s(), uint(row.try_get(1)?));
                if let Some(step) = step {
                    sqlx::query("UPDATE factor SET step = ? WHERE user = ?").bind(int(step)).bind(user).execute(&mut *txn).await?;
                }
                step.is_some()
            }
            Proof::Recovery(typed) => {
                let delete = sqlx::query("DELETE FROM recovery WHERE user = ? AND mac = ?").bind(user).bind(self.recovery_mac(user, typed));
                delete.execute(&mut *txn).await?.rows_affected() == 1
            }
        };
        txn.commit().await?;
        Ok(proven)
    }

    /// `GET /factor`.
    pub(crate) async fn factor_page(&self, request: &Parts) -> Result<Response<Body>, Refusal> {
        let Some((session, has)) = self.just_proven(&request.headers).await? else { return self.prove_again() };
        let state = if has { FactorState::On { left: self.codes_left(&session.user).await? } } else { FactorState::Off };
        self.factor_state_page(&request.headers, StatusCode::OK, &state)
    }

    /// `POST /factor`.
    pub(crate) async fn factor(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await?;
        if !self.is_own_form(&headers, &params) {
            return Err(foreign_form());
        }
        let Some((session, has)) = self.just_proven(&headers).await? else { return self.prove_again() };
        match (params.get("act"), has) {
            (Some("begin"), false) => self.begin_factor(&headers, &session).await,
            (Some("confirm"), false) => self.confirm_factor(caller, &headers, &session, params.get("code").unwrap_or_default()).await,
            (Some("codes"), true) => {
                let mut txn = self.store.write().await?;
                let codes = self.hand_out(&mut txn, &session.user).await?;
                self.act(caller.trace, "login.factor.codes", &session.user, &session.user, "")?;
                txn.commit().await?;
                self.factor_state_page(&headers, StatusCode::OK, &FactorState::Codes { codes })
            }
            (Some("remove"), true) => {
                let mut txn = self.store.write().await?;
                forget(&mut txn, &session.user).await?;
                self.act(caller.trace, "login.factor.remove", &session.user, &session.user, "")?;
                txn.commit().await?;
                // The edge has a session of its own, which it ends there.
                answer::redirect(SIGN_OUT, Some(&set_cookie(session::COOKIE, "", 0)))
            }
            // Done already, in another window.
            _ => answer::redirect(&format!("{ISSUER_PATH}{FACTOR_PATH}"), None),
        }
    }

    /// `DELETE /users/{user}/factor`.
    pub(crate) async fn reset_factor(&self, caller: &Caller, user: &str) -> Result<Response<Body>, Refusal> {
        let mut txn = self.store.write().await?;
        if !forget(&mut txn, user).await? {
            return Err(Fault::not_found("nobody of this id has a second factor").into());
        }
        self.act(caller.trace, "login.factor.reset", "operator", user, "")?;
        txn.commit().await?;
        Ok(body::plain(StatusCode::NO_CONTENT))
    }

    /// The session of who proved themselves just now, with the second factor if they have one; and whether they have.
    async fn just_proven(&self, headers: &HeaderMap) -> Result<Option<(Session, bool)>, LoginError> {
        let Some(session) = self.session(headers).await? else { return Ok(None) };
        let has = self.has_factor(&session.user).await?;
        let fresh = self.now_s().saturating_sub(session.auth_time_s) <= STEP_UP_S;
        Ok((fresh && (session.second || !has)).then_some((session, has)))
    }

    /// To sign-in, and back to the page.
    fn prove_again(&self) -> Result<Response<Body>, Refusal> {
        let (back, age) = (format!("{ISSUER_PATH}{FACTOR_PATH}"), STEP_UP_S.to_string());
        answer::redirect(&with_params("/auth/login", &[("return", Some(&back)), ("max_age", Some(&age))]), None)
    }

    async fn begin_factor(&self, headers: &HeaderMap, session: &Session) -> Result<Response<Body>, Refusal> {
        let totp = Totp::new(&*self.entropy);
        let sealed = self.sealer.seal(&sealed_name(&session.user), 1, totp.expose()).map_err(LoginError::from)?;
        let mut txn = self.store.write().await?;
        let sql = "INSERT INTO factor (user, sealed, begun_s) VALUES (?, ?, ?)
            ON CONFLICT (user) DO UPDATE SET sealed = excluded.sealed, begun_s = excluded.begun_s WHERE confirmed_s IS NULL";
        sqlx::query(sql).bind(&session.user).bind(sealed).bind(int(self.now_s())).execute(&mut *txn).await?;
        txn.commit().await?;
        self.pending_page(headers, StatusCode::OK, session, &totp, None).await
    }

    async fn confirm_factor(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        session: &Session,
        typed: &str,
    ) -> Result<Response<Body>, Refusal> {
        let (user, now_s) = (&session.user, self.now_s());
        let mut txn = self.store.write().await?;
        let sql = "SELECT sealed FROM factor WHERE user = ? AND confirmed_s IS NULL AND begun_s > ?";
        let row = sqlx::query(sql).bind(user).bind(int(now_s.saturating_sub(PENDING_LIFE_S))).fetch_optional(&mut *txn).await?;
        let Some(row) = row else { return answer::redirect(&format!("{ISSUER_PATH}{FACTOR_PATH}"), None) };
        let totp = self.opened(user, &row.try_get::<String, _>(0)?)?;
        let Some(step) = totp.step_of(&plain(typed), now_s, 0) else {
            drop(txn);
            return self.pending_page(headers, StatusCode::UNPROCESSABLE_ENTITY, session, &totp, Some(WRONG)).await;
        };
        let sql = "UPDATE factor SET confirmed_s = ?, step = ? WHERE user = ?";
        sqlx::query(sql).bind(int(now_s)).bind(int(step)).bind(user).execute(&mut *txn).await?;
        sqlx::query("DELETE FROM session WHERE user = ? AND sid <> ?").bind(user).bind(&session.sid).execute(&mut *txn).await?;
        sqlx::query("UPDATE family SET dead = 1 WHERE user = ? AND sid <> ?").bind(user).bind(&session.sid).execute(&mut *txn).await?;
        // The password was proved just now, the factor at this moment: this session has both.
        let sql = "UPDATE session SET second = 1, auth_time_s = ? WHERE sid = ?";
        sqlx::query(sql).bind(int(now_s)).bind(&session.sid).execute(&mut *txn).await?;
        let codes = self.hand_out(&mut txn, user).await?;
        self.act(caller.trace, "login.factor.confirm", user, user, "totp")?;
        txn.commit().await?;
        self.factor_state_page(headers, StatusCode::OK, &FactorState::Codes { codes })
    }

    async fn pending_page(
        &self,
        headers: &HeaderMap,
        status: StatusCode,
        session: &Session,
        totp: &Totp,
        error: Option<&'static str>,
    ) -> Result<Response<Body>, Refusal> {
        let row = sqlx::query("SELECT name FROM person WHERE user = ?").bind(&session.user).fetch_one(self.store.reader()).await?;
        let uri = totp.uri(&self.system, &row.try_get::<String, _>(0)?);
        self.factor_state_page(headers, status, &FactorState::Pending { uri, text: totp.text(), error })
    }

    /// New recovery codes in the place of those before: the one time that they are shown.
    async fn hand_out(&self, txn: &mut WriteTxn, user: &str) -> Result<Vec<String>, LoginError> {
        sqlx::query("DELETE FROM recovery WHERE user = ?").bind(user).execute(&mut **txn).await?;
        let mut codes = Vec::new();
        for _ in 0..CODES {
            let mut bytes = [0; CODE_BYTES];
            self.entropy.fill(&mut bytes);
            let text = base32(&bytes);
            sqlx::query("INSERT INTO recovery (mac, user) VALUES (?, ?)")
                .bind(self.recovery_mac(user, &text))
                .bind(user)
                .execute(&mut **txn)
                .await?;
            let groups: Vec<&str> = text.as_bytes().chunks(4).filter_map(|four| std::str::from_utf8(four).ok()).collect();
            codes.push(groups.join("-").to_ascii_lowercase());
        }
        Ok(codes)
    }

    async fn codes_left(&self, user: &str) -> Result<usize, LoginError> {
        let row = sqlx::query("SELECT count(*) FROM recovery WHERE user = ?").bind(user).fetch_one(self.store.reader()).await?;
        Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
    }

    fn recovery_mac(&self, user: &str, typed: &str) -> String {
        self.mac(MAC_PURPOSE, &format!("{user}\0{}", plain(typed)))
    }

    fn opened(&self, user: &str, sealed: &str) -> Result<Totp, LoginError> {
        Ok(Totp::of(self.sealer.open(&sealed_name(user), 1, sealed)?))
    }
}

/// What a secret is sealed as: put in another person's place it does not open.
fn sealed_name(user: &str) -> String {
    format!("second factor of {user}")
}

/// Forgets somebody's second factor with all that was signed in to; whether there was one.
async fn forget(txn: &mut WriteTxn, user: &str) -> Result<bool, LoginError> {
    let confirmed = "SELECT 1 FROM factor WHERE user = ? AND confirmed_s IS NOT NULL";
    let had = sqlx::query(confirmed).bind(user).fetch_optional(&mut **txn).await?.is_some();
    for sql in ["DELETE FROM factor WHERE user = ?", "DELETE FROM session WHERE user = ?", "UPDATE family SET dead = 1 WHERE user = ?"] {
        sqlx::query(sql).bind(user).execute(&mut **txn).await?;
    }
    Ok(had)
}
