//! Possession: a token that is bound to a key counts only with a proof of that key, made for this very request; one that is bound to a
//! certificate only over a connection that has shown it.
//!
//! Who the bearer is was found out before, possibly a while ago (`known`): that is a property of the token. Whether it is they who
//! send it is a property of the request, so it is asked of each, and nothing of the answer is kept but the proof's name.
//!
//! Spec:       RFC 9449, sections 4.3, 7.1, 7.2, 9 and 11.1; RFC 8705, section 3.
//! Guarantees: A10; A9 a bound token without a proof, and an unbound one with the scheme of bound ones, are refused; a proof counts once.
//! Not here:   what a proof is (`contract::dpop`), whose token it is (`person`).

use contract::dpop::{About, Proofs};
use trust::{Clock, DenyReason, Entropy};

use super::person::Person;
use super::visit::{Credential, Scheme, Visit};

/// Asks for what a token is bound to.
#[derive(Debug)]
pub struct Possession(Proofs);

impl Possession {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(entropy: &dyn Entropy, clock: &dyn Clock) -> Self {
        Self(Proofs::new(entropy, clock.unix_s()))
    }

    /// Whether who sends the visit has what its credential is bound to.
    ///
    /// # Errors
    /// `CertificateMismatch`, `TokenMalformed`, `ProofMissing`, `TokenUnbound`, `ProofKeyMismatch`, those of `Proofs::verify` and `Proofs::spend`.
    pub fn check(&self, visit: &Visit, person: &Person, clock: &dyn Clock) -> Result<(), DenyReason> {
        let Credential::Token { token, scheme } = &visit.credential else { return Ok(()) };
        let bound = person.claims.cnf.as_ref();
        if bound.is_some_and(|bound| bound.jkt.is_none() && bound.x5t_s256.is_none()) {
            return Err(DenyReason::TokenMalformed);
        }
        match bound.and_then(|bound| bound.x5t_s256.as_deref()) {
            Some(thumbprint) if visit.certificate.as_ref().and_then(|shown| shown.thumbprint(clock)) != Some(thumbprint) => {
                return Err(DenyReason::CertificateMismatch);
            }
            _ => {}
        }
        let jkt = match (scheme, bound.and_then(|bound| bound.jkt.as_deref())) {
            (Scheme::Bearer, None) => return Ok(()),
            (Scheme::Bearer, Some(_)) => return Err(DenyReason::ProofMissing),
            (Scheme::Dpop, None) => return Err(DenyReason::TokenUnbound),
            (Scheme::Dpop, Some(jkt)) => jkt,
        };
        let proof = visit.proof.as_ref().ok_or(DenyReason::ProofMissing)?;
        let (method, path) = (visit.head.method.as_str(), visit.head.uri.path());
        let about = About { method, origin: &visit.origin, path, token: Some(token.expose()) };
        let now_s = clock.unix_s();
        let proof = self.0.verify(proof, &about, now_s)?;
        if proof.key.as_str() != jkt {
            return Err(DenyReason::ProofKeyMismatch);
        }
        self.0.spend(proof, now_s).map(|_| ())
    }

    /// A nonce for the next proof.
    #[must_use]
    pub fn nonce(&self, clock: &dyn Clock) -> String {
        self.0.nonce(clock.unix_s())
    }
}
