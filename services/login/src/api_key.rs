//! API keys: a person's scopes for a program that cannot sign in, with an end.
//!
//! A key has 256 random bits, shown once. What is kept is an HMAC-SHA-256 of it under the installation's secret, which is sealed: there
//! is nothing to guess in 256 random bits, so a slow hash would protect nothing and cost the one who checks; and who steals the database
//! cannot even tell whether a key that they hold is in it. A key brings scopes, never a role, and never counts as having just proven
//! oneself.
//!
//! Guarantees: A12 hashed, scoped, with an end, revocable; all keys of a person go with the person.
//! Not here:   what a key may do (the edge's policies), how it is checked there (`introspect`).

use contract::login::{ApiKey, KeyMade, NewKey};
use contract::opaque::{self, Kind};
use contract::{Body, Caller, body};
use http::{Request, Response, StatusCode};
use sqlx::Row;
use state::{int, sqlx, uint};
use trust::Fault;

use crate::answer::Refusal;
use crate::credential::new_id;
use crate::people::is_name;
use crate::provider::Inner;

/// A key lives so long at most, in seconds: a year and a day.
pub(crate) const KEY_LIFE_S_MAX: u64 = 366 * 24 * 3600;
/// Living keys of one person.
pub(crate) const KEYS_OF_PERSON_MAX: i64 = 64;
/// What `mac` makes of a credential that is kept.
pub(crate) const MAC_PURPOSE: &str = "opaque credential";

impl Inner {
    /// `POST /keys`.
    pub(crate) async fn make_key(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let new: NewKey = body::parse_json(request.into_body()).await?;
        if !is_name(&new.name) {
            return Err(Fault::bad_request("a key's name has 1 to 64 visible characters: say what will use it").into());
        }
        if !(1..=KEY_LIFE_S_MAX).contains(&new.life_s) {
            return Err(Fault::bad_request("a key lives for 1 second to 366 days").into());
        }
        let grantable = |scope: &String| self.scopes.contains(scope) && !matches!(scope.as_str(), "openid" | "profile" | "offline_access");
        if let Some(unknown) = new.scopes.iter().find(|scope| !grantable(scope)) {
            let known: Vec<&str> = self.scopes.iter().filter(|s| grantable(s)).map(String::as_str).collect();
            return Err(Fault::bad_request(format!("no route asks for the scope '{unknown}'; there are: {}", known.join(", "))).into());
        }
        let (key, id, now_s) = (opaque::random(Kind::Key, &*self.entropy), new_id(&*self.entropy), self.now_s());
        let expires_s = now_s.saturating_add(new.life_s);
        let mut txn = self.store.write().await?;
        let there: i64 =
            sqlx::query("SELECT count(*) FROM person WHERE user = ?").bind(&new.user).fetch_one(&mut *txn).await?.try_get(0)?;
        if there == 0 {
            return Err(Fault::not_found("nobody has this id; `palisade user list` prints the ids").into());
        }
        // What has ended for a month has been seen by who wanted to.
        let gone_s = int(now_s.saturating_sub(30 * 24 * 3600));
        sqlx::query("DELETE FROM api_key WHERE expires_s <= ? OR revoked_s <= ?").bind(gone_s).bind(gone_s).execute(&mut *txn).await?;
        let living = "SELECT count(*) FROM api_key WHERE user = ? AND expires_s > ? AND revoked_s IS NULL";
        let living: i64 = sqlx::query(living).bind(&new.user).bind(int(now_s)).fetch_one(&mut *txn).await?.try_get(0)?;
        if living >= KEYS_OF_PERSON_MAX {
            return Err(Fault::conflict(format!("this person has {KEYS_OF_PERSON_MAX} keys; revoke one first")).into());
        }
        let scope = new.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        sqlx::query("INSERT INTO api_key (id, mac, user, name, scope, created_s, expires_s) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(&id)
            .bind(self.mac(MAC_PURPOSE, key.expose()))
            .bind(&new.user)
            .bind(&new.name)
            .bind(&scope)
            .bind(int(now_s))
            .bind(int(expires_s))
            .execute(&mut *txn)
            .await?;
        self.act(caller.trace, "login.key.create", "operator", &new.user, &format!("{id} {scope}"))?;
        txn.commit().await?;
        let mut answer = body::json(StatusCode::OK, &KeyMade { id, key: key.expose().clone(), expires_s });
        crate::answer::private(&mut answer);
        Ok(answer)
    }

    /// `GET /keys`.
    pub(crate) async fn list_keys(&self) -> Result<Response<Body>, Refusal> {
        let sql = "SELECT id, user, name, scope, created_s, expires_s, revoked_s FROM api_key ORDER BY created_s, id";
        let mut keys = Vec::new();
        for row in sqlx::query(sql).fetch_all(self.store.reader()).await? {
            keys.push(ApiKey {
                id: row.try_get(0)?,
                user: row.try_get(1)?,
                name: row.try_get(2)?,
                scopes: row.try_get::<String, _>(3)?.split_whitespace().map(str::to_owned).collect(),
                created_s: uint(row.try_get(4)?),
                expires_s: uint(row.try_get(5)?),
                revoked_s: row.try_get::<Option<i64>, _>(6)?.map(uint),
            });
        }
        Ok(body::json(StatusCode::OK, &keys))
    }

    /// `DELETE /keys/{key}`.
    pub(crate) async fn revoke_key(&self, caller: &Caller, id: &str) -> Result<Response<Body>, Refusal> {
        let mut txn = self.store.write().await?;
        let sql = "UPDATE api_key SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL";
        if sqlx::query(sql).bind(int(self.now_s())).bind(id).execute(&mut *txn).await?.rows_affected() == 0 {
            return Err(Fault::not_found("no living key has this id").into());
        }
        self.act(caller.trace, "login.key.revoke", "operator", id, "")?;
        txn.commit().await?;
        Ok(body::plain(StatusCode::NO_CONTENT))
    }
}
