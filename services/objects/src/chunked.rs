//! `aws-chunked` bodies: what AWS SDKs send when they sign, or add a checksum, while they stream.
//!
//! The signatures in it are of dummy keys and prove nothing (the connection's SVID does); the framing is taken off strictly, and the
//! trailing checksums are handed on to be compared.
//!
//! Spec:       S3 API, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use contract::BoxError;
use futures::{Stream, StreamExt};

const LINE_BYTES_MAX: usize = 4 * 1024;
const TRAILERS_MAX: usize = 16;

/// Trailing fields, there once the body has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trailers(Arc<Mutex<BTreeMap<String, String>>>);

impl Trailers {
    /// All of them, lower-case names.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, name: String, value: String) -> Result<(), BoxError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TRAILERS_MAX || all.insert(name, value).is_some() {
            return Err("too many trailing fields, or one twice".into());
        }
        Ok(())
    }
}

enum Expecting {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    Nothing,
}

struct Decoder<S> {
    source: S,
    buffer: BytesMut,
    expecting: Expecting,
    trailers: Trailers,
}

/// The data in an `aws-chunked` body.
pub(crate) fn decoded<S>(source: S, trailers: Trailers) -> impl Stream<Item = Result<Bytes, BoxError>> + Send
where
    S: Stream<Item = Result<Bytes, BoxError>> + Unpin + Send,
{
    let decoder = Decoder { source, buffer: BytesMut::new(), expecting: Expecting::Size, trailers };
    futures::stream::try_unfold(decoder, |mut decoder| async move { Ok(decoder.next().await?.map(|bytes| (bytes, decoder))) })
}

impl<S: Stream<Item = Result<Bytes, BoxError>> + Unpin> Decoder<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            match self.expecting {
                Expecting::Size => {
                    let line = self.line().await?;
                    let digits = line.split(';').next().unwrap_or_default();
                    let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    let size = u64::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or("a chunk's size is not hexadecimal")?;
                    self.expecting = if size == 0 { Expecting::Trailer } else { Expecting::Data(size) };
                }
                Expecting::Data(left) => {
                    if self.buffer.is_empty() {
                        self.more().await?;
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                    let data = self.buffer.split_to(take).freeze();
                    let left = left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
                    self.expecting = if left == 0 { Expecting::DataEnd } else { Expecting::Data(left) };
                    return Ok(Some(data));
                }
                Expecting::DataEnd => {
                    if !self.line().await?.is_empty() {
                        return Err("a chunk is longer than its size".into());
                    }
                    self.expecting = Expecting::Size;
                }
                Expecting::Trailer => {
                    let line = self.line().await?;
                    match line.split_once(':') {
                        Some((name, value)) => self.trailers.put(name.trim().to_ascii_lowercase(), value.trim().to_owned())?,
                        None if line.is_empty() => self.expecting = Expecting::Nothing,
                        None => return Err("a trailing field without a colon".into()),
                    }
                }
                Expecting::Nothing => {
                    if !self.buffer.is_empty() || self.source.next().await.transpose()?.is_some_and(|rest| !rest.is_empty()) {
                        return Err("bytes after the last chunk".into());
                    }
                    return Ok(None);
                }
            }
        }
    }

    async fn more(&mut self) -> Result<(), BoxError> {
        let bytes = self.source.next().await.ok_or("the body ended inside a chunk")??;
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    async fn line(&mut self) -> Result<String, BoxError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return String::from_utf8(line.to_vec()).map_err(|_| "a chunk's head is not text".into());
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err("a chunk's head is too long".into());
            }
            match self.source.next().await.transpose()? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                // Some clients leave the last empty line out.
                None if matches!(self.expecting, Expecting::Trailer) && self.buffer.is_empty() => return Ok(String::new()),
                None => return Err("the body ended inside a chunk".into()),
            }
        }
    }
}
