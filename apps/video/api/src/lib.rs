//! The API of the video platform: a catalogue of who has which videos, and how far they are.
//!
//! A library so that the same application as one process (`video-monolith`) keeps the same catalogue.
//!
//! Guarantees: N3 the owner of everything is the person whose request it is.
//! Not here:   objects, people.

mod answer;
pub mod catalogue;
pub mod route;
mod status;
pub mod video;
