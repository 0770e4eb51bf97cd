//! An answer that is none: in its place the connection (HTTP/1.1) or the stream (HTTP/2) is broken off.
//!
//! Not here: when that is wanted (`mesh::fault`).

use contract::{Body, body};
use http::{Response, StatusCode};

/// Marks an answer as none.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("broken off on purpose")]
pub(crate) struct BrokenOff;

impl BrokenOff {
    /// The answer that is none.
    pub(crate) fn answer() -> Response<Body> {
        let mut answer = body::plain(StatusCode::BAD_GATEWAY);
        answer.extensions_mut().insert(Self);
        answer
    }

    /// Fails for an answer that is none.
    pub(super) fn check(answer: &Response<Body>) -> Result<(), Self> {
        answer.extensions().get::<Self>().map_or(Ok(()), |none| Err(*none))
    }
}
