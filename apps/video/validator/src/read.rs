//! Reading a file here and there, in bounded pieces.
//!
//! Guarantees: the parsers get bytes only through this seam, so that they run over a network, a file or a fuzzer's
//!             buffer alike; small reads in a row become few larger ones.
//! Not here:   retries.

use bytes::Bytes;

/// The first read of a run; small, since most reads are of one header.
const WINDOW_BYTES_MIN: usize = 16 * 1024;
/// The largest read of a run, and of a part that is read whole.
const WINDOW_BYTES_MAX: usize = 1 << 20;

/// Something that can be read at any place.
pub trait RandomRead: Send {
    /// Why a read did not succeed.
    type Fault: Send;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads exactly `len` bytes from `offset`; both lie inside the size.
    ///
    /// # Errors
    /// The implementation's fault; it is no verdict about the file.
    fn read_at(&mut self, offset: u64, len: usize) -> impl Future<Output = Result<Bytes, Self::Fault>> + Send;
}

/// Bytes in memory.
impl RandomRead for Bytes {
    type Fault = std::io::Error;

    fn size(&self) -> u64 {
        self.len() as u64
    }

    async fn read_at(&mut self, offset: u64, len: usize) -> Result<Bytes, Self::Fault> {
        let outside = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(len).ok_or_else(outside)?;
        if end > self.len() { Err(outside()) } else { Ok(self.slice(start..end)) }
    }
}

/// A reader with a window on the file that slides and, while reads follow each other, grows.
pub(crate) struct Source<R> {
    inner: R,
    start: u64,
    window: Bytes,
    step: usize,
}

impl<R: RandomRead> Source<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, start: 0, window: Bytes::new(), step: WINDOW_BYTES_MIN }
    }

    pub(crate) fn size(&self) -> u64 {
        self.inner.size()
    }

    /// Up to `len` bytes from `offset`: fewer only at the end of the file.
    pub(crate) async fn peek(&mut self, offset: u64, len: usize) -> Result<Bytes, R::Fault> {
        let rest = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = len.min(rest);
        if let Some(hit) = self.hit(offset, wanted) {
            return Ok(hit);
        }
        let end = self.start.saturating_add(self.window.len() as u64);
        let follows = offset >= self.start && offset.saturating_sub(end) < WINDOW_BYTES_MIN as u64;
        self.step = if follows { (self.step * 2).min(WINDOW_BYTES_MAX) } else { WINDOW_BYTES_MIN };
        self.window = self.inner.read_at(offset, self.step.max(wanted).min(rest)).await?;
        self.start = offset;
        Ok(self.hit(offset, wanted).unwrap_or_default())
    }

    fn hit(&self, offset: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.window.len()).then(|| self.window.slice(from..to))
    }

    /// A whole part of the file that the caller has found to be of bearable size.
    pub(crate) async fn part(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, R::Fault> {
        let mut whole = Vec::with_capacity(len);
        while whole.len() < len {
            let at = offset.saturating_add(whole.len() as u64);
            let piece = (len - whole.len()).min(WINDOW_BYTES_MAX);
            let bytes = match self.hit(at, piece) {
                Some(bytes) => bytes,
                None => self.inner.read_at(at, piece).await?,
            };
            if bytes.is_empty() {
                break;
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }
}
