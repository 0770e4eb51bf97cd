//! The decision point, asked in this process: by messages of Envoy's, by AuthZEN, over its socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod asking;
mod evaluating;
mod handing_on;
mod listening;
mod world;
