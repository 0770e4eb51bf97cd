//! The contract of `identity`: joining, renewing, the trust bundle, revocation.
//!
//! Joining and renewing go over a UNIX socket with TLS: the server shows its SVID first, so that a token is never told to a stranger
//! (C7), and the kernel says which process is calling (C5).

use http::Method;
use serde::{Deserialize, Serialize};
use trust::{Digest, Fault, SpiffeId};

use crate::route::{Route, Who};
use crate::signing::AuthorityKey;
use crate::transport::{Call, Client};

/// Every route.
pub const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/tokens", action: "identity.token.register", who: Who::Supervisor },
    Route { method: "POST", path: "/join", action: "identity.join", who: Who::Joining },
    Route { method: "POST", path: "/renew", action: "identity.renew", who: Who::Policy },
    Route { method: "POST", path: "/pep", action: "identity.pep.issue", who: Who::Policy },
    Route { method: "GET", path: "/bundle", action: "identity.bundle.read", who: Who::Roles(&["control"]) },
    Route { method: "POST", path: "/revoke", action: "identity.revoke", who: Who::Roles(&["control"]) },
];

/// The supervisor announces a process that it is about to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterToken {
    /// SHA-256 of the single-use token that the process will present.
    pub token_digest: Digest,
    /// Who it will be.
    pub spiffe_id: SpiffeId,
    /// The user that it runs as.
    pub uid: u32,
    /// Digest of the Palisade binary that it runs.
    pub binary: Digest,
    /// Digests of the service's artefacts by path, as in `palisade.lock`; empty for a role. `identity` compares what the guard measured.
    pub artefacts: Vec<Artefact>,
}

/// A file that a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Where it is, absolute.
    pub path: String,
    /// What it is.
    pub digest: Digest,
}

/// The answer to `RegisterToken`: what the process needs in order to know whom it talks to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRegistered {
    /// The trust bundle of now.
    pub bundle: Bundle,
}

/// A process asks for its first SVID.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The single-use token (64 hexadecimal digits).
    pub token: String,
    /// Certificate signing request, DER (PKCS #10), base64. Only its public key is used; its signature proves possession.
    pub csr: String,
    /// What a guard measured of its service's artefacts; empty for a role.
    pub artefacts: Vec<Artefact>,
}

/// A workload renews its SVID with a new key, over mTLS with the present one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// Certificate signing request, DER, base64.
    pub csr: String,
}

/// A new SVID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// Who it names.
    pub spiffe_id: SpiffeId,
    /// Certificate chain without the root, leaf first; DER, base64.
    pub chain: Vec<String>,
    /// Its end, seconds since the epoch.
    pub not_after_s: u64,
    /// The trust bundle of now.
    pub bundle: Bundle,
}

/// What is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Grows with every change.
    pub sequence: u64,
    /// Root certificates; DER, base64.
    pub roots: Vec<String>,
    /// Keys of the live SVIDs of those that mint transaction tokens: `edge`, `queue` and decision points.
    pub authority_keys: Vec<AuthorityKey>,
    /// Revoked identities.
    pub revoked: Vec<Revocation>,
}

/// SVIDs of an identity that are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// Those issued before this (seconds since the epoch).
    pub before_s: u64,
}

/// Client of `identity`.
#[derive(Debug, Clone)]
pub struct IdentityClient(pub Client);

impl IdentityClient {
    /// Announces a process.
    /// # Errors
    /// Those of the transport and of the route.
    pub async fn register(&self, request: &RegisterToken) -> Result<TokenRegistered, Fault> {
        self.0.json(&Call::default(), Method::POST, "/tokens", request).await
    }
    /// Asks for the first SVID.
    /// # Errors
    /// `Refused` for a token that is unknown, used or another's; for a process that is not what it should be.
    pub async fn join(&self, request: &Join) -> Result<Issued, Fault> {
        self.0.json(&Call::default(), Method::POST, "/join", request).await
    }
    /// Renews.
    /// # Errors
    /// `Refused` when the identity was revoked.
    pub async fn renew(&self, request: &Renew) -> Result<Issued, Fault> {
        self.0.json(&Call::default(), Method::POST, "/renew", request).await
    }
    /// The SVID of an enforcement point, for its decision point, which hands it on.
    /// # Errors
    /// `Refused` for everybody else, and when the enforcement point was revoked.
    pub async fn pep(&self, request: &Renew) -> Result<Issued, Fault> {
        self.0.json(&Call::default(), Method::POST, "/pep", request).await
    }
    /// The bundle once its sequence is greater than `after`, or the same one after some 25 s.
    /// # Errors
    /// Those of the transport.
    pub async fn bundle(&self, after: u64) -> Result<Bundle, Fault> {
        self.0.get(&Call::default(), &format!("/bundle?after={after}")).await
    }
    /// Revokes what an identity was issued before now.
    /// # Errors
    /// Those of the transport.
    pub async fn revoke(&self, request: &Revocation) -> Result<Bundle, Fault> {
        self.0.json(&Call::default(), Method::POST, "/revoke", request).await
    }
}
