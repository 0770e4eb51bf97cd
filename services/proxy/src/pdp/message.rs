//! Messages of gRPC, at its server: read one or a stream of them, answer one or a stream.
//!
//! Spec:       gRPC over HTTP/2 (`PROTOCOL-HTTP2.md`): Length-Prefixed-Message, Trailers, Trailers-Only. Deviation: no compression is
//!             offered, and a compressed message is refused.
//! Guarantees: A13 a message is as large as it may be, and no larger.

use bytes::{Buf, Bytes, BytesMut};
use contract::{Body, BoxError, body};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;

/// One byte says whether it is compressed, four how long it is.
const PREFIX: usize = 5;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Status codes of gRPC, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Larger than it may be.
    #[error("the message is larger than it may be")]
    TooLarge,
    /// Compressed.
    #[error("a compressed message; send it as it is")]
    Compressed,
    /// Not one of its type, or not whole.
    #[error("not a message of its type")]
    Malformed,
    /// Its sender is gone, or says nothing for too long.
    #[error("the message did not come")]
    Late,
}

impl Broken {
    /// As gRPC says it.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::TooLarge => Code::ResourceExhausted,
            Self::Compressed => Code::Unimplemented,
            Self::Malformed => Code::InvalidArgument,
            Self::Late => Code::DeadlineExceeded,
        }
    }
}

/// Messages of a request, one after the other.
pub(crate) struct Messages {
    body: Body,
    held: BytesMut,
    bytes_max: usize,
}

impl Messages {
    /// Those of `body`, each of at most `bytes_max`.
    pub(crate) fn new(body: Body, bytes_max: usize) -> Self {
        Self { body, held: BytesMut::new(), bytes_max }
    }

    /// The next one; nothing after the last. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Option<Result<M, Broken>> {
        loop {
            match self.whole() {
                Ok(Some(bytes)) => return Some(M::decode(bytes).map_err(|_| Broken::Malformed)),
                Ok(None) => {}
                Err(broken) => return Some(Err(broken)),
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.held.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Some(Err(Broken::Late)),
                None if self.held.is_empty() => return None,
                None => return Some(Err(Broken::Malformed)),
            }
        }
    }

    /// A whole message of what is held.
    fn whole(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some((compressed, length)) = self.held.first_chunk::<PREFIX>().map(|[flag, a, b, c, d]| (*flag, [*a, *b, *c, *d])) else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            return Err(Broken::Compressed);
        }
        if length > self.bytes_max {
            return Err(Broken::TooLarge);
        }
        if self.held.len() < PREFIX.saturating_add(length) {
            return Ok(None);
        }
        self.held.advance(PREFIX);
        Ok(Some(self.held.split_to(length).freeze()))
    }
}

/// The one message of a request.
pub(crate) async fn only<M: Message + Default>(body: Body, bytes_max: usize) -> Result<M, Broken> {
    let mut messages = Messages::new(body, bytes_max);
    let first = messages.next().await.ok_or(Broken::Malformed)??;
    match messages.next::<M>().await {
        None => Ok(first),
        Some(_) => Err(Broken::Malformed),
    }
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX.saturating_add(length));
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The end of an answer.
pub(crate) fn trailers(code: Code, message: &str) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    end(&mut fields, code, message);
    Frame::trailers(fields)
}

/// An answer of one message.
pub(crate) fn answer(message: &impl Message) -> Response<Body> {
    streamed(futures::stream::iter([Frame::data(framed(message)), trailers(Code::Ok, "")]))
}

/// An answer of those frames.
pub(crate) fn streamed(frames: impl futures::Stream<Item = Frame<Bytes>> + Send + 'static) -> Response<Body> {
    let frames = futures::StreamExt::map(frames, Ok::<_, BoxError>);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    response
}

/// An answer that says why there is none.
pub(crate) fn failed(code: Code, message: &str) -> Response<Body> {
    let mut response = Response::new(body::empty());
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    end(response.headers_mut(), code, message);
    response
}

fn end(fields: &mut HeaderMap, code: Code, message: &str) {
    fields.insert(STATUS, HeaderValue::from(code as u16));
    // What is said here is ours, and plain.
    if let (false, Ok(message)) = (message.is_empty(), HeaderValue::from_str(message)) {
        fields.insert(MESSAGE, message);
    }
}
