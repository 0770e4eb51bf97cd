//! Sessions by reference: the browser holds a random id, the edge holds everything else.
//!
//! The id is 256 random bits and stands only in the cookie; the database has its SHA-256. Refresh and ID token are sealed
//! (AES-256-GCM) under a key derived from the id, so the database alone opens nothing at `login`. A session ends after its idle life,
//! after its absolute life, or when somebody ends it.
//!
//! Spec:       RFC 6265bis section 4.1.3 (`__Host-`); RFC 9700 section 2.1 (state and nonce bound to the browser, used once).
//! Guarantees: A14 in part (sessions). An unfinished sign-in is redeemed at most once.
//! Not here:   the cookies' text (`cookie`), the OIDC messages (`oidc`), pages (`sign_in`).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::AccessClaims;
use serde::{Deserialize, Serialize};
use state::sqlx::{self, Row};
use state::{Migration, StateError, Store, int, uint};
use trust::{Clock, Digest, Entropy, Fault, Secret};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "sessions and unfinished sign-ins",
    sql: "CREATE TABLE session (
            id_digest BLOB PRIMARY KEY, origin TEXT NOT NULL, name TEXT NOT NULL, claims TEXT NOT NULL, sealed BLOB NOT NULL,
            begun_s INTEGER NOT NULL, used_s INTEGER NOT NULL, ends_s INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          CREATE INDEX session_ends ON session (ends_s);
          CREATE TABLE sign_in (
            state_digest BLOB PRIMARY KEY, browser_digest BLOB NOT NULL, origin TEXT NOT NULL, nonce TEXT NOT NULL,
            verifier TEXT NOT NULL, return_to TEXT NOT NULL, ends_s INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          CREATE INDEX sign_in_ends ON sign_in (ends_s);",
}];

/// Life of an unfinished sign-in, in seconds.
pub const SIGN_IN_LIFE_S: u64 = 600;
/// A session's last use is noted at most so often, in seconds: reading a page costs no write.
const USE_NOTED_S: u64 = 60;

/// 256 random bits that name a session, a sign-in's state, or a browser during sign-in. Text: base64url, 43 characters.
#[derive(Clone)]
pub struct Reference(Secret<[u8; 32]>);

impl Reference {
    /// A new one.
    #[must_use]
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(Secret::new(bytes))
    }

    /// From its text; anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = B64.decode(text).ok()?.try_into().ok()?;
        Some(Self(Secret::new(bytes)))
    }

    /// Its text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> String {
        B64.encode(self.0.expose())
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.expose())
    }

    fn key(&self) -> Result<LessSafeKey, Fault> {
        let mut key = [0; 32];
        let failed = |_| Fault::internal("key derivation failed");
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"palisade edge session");
        salt.extract(self.0.expose()).expand(&[b"tokens"], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(failed)?;
        UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(failed)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reference(…)")
    }
}

/// What the edge holds for a signed-in browser.
#[derive(Debug, Clone)]
pub struct Session {
    /// The public origin that it was begun at.
    pub origin: String,
    /// The person's name, for pages.
    pub name: String,
    /// The verified claims of the present access token. The token itself is not kept.
    pub claims: AccessClaims,
    /// What opens more at `login`.
    pub tokens: Tokens,
    /// Its end whatever happens, seconds since the epoch.
    pub ends_s: u64,
}

/// Tokens of a session; sealed in the database.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Refresh token, if `login` gave one.
    pub refresh: Option<Secret<String>>,
    /// ID token, to name the session at sign-out.
    pub id: Secret<String>,
}

#[derive(Serialize, Deserialize)]
struct TokensOnDisk {
    refresh: Option<String>,
    id: String,
}

/// A sign-in under way.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The public origin that it was begun at.
    pub origin: String,
    /// Nonce that the ID token must have.
    pub nonce: String,
    /// PKCE verifier.
    pub verifier: String,
    /// Local path to go on to.
    pub return_to: String,
}

/// The edge's own database.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    idle_s: u64,
    life_s: u64,
}

impl Sessions {
    /// Opens the database at `path`; lives are in seconds.
    ///
    /// # Errors
    /// Those of `Store::open`.
    pub async fn open(path: &Path, idle_s: u64, life_s: u64, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, StateError> {
        let store = Store::open(path, MIGRATIONS).await?;
        Ok(Self { store, clock, entropy, idle_s, life_s })
    }

    /// Absolute life of a session, in seconds.
    #[must_use]
    pub fn life_s(&self) -> u64 {
        self.life_s
    }

    /// Begins a session under a new id, whatever id the browser had before (no session fixation).
    ///
    /// # Errors
    /// `Unavailable` when the database fails.
    pub async fn begin(&self, origin: &str, name: &str, claims: &AccessClaims, tokens: &Tokens) -> Result<Reference, Fault> {
        let id = Reference::random(&*self.entropy);
        let sealed = self.seal(&id, tokens)?;
        let now = self.clock.unix_s();
        let mut txn = self.store.write().await.map_err(broken)?;
        sqlx::query("DELETE FROM session WHERE ends_s <= ? OR used_s <= ?")
            .bind(int(now))
            .bind(int(now.saturating_sub(self.idle_s)))
            .execute(&mut *txn)
            .await
            .map_err(broken)?;
        sqlx::query(
            "INSERT INTO session (id_digest, origin, name, claims, sealed, begun_s, used_s, ends_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.digest().as_bytes().to_vec())
        .bind(origin.to_owned())
        .bind(name.to_owned())
        .bind(serde_json::to_string(claims).map_err(Fault::internal)?)
        .bind(sealed)
        .bind(int(now))
        .bind(int(now))
        .bind(int(now.saturating_add(self.life_s)))
        .execute(&mut *txn)
        .await
        .map_err(broken)?;
        txn.commit().await.map_err(broken)?;
        Ok(id)
    }

    /// The session of that id, if it lives; its use is noted.
    ///
    /// # Errors
    /// `Unavailable` when the database fails, `Internal` when it does not hold what was written.
    pub async fn find(&self, id: &Reference) -> Result<Option<Session>, Fault> {
        let row = sqlx::query("SELECT origin, name, claims, sealed, used_s, ends_s FROM session WHERE id_digest = ?")
            .bind(id.digest().as_bytes().to_vec())
            .fetch_optional(self.store.reader())
            .await
            .map_err(broken)?;
        let Some(row) = row else { return Ok(None) };
        let column = |error: sqlx::Error| broken(error);
        let (used_s, ends_s) = (uint(row.try_get("used_s").map_err(column)?), uint(row.try_get("ends_s").map_err(column)?));
        let now = self.clock.unix_s();
        if now >= ends_s || now >= used_s.saturating_add(self.idle_s) {
            self.remove(id).await?;
            return Ok(None);
        }
        let claims: String = row.try_get("claims").map_err(column)?;
        let sealed: Vec<u8> = row.try_get("sealed").map_err(column)?;
        let session = Session {
            origin: row.try_get("origin").map_err(column)?,
            name: row.try_get("name").map_err(column)?,
            claims: serde_json::from_str(&claims).map_err(Fault::internal)?,
            tokens: open(id, sealed)?,
            ends_s,
        };
        if now >= used_s.saturating_add(USE_NOTED_S.min(self.idle_s / 4)) {
            let mut txn = self.store.write().await.map_err(broken)?;
            sqlx::query("UPDATE session SET used_s = ? WHERE id_digest = ?")
                .bind(int(now))
                .bind(id.digest().as_bytes().to_vec())
                .execute(&mut *txn)
                .await
                .map_err(broken)?;
            txn.commit().await.map_err(broken)?;
        }
        Ok(Some(session))
    }

    /// Puts a renewed token's claims, and the rotated tokens, in the place of the old ones.
    ///
    /// # Errors
    /// `Unavailable` when the database fails.
    pub async fn renew(&self, id: &Reference, claims: &AccessClaims, tokens: &Tokens) -> Result<(), Fault> {
        let sealed = self.seal(id, tokens)?;
        let mut txn = self.store.write().await.map_err(broken)?;
        sqlx::query("UPDATE session SET claims = ?, sealed = ? WHERE id_digest = ?")
            .bind(serde_json::to_string(claims).map_err(Fault::internal)?)
            .bind(sealed)
            .bind(id.digest().as_bytes().to_vec())
            .execute(&mut *txn)
            .await
            .map_err(broken)?;
        txn.commit().await.map_err(broken)?;
        Ok(())
    }

    /// Ends a session; ending one that is not there is no error.
    ///
    /// # Errors
    /// `Unavailable` when the database fails.
    pub async fn remove(&self, id: &Reference) -> Result<(), Fault> {
        let mut txn = self.store.write().await.map_err(broken)?;
        sqlx::query("DELETE FROM session WHERE id_digest = ?")
            .bind(id.digest().as_bytes().to_vec())
            .execute(&mut *txn)
            .await
            .map_err(broken)?;
        txn.commit().await.map_err(broken)?;
        Ok(())
    }

    /// Keeps a sign-in under way until its answer comes; gives the `state` for it.
    ///
    /// # Errors
    /// `Unavailable` when the database fails.
    pub async fn expect(&self, browser: &Reference, sign_in: &SignIn) -> Result<Reference, Fault> {
        let state = Reference::random(&*self.entropy);
        let now = self.clock.unix_s();
        let mut txn = self.store.write().await.map_err(broken)?;
        sqlx::query("DELETE FROM sign_in WHERE ends_s <= ?").bind(int(now)).execute(&mut *txn).await.map_err(broken)?;
        sqlx::query(
            "INSERT INTO sign_in (state_digest, browser_digest, origin, nonce, verifier, return_to, ends_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(state.digest().as_bytes().to_vec())
        .bind(browser.digest().as_bytes().to_vec())
        .bind(sign_in.origin.clone())
        .bind(sign_in.nonce.clone())
        .bind(sign_in.verifier.clone())
        .bind(sign_in.return_to.clone())
        .bind(int(now.saturating_add(SIGN_IN_LIFE_S)))
        .execute(&mut *txn)
        .await
        .map_err(broken)?;
        txn.commit().await.map_err(broken)?;
        Ok(state)
    }

    /// The sign-in that `state` names, once, for the browser that began it.
    ///
    /// # Errors
    /// `Unavailable` when the database fails.
    pub async fn redeem(&self, state: &Reference, browser: &Reference) -> Result<Option<SignIn>, Fault> {
        let mut txn = self.store.write().await.map_err(broken)?;
        let row = sqlx::query(
            "DELETE FROM sign_in WHERE state_digest = ? AND browser_digest = ? AND ends_s > ? RETURNING origin, nonce, verifier, return_to",
        )
        .bind(state.digest().as_bytes().to_vec())
        .bind(browser.digest().as_bytes().to_vec())
        .bind(int(self.clock.unix_s()))
        .fetch_optional(&mut *txn)
        .await
        .map_err(broken)?;
        txn.commit().await.map_err(broken)?;
        let Some(row) = row else { return Ok(None) };
        let text = |at: &str| row.try_get::<String, _>(at).map_err(broken);
        Ok(Some(SignIn { origin: text("origin")?, nonce: text("nonce")?, verifier: text("verifier")?, return_to: text("return_to")? }))
    }

    /// Breaks the database under the edge, for a test.
    #[cfg(test)]
    pub(crate) async fn close_for_test(self) {
        self.store.close().await;
    }

    fn seal(&self, id: &Reference, tokens: &Tokens) -> Result<Vec<u8>, Fault> {
        let plain = TokensOnDisk { refresh: tokens.refresh.as_ref().map(|t| t.expose().clone()), id: tokens.id.expose().clone() };
        let mut bytes = serde_json::to_vec(&plain).map_err(Fault::internal)?;
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        id.key()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)
            .map_err(|_| Fault::internal("sealing failed"))?;
        Ok([&nonce[..], &bytes].concat())
    }
}

/// Without its sessions the edge lets nobody in: 503.
fn broken(error: impl Into<StateError>) -> Fault {
    Fault::unavailable("sessions cannot be read or kept now").because(error.into())
}

fn open(id: &Reference, mut sealed: Vec<u8>) -> Result<Tokens, Fault> {
    let damaged = || Fault::internal("a session's sealed tokens are damaged");
    if sealed.len() < NONCE_LEN {
        return Err(damaged());
    }
    let mut bytes = sealed.split_off(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| damaged())?;
    let plain = id.key()?.open_in_place(nonce, Aad::empty(), &mut bytes).map_err(|_| damaged())?;
    let tokens: TokensOnDisk = serde_json::from_slice(plain).map_err(Fault::internal)?;
    Ok(Tokens { refresh: tokens.refresh.map(Secret::new), id: Secret::new(tokens.id) })
}
