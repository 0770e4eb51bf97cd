//! What the video services say to their neighbours: plain HTTP on loopback, and nothing about security.
//!
//! One client, the object store, the queue, trace spans, and the way a service listens. Two headers that arrive with a
//! request (`Txn-Token`, `traceparent`) are passed along on every call that belongs to it, unread.
//!
//! Spec:       S3 path style; CloudEvents 1.0 HTTP binding, binary mode; OTLP/HTTP JSON; W3C Trace Context.
//! Guarantees: N7 no line of security code: no keys, no TLS, no token is made, checked or stored here.
//! Not here:   what a service does with a video.

pub mod client;
pub mod context;
pub mod event;
pub mod fault;
pub mod queue;
pub mod serve;
pub mod setting;
pub mod span;
pub mod store;

#[cfg(test)]
mod tests;
