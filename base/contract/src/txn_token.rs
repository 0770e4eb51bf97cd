//! Transaction tokens: authority that travels with the work.
//!
//! Spec:       draft-ietf-oauth-transaction-tokens, sections 5 (format) and 7 (use): `typ` is `txntoken+jwt`, header field `Txn-Token`.
//! Guarantees: B9 in part; D6, D7, H4, H5 rest on it.
//! Not here:   who may mint (the view's authority keys say), whether a lease still lives (`objects` asks `queue`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use trust::{Authority, Clock, DenyReason, Job, SpiffeId, TrustDomain, limits};

use crate::signing::{self, AuthorityKey, SigningError, SigningKey};

/// The header field that carries it.
pub const HEADER: &str = "txn-token";
/// Its media type in the JOSE header.
pub const TYP: &str = "txntoken+jwt";
/// Longest token accepted, in bytes.
pub const BYTES_MAX: usize = 8 * 1024;

/// The claims on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: SpiffeId,
    aud: TrustDomain,
    iat: u64,
    exp: u64,
    txn: String,
    sub: String,
    purp: String,
    scope: String,
    #[serde(default)]
    roles: BTreeSet<String>,
    #[serde(default)]
    step_up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
}

/// A genuine token's claims.
#[derive(Debug, Clone)]
pub struct Verified(Claims);

/// Mints tokens in the name of one workload.
#[derive(Debug, Clone)]
pub struct Minter {
    /// The workload: `role/edge` or `role/queue`.
    pub issuer: SpiffeId,
    /// Its key.
    pub key: SigningKey,
}

impl Minter {
    /// A token for `authority`, alive for `life_s` seconds from now.
    ///
    /// # Errors
    /// `Claims` when it cannot be written.
    pub fn mint(&self, authority: &Authority, life_s: u64, clock: &dyn Clock) -> Result<String, SigningError> {
        let now = clock.unix_s();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.issuer.trust_domain.clone(),
            iat: now,
            exp: now.saturating_add(life_s),
            txn: authority.txn.clone(),
            sub: authority.user.clone(),
            purp: authority.purpose.clone(),
            scope: authority.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
            roles: authority.roles.clone(),
            step_up: authority.step_up,
            job: authority.job.clone(),
        };
        self.key.sign(TYP, &[], &claims)
    }
}

/// Verifies tokens against a view's keys.
#[derive(Clone)]
pub struct Verifier {
    trust_domain: TrustDomain,
    keys: BTreeMap<String, (AuthorityKey, DecodingKey)>,
}

impl Verifier {
    /// A verifier for this trust domain with these keys; keys that are no keys are left out, so that their tokens are refused.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, keys: &[AuthorityKey]) -> Self {
        let keys = keys.iter().filter_map(|key| Some((key.kid.clone(), (key.clone(), key.public.decoding().ok()?)))).collect();
        Self { trust_domain, keys }
    }

    /// Whether tokens of this key are accepted here.
    #[must_use]
    pub fn knows(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// What `token` says, if it is genuine, for this trust domain, and alive.
    ///
    /// # Errors
    /// `TokenMalformed`, `TokenTypeMismatch`, `TokenAlgorithmRefused`, `TokenHeaderRefused`, `TokenKeyUnknown`, `TokenInvalid`,
    /// `AudienceMismatch`, `IssuerMismatch`, `TokenExpired` or `TokenNotYetValid`.
    pub fn verify(&self, token: &str, clock: &dyn Clock) -> Result<Authority, DenyReason> {
        let verified = self.genuine(token)?;
        verified.alive(clock)?;
        Ok(authority_of(verified.0))
    }

    /// What `token` says, if it is genuine and for this trust domain. Whether it is alive, `Verified::alive` says.
    ///
    /// # Errors
    /// As `verify`, but for the times.
    pub fn genuine(&self, token: &str) -> Result<Verified, DenyReason> {
        if token.len() > BYTES_MAX {
            return Err(DenyReason::TokenMalformed);
        }
        let (kid, chain) = signing::header_of(token, TYP).map_err(|error| error.reason())?;
        if !chain.is_empty() {
            return Err(DenyReason::TokenHeaderRefused);
        }
        let (key, decoding) = kid.as_ref().and_then(|kid| self.keys.get(kid)).ok_or(DenyReason::TokenKeyUnknown)?;
        let claims: Claims = signing::verify(token, TYP, decoding).map_err(|error| error.reason())?;
        if claims.aud != self.trust_domain {
            return Err(DenyReason::AudienceMismatch);
        }
        // Only `queue` narrows to a job, and it never mints without one: a stolen queue key is no key to people's sessions.
        let minted_by_queue = key.owner.as_role() == Some("queue");
        if claims.iss != key.owner {
            return Err(DenyReason::IssuerMismatch);
        }
        if claims.iat > key.not_after_s {
            return Err(DenyReason::TokenKeyUnknown);
        }
        if minted_by_queue != claims.job.is_some() {
            return Err(DenyReason::TokenInvalid);
        }
        Ok(Verified(claims))
    }
}

impl Verified {
    /// Whether it counts now.
    ///
    /// # Errors
    /// `TokenExpired`; `TokenNotYetValid` for one that comes from the future.
    pub fn alive(&self, clock: &dyn Clock) -> Result<(), DenyReason> {
        let now = clock.unix_s();
        if self.0.exp <= now {
            return Err(DenyReason::TokenExpired);
        }
        if self.0.iat > now.saturating_add(limits::CLOCK_SKEW_S_MAX) {
            return Err(DenyReason::TokenNotYetValid);
        }
        Ok(())
    }

    /// What it carries.
    #[must_use]
    pub fn authority(&self) -> Authority {
        authority_of(self.0.clone())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trust_domain", &self.trust_domain).field("kids", &self.keys.keys()).finish()
    }
}

fn authority_of(claims: Claims) -> Authority {
    Authority {
        txn: claims.txn,
        user: claims.sub,
        purpose: claims.purp,
        scopes: claims.scope.split_whitespace().map(str::to_owned).collect(),
        roles: claims.roles,
        step_up: claims.step_up,
        job: claims.job,
    }
}
