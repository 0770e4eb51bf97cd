//! Introspection: what a token or key stands for right now, for who takes it in.
//!
//! The edge asks for each opaque credential that it is shown and goes on with the claims (the phantom token pattern): a client holds
//! what says nothing, and what it stands for ends the moment that it is revoked here. Only the edge speaking for itself, or a decision
//! point that does as the edge does, may ask, by its SVID; a public client may not (RFC 7662, section 2.1: or tokens could be guessed at).
//!
//! Spec:       RFC 7662, sections 2.1, 2.2 and 4; RFC 9449, section 6.2 (`cnf`).
//! Guarantees: A8, A12 what is revoked, has ended, or belongs to somebody who was removed is not active; it is never said which.

use contract::login::AccessClaims;
use contract::opaque::{self, Kind};
use contract::{Body, body};
use http::{Request, Response, StatusCode};
use serde_json::json;
use sqlx::Row;
use state::{WriteTxn, int, sqlx, uint};
use trust::Secret;

use crate::answer::{self, Refusal};
use crate::api_key::MAC_PURPOSE;
use crate::client::Client;
use crate::form::Params;
use crate::people::roles_of;
use crate::provider::{Inner, LoginError};

impl Inner {
    /// `POST /introspect`.
    pub(crate) async fn introspect(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await.map_err(|_| Refusal::request("the body is not a form with each parameter once"))?;
        if self.authenticated(&headers, &params) != Some(Client::Edge) {
            return Err(Refusal::client());
        }
        let token = params.get("token").ok_or(Refusal::request("token is missing"))?;
        let found = match opaque::kind_of(token) {
            Some(Kind::Key) => self.key_claims(token).await?,
            Some(Kind::Token) => self.token_claims(token).await?,
            None => self.signed_claims(token).await?,
        };
        let Some(claims) = found.filter(|claims| claims.exp > self.now_s()) else {
            return Ok(answer::private_json(StatusCode::OK, &json!({ "active": false })));
        };
        let kind = if claims.cnf.as_ref().is_some_and(|cnf| cnf.jkt.is_some()) { "DPoP" } else { "Bearer" };
        let mut said = serde_json::to_value(&claims).map_err(LoginError::from)?;
        if let Some(fields) = said.as_object_mut() {
            fields.insert("active".to_owned(), true.into());
            fields.insert("token_type".to_owned(), kind.into());
        }
        let mut answer = body::json(StatusCode::OK, &said);
        answer::private(&mut answer);
        Ok(answer)
    }

    /// Keeps what a new opaque access token stands for.
    pub(crate) async fn add_reference(
        &self,
        txn: &mut WriteTxn,
        family: &str,
        claims: &AccessClaims,
    ) -> Result<Secret<String>, LoginError> {
        let token = opaque::random(Kind::Token, &*self.entropy);
        sqlx::query("DELETE FROM access WHERE expires_s <= ?").bind(int(claims.iat)).execute(&mut **txn).await?;
        sqlx::query("INSERT INTO access (mac, family, claims, expires_s) VALUES (?, ?, ?, ?)")
            .bind(self.mac(MAC_PURPOSE, token.expose()))
            .bind(family)
            .bind(serde_json::to_string(claims)?)
            .bind(int(claims.exp))
            .execute(&mut **txn)
            .await?;
        Ok(token)
    }

    /// The family of an opaque access token.
    pub(crate) async fn family_of_reference(&self, token: &str) -> Result<Option<String>, LoginError> {
        let row = sqlx::query("SELECT family FROM access WHERE mac = ?").bind(self.mac(MAC_PURPOSE, token));
        Ok(row.fetch_optional(self.store.reader()).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// What an opaque access token stands for, with its person's roles of now.
    pub(crate) async fn token_claims(&self, token: &str) -> Result<Option<AccessClaims>, LoginError> {
        let sql = "SELECT a.claims, p.roles FROM access a JOIN family f ON f.family = a.family JOIN person p ON p.user = f.user
            WHERE a.mac = ? AND f.dead = 0 AND f.ends_s > ?";
        let row = sqlx::query(sql).bind(self.mac(MAC_PURPOSE, token)).bind(int(self.now_s())).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let claims: AccessClaims = serde_json::from_str(&row.try_get::<String, _>(0)?)?;
        Ok(Some(AccessClaims { roles: roles_of(&row.try_get::<String, _>(1)?)?, ..claims }))
    }

    async fn key_claims(&self, key: &str) -> Result<Option<AccessClaims>, LoginError> {
        let sql = "SELECT id, user, scope, created_s, expires_s FROM api_key WHERE mac = ? AND revoked_s IS NULL";
        let row = sqlx::query(sql).bind(self.mac(MAC_PURPOSE, key)).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get(0)?;
        Ok(Some(AccessClaims {
            iss: self.issuer.clone(),
            sub: row.try_get(1)?,
            aud: self.public_origin.clone(),
            client_id: format!("key:{id}"),
            iat: uint(row.try_get(3)?),
            exp: uint(row.try_get(4)?),
            jti: id,
            scope: row.try_get(2)?,
            roles: std::collections::BTreeSet::new(),
            auth_time: 0,
            acr: String::new(),
            sid: String::new(),
            cnf: None,
        }))
    }

    async fn signed_claims(&self, token: &str) -> Result<Option<AccessClaims>, LoginError> {
        let Some(claims) = self.genuine(token) else { return Ok(None) };
        let family = claims.jti.split_once('.').map_or("", |(family, _)| family);
        let sql = "SELECT 1 FROM family WHERE family = ? AND user = ? AND dead = 0 AND ends_s > ?";
        let alive = sqlx::query(sql).bind(family).bind(&claims.sub).bind(int(self.now_s())).fetch_optional(self.store.reader()).await?;
        Ok(alive.map(|_| claims))
    }
}
