//! The provider as a whole: what it is opened with, and what its parts share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac;
use contract::dpop::Proofs;
use contract::login::{ClientProfile, ISSUER_PATH, Invited};
use sqlx::Row;
use state::{StateError, Store, sqlx};
use telemetry::Recorder;
use telemetry::event::{ActDone, CallDecided, FaultRaised};
use trust::{Clock, Decision, DenyReason, Entropy, KeySealer, SealError, Secret, TraceContext, TrustDomain};

use crate::answer::Refusal;
use crate::keys::Keys;
use crate::password::Hasher;
use crate::schema::MIGRATIONS;

const PEPPER: &str = "pepper";

/// What `login` is opened with.
#[derive(Debug)]
pub struct LoginConfig {
    /// Its database file; made at first start.
    pub database: PathBuf,
    /// Where browsers find the system: `https://HOST[:PORT]`, without a path. The issuer is this and `/oidc`.
    pub public_origin: String,
    /// The system's name, shown on the pages.
    pub system: String,
    /// Whose edge may call.
    pub trust_domain: TrustDomain,
    /// Scopes that may be granted beside `openid`, `profile` and `offline_access`.
    pub scopes: BTreeSet<String>,
    /// Applications that people may sign in to besides the system's own pages.
    pub clients: Vec<ClientProfile>,
    /// Seals the signing keys, the installation's secret and people's second factors at rest.
    pub sealer: KeySealer,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Says what happened.
    pub recorder: Recorder,
}

/// Why `login` could not be opened, or something not be done.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key does not open.
    #[error("the keys of login cannot be opened")]
    Seal(#[from] SealError),
    /// A key is there but is no key, or none could be made.
    #[error("a signing key is unusable")]
    KeyUnusable,
    /// The public origin is not `https://HOST[:PORT]`.
    #[error("the public origin '{0}' is not https://HOST or https://HOST:PORT")]
    OriginMalformed(String),
    /// What is in the database cannot be read.
    #[error("the database holds what this release cannot read")]
    Unreadable(#[from] serde_json::Error),
}

impl From<sqlx::Error> for LoginError {
    fn from(error: sqlx::Error) -> Self {
        Self::State(StateError::Sql(error))
    }
}

/// The provider.
#[derive(Debug, Clone)]
pub struct Login(pub(crate) Arc<Inner>);

/// What its parts share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) hasher: Hasher,
    pub(crate) proofs: Proofs,
    pub(crate) public_origin: String,
    pub(crate) issuer: String,
    pub(crate) system: String,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) clients: BTreeMap<String, Arc<ClientProfile>>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: KeySealer,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    mac: hmac::Key,
}

impl Login {
    /// Opens the provider of a database, or creates it there.
    ///
    /// # Errors
    /// As `LoginError` says.
    pub async fn open(config: LoginConfig) -> Result<Self, LoginError> {
        let origin_fits = url::Url::parse(&config.public_origin)
            .is_ok_and(|url| url.scheme() == "https" && url.origin().ascii_serialization() == config.public_origin);
        if !origin_fits {
            return Err(LoginError::OriginMalformed(config.public_origin));
        }
        let store = Store::open(&config.database, MIGRATIONS).await?;
        let pepper = pepper(&store, &config.sealer, &*config.entropy).await?;
        let keys = Keys::load(store.clone(), config.sealer.clone(), config.clock.unix_s()).await?;
        let scopes = config.scopes.into_iter().chain(["openid", "profile", "offline_access"].map(str::to_owned)).collect();
        let mac = hmac::Key::new(hmac::HMAC_SHA256, pepper.expose());
        let hasher = Hasher::new(pepper, Arc::clone(&config.entropy));
        Ok(Self(Arc::new(Inner {
            store,
            keys,
            hasher,
            proofs: Proofs::new(&*config.entropy, config.clock.unix_s()),
            issuer: format!("{}{ISSUER_PATH}", config.public_origin),
            public_origin: config.public_origin,
            system: config.system,
            trust_domain: config.trust_domain,
            scopes,
            clients: config.clients.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect(),
            entropy: config.entropy,
            sealer: config.sealer,
            clock: config.clock,
            recorder: config.recorder,
            mac,
        })))
    }

    /// A one-time link for the first administrator, as long as nobody has enrolled; a link given before ends.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn first_link(&self) -> Result<Option<Invited>, LoginError> {
        self.0.first_link().await
    }
}

impl Inner {
    /// Seconds since the epoch.
    pub(crate) fn now_s(&self) -> u64 {
        self.clock.unix_s()
    }

    /// A keyed digest, for what must be recognised later but not be made by others.
    pub(crate) fn mac(&self, purpose: &str, text: &str) -> String {
        hex::encode(hmac::sign(&self.mac, format!("{purpose}\0{text}").as_bytes()))
    }

    /// Whether `mac` is the one of `text`; in constant time.
    pub(crate) fn is_mac(&self, purpose: &str, text: &str, mac: &str) -> bool {
        hex::decode(mac).is_ok_and(|mac| hmac::verify(&self.mac, format!("{purpose}\0{text}").as_bytes(), &mac).is_ok())
    }

    /// Records an act, before it is answered.
    pub(crate) fn act(&self, trace: TraceContext, act: &'static str, by: &str, to: &str, detail: &str) -> Result<(), Refusal> {
        self.record(trace, &ActDone { act, by: by.to_owned(), to: to.to_owned(), detail: detail.to_owned() })
    }

    /// Records any event, before its consequence is answered.
    pub(crate) fn record<E: telemetry::Event>(&self, trace: TraceContext, event: &E) -> Result<(), Refusal> {
        self.recorder.record(Some(trace), event).map_err(|_| Refusal::Denied(DenyReason::AuditUnavailable))
    }

    /// Records a refusal.
    pub(crate) fn refused(&self, trace: TraceContext, principal: &str, action: &str, reason: DenyReason) -> Result<(), Refusal> {
        let decided = CallDecided {
            point: "login",
            principal: principal.to_owned(),
            action: action.to_owned(),
            resource: String::new(),
            user: String::new(),
            purpose: String::new(),
            txn: String::new(),
            job: String::new(),
            decision: Decision::deny(reason),
        };
        self.record(trace, &decided)
    }

    /// Notes a defect of ours.
    pub(crate) fn note(&self, action: &str, error: &(dyn std::error::Error + 'static)) {
        let (mut cause, mut source) = (error.to_string(), error.source());
        while let Some(deeper) = source {
            cause = format!("{cause}: {deeper}");
            source = deeper.source();
        }
        // Not audited, so it cannot be lost: a log line and a count.
        let _ = self.recorder.record(None, &FaultRaised { point: "login", action: action.to_owned(), cause });
    }
}

/// The installation's secret, made at first start.
async fn pepper(store: &Store, sealer: &KeySealer, entropy: &dyn Entropy) -> Result<Secret<Vec<u8>>, LoginError> {
    let mut txn = store.write().await?;
    let row = sqlx::query("SELECT sealed FROM secret WHERE name = ?").bind(PEPPER).fetch_optional(&mut *txn).await?;
    if let Some(row) = row {
        return Ok(sealer.open(PEPPER, 1, &row.try_get::<String, _>(0)?)?);
    }
    let mut bytes = vec![0; 32];
    entropy.fill(&mut bytes);
    let sealed = sealer.seal(PEPPER, 1, &bytes)?;
    sqlx::query("INSERT INTO secret (name, sealed) VALUES (?, ?)").bind(PEPPER).bind(sealed).execute(&mut *txn).await?;
    txn.commit().await?;
    Ok(Secret::new(bytes))
}
