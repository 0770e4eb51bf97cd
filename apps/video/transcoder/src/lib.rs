//! The transcoder: turns a checked original into renditions that every browser plays, and a poster.
//!
//! A library so that the same application as one process (`video-monolith`) runs FFmpeg in the same way.
//!
//! Guarantees: I10 FFmpeg's demuxer, protocols and decoders are named.
//! Not here:   the sandbox around it.

pub mod command;
mod job;
pub mod ladder;
pub mod media;
pub mod progress;
pub mod run;
pub mod service;
