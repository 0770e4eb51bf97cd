//! A running mesh in one process: real rooms, a real authority behind its UNIX socket, mutual TLS over loopback. What only shows with many
//! enforcement points (`fleet`) or over a long time (`soak`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fleet;
mod ground;
mod soak;
