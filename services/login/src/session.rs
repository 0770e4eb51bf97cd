//! Sessions at `login`: who has signed in with this browser, by reference in a cookie.
//!
//! Guarantees: B1 single sign-on between clients; a session ends for all of them at once, with every token that came from it.

use http::HeaderMap;
use sqlx::Row;
use state::{int, sqlx, uint};

use crate::credential::{Credential, digest_of, new_id};
use crate::form;
use crate::provider::{Inner, LoginError};

/// The cookie that refers to it.
pub(crate) const COOKIE: &str = "__Host-palisade-login";
/// It ends after this, however much it is used.
pub(crate) const LIFE_S: u64 = 12 * 3600;

/// A session that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its public id (`sid`).
    pub(crate) sid: String,
    /// Whose.
    pub(crate) user: String,
    /// When the person proved themselves.
    pub(crate) auth_time_s: u64,
    /// Whether they did so with a second factor.
    pub(crate) second: bool,
}

impl Inner {
    /// The session that the browser's cookie refers to.
    pub(crate) async fn session(&self, headers: &HeaderMap) -> Result<Option<Session>, LoginError> {
        let Some(cookie) = form::cookie(headers, COOKIE) else { return Ok(None) };
        let sql = "SELECT sid, user, auth_time_s, second FROM session WHERE digest = ? AND expires_s > ?";
        let row = sqlx::query(sql).bind(digest_of(cookie)).bind(int(self.now_s())).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Session { sid: row.try_get(0)?, user: row.try_get(1)?, auth_time_s: uint(row.try_get(2)?), second: row.try_get(3)? }))
    }

    /// Begins a session for a person who has just proved themselves; the one that the browser had before ends. The cookie to set.
    pub(crate) async fn begin_session(&self, headers: &HeaderMap, user: &str, second: bool) -> Result<(Session, String), LoginError> {
        if let Some(before) = self.session(headers).await? {
            self.end_session_of(&before.sid).await?;
        }
        let (credential, now_s) = (Credential::new(&*self.entropy), self.now_s());
        let session = Session { sid: new_id(&*self.entropy), user: user.to_owned(), auth_time_s: now_s, second };
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM session WHERE expires_s <= ?").bind(int(now_s)).execute(&mut *txn).await?;
        sqlx::query("INSERT INTO session (sid, digest, user, auth_time_s, expires_s, second) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&session.sid)
            .bind(credential.digest())
            .bind(user)
            .bind(int(now_s))
            .bind(int(now_s.saturating_add(LIFE_S)))
            .bind(second)
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        Ok((session, form::set_cookie(COOKIE, credential.expose(), LIFE_S)))
    }

    /// Ends a session and all that came from it.
    pub(crate) async fn end_session_of(&self, sid: &str) -> Result<(), LoginError> {
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM session WHERE sid = ?").bind(sid).execute(&mut *txn).await?;
        sqlx::query("UPDATE family SET dead = 1 WHERE sid = ?").bind(sid).execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(())
    }
}
