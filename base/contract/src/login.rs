//! The contract of `login`: OpenID Connect, sign-in pages, people.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::route::{Route, Who};

const EDGE: Who = Who::Roles(&["edge"]);

/// Every route. The edge serves those that are for `edge` (or for every door) under `/oidc` (issuer `https://HOST/oidc`), without a session.
pub const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/.well-known/openid-configuration", action: "login.discovery", who: EDGE },
    Route { method: "GET", path: "/jwks", action: "login.jwks", who: Who::Doors },
    Route { method: "GET", path: "/authorize", action: "login.authorize", who: EDGE },
    Route { method: "GET", path: "/sign-in", action: "login.sign_in.page", who: EDGE },
    Route { method: "POST", path: "/sign-in", action: "login.sign_in", who: EDGE },
    Route { method: "POST", path: "/sign-in/second", action: "login.sign_in.second", who: EDGE },
    Route { method: "GET", path: "/factor", action: "login.factor.page", who: EDGE },
    Route { method: "POST", path: "/factor", action: "login.factor", who: EDGE },
    Route { method: "GET", path: "/enrol", action: "login.enrol.page", who: EDGE },
    Route { method: "POST", path: "/enrol", action: "login.enrol", who: EDGE },
    Route { method: "POST", path: "/token", action: "login.token", who: EDGE },
    Route { method: "GET", path: "/userinfo", action: "login.userinfo", who: EDGE },
    Route { method: "POST", path: "/revoke", action: "login.token.revoke", who: EDGE },
    Route { method: "POST", path: "/introspect", action: "login.introspect", who: Who::Doors },
    Route { method: "GET", path: "/end-session", action: "login.end_session", who: EDGE },
    Route { method: "GET", path: "/style.css", action: "login.style", who: EDGE },
    Route { method: "POST", path: "/users", action: "login.user.invite", who: Who::Operator },
    Route { method: "GET", path: "/users", action: "login.user.list", who: Who::Operator },
    Route { method: "DELETE", path: "/users/{user}", action: "login.user.remove", who: Who::Operator },
    Route { method: "DELETE", path: "/users/{user}/factor", action: "login.factor.reset", who: Who::Operator },
    Route { method: "POST", path: "/keys", action: "login.key.create", who: Who::Operator },
    Route { method: "GET", path: "/keys", action: "login.key.list", who: Who::Operator },
    Route { method: "DELETE", path: "/keys/{key}", action: "login.key.revoke", who: Who::Operator },
];

/// Header by which the edge, as OIDC client, tells its own token requests from those it only passes on. Stripped from browsers' requests.
/// Its value is `EDGE_CLIENT`; with it the connection's SVID (`role/edge`) is the client's authentication.
pub const CLIENT_HEADER: &str = "palisade-oidc-client";
/// The edge's `client_id`. Its one redirect URI is `PUBLIC_ORIGIN` and `EDGE_CALLBACK`.
pub const EDGE_CLIENT: &str = "edge";
/// Header in which the edge says the browser's address (no port), so that `login` can slow down a source of guesses. Stripped from
/// browsers' requests.
pub const SOURCE_HEADER: &str = "palisade-source";
/// Header in which the edge says the SHA-256 (base64url) of the certificate that a client has shown and proven its key of. Stripped from
/// outside.
pub const CERTIFICATE_HEADER: &str = "palisade-client-certificate";
/// Header in which the edge says that certificate's DNS names, with commas between. Stripped from outside.
pub const NAMES_HEADER: &str = "palisade-client-names";
/// Path of the edge's redirect URI.
pub const EDGE_CALLBACK: &str = "/auth/callback";
/// Path of the issuer under the public origin: `iss` is `https://HOST[:PORT]/oidc`. Access tokens have the public origin itself as `aud`.
pub const ISSUER_PATH: &str = "/oidc";
/// Path of the page on which a person sets up or removes their second factor, under the issuer's.
pub const FACTOR_PATH: &str = "/factor";
/// `acr` of a sign-in by password alone.
pub const ACR_PASSWORD: &str = "urn:palisade:acr:password";
/// `acr` of a sign-in by password and a second factor.
pub const ACR_SECOND: &str = "urn:palisade:acr:second-factor";
/// How long after proving themselves a person counts as having done so just now, in seconds.
pub const STEP_UP_S: u64 = 300;
/// The challenge of what takes a second proof of just now (RFC 9470, section 3).
pub const STEP_UP_CHALLENGE: &str = "Bearer error=\"insufficient_user_authentication\", error_description=\"a second factor, proved within \
     the last 300 seconds\", acr_values=\"urn:palisade:acr:second-factor\", max_age=\"300\"";
/// The error for a client that asked for more than a person can prove (OpenID Connect Core Error Code
/// unmet_authentication_requirements 1.0).
pub const UNMET: &str = "unmet_authentication_requirements";
/// `typ` of access tokens (RFC 9068, section 2.1).
pub const ACCESS_TYP: &str = "at+jwt";
/// `typ` of ID tokens.
pub const ID_TYP: &str = "JWT";

/// An application that people may sign in to, as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientProfile {
    /// Its `client_id`.
    pub id: String,
    /// Addresses that people are sent back to, exactly; `http://127.0.0.1/PATH` stands for any port.
    pub returns: BTreeSet<String>,
    /// Its access tokens are references.
    pub opaque: bool,
    /// It gets no token without a proof of a key.
    pub proof_required: bool,
    /// The DNS name in the certificate that it shows itself to be by (RFC 8705); its tokens are bound to the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// Invites a person; they choose their password behind a one-time link.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Name to sign in with: 1 to 64 characters.
    pub name: String,
    /// Roles, such as `admin`.
    #[serde(default)]
    pub roles: BTreeSet<String>,
}

/// The answer to `Invite`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invited {
    /// The person's id (`sub`).
    pub user: String,
    /// Path with the one-time token, under the issuer: `/enrol?token=…`.
    pub path: String,
    /// End of the link, seconds since the epoch.
    pub expires_s: u64,
}

/// A person in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Person {
    /// `sub`.
    pub user: String,
    /// Name.
    pub name: String,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Whether the one-time link was used.
    pub enrolled: bool,
    /// Whether they have a second factor.
    #[serde(default)]
    pub second_factor: bool,
}

/// Makes an API key for a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The person's id: the key acts for them, counts against their rate, and ends with them.
    pub user: String,
    /// What will use it: 1 to 64 characters.
    pub name: String,
    /// Scopes that it brings; routes without a scope need none.
    pub scopes: BTreeSet<String>,
    /// Its life, in seconds: 366 days at most.
    pub life_s: u64,
}

/// The answer to `NewKey`: the one time that the key is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyMade {
    /// Its id, for `revoke`.
    pub id: String,
    /// The key.
    pub key: String,
    /// Its end, seconds since the epoch.
    pub expires_s: u64,
}

impl std::fmt::Debug for KeyMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMade").field("id", &self.id).field("expires_s", &self.expires_s).finish_non_exhaustive()
    }
}

/// An API key in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: String,
    /// Whom it acts for.
    pub user: String,
    /// What uses it.
    pub name: String,
    /// Its scopes.
    pub scopes: BTreeSet<String>,
    /// When it was made, seconds since the epoch.
    pub created_s: u64,
    /// Its end.
    pub expires_s: u64,
    /// When it was revoked, if it was.
    pub revoked_s: Option<u64>,
}

/// Claims of an access token (RFC 9068, section 2.2). These and no others: a claim that nobody here reads could be one that limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    /// Issuer.
    pub iss: String,
    /// Person.
    pub sub: String,
    /// Audience.
    pub aud: String,
    /// Client.
    pub client_id: String,
    /// Issued, seconds since the epoch.
    pub iat: u64,
    /// End.
    pub exp: u64,
    /// Unique.
    pub jti: String,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// Roles of the person.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// When the person proved themselves.
    pub auth_time: u64,
    /// By what: `ACR_PASSWORD` or `ACR_SECOND` (section 2.2.1). Absent: by nothing that counts as either.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acr: String,
    /// The session at `login` that it comes from.
    pub sid: String,
    /// What its bearer must have besides; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// The key that a token is bound to (RFC 7800, section 3.1). One member or more, and no other: an unknown one is a limit that nobody
/// here would check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// Thumbprint of a key that each request must be proven with (RFC 9449, section 6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// SHA-256 of the certificate that its connection must show (RFC 8705, section 3.1).
    #[serde(default, rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub x5t_s256: Option<String>,
}
