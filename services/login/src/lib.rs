//! `login`: people. An OpenID Connect provider with its own sign-in and enrolment pages.
//!
//! Spec:       OpenID Connect Core 1.0 and Discovery 1.0; RFC 6749 as narrowed by RFC 9700; RFC 7636 (PKCE), RFC 8252 (native
//!             clients), RFC 9207 (`iss`), RFC 9068 (access tokens), RFC 7009 (revocation), RFC 7662 (introspection), RFC 9449 (DPoP), RP-Initiated
//!             Logout 1.0; RFC 6238 (TOTP); RFC 9470 (step-up).
//! Guarantees: B1 discovery, keys, code flow; B2 PKCE with S256 or nothing; B6 a refresh token works once, a replay ends its family;
//!             B13 in part: a second factor (TOTP), `acr` and step-up;
//!             B12 Argon2id, common passwords refused, growing delays, and nobody learns who has an account.
//! Not here:   TLS and the session of the edge (`proxy`), transaction tokens (the edge mints them), passkeys (B13 in part).
//!
//! | part | what |
//! |---|---|
//! | `room` | the routes; what every answer carries |
//! | `authorize`, `sign_in`, `enrol`, `end_session` | what browsers see |
//! | `second`, `factor`, `totp` | the second factor: asked for, set up, reckoned |
//! | `token`, `userinfo` | what clients see |
//! | `possession` | tokens that are bound to a client's key |
//! | `introspect` | what the edge asks about |
//! | `people`, `api_key` | what the operator sees |
//! | `password`, `throttle` | what guessing meets |
//! | `keys` | the keys that sign, and their successors |
//!
//! Every secret that is handed out (session, code, refresh token, link) has 256 random bits and is kept as a digest only.

mod answer;
mod api_key;
mod authorize;
mod client;
mod common_passwords;
mod credential;
mod device;
mod end_session;
mod enrol;
mod factor;
mod form;
mod introspect;
mod keys;
mod page;
mod password;
mod people;
mod possession;
mod provider;
pub mod room;
mod schema;
mod second;
mod session;
mod sign_in;
mod throttle;
mod token;
mod totp;
mod userinfo;

pub use provider::{Login, LoginConfig, LoginError};

#[cfg(test)]
mod tests;
