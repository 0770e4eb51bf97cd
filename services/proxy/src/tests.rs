//! The proxy with real sockets on loopback, a test authority, and real policies of a small manifest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod calls;
mod collecting;
mod contact;
mod contained;
mod dangerous;
mod egress;
mod entering;
mod faults;
pub(crate) mod floods;
mod flows;
mod forged;
pub(crate) mod forgery;
mod guarding;
mod health;
mod jobs;
mod joining;
mod leaving;
mod plain;
mod replicas;
mod screening;
mod shadow;
pub(crate) mod sockets;
mod streaming;
mod traces;
mod views;
pub(crate) mod world;
