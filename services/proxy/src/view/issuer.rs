//! Identity providers besides `login`: whose access tokens count here, and for what.
//!
//! Their keys come with the view, so a provider is trusted and forgotten with the manifest, and no token can make the edge fetch
//! anything. A token brings a person and scopes, never a role of ours; the person is `NAME|SUB`.
//!
//! Spec:       RFC 9068 sections 2 and 4, RFC 8725 section 3, RFC 7515 section 4.1, RFC 7517.
//! Guarantees: A7 the key decides the algorithm; header fields that choose keys or change the rules are refused.
//! Not here:   `login` (`oidc`), what a person may do (`entry`).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::control::IssuerProfile;
use contract::login::{AccessClaims, Confirmation};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use trust::{Clock, DenyReason, limits};

/// Longest token read, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest `sub` taken, in bytes.
const SUB_BYTES_MAX: usize = 255;

/// Providers, ready.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Issuer>);

struct Issuer {
    name: String,
    url: String,
    audience: String,
    scopes: BTreeSet<String>,
    keys: BTreeMap<String, (Algorithm, DecodingKey)>,
}

/// What is read of a JOSE header; any other field is refused, `crit`, `b64`, `jku`, `jwk` and `x5u` among them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Algorithm,
    kid: String,
    #[serde(default)]
    typ: Option<String>,
    /// Names a certificate of the key that `kid` names already.
    #[serde(default, rename = "x5t")]
    _x5t: Option<String>,
    #[serde(default, rename = "x5t#S256")]
    _x5t_s256: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    iat: Option<u64>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    jti: String,
    /// Read as ours is: a token that is bound in a way that nobody here can check is none.
    #[serde(default)]
    cnf: Option<Confirmation>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Issuers {
    /// Reads what the view says; a key that is none of the kinds accepted is left out, so that its tokens are refused.
    #[must_use]
    pub fn new(profiles: &[IssuerProfile]) -> Self {
        let key = |value: &serde_json::Value| {
            let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
            let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
            Some((kid, (algorithm(&jwk)?, DecodingKey::from_jwk(&jwk).ok()?)))
        };
        let issuer = |profile: &IssuerProfile| Issuer {
            name: profile.name.clone(),
            url: profile.url.clone(),
            audience: profile.audience.clone(),
            scopes: profile.scopes.clone(),
            keys: profile.keys.iter().filter_map(key).collect(),
        };
        Self(profiles.iter().map(issuer).collect())
    }

    /// The claims of an access token of one of them; `None` when it does not say to be of any.
    #[must_use]
    pub fn access(&self, token: &str, clock: &dyn Clock) -> Option<Result<AccessClaims, DenyReason>> {
        if self.0.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        // Only to choose whose keys it must be signed with.
        let said = claimed_issuer(token)?;
        let issuer = self.0.iter().find(|issuer| issuer.url == said)?;
        Some(issuer.access(token, clock))
    }
}

impl Issuer {
    fn access(&self, token: &str, clock: &dyn Clock) -> Result<AccessClaims, DenyReason> {
        let claims = self.genuine(token)?;
        let now = clock.unix_s();
        let plain = !claims.sub.is_empty() && claims.sub.len() <= SUB_BYTES_MAX && !claims.sub.chars().any(char::is_control);
        if claims.iss != self.url || !plain {
            return Err(DenyReason::TokenInvalid);
        }
        let meant = match &claims.aud {
            Audience::One(aud) => *aud == self.audience,
            Audience::Many(all) => all.contains(&self.audience),
        };
        if !meant {
            return Err(DenyReason::AudienceMismatch);
        }
        if claims.exp <= now {
            return Err(DenyReason::TokenExpired);
        }
        let latest = now.saturating_add(limits::CLOCK_SKEW_S_MAX);
        if claims.nbf.is_some_and(|nbf| nbf > latest) || claims.iat.is_some_and(|iat| iat > latest) {
            return Err(DenyReason::TokenInvalid);
        }
        let scope: Vec<&str> = claims.scope.split(' ').filter(|scope| self.scopes.contains(*scope)).collect();
        Ok(AccessClaims {
            sub: format!("{}|{}", self.name, claims.sub),
            scope: scope.join(" "),
            iss: claims.iss,
            aud: self.audience.clone(),
            client_id: claims.client_id,
            iat: claims.iat.unwrap_or_default(),
            exp: claims.exp,
            jti: claims.jti,
            roles: BTreeSet::new(),
            // What another provider asked of somebody is not ours to vouch for.
            auth_time: 0,
            acr: String::new(),
            sid: String::new(),
            cnf: claims.cnf,
        })
    }

    fn genuine(&self, token: &str) -> Result<Claims, DenyReason> {
        let raw = token.split('.').next().and_then(|part| B64.decode(part).ok()).ok_or(DenyReason::TokenInvalid)?;
        let header: Header = serde_json::from_slice(&raw).map_err(|_| DenyReason::TokenInvalid)?;
        let typ = header.typ.as_deref().map(str::to_ascii_lowercase);
        if !matches!(typ.as_deref(), None | Some("jwt" | "at+jwt" | "application/at+jwt")) {
            return Err(DenyReason::TokenInvalid);
        }
        let (algorithm, key) =
            self.keys.get(&header.kid).filter(|(algorithm, _)| *algorithm == header.alg).ok_or(DenyReason::TokenInvalid)?;
        let mut validation = Validation::new(*algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Claims>(token, key, &validation).map(|data| data.claims).map_err(|_| DenyReason::TokenInvalid)
    }
}

/// What its keys may sign with; symmetric ones are none of ours to hold.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let signs = matches!(jwk.common.public_key_use, None | Some(jsonwebtoken::jwk::PublicKeyUse::Signature));
    match (&jwk.algorithm, jwk.common.key_algorithm?) {
        _ if !signs => None,
        (AlgorithmParameters::EllipticCurve(_), KeyAlgorithm::ES256) => Some(Algorithm::ES256),
        (AlgorithmParameters::EllipticCurve(_), KeyAlgorithm::ES384) => Some(Algorithm::ES384),
        (AlgorithmParameters::OctetKeyPair(_), KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
        (AlgorithmParameters::RSA(_), KeyAlgorithm::RS256) => Some(Algorithm::RS256),
        (AlgorithmParameters::RSA(_), KeyAlgorithm::PS256) => Some(Algorithm::PS256),
        _ => None,
    }
}

fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        iss: String,
    }
    let raw = B64.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Said>(&raw).ok().map(|said| said.iss)
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).field("kids", &self.keys.keys()).finish_non_exhaustive()
    }
}
