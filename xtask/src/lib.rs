//! The project's own tools: `cargo xtask up | test | demo | bench | twin | tidy | floorplan | deny`.
//!
//! A library so that the end-to-end tests drive the system with the same hands as `demo`.
#![allow(clippy::print_stdout, reason = "tools for a terminal")]
#![allow(clippy::disallowed_methods, reason = "tools measure and wait in real time")]
#![allow(clippy::indexing_slicing, reason = "what is indexed here is JSON, where a missing name is null")]

pub mod artefacts;
pub mod bench;
pub mod copied;
pub mod curl;
pub mod demo;
pub mod deny;
pub mod deputy;
pub mod floorplan;
pub mod functional;
pub mod media;
pub mod packages;
pub mod person;
pub mod processes;
pub mod running;
pub mod tests;
pub mod tidy;
pub mod tree;
pub mod twin;
pub mod up;
pub mod webdriver;

/// What a tool ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
