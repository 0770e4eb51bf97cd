//! A screen before HTTP/1.1: messages whose framing two parsers could read in two ways never reach ours.
//!
//! It follows the framing of each message itself (that is the point: a second reading) and hands a head on only when it is whole and
//! unambiguous. In place of a refused head the parser behind gets one that it answers with 400 and closes.
//!
//! Spec:       RFC 9112 sections 2.2 (bare LF and CR), 3 (request line), 5.1 and 5.2 (white space, obs-fold), 6.1 to 6.3 (framing), 7.1 (chunks).
//! Guarantees: A4 the request-smuggling shapes are refused: a length beside a transfer encoding, repeated or signed lengths, codings
//!             other than exactly `chunked`, obs-fold, bare LF or CR, white space before a colon, chunk extensions, over-long sizes.
//! Not here:   HTTP/2, where h2 checks the lengths of its frames; paths (`canonical`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;

const READ_BYTES: usize = 16 * 1024;
const CHUNK_LINE_BYTES_MAX: usize = 18;
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Not a method: every parser answers 400.
const REFUSED_HEAD: &[u8] = b"\0\r\n\r\n";

/// How a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
}

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Body(u64),
    ChunkSize(Vec<u8>),
    ChunkData(u64),
    ChunkEnd(Vec<u8>),
    Trailers(Vec<u8>),
    Refused,
}

/// A connection behind a screen.
pub(crate) struct Screen<S, R> {
    inner: S,
    state: State,
    passed: Vec<u8>,
    given: usize,
    buffer: Vec<u8>,
    refused: R,
    opened: Opened,
}

/// Says that what comes from now on is no longer HTTP: its request was answered with 101.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<AtomicBool>);

impl Opened {
    /// Says so.
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<S, R: Fn(&'static str)> Screen<S, R> {
    /// Screens what is read from `inner`; `refused` hears why something was not let through.
    pub(crate) fn new(inner: S, refused: R, opened: Opened) -> Self {
        Self { inner, state: State::Head(Vec::new()), passed: Vec::new(), given: 0, buffer: vec![0; READ_BYTES], refused, opened }
    }

    /// Takes bytes in; what may go on is appended to `passed`.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Body(left) | State::ChunkData(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (data, more) = bytes.split_at(now);
                    self.passed.extend_from_slice(data);
                    *left = left.saturating_sub(now as u64);
                    bytes = more;
                    self.advance_data();
                    continue;
                }
                State::Head(head) => {
                    // A line at a time.
                    let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end.saturating_add(1));
                    let (line, more) = bytes.split_at(line);
                    bytes = more;
                    if head.len().saturating_add(line.len()) > limits::HTTP1_BUFFER_BYTES {
                        return Err("the head is too long");
                    }
                    head.extend_from_slice(line);
                    if head.ends_with(b"\r\n\r\n") {
                        let framing = self::head(head)?;
                        self.passed.extend_from_slice(head);
                        match framing {
                            Framing::Length(0) => head.clear(),
                            Framing::Length(length) => self.state = State::Body(length),
                            Framing::Chunked => self.state = State::ChunkSize(Vec::new()),
                        }
                    } else if head.ends_with(b"\n") && !head.ends_with(b"\r\n") {
                        return Err("a line ends with a bare LF");
                    }
                    continue;
                }
                State::ChunkSize(line) => {
                    line.push(byte);
                    if line.ends_with(b"\r\n") {
                        let size = chunk_size(line)?;
                        self.passed.append(line);
                        self.state = if size == 0 { State::Trailers(Vec::new()) } else { State::ChunkData(size) };
                    } else if line.len() >= CHUNK_LINE_BYTES_MAX || byte == b'\n' {
                        return Err("a chunk's size is malformed");
                    }
                }
                State::ChunkEnd(line) => {
                    line.push(byte);
                    if line.as_slice() == b"\r\n" {
                        self.passed.append(line);
                        self.state = State::ChunkSize(Vec::new());
                    } else if line.as_slice() != b"\r" {
                        return Err("a chunk does not end where it says");
                    }
                }
                State::Trailers(lines) => {
                    lines.push(byte);
                    if lines.as_slice() == b"\r\n" || lines.ends_with(b"\r\n\r\n") {
                        trailers(lines)?;
                        self.passed.append(lines);
                        self.state = State::Head(Vec::new());
                    } else if lines.len() >= TRAILER_BYTES_MAX {
                        return Err("the trailers are too long");
                    }
                }
                State::Refused => return Ok(()),
            }
            bytes = rest;
        }
        Ok(())
    }

    fn advance_data(&mut self) {
        match self.state {
            State::Body(0) => self.state = State::Head(Vec::new()),
            State::ChunkData(0) => self.state = State::ChunkEnd(Vec::new()),
            _ => {}
        }
    }

    fn refuse(&mut self, why: &'static str) -> std::io::Result<()> {
        (self.refused)(why);
        let in_head = matches!(self.state, State::Head(_));
        self.state = State::Refused;
        if !in_head {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        }
        self.passed.extend_from_slice(REFUSED_HEAD);
        Ok(())
    }

    fn give(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let waiting = self.passed.get(self.given..).unwrap_or_default();
        let now = waiting.get(..waiting.len().min(out.remaining())).unwrap_or_default();
        out.put_slice(now);
        self.given = self.given.saturating_add(now.len());
        let gave = !now.is_empty();
        if self.given >= self.passed.len() {
            self.passed.clear();
            self.given = 0;
        }
        gave
    }
}

impl<S: AsyncRead + Unpin, R: Fn(&'static str)> Screen<S, R> {
    /// Inside a body there is nothing to look at but its end.
    fn read_data(&mut self, left: u64, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.remaining()).min(READ_BYTES);
        let mut part = ReadBuf::new(self.buffer.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled();
        out.put_slice(read);
        let left = left.saturating_sub(read.len() as u64);
        self.state = if matches!(self.state, State::Body(_)) { State::Body(left) } else { State::ChunkData(left) };
        self.advance_data();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin, R: Fn(&'static str) + Unpin> AsyncRead for Screen<S, R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.give(out) || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.opened.is_so() {
                // What came before the 101 was no head's beginning.
                if let State::Head(early) = &mut this.state
                    && !early.is_empty()
                {
                    this.passed.append(early);
                    continue;
                }
                return Pin::new(&mut this.inner).poll_read(cx, out);
            }
            if let State::Body(left) | State::ChunkData(left) = this.state {
                return this.read_data(left, cx, out);
            }
            let mut buffer = std::mem::take(&mut this.buffer);
            let mut part = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut this.inner).poll_read(cx, &mut part);
            let read = part.filled().len();
            let taken = match &polled {
                Poll::Ready(Ok(())) if read > 0 => this.take(buffer.get(..read).unwrap_or_default()),
                _ => Ok(()),
            };
            this.buffer = buffer;
            ready!(polled)?;
            if let Err(why) = taken {
                this.refuse(why)?;
            } else if read == 0 && this.passed.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, R: Unpin> AsyncWrite for Screen<S, R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Reads a whole head, as strictly as the grammar is written, and says how its body ends.
pub(crate) fn head(bytes: &[u8]) -> Result<Framing, &'static str> {
    let bytes = bytes.strip_suffix(b"\r\n\r\n").ok_or("the head does not end")?;
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    request_line(lines.next().unwrap_or_default())?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = field(line)?;
        match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "content-length" if name.contains('_') || length.is_some() => return Err("a repeated length"),
            "content-length" => length = Some(decimal(value)?),
            "transfer-encoding" if name.contains('_') || chunked => return Err("a repeated transfer encoding"),
            "transfer-encoding" if value.eq_ignore_ascii_case(b"chunked") => chunked = true,
            "transfer-encoding" => return Err("a transfer encoding other than chunked"),
            _ => {}
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err("a length beside a transfer encoding"),
        (_, true) if bytes.split(|b| *b == b'\r').next().is_some_and(|line| line.ends_with(b"HTTP/1.0")) => Err("HTTP/1.0 knows no chunks"),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or_default())),
    }
}

fn request_line(line: &[u8]) -> Result<(), &'static str> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("the request line does not have three parts");
    };
    let method_fits = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    // A fragment is never sent (RFC 9112, section 3.2): a parser that drops it and one that keeps it see two paths.
    let target_fits = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    let version_fits = matches!(version, b"HTTP/1.1" | b"HTTP/1.0");
    if method_fits && target_fits && version_fits { Ok(()) } else { Err("the request line is malformed") }
}

/// Name and trimmed value of a field line (RFC 9112, section 5).
fn field(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
    let (name, value) = line.split_at(colon);
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if name.is_empty() || !name.iter().all(is_token) {
        return Err("a field's name is malformed, or folded");
    }
    let value = value.strip_prefix(b":").unwrap_or_default();
    if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err("a field's value has a control character");
    }
    let name = std::str::from_utf8(name).map_err(|_| "a field's name is malformed")?;
    Ok((name, value.trim_ascii()))
}

fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).unwrap_or_default();
    if digits { text.parse().map_err(|_| "the length is too large") } else { Err("the length is not a number") }
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.strip_suffix(b"\r\n").unwrap_or_default();
    let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if hex { u64::from_str_radix(text, 16).map_err(|_| "a chunk's size is too large") } else { Err("a chunk's size is malformed") }
}

fn trailers(lines: &[u8]) -> Result<(), &'static str> {
    let text = lines.strip_suffix(b"\r\n").unwrap_or_default();
    let Some(text) = text.strip_suffix(b"\r\n") else { return Ok(()) };
    for line in text.split(|byte| *byte == b'\n') {
        field(line.strip_suffix(b"\r").unwrap_or(line))?;
    }
    Ok(())
}
