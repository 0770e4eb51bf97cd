//! The keys that sign tokens, and their successors.
//!
//! A successor is published a day before it signs, and a key that signs no more stays published for a day: whoever caches the set for
//! less than that never meets a token that it cannot check. Sealed at rest.
//!
//! Spec:       RFC 7517 (key sets), RFC 7518, section 6.2 (P-256).
//! Guarantees: B1; B20 rests on it.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::signing::SigningKey;
use serde_json::{Value, json};
use sqlx::Row;
use state::{Store, int, sqlx, uint};
use trust::KeySealer;

use crate::provider::LoginError;

const DAY_S: u64 = 24 * 3600;
/// A key signs for this long.
const SIGNS_S: u64 = 30 * DAY_S;
/// Published before it signs, and after.
const OVERLAP_S: u64 = DAY_S;
const NAME: &str = "signing key";

#[derive(Debug)]
struct Key {
    generation: u32,
    starts_s: u64,
    signing: SigningKey,
    jwk: Value,
}

/// The keys, oldest first.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    sealer: KeySealer,
    held: RwLock<Arc<Vec<Key>>>,
}

impl Keys {
    /// Loads the keys; makes the first one if there is none.
    pub(crate) async fn load(store: Store, sealer: KeySealer, now_s: u64) -> Result<Self, LoginError> {
        let keys = Self { store, sealer, held: RwLock::default() };
        keys.reload().await?;
        if keys.held().is_empty() {
            keys.add(1, now_s).await?;
        }
        Ok(keys)
    }

    /// The key that signs now. `tend` comes first, where no transaction is open.
    pub(crate) fn held_signer(&self, now_s: u64) -> Result<SigningKey, LoginError> {
        let held = self.held();
        held.iter().rev().find(|key| key.starts_s <= now_s).map(|key| key.signing.clone()).ok_or(LoginError::KeyUnusable)
    }

    /// The published set.
    pub(crate) async fn published(&self, now_s: u64) -> Result<Value, LoginError> {
        self.tend(now_s).await?;
        Ok(json!({ "keys": self.held().iter().map(|key| key.jwk.clone()).collect::<Vec<_>>() }))
    }

    /// A published key, by its name.
    pub(crate) fn find(&self, kid: &str) -> Option<SigningKey> {
        self.held().iter().find(|key| key.signing.kid() == kid).map(|key| key.signing.clone())
    }

    fn held(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Announces a successor when the last key nears its end; drops those whose tokens have all ended.
    pub(crate) async fn tend(&self, now_s: u64) -> Result<(), LoginError> {
        let held = self.held();
        let Some(last) = held.last() else { return Err(LoginError::KeyUnusable) };
        let ends_s = last.starts_s.saturating_add(SIGNS_S);
        if now_s.saturating_add(OVERLAP_S) >= ends_s {
            // After a long sleep the overlap cannot be kept: better a key at once than one past its time.
            self.add(last.generation.saturating_add(1), ends_s.max(now_s)).await?;
        }
        let held = self.held();
        let signing_since = held.iter().rev().find(|key| key.starts_s <= now_s).map_or(0, |key| key.starts_s);
        let is_over = |key: &Key| key.starts_s < signing_since && signing_since.saturating_add(OVERLAP_S) <= now_s;
        if held.iter().any(is_over) {
            let mut txn = self.store.write().await?;
            sqlx::query("DELETE FROM signing_key WHERE starts_s < ?").bind(int(signing_since)).execute(&mut *txn).await?;
            txn.commit().await?;
            self.reload().await?;
        }
        Ok(())
    }

    async fn add(&self, generation: u32, starts_s: u64) -> Result<(), LoginError> {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(|_| LoginError::KeyUnusable)?;
        let sealed = self.sealer.seal(NAME, generation, der.as_ref())?;
        let mut txn = self.store.write().await?;
        // Two requests may see the same need: the first one's key stands.
        sqlx::query("INSERT INTO signing_key (generation, sealed, starts_s) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(i64::from(generation))
            .bind(sealed)
            .bind(int(starts_s))
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        self.reload().await
    }

    async fn reload(&self) -> Result<(), LoginError> {
        let rows =
            sqlx::query("SELECT generation, sealed, starts_s FROM signing_key ORDER BY generation").fetch_all(self.store.reader()).await?;
        let mut held = Vec::new();
        for row in rows {
            let generation = u32::try_from(row.try_get::<i64, _>(0)?).map_err(|_| LoginError::KeyUnusable)?;
            let der = self.sealer.open(NAME, generation, &row.try_get::<String, _>(1)?)?;
            held.push(Key::new(generation, uint(row.try_get(2)?), der.expose())?);
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
        Ok(())
    }
}

impl Key {
    fn new(generation: u32, starts_s: u64, der: &[u8]) -> Result<Self, LoginError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| LoginError::KeyUnusable)?;
        let signing = SigningKey::from_pkcs8(der).map_err(|_| LoginError::KeyUnusable)?;
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else { return Err(LoginError::KeyUnusable) };
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": signing.kid(), "x": B64.encode(x), "y": B64.encode(y),
        });
        Ok(Self { generation, starts_s, signing, jwk })
    }
}
