//! The gateway, with peers in this process and real TLS where TLS is the question.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod agreeing;
mod bearer;
mod failing;
mod flood;
mod issuer;
mod origins;
mod passing;
mod possession;
mod routing;
mod session;
mod smuggling;
mod sockets;
mod tls;
mod world;
