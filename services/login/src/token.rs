//! The token endpoint and the revocation endpoint.
//!
//! All tokens of one sign-in at one client are a family. A code and each refresh token work once; one that is shown twice ends its
//! family, because one of the two who had it should not have. There is no grace for a refresh token shown again at once: only digests
//! are kept, so the same answer could not be given twice, and another would be a second token. A client whose answer got lost sends the
//! person through `/authorize`, which the session answers without a page.
//!
//! Spec:       RFC 6749, sections 4.1.3, 5, 6; RFC 7636, section 4.6; RFC 9700, section 4.14 (rotation); RFC 9068, section 2; RFC 7009;
//!             RFC 9449, sections 5 and 10;
//!             RFC 8176 (`amr`); RFC 9470, section 6 (`acr`, `auth_time`); OpenID Connect Core, sections 2 and 3.1.3.
//! Guarantees: B1, B2, B6, B10.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::dpop::Proof;
use contract::login::{ACCESS_TYP, ACR_PASSWORD, ACR_SECOND, AccessClaims, Confirmation, ID_TYP};
use contract::opaque::{self, Kind};
use contract::signing::{self, SigningError};
use contract::{Body, Caller, body};
use http::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use sqlx::Row;
use state::{WriteTxn, int, sqlx, uint};
use subtle::ConstantTimeEq;
use telemetry::event::CredentialReplayed;
use trust::{DenyReason, Fault};

use crate::answer::{self, Refusal};
use crate::client::Client;
use crate::credential::{Credential, digest_of, new_id};
use crate::form::Params;
use crate::people::roles_of;
use crate::possession::{self, at_token};
use crate::provider::{Inner, LoginError};

/// An access token lives this long.
pub(crate) const ACCESS_LIFE_S: u64 = 300;
/// A refresh token that nobody uses ends after this.
const REFRESH_LIFE_S: u64 = 7 * 24 * 3600;
/// A family ends after this, however often it was refreshed.
const FAMILY_LIFE_S: u64 = 30 * 24 * 3600;
/// A family without refresh tokens is remembered for this, to notice a replayed code.
const MEMORY_S: u64 = 3600;

/// What came with a code or a refresh token.
#[derive(Debug)]
struct Shown {
    /// The proof of a key.
    proof: Option<Proof>,
    /// Thumbprint of the client's certificate, if it shows itself by one.
    certificate: Option<String>,
}

/// What a code or a refresh token stands for.
#[derive(Debug)]
struct Grant {
    family: String,
    client: String,
    user: String,
    name: String,
    roles: std::collections::BTreeSet<String>,
    sid: String,
    scope: String,
    auth_time_s: u64,
    /// Whether a second factor was proved then.
    second: bool,
    nonce: Option<String>,
    /// The key that its tokens are bound to.
    jkt: Option<String>,
    /// The certificate that its access token is bound to.
    certificate: Option<String>,
    ends_s: u64,
    is_over: bool,
}

/// Claims of an ID token (Core, section 2).
#[derive(Debug, Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    auth_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    acr: &'a str,
    amr: &'a [&'a str],
    sid: &'a str,
    at_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
}

impl Inner {
    /// `POST /token`.
    pub(crate) async fn token(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await.map_err(|_| Refusal::request("the body is not a form with each parameter once"))?;
        let client = self.authenticated(&headers, &params).ok_or_else(Refusal::client)?;
        let proof = self.proof(&headers, "POST", "/token", None).map_err(at_token)?;
        let certificate = client.certificate().and_then(|_| possession::thumbprint(&headers)).map(str::to_owned);
        self.keys.tend(self.now_s()).await?;
        if client.must_prove() && proof.is_none() {
            return Err(at_token(DenyReason::ProofMissing));
        }
        match params.get("grant_type") {
            Some("authorization_code") => self.exchange(caller, &client, &params, Shown { proof, certificate }).await,
            Some("refresh_token") => self.refresh(caller, &client, &params, Shown { proof, certificate }).await,
            Some(_) => Err(Refusal::OAuth {
                status: StatusCode::BAD_REQUEST,
                error: "unsupported_grant_type",
                text: "authorization_code and refresh_token are known",
                reason: None,
            }),
            None => Err(Refusal::request("grant_type is missing")),
        }
    }

    async fn exchange(&self, caller: &Caller, client: &Client, params: &Params, brought: Shown) -> Result<Response<Body>, Refusal> {
        let code = params.get("code").ok_or(Refusal::request("code is missing"))?;
        let redirect_uri = params.get("redirect_uri").ok_or(Refusal::request("redirect_uri is missing"))?;
        let verifier = params.get("code_verifier").ok_or(Refusal::request("code_verifier is missing"))?;
        let now_s = self.now_s();
        let mut txn = self.store.write().await?;
        let sql = "SELECT c.family, c.redirect_uri, c.challenge, c.nonce, c.expires_s, c.used FROM code c WHERE c.digest = ?";
        let row = sqlx::query(sql).bind(digest_of(code)).fetch_optional(&mut *txn).await?.ok_or_else(Refusal::grant)?;
        let family: String = row.try_get(0)?;
        let mut grant = grant_of(&mut txn, &family, now_s).await?;
        if row.try_get::<bool, _>(5)? {
            return Err(self.replayed(caller, txn, "code", &grant).await);
        }
        // Used up by being shown, whatever comes of it: nobody gets a second guess at the verifier.
        sqlx::query("UPDATE code SET used = 1 WHERE digest = ?").bind(digest_of(code)).execute(&mut *txn).await?;
        let bound = uint(row.try_get(4)?) > now_s
            && !grant.is_over
            && grant.client == client.id()
            && row.try_get::<String, _>(1)? == redirect_uri
            && is_verifier_of(verifier, &row.try_get::<String, _>(2)?)
            && is_bearer(&grant, brought.proof.as_ref());
        if !bound {
            txn.commit().await?;
            return Err(Refusal::grant());
        }
        if let Some(proof) = brought.proof {
            grant.jkt = Some(self.spend(proof)?);
        }
        grant.certificate = brought.certificate;
        grant.nonce = row.try_get(3)?;
        let offline = grant.scope.split(' ').any(|s| s == "offline_access");
        grant.ends_s = now_s.saturating_add(if offline { FAMILY_LIFE_S } else { MEMORY_S });
        self.hold(&mut txn, &grant).await?;
        let refresh = if offline { Some(self.add_refresh(&mut txn, &grant, now_s).await?) } else { None };
        let scope = grant.scope.clone();
        self.issue(caller, txn, &grant, &scope, refresh).await
    }

    async fn refresh(&self, caller: &Caller, client: &Client, params: &Params, brought: Shown) -> Result<Response<Body>, Refusal> {
        let shown = params.get("refresh_token").ok_or(Refusal::request("refresh_token is missing"))?;
        let now_s = self.now_s();
        let mut txn = self.store.write().await?;
        let sql = "SELECT family, expires_s, used FROM refresh WHERE digest = ?";
        let row = sqlx::query(sql).bind(digest_of(shown)).fetch_optional(&mut *txn).await?.ok_or_else(Refusal::grant)?;
        let mut grant = grant_of(&mut txn, &row.try_get::<String, _>(0)?, now_s).await?;
        // Shown by another client is as bad as shown twice: it is in the wrong hands.
        if row.try_get::<bool, _>(2)? || grant.client != client.id() {
            return Err(self.replayed(caller, txn, "refresh_token", &grant).await);
        }
        if uint(row.try_get(1)?) <= now_s || grant.is_over || !is_bearer(&grant, brought.proof.as_ref()) {
            return Err(Refusal::grant());
        }
        let scope = match params.get("scope") {
            None => grant.scope.clone(),
            Some(asked) if asked.split(' ').all(|s| grant.scope.split(' ').any(|granted| granted == s)) => asked.to_owned(),
            Some(_) => {
                let (status, text) = (StatusCode::BAD_REQUEST, "more than was granted");
                return Err(Refusal::OAuth { status, error: "invalid_scope", text, reason: None });
            }
        };
        if let Some(proof) = brought.proof {
            grant.jkt = Some(self.spend(proof)?);
            self.hold(&mut txn, &grant).await?;
        }
        grant.certificate = brought.certificate;
        sqlx::query("UPDATE refresh SET used = 1 WHERE digest = ?").bind(digest_of(shown)).execute(&mut *txn).await?;
        sqlx::query("DELETE FROM refresh WHERE family = ? AND expires_s <= ?")
            .bind(&grant.family)
            .bind(int(now_s))
            .execute(&mut *txn)
            .await?;
        let refresh = self.add_refresh(&mut txn, &grant, now_s).await?;
        self.issue(caller, txn, &grant, &scope, Some(refresh)).await
    }

    /// `POST /revoke`. An unknown token is as good as revoked (RFC 7009, section 2.2).
    pub(crate) async fn revoke(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let headers = request.headers().clone();
        let params = Params::of_form(request).await.map_err(|_| Refusal::request("the body is not a form with each parameter once"))?;
        let client = self.authenticated(&headers, &params).ok_or_else(Refusal::client)?;
        let token = params.get("token").ok_or(Refusal::request("token is missing"))?;
        let family = match self.genuine(token) {
            Some(claims) => claims.jti.split_once('.').map(|(family, _)| family.to_owned()),
            None if opaque::kind_of(token) == Some(Kind::Token) => self.family_of_reference(token).await?,
            None => {
                let row = sqlx::query("SELECT family FROM refresh WHERE digest = ?").bind(digest_of(token));
                row.fetch_optional(self.store.reader()).await?.map(|row| row.try_get(0)).transpose()?
            }
        };
        if let Some(family) = family {
            let mut txn = self.store.write().await?;
            let sql = "UPDATE family SET dead = 1 WHERE family = ? AND client = ?";
            let ended = sqlx::query(sql).bind(&family).bind(client.id()).execute(&mut *txn).await?.rows_affected();
            if ended == 1 {
                self.act(caller.trace, "login.token.revoke", client.id(), &family, "")?;
            }
            txn.commit().await?;
        }
        Ok(body::plain(StatusCode::OK))
    }

    /// The claims of an access token that we signed, also one that has ended.
    pub(crate) fn genuine(&self, token: &str) -> Option<AccessClaims> {
        let (kid, _) = signing::header_of(token, ACCESS_TYP).ok()?;
        let key = self.keys.find(&kid?)?.public().decoding().ok()?;
        let claims: AccessClaims = signing::verify(token, ACCESS_TYP, &key).ok()?;
        (claims.iss == self.issuer && claims.aud == self.public_origin).then_some(claims)
    }

    /// Ends the family, and says so.
    async fn replayed(&self, caller: &Caller, mut txn: WriteTxn, what: &'static str, grant: &Grant) -> Refusal {
        let ending = async {
            sqlx::query("UPDATE family SET dead = 1 WHERE family = ?").bind(&grant.family).execute(&mut *txn).await?;
            txn.commit().await?;
            self.record(caller.trace, &CredentialReplayed { what, user: grant.user.clone(), client: grant.client.clone() })
        };
        match ending.await {
            Ok(()) => Refusal::grant(),
            Err(failed) => failed,
        }
    }

    /// Keeps how long the family lives, and the key that it is bound to.
    async fn hold(&self, txn: &mut WriteTxn, grant: &Grant) -> Result<(), LoginError> {
        let sql = "UPDATE family SET ends_s = ?, jkt = ? WHERE family = ?";
        sqlx::query(sql).bind(int(grant.ends_s)).bind(&grant.jkt).bind(&grant.family).execute(&mut **txn).await?;
        Ok(())
    }

    async fn add_refresh(&self, txn: &mut WriteTxn, grant: &Grant, now_s: u64) -> Result<Credential, LoginError> {
        let refresh = Credential::new(&*self.entropy);
        let expires_s = now_s.saturating_add(REFRESH_LIFE_S).min(grant.ends_s);
        let sql = "INSERT INTO refresh (digest, family, expires_s) VALUES (?, ?, ?)";
        sqlx::query(sql).bind(refresh.digest()).bind(&grant.family).bind(int(expires_s)).execute(&mut **txn).await?;
        Ok(refresh)
    }

    /// Signs, records, commits, answers: in this order, so that nothing is used up for an answer that nobody gets.
    async fn issue(
        &self,
        caller: &Caller,
        mut txn: WriteTxn,
        grant: &Grant,
        scope: &str,
        refresh: Option<Credential>,
    ) -> Result<Response<Body>, Refusal> {
        let now_s = self.now_s();
        let signed = |error: SigningError| Refusal::Fault(Fault::internal(error));
        let key = self.keys.held_signer(now_s)?;
        // RFC 8176, section 2: `mfa` says that there were several, the others which.
        let (acr, amr): (_, &[&str]) = if grant.second { (ACR_SECOND, &["pwd", "otp", "mfa"]) } else { (ACR_PASSWORD, &["pwd"]) };
        let access = AccessClaims {
            iss: self.issuer.clone(),
            sub: grant.user.clone(),
            aud: self.public_origin.clone(),
            client_id: grant.client.clone(),
            iat: now_s,
            exp: now_s.saturating_add(ACCESS_LIFE_S),
            jti: format!("{}.{}", grant.family, new_id(&*self.entropy)),
            scope: scope.to_owned(),
            roles: grant.roles.clone(),
            auth_time: grant.auth_time_s,
            acr: acr.to_owned(),
            sid: grant.sid.clone(),
            cnf: (grant.jkt.is_some() || grant.certificate.is_some())
                .then(|| Confirmation { jkt: grant.jkt.clone(), x5t_s256: grant.certificate.clone() }),
        };
        let opaque = self.client(&grant.client).is_some_and(|client| client.is_opaque());
        let access = if opaque {
            self.add_reference(&mut txn, &grant.family, &access).await?.expose().clone()
        } else {
            key.sign(ACCESS_TYP, &[], &access).map_err(signed)?
        };
        let profile = scope.split(' ').any(|s| s == "profile").then_some(grant.name.as_str());
        let id = IdClaims {
            iss: &self.issuer,
            sub: &grant.user,
            aud: &grant.client,
            exp: now_s.saturating_add(ACCESS_LIFE_S),
            iat: now_s,
            auth_time: grant.auth_time_s,
            nonce: grant.nonce.as_deref(),
            acr,
            amr,
            sid: &grant.sid,
            at_hash: B64.encode(digest::digest(&digest::SHA256, access.as_bytes()).as_ref().get(..16).unwrap_or_default()),
            name: profile,
            preferred_username: profile,
        };
        let id = key.sign(ID_TYP, &[], &id).map_err(signed)?;
        self.act(caller.trace, "login.token.issue", &grant.user, &grant.client, scope)?;
        txn.commit().await?;
        let kind = if grant.jkt.is_some() { "DPoP" } else { "Bearer" };
        let mut answer = json!({
            "token_type": kind, "expires_in": ACCESS_LIFE_S, "scope": scope, "access_token": access, "id_token": id,
        });
        if let (Some(refresh), Some(fields)) = (refresh, answer.as_object_mut()) {
            fields.insert("refresh_token".to_owned(), refresh.expose().into());
        }
        Ok(answer::private_json(StatusCode::OK, &answer))
    }
}

async fn grant_of(txn: &mut WriteTxn, family: &str, now_s: u64) -> Result<Grant, Refusal> {
    let sql = "SELECT f.client, f.user, p.name, p.roles, f.sid, f.scope, f.auth_time_s, f.ends_s, f.dead, f.jkt, f.second
        FROM family f JOIN person p ON p.user = f.user WHERE f.family = ?";
    let row = sqlx::query(sql).bind(family).fetch_optional(&mut **txn).await?.ok_or_else(Refusal::grant)?;
    let ends_s = uint(row.try_get(7)?);
    Ok(Grant {
        family: family.to_owned(),
        client: row.try_get(0)?,
        user: row.try_get(1)?,
        name: row.try_get(2)?,
        roles: roles_of(&row.try_get::<String, _>(3)?)?,
        sid: row.try_get(4)?,
        scope: row.try_get(5)?,
        auth_time_s: uint(row.try_get(6)?),
        second: row.try_get(10)?,
        nonce: None,
        jkt: row.try_get(9)?,
        certificate: None,
        ends_s,
        is_over: row.try_get::<bool, _>(8)? || ends_s <= now_s,
    })
}

/// Whether who shows it has the key that it is bound to, if it is bound to one.
fn is_bearer(grant: &Grant, proof: Option<&Proof>) -> bool {
    grant.jkt.as_deref().is_none_or(|jkt| proof.is_some_and(|proof| proof.key.as_str() == jkt))
}

/// RFC 7636, sections 4.1 and 4.6.
fn is_verifier_of(verifier: &str, challenge: &str) -> bool {
    let well_formed = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
    let hashed = B64.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    well_formed && bool::from(hashed.as_bytes().ct_eq(challenge.as_bytes()))
}
