//! People: inviting, listing, removing. The operator's business.
//!
//! Guarantees: whoever is removed is out at once: sessions, codes, links and refresh tokens go in the same commit, and access tokens are
//!             refused by `userinfo` (elsewhere they end within five minutes).

use std::collections::BTreeSet;

use contract::login::{Invite, Invited, Person};
use contract::{Body, Caller, body};
use http::{Request, Response, StatusCode};
use sqlx::Row;
use state::{int, sqlx};
use trust::Fault;

use crate::answer::Refusal;
use crate::credential::{Credential, new_id};
use crate::provider::{Inner, LoginError};

/// A link lives this long.
const LINK_LIFE_S: u64 = 24 * 3600;
const NAME_LENGTH_MAX: usize = 64;
const ROLES_MAX: usize = 32;

/// What two names that differ only in case have in common.
pub(crate) fn name_key(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Whether `name` can be told from others by looking at it: 1 to 64 characters, none invisible, no space at an end.
pub(crate) fn is_name(name: &str) -> bool {
    let invisible = |c: char| {
        c.is_control() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    (1..=NAME_LENGTH_MAX).contains(&name.chars().count()) && name.trim() == name && !name.chars().any(invisible)
}

impl Inner {
    /// As `Login::first_link`.
    pub(crate) async fn first_link(&self) -> Result<Option<Invited>, LoginError> {
        let (token, expires_s) = (Credential::new(&*self.entropy), self.now_s().saturating_add(LINK_LIFE_S));
        let mut txn = self.store.write().await?;
        let enrolled: i64 = sqlx::query("SELECT count(*) FROM person WHERE hash IS NOT NULL").fetch_one(&mut *txn).await?.try_get(0)?;
        sqlx::query("DELETE FROM link WHERE user IS NULL").execute(&mut *txn).await?;
        if enrolled == 0 {
            let sql = "INSERT INTO link (digest, user, expires_s) VALUES (?, NULL, ?)";
            sqlx::query(sql).bind(token.digest()).bind(int(expires_s)).execute(&mut *txn).await?;
        }
        txn.commit().await?;
        Ok((enrolled == 0).then(|| Invited { user: String::new(), path: path_of(&token), expires_s }))
    }

    /// `POST /users`.
    pub(crate) async fn invite(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let invite: Invite = body::parse_json(request.into_body()).await?;
        if !is_name(&invite.name) {
            return Err(Fault::bad_request("a name has 1 to 64 visible characters").into());
        }
        if invite.roles.len() > ROLES_MAX || !invite.roles.iter().all(|role| trust::spiffe::is_name(role)) {
            return Err(Fault::bad_request("a role has lower-case letters, digits and '-'; at most 32 of them").into());
        }
        let (token, expires_s) = (Credential::new(&*self.entropy), self.now_s().saturating_add(LINK_LIFE_S));
        let mut txn = self.store.write().await?;
        let row = sqlx::query("SELECT user, hash IS NOT NULL FROM person WHERE name_key = ?").bind(name_key(&invite.name));
        let user = match row.fetch_optional(&mut *txn).await? {
            Some(row) if row.try_get::<bool, _>(1)? => return Err(Fault::conflict("somebody has this name").into()),
            Some(row) => row.try_get(0)?,
            None => new_id(&*self.entropy),
        };
        let roles = serde_json::to_string(&invite.roles).map_err(LoginError::from)?;
        let sql = "INSERT INTO person (user, name, name_key, roles, created_s) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (user) DO UPDATE SET name = excluded.name, roles = excluded.roles";
        let insert = sqlx::query(sql).bind(&user).bind(&invite.name).bind(name_key(&invite.name)).bind(roles).bind(int(self.now_s()));
        insert.execute(&mut *txn).await?;
        sqlx::query("DELETE FROM link WHERE user = ?").bind(&user).execute(&mut *txn).await?;
        let sql = "INSERT INTO link (digest, user, expires_s) VALUES (?, ?, ?)";
        sqlx::query(sql).bind(token.digest()).bind(&user).bind(int(expires_s)).execute(&mut *txn).await?;
        let roles = invite.roles.into_iter().collect::<Vec<_>>().join(" ");
        self.act(caller.trace, "login.user.invite", "operator", &user, &roles)?;
        txn.commit().await?;
        Ok(body::json(StatusCode::OK, &Invited { user, path: path_of(&token), expires_s }))
    }

    /// `GET /users`.
    pub(crate) async fn list(&self) -> Result<Response<Body>, Refusal> {
        let sql = "SELECT user, name, roles, hash IS NOT NULL,
            EXISTS (SELECT 1 FROM factor f WHERE f.user = p.user AND f.confirmed_s IS NOT NULL) FROM person p ORDER BY name_key";
        let mut people = Vec::new();
        for row in sqlx::query(sql).fetch_all(self.store.reader()).await? {
            let roles = roles_of(&row.try_get::<String, _>(2)?)?;
            let (enrolled, second_factor) = (row.try_get(3)?, row.try_get(4)?);
            people.push(Person { user: row.try_get(0)?, name: row.try_get(1)?, roles, enrolled, second_factor });
        }
        Ok(body::json(StatusCode::OK, &people))
    }

    /// `DELETE /users/{user}`.
    pub(crate) async fn remove(&self, caller: &Caller, user: &str) -> Result<Response<Body>, Refusal> {
        let mut txn = self.store.write().await?;
        let removed = sqlx::query("DELETE FROM person WHERE user = ?").bind(user).execute(&mut *txn).await?.rows_affected();
        if removed == 0 {
            return Err(Fault::not_found("nobody has this id").into());
        }
        self.act(caller.trace, "login.user.remove", "operator", user, "")?;
        txn.commit().await?;
        Ok(body::plain(StatusCode::NO_CONTENT))
    }
}

/// Roles as they are kept.
pub(crate) fn roles_of(kept: &str) -> Result<BTreeSet<String>, LoginError> {
    Ok(serde_json::from_str(kept)?)
}

fn path_of(token: &Credential) -> String {
    format!("/enrol?token={}", token.expose())
}
