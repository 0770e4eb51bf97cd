//! The gateway, with peers in this process and real TLS where TLS is the question.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod access;
mod acme;
mod agreeing;
mod apart;
mod bearer;
mod certificates;
mod client_certificate;
mod failing;
mod flood;
mod idle;
mod issuer;
mod origins;
mod passing;
mod possession;
mod proxied;
mod reference;
mod resumption;
mod routing;
mod session;
mod shadow;
mod smuggling;
mod sockets;
mod step_up;
mod tls;
pub(crate) mod world;
