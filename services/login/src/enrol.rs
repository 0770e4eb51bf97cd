//! Enrolment: a person with a one-time link chooses a password, the first administrator a name as well.
//!
//! Looking at the page does not use the link up (mail programs look at links); sending the form does, and only if it succeeds. Two at
//! the same time: one wins, in the transaction.
//!
//! Guarantees: B12; no default password anywhere: the first administrator exists once somebody has used the first link.

use contract::{Body, Caller};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use sqlx::Row;
use state::{WriteTxn, int, sqlx};
use telemetry::event::{CredentialReplayed, SignInSucceeded};
use trust::DenyReason;

use crate::answer::{self, Refusal};
use crate::credential::{digest_of, new_id};
use crate::form::Params;
use crate::page::Enrol;
use crate::password::{self, Kept};
use crate::people::{is_name, name_key};
use crate::provider::{Inner, LoginError};
use crate::sign_in::foreign_form;

/// What a link is good for.
#[derive(Debug)]
enum Link {
    /// The first administrator, who chooses a name.
    First,
    /// Somebody who was invited.
    Of { user: String, name: String },
    /// It was used before, by this person.
    Used { user: String },
    /// Never heard of, ended, or not needed any more.
    Dead,
}

const NAME_TAKEN: &str = "Somebody has this name. Choose another.";
const NAME_UNFIT: &str = "A name has 1 to 64 visible characters.";
const NOT_THE_SAME: &str = "The two passwords are not the same.";

impl Inner {
    /// `GET /enrol`.
    pub(crate) async fn enrol_form(&self, caller: &Caller, request: &Parts) -> Result<Response<Body>, Refusal> {
        let params = Params::of_query(request).unwrap_or_default();
        let token = params.get("token").unwrap_or_default();
        let mut txn = self.store.write().await?;
        let link = self.link(&mut txn, token).await?;
        drop(txn);
        let fixed_name = self.name_on(caller, link)?;
        let filled = Enrol { link: token, fixed_name: fixed_name.as_deref(), name: "", error: None };
        self.enrol_page(&request.headers, StatusCode::OK, filled)
    }

    /// `POST /enrol`.
    pub(crate) async fn enrol(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await?;
        if !self.is_own_form(&headers, &params) {
            return Err(foreign_form());
        }
        let token = params.get("token").unwrap_or_default();
        // Asked before the costly hash, and again with the writer in hand.
        let mut txn = self.store.write().await?;
        let link = self.link(&mut txn, token).await?;
        drop(txn);
        let fixed_name = self.name_on(caller, link)?;
        let typed = params.get("name").unwrap_or_default().trim();
        let name = fixed_name.as_deref().unwrap_or(typed);
        let password = params.get("password").unwrap_or_default();
        let again = |error: &str| {
            let shown = if typed.chars().count() <= 64 { typed } else { "" };
            let filled = Enrol { link: token, fixed_name: fixed_name.as_deref(), name: shown, error: Some(error) };
            self.enrol_page(&headers, StatusCode::UNPROCESSABLE_ENTITY, filled)
        };
        if !is_name(name) {
            return again(NAME_UNFIT);
        }
        if let Err(unfit) = password::check(password, name) {
            return again(&unfit.to_string());
        }
        if params.get("repeat") != Some(password) {
            return again(NOT_THE_SAME);
        }
        let kept = self.hasher.keep(password).await?;
        let mut txn = self.store.write().await?;
        let user = match self.link(&mut txn, token).await? {
            Link::First => {
                let user = new_id(&*self.entropy);
                if !self.add_first(&mut txn, &user, name).await? {
                    return again(NAME_TAKEN);
                }
                user
            }
            Link::Of { user, .. } => user,
            other => return Err(self.name_on(caller, other).err().unwrap_or_else(ended)),
        };
        set_password(&mut txn, &user, &kept).await?;
        let sql = "UPDATE link SET used_s = ?, user = ? WHERE digest = ?";
        sqlx::query(sql).bind(int(self.now_s())).bind(&user).bind(digest_of(token)).execute(&mut *txn).await?;
        self.act(caller.trace, "login.enrol", &user, &user, if fixed_name.is_none() { "first administrator" } else { "" })?;
        txn.commit().await?;
        let (session, cookie) = self.begin_session(&headers, &user, false).await?;
        self.record(caller.trace, &SignInSucceeded { user, session: session.sid })?;
        answer::redirect(&format!("{}/", self.public_origin), Some(&cookie))
    }

    /// The name that a link is for, nothing for the first administrator's; refuses a link that is good for nothing.
    fn name_on(&self, caller: &Caller, link: Link) -> Result<Option<String>, Refusal> {
        match link {
            Link::First => Ok(None),
            Link::Of { name, .. } => Ok(Some(name)),
            Link::Used { user } => {
                self.record(caller.trace, &CredentialReplayed { what: "link", user, client: String::new() })?;
                Err(ended())
            }
            Link::Dead => Err(ended()),
        }
    }

    async fn link(&self, txn: &mut WriteTxn, token: &str) -> Result<Link, LoginError> {
        let sql = "SELECT l.user, p.name, l.expires_s > ?, l.used_s IS NOT NULL, p.hash IS NOT NULL,
            (SELECT count(*) FROM person WHERE hash IS NOT NULL)
            FROM link l LEFT JOIN person p ON p.user = l.user WHERE l.digest = ?";
        let row = sqlx::query(sql).bind(int(self.now_s())).bind(digest_of(token)).fetch_optional(&mut **txn).await?;
        let Some(row) = row else { return Ok(Link::Dead) };
        let (user, name): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let (lives, used, has_password): (bool, bool, bool) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        let enrolled: i64 = row.try_get(5)?;
        Ok(match (user, name) {
            (Some(user), _) if used => Link::Used { user },
            (Some(user), Some(name)) if lives && !has_password => Link::Of { user, name },
            (None, _) if lives && !used && enrolled == 0 => Link::First,
            _ => Link::Dead,
        })
    }

    /// Adds the first administrator; not when an invitation holds the name.
    async fn add_first(&self, txn: &mut WriteTxn, user: &str, name: &str) -> Result<bool, LoginError> {
        let sql = "INSERT INTO person (user, name, name_key, roles, created_s) VALUES (?, ?, ?, '[\"admin\"]', ?)
            ON CONFLICT (name_key) DO NOTHING";
        let insert = sqlx::query(sql).bind(user).bind(name).bind(name_key(name)).bind(int(self.now_s()));
        Ok(insert.execute(&mut **txn).await?.rows_affected() == 1)
    }
}

async fn set_password(txn: &mut WriteTxn, user: &str, kept: &Kept) -> Result<(), LoginError> {
    sqlx::query("UPDATE person SET salt = ?, hash = ?, memory_kib = ?, passes = ?, lanes = ? WHERE user = ?")
        .bind(&kept.salt)
        .bind(&kept.hash)
        .bind(i64::from(kept.memory_kib))
        .bind(i64::from(kept.passes))
        .bind(i64::from(kept.lanes))
        .bind(user)
        .execute(&mut **txn)
        .await?;
    Ok(())
}

fn ended() -> Refusal {
    Refusal::Page {
        status: StatusCode::GONE,
        title: "This link has ended",
        text: "A link works once, and for one day. Ask an administrator for a new one.",
        reason: Some(DenyReason::GrantInvalid),
    }
}
