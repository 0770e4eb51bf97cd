//! The edge as OpenID Connect client of `login`: its keys, its tokens, the token endpoint.
//!
//! Everything goes over the mesh to `role/login`; the edge's SVID is its client authentication. Keys are cached, fetched again when
//! they are old or a token names an unknown one, and never more often than once in `FETCH_PAUSE`.
//!
//! Spec:       OpenID Connect Core 1.0 section 3.1.3; RFC 9068 sections 2 and 4; RFC 7517; RFC 7636; RFC 7009; RFC 7662; RFC 8725.
//! Guarantees: A7 algorithm, type, key, issuer, audience and times are checked exactly; A17 without keys no token is accepted.
//! Not here:   issuing (`login`), sessions (`session`), browser redirects (`sign_in`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::{ACCESS_TYP, AccessClaims, CLIENT_HEADER, EDGE_CALLBACK, EDGE_CLIENT, ID_TYP, ISSUER_PATH};
use contract::objects::PUBLIC_ORIGIN_HEADER;
use contract::signing::{self, PublicKey};
use contract::{Call, Client, body};
use http::{Method, Request, header};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use telemetry::Recorder;
use telemetry::event::FaultRaised;
use tokio::sync::Mutex;
use trust::{Clock, DenyReason, Fault, Secret, TraceContext, limits};

/// Longest token read, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest answer of `login` read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Keys older than this are fetched again before use.
const KEYS_AGE_MAX: Duration = Duration::from_secs(300);
/// Pause between two fetches, whatever tokens claim.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

/// What the token endpoint gave, verified.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Claims of the access token.
    pub access: AccessClaims,
    /// Refresh token, if there is one.
    pub refresh: Option<Secret<String>>,
    /// ID token and its claims; absent after a refresh without one.
    pub id: Option<(Secret<String>, IdClaims)>,
}

/// Claims of an ID token that the edge reads.
#[derive(Debug, Clone, Deserialize)]
pub struct IdClaims {
    /// Issuer.
    pub iss: String,
    /// Person.
    pub sub: String,
    /// Client.
    pub aud: String,
    /// End.
    pub exp: u64,
    /// The value sent with the authorization request.
    #[serde(default)]
    pub nonce: Option<String>,
    /// The person's name.
    #[serde(default)]
    pub name: Option<String>,
    /// What the person signs in with.
    #[serde(default)]
    pub preferred_username: Option<String>,
}

/// Why `login` gave no token.
#[derive(Debug)]
pub enum GrantError {
    /// It refused the code or refresh token, or gave what does not verify.
    Refused,
    /// It could not be asked. The cause is in the log.
    Down,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    alg: Option<String>,
}

struct Keys {
    by_kid: BTreeMap<String, DecodingKey>,
    fetched: Duration,
}

/// `login`, as the edge sees it.
pub struct Login {
    client: Client,
    point: &'static str,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    keys: ArcSwapOption<Keys>,
    // Held while keys are fetched, so that a crowd of unknown tokens fetches once; the time of the last attempt.
    last_fetch: Mutex<Option<Duration>>,
    dangerous_unsigned: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// A client over a transport to `role/login`, for the enforcement point of that name.
    #[must_use]
    pub fn new(client: Client, point: &'static str, clock: Arc<dyn Clock>, recorder: Recorder) -> Self {
        Self { client, point, clock, recorder, keys: ArcSwapOption::empty(), last_fetch: Mutex::new(None), dangerous_unsigned: false }
    }

    /// The same, which believes what a token says whoever wrote it. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_unsigned(self) -> Self {
        Self { dangerous_unsigned: true, ..self }
    }

    /// The client itself, to pass browsers' requests on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The claims of an access token for `origin`.
    ///
    /// # Errors
    /// Why the token is not accepted, as `SigningError::reason`; `TokenKeyUnknown`, `IssuerMismatch`, `AudienceMismatch`, `TokenExpired`,
    /// `TokenNotYetValid`; `DependencyDown` when keys are needed and cannot be fetched.
    pub async fn access(&self, token: &str, origin: &str) -> Result<AccessClaims, DenyReason> {
        let claims: AccessClaims = self.genuine(token, ACCESS_TYP, origin).await?;
        let now = self.clock.unix_s();
        if claims.sub.is_empty() {
            return Err(DenyReason::TokenMalformed);
        }
        if claims.iss != issuer(origin) {
            return Err(DenyReason::IssuerMismatch);
        }
        if claims.aud != origin {
            return Err(DenyReason::AudienceMismatch);
        }
        if claims.exp <= now {
            return Err(DenyReason::TokenExpired);
        }
        if claims.iat > now.saturating_add(limits::CLOCK_SKEW_S_MAX) {
            return Err(DenyReason::TokenNotYetValid);
        }
        Ok(claims)
    }

    /// Redeems an authorization code.
    ///
    /// # Errors
    /// `Refused` when `login` refuses it or the tokens do not verify; `Down` when it cannot be asked.
    pub async fn redeem(&self, code: &str, verifier: &str, origin: &str, trace: TraceContext) -> Result<Granted, GrantError> {
        let callback = format!("{origin}{EDGE_CALLBACK}");
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &callback), ("code_verifier", verifier)];
        let granted = self.grant(&form, origin, trace).await?;
        if granted.id.is_some() { Ok(granted) } else { Err(GrantError::Refused) }
    }

    /// Renews by a refresh token, which is used up.
    ///
    /// # Errors
    /// As `redeem`.
    pub async fn refresh(&self, token: &Secret<String>, origin: &str, trace: TraceContext) -> Result<Granted, GrantError> {
        self.grant(&[("grant_type", "refresh_token"), ("refresh_token", token.expose())], origin, trace).await
    }

    /// Revokes a refresh token and with it all that came from it (RFC 7009).
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn revoke(&self, token: &Secret<String>, origin: &str, trace: TraceContext) -> Result<(), Fault> {
        let form = [("token", token.expose().as_str()), ("token_type_hint", "refresh_token")];
        self.post("/revoke", &form, origin, trace).await.map(|_| ())
    }

    /// What a reference stands for now (RFC 7662).
    ///
    /// # Errors
    /// `TokenInactive` when it stands for nothing, `IssuerMismatch` and `AudienceMismatch` when it is not for `origin`; `DependencyDown`
    /// when `login` cannot be asked, or gives what cannot be read.
    pub async fn introspect(&self, reference: &str, origin: &str, trace: TraceContext) -> Result<AccessClaims, DenyReason> {
        let down = |fault: Fault| {
            self.report("login.introspect", &fault);
            DenyReason::DependencyDown
        };
        let (status, bytes) = self.post("/introspect", &[("token", reference)], origin, trace).await.map_err(down)?;
        if !status.is_success() {
            return Err(down(Fault::unavailable(format!("login answered {status}"))));
        }
        let unreadable = |error| down(Fault::unavailable("login's answer about a token cannot be read").because(error));
        let mut said: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if said.remove("active") != Some(true.into()) {
            return Err(DenyReason::TokenInactive);
        }
        said.remove("token_type");
        let claims: AccessClaims = serde_json::from_value(said.into()).map_err(unreadable)?;
        if claims.sub.is_empty() || claims.iss != issuer(origin) {
            return Err(DenyReason::IssuerMismatch);
        }
        if claims.aud != origin {
            return Err(DenyReason::AudienceMismatch);
        }
        Ok(claims)
    }

    async fn grant(&self, form: &[(&str, &str)], origin: &str, trace: TraceContext) -> Result<Granted, GrantError> {
        let (status, bytes) = self.post("/token", form, origin, trace).await.map_err(|fault| {
            self.report("login.token", &fault);
            GrantError::Down
        })?;
        if status.is_server_error() {
            self.report("login.token", &Fault::unavailable(format!("login answered {status}")));
            return Err(GrantError::Down);
        }
        if !status.is_success() {
            return Err(GrantError::Refused);
        }
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| GrantError::Refused)?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(GrantError::Refused);
        }
        let unverified = |reason| match reason {
            DenyReason::DependencyDown => GrantError::Down,
            _ => GrantError::Refused,
        };
        let access = self.access(&answer.access_token, origin).await.map_err(unverified)?;
        let id = match answer.id_token {
            Some(token) => {
                let claims: IdClaims = self.genuine(&token, ID_TYP, origin).await.map_err(unverified)?;
                let exact = claims.iss == issuer(origin) && claims.aud == EDGE_CLIENT && claims.sub == access.sub;
                if !exact || claims.exp <= self.clock.unix_s() {
                    return Err(GrantError::Refused);
                }
                Some((Secret::new(token), claims))
            }
            None => None,
        };
        Ok(Granted { access, refresh: answer.refresh_token.map(Secret::new), id })
    }

    async fn post(
        &self,
        path: &str,
        form: &[(&str, &str)],
        origin: &str,
        trace: TraceContext,
    ) -> Result<(http::StatusCode, bytes::Bytes), Fault> {
        let text = url::form_urlencoded::Serializer::new(String::new()).append_pair("client_id", EDGE_CLIENT).extend_pairs(form).finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(CLIENT_HEADER, EDGE_CLIENT)
            .header(PUBLIC_ORIGIN_HEADER, origin)
            .body(body::full(text))
            .map_err(Fault::internal)?;
        let response = self.client.send(&Call { token: None, trace: Some(trace) }, request).await?;
        let status = response.status();
        Ok((status, body::collect(response.into_body(), ANSWER_BYTES_MAX).await?))
    }

    async fn genuine<C: DeserializeOwned + Clone>(&self, token: &str, typ: &str, origin: &str) -> Result<C, DenyReason> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(DenyReason::TokenMalformed);
        }
        // RFC 8725 section 3: `header_of` admits ES256 and this `typ` only; `crit`, `jku`, `jwk`, `x5u`, `b64` are all refused there.
        let (kid, chain) = signing::header_of(token, typ).map_err(|error| error.reason())?;
        if !chain.is_empty() {
            return Err(DenyReason::TokenHeaderRefused);
        }
        let kid = kid.ok_or(DenyReason::TokenKeyUnknown)?;
        if self.dangerous_unsigned {
            return dangerous_said(token).ok_or(DenyReason::TokenMalformed);
        }
        let key = self.key(&kid, origin).await?;
        signing::verify(token, typ, &key).map_err(|error| error.reason())
    }

    async fn key(&self, kid: &str, origin: &str) -> Result<DecodingKey, DenyReason> {
        if let Some(key) = self.fresh_key(kid) {
            return Ok(key);
        }
        let mut last = self.last_fetch.lock().await;
        if let Some(key) = self.fresh_key(kid) {
            return Ok(key);
        }
        let now = self.clock.monotonic();
        let soon = last.is_some_and(|at| now.saturating_sub(at) < FETCH_PAUSE);
        if !soon {
            *last = Some(now);
            let fetched = self.fetch(origin).await.map_err(|fault| {
                self.report("login.jwks", &fault);
                DenyReason::DependencyDown
            })?;
            self.keys.store(Some(Arc::new(Keys { by_kid: fetched, fetched: now })));
        }
        match (self.fresh_key(kid), self.are_fresh()) {
            (Some(key), _) => Ok(key),
            (None, true) => Err(DenyReason::TokenKeyUnknown),
            (None, false) => Err(DenyReason::DependencyDown),
        }
    }

    fn report(&self, action: &str, fault: &Fault) {
        let cause = fault.cause.as_ref().map_or_else(|| fault.public.clone(), |cause| format!("{}: {cause}", fault.public));
        // The request is refused either way.
        let _recorded = self.recorder.record(None, &FaultRaised { point: self.point, action: action.to_owned(), cause });
    }

    /// When the keys in use were fetched; nothing when there are none, or they are too old to use.
    #[must_use]
    pub fn keys_of(&self) -> Option<Duration> {
        self.keys.load().as_ref().map(|keys| keys.fetched).filter(|_| self.are_fresh())
    }

    fn are_fresh(&self) -> bool {
        let age = |keys: &Arc<Keys>| self.clock.monotonic().saturating_sub(keys.fetched);
        self.keys.load().as_ref().is_some_and(|keys| age(keys) < KEYS_AGE_MAX)
    }

    fn fresh_key(&self, kid: &str) -> Option<DecodingKey> {
        if !self.are_fresh() {
            return None;
        }
        self.keys.load().as_ref()?.by_kid.get(kid).cloned()
    }

    async fn fetch(&self, origin: &str) -> Result<BTreeMap<String, DecodingKey>, Fault> {
        let request = Request::builder().uri("/jwks").header(PUBLIC_ORIGIN_HEADER, origin).body(body::empty()).map_err(Fault::internal)?;
        let response = self.client.send(&Call::default(), request).await?;
        if !response.status().is_success() {
            return Err(Fault::unavailable(format!("login answered {} for its keys", response.status())));
        }
        let bytes = body::collect(response.into_body(), ANSWER_BYTES_MAX).await?;
        let set: JwkSet =
            serde_json::from_slice(&bytes).map_err(|error| Fault::unavailable("login's keys cannot be read").because(error))?;
        Ok(set.keys.into_iter().filter_map(|jwk| Some((jwk.kid.clone(), jwk.decoding()?))).collect())
    }
}

impl Jwk {
    /// Its key, if it is one for ES256 signatures (RFC 7518, section 6.2.1).
    fn decoding(&self) -> Option<DecodingKey> {
        let fits = self.kty == "EC" && self.crv == "P-256" && !self.kid.is_empty();
        let meant = self.usage.as_deref().is_none_or(|u| u == "sig") && self.alg.as_deref().is_none_or(|a| a == "ES256");
        if !fits || !meant {
            return None;
        }
        let (x, y) = (B64.decode(&self.x).ok()?, B64.decode(&self.y).ok()?);
        PublicKey::from_point(&[&[4], x.as_slice(), y.as_slice()].concat()).decoding().ok()
    }
}

/// What a token says, whoever wrote it.
fn dangerous_said<C: DeserializeOwned>(token: &str) -> Option<C> {
    serde_json::from_slice(&B64.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// The issuer's name for that public origin.
#[must_use]
pub fn issuer(origin: &str) -> String {
    format!("{origin}{ISSUER_PATH}")
}
