//! A strict, memory-safe check of MP4 and WebM before any decoder sees a byte.
//!
//! [`check`] walks a file's structure through [`read::RandomRead`]: it reads headers and tables, never the media, so a
//! file of any size is checked with flat memory. What it does not know it refuses.
//!
//! Spec:       ISO/IEC 14496-12 (MP4), RFC 8794 (EBML), RFC 9559 (Matroska), WebM guidelines.
//! Guarantees: N4, I10 no file with outside references, encryption, broken tables or unlisted codecs is called clean;
//!             never panics, reads no more than a small multiple of the file's size.
//! Not here:   decoding; a clean file may still hold damaged pictures.

pub mod bad_media;
pub mod check;
pub mod fourcc;
pub mod media;
mod mp4;
pub mod read;
pub mod rejection;
pub mod service;
mod sniff;
mod webm;

pub use check::{CheckFault, check};

#[cfg(test)]
mod tests;
