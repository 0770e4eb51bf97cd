//! Persons: who a credential stands for, and keeping a session's token fresh.
//!
//! An access token lives minutes; a session hours. Before a session's token ends it is renewed by the refresh grant: once per session
//! at a time, and to the end even if the browser has gone, since a rotated token that is not kept would end the session.
//!
//! Guarantees: A7, A8, A12, A17 (no keys, no `login`, no database: nobody is let in), B6 at the client's side, B13 (a second proof of just now).

use std::sync::Arc;

use contract::login::{ACR_SECOND, AccessClaims, STEP_UP_S};
use tokio::sync::Mutex;
use trust::{Clock, DenyReason, Digest, Fault, TraceContext, limits};

use super::bearer::Bearers;
use super::oidc::{GrantError, Login};
use super::session::{Reference, Session, Sessions, Tokens};
use super::stop::Stop;
use super::visit::{Credential, Visit};
use crate::view::Loaded;

/// A session's token is renewed when it ends within this, in seconds.
const RENEW_BEFORE_S: u64 = 30;
const LOCKS: usize = 64;

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Person {
    /// What `login`, or another provider, says of them.
    pub claims: Arc<AccessClaims>,
    /// The credential that they came with: the same request after request, and of nobody else.
    pub credential: Digest,
    /// Their name, if a session knows it.
    pub name: String,
    /// Whether a cookie said so (and a browser may have sent it without the person's will).
    pub by_cookie: bool,
}

impl Person {
    /// Whether their token has this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.claims.scope.split(' ').any(|s| s == scope)
    }

    /// Whether they proved a second factor just now. A password alone is what somebody may have looked at, and a session what somebody
    /// may have taken: neither counts, however fresh.
    #[must_use]
    pub fn stepped_up(&self, clock: &dyn Clock) -> bool {
        let (now, at) = (clock.unix_s(), self.claims.auth_time);
        self.claims.acr == ACR_SECOND && at <= now.saturating_add(limits::CLOCK_SKEW_S_MAX) && now.saturating_sub(at) <= STEP_UP_S
    }
}

/// Finds out who somebody is.
#[derive(Debug, Clone)]
pub struct People {
    sessions: Sessions,
    login: Arc<Login>,
    clock: Arc<dyn Clock>,
    bearers: Arc<Bearers>,
    // Striped by the session's digest: two sessions may wait for each other, one never renews twice at once.
    renewing: Arc<[Arc<Mutex<()>>]>,
}

impl People {
    /// Over those.
    #[must_use]
    pub fn new(sessions: Sessions, login: Arc<Login>, clock: Arc<dyn Clock>) -> Self {
        let bearers = Arc::new(Bearers::new(Arc::clone(&login), Arc::clone(&clock)));
        Self { sessions, login, clock, bearers, renewing: (0..LOCKS).map(|_| Arc::default()).collect() }
    }

    /// The person that the visit's credential stands for.
    ///
    /// # Errors
    /// `CredentialMissing`, `SessionEnded`, `TokenInvalid`, `TokenInactive`, `TokenExpired`, `AudienceMismatch`; `DependencyDown` or `Failed` when nobody can tell.
    pub async fn identify(&self, view: &Loaded, visit: &Visit, trace: TraceContext) -> Result<Person, Stop> {
        self.person(view, &visit.credential, &visit.main, trace).await
    }

    /// The person that a credential stands for at that origin.
    ///
    /// # Errors
    /// As `identify`.
    pub async fn person(&self, view: &Loaded, credential: &Credential, origin: &str, trace: TraceContext) -> Result<Person, Stop> {
        match credential {
            Credential::Nothing => Err(DenyReason::CredentialMissing.into()),
            Credential::SessionMalformed => Err(DenyReason::SessionEnded.into()),
            Credential::Token { token, .. } => Ok(self.bearers.person(view, token.expose(), origin, trace).await?),
            // Boxed, since the database's future is large and the others' should not be.
            Credential::Session(id) => Box::pin(self.session(id, origin, trace)).await,
        }
    }

    async fn session(&self, id: &Reference, origin: &str, trace: TraceContext) -> Result<Person, Stop> {
        let session = self.sessions.find(id).await?.filter(|s| s.origin == origin).ok_or(DenyReason::SessionEnded)?;
        let session = if self.is_due(&session) { self.renew(id, trace).await? } else { session };
        let credential = Digest::of(&[id.digest().as_bytes().as_slice(), session.claims.jti.as_bytes()].concat());
        Ok(Person { claims: Arc::new(session.claims), credential, name: session.name, by_cookie: true })
    }

    fn is_due(&self, session: &Session) -> bool {
        session.claims.exp <= self.clock.unix_s().saturating_add(RENEW_BEFORE_S)
    }

    async fn renew(&self, id: &Reference, trace: TraceContext) -> Result<Session, Stop> {
        let (people, id) = (self.clone(), id.clone());
        tokio::spawn(async move { people.renew_alone(&id, trace).await }).await.map_err(Fault::internal)?
    }

    async fn renew_alone(&self, id: &Reference, trace: TraceContext) -> Result<Session, Stop> {
        let stripe = id.digest().as_bytes().first().map_or(0, |byte| usize::from(*byte) % LOCKS);
        let lock = self.renewing.get(stripe).ok_or_else(|| Fault::internal("no such lock"))?;
        let _alone = lock.lock().await;
        // Another request of the same session may have renewed it while this one waited.
        let session = self.sessions.find(id).await?.ok_or(DenyReason::SessionEnded)?;
        if !self.is_due(&session) {
            return Ok(session);
        }
        let alive = session.claims.exp > self.clock.unix_s();
        let Some(refresh) = &session.tokens.refresh else {
            return if alive { Ok(session) } else { self.end(id).await };
        };
        match self.login.refresh(refresh, &session.origin, trace).await {
            Ok(granted) if granted.access.sub == session.claims.sub => {
                let tokens = Tokens {
                    refresh: granted.refresh.or_else(|| session.tokens.refresh.clone()),
                    id: granted.id.map_or_else(|| session.tokens.id.clone(), |(token, _)| token),
                };
                self.sessions.renew(id, &granted.access, &tokens).await?;
                Ok(Session { claims: granted.access, tokens, ..session })
            }
            Ok(_) | Err(GrantError::Refused) => self.end(id).await,
            Err(GrantError::Down) if alive => Ok(session),
            Err(GrantError::Down) => Err(DenyReason::DependencyDown.into()),
        }
    }

    async fn end(&self, id: &Reference) -> Result<Session, Stop> {
        self.sessions.remove(id).await?;
        Err(DenyReason::SessionEnded.into())
    }
}
