//! Access tokens: who bears one. A JWT of `login` or of another provider is verified; a reference is exchanged for its claims.
//!
//! What was verified is not verified again while it cannot have changed (`known`).
//!
//! Spec:       RFC 6750; RFC 9068, section 4.
//! Guarantees: A7, A8, A12, A17 (no keys, no `login`: nobody is let in).
//! Not here:   whether who sends a token is its bearer (`possession`).

use std::sync::Arc;

use contract::login::AccessClaims;
use contract::opaque;
use trust::{Clock, DenyReason, Digest, TraceContext};

use super::known::{Known, Under};
use super::oidc::Login;
use super::person::Person;
use super::reference::References;
use crate::view::Loaded;

/// Finds out who bears a token.
#[derive(Debug)]
pub struct Bearers {
    login: Arc<Login>,
    clock: Arc<dyn Clock>,
    known: Known,
    references: References,
}

impl Bearers {
    /// Over `login`.
    #[must_use]
    pub fn new(login: Arc<Login>, clock: Arc<dyn Clock>) -> Self {
        let references = References::new(Arc::clone(&login), Arc::clone(&clock));
        Self { login, clock, known: Known::default(), references }
    }

    /// The person whose access token this is, at that origin.
    ///
    /// # Errors
    /// Why it is none of ours, as `Login::access`, `Issuers::access` and `References::claims`; `DependencyDown` when nobody can tell.
    pub async fn person(&self, view: &Loaded, token: &str, origin: &str, trace: TraceContext) -> Result<Person, DenyReason> {
        let (claims, credential) = self.claims(view, token, origin, trace).await?;
        Ok(Person { claims, credential, name: String::new(), by_cookie: false })
    }

    /// The claims of an access token, verified now or a moment ago.
    async fn claims(
        &self,
        view: &Loaded,
        token: &str,
        origin: &str,
        trace: TraceContext,
    ) -> Result<(Arc<AccessClaims>, Digest), DenyReason> {
        let credential = Digest::of(&[token.as_bytes(), b" ", origin.as_bytes()].concat());
        if opaque::is_meant(token) {
            return Ok((self.references.claims(token, credential, origin, trace).await?, credential));
        }
        let (epoch, clock) = (view.view.epoch, &*self.clock);
        let holds = |under: &Under| under.epoch == epoch && under.keys.is_none_or(|keys| self.login.keys_of() == Some(keys));
        if let Some(claims) = self.known.find(&credential, holds, clock)? {
            return Ok((claims, credential));
        }
        let (claims, keys) = match view.issuers.access(token, clock) {
            Some(claims) => (claims?, None),
            None => (Box::pin(self.login.access(token, origin)).await?, self.login.keys_of()),
        };
        let claims = Arc::new(claims);
        self.known.keep(credential, Under { epoch, keys }, &claims, clock);
        Ok((claims, credential))
    }
}
