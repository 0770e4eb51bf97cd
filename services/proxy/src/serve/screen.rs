//! A screen before HTTP/1.1: messages whose framing two parsers could read in two ways never reach ours.
//!
//! It follows the framing of each message itself (that is the point: a second reading) and hands a head on only when it is whole and
//! unambiguous. In place of a refused head the parser behind gets one that it answers with 400 and closes. What comes is read to where
//! the parser wants it, and stays there when it is whole heads or a body's bytes, as nearly always; only the rest is taken back, kept
//! and copied.
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
        Self { inner, state: State::Head(Vec::new()), passed: Vec::new(), given: 0, refused, opened }
    }

    /// How many of these bytes may go on where they are: those of a body, and whole heads at their beginning. What follows them is for
    /// `take`, which also says what is wrong with it.
    fn as_they_are(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Body(left) | State::ChunkData(left) => {
                let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(now as u64);
                self.advance_data();
                now
            }
            State::Head(begun) if begun.is_empty() => {
                let mut passed = 0_usize;
                while let Some((length, framing)) = whole_head(bytes.get(passed..).unwrap_or_default()) {
                    passed = passed.saturating_add(length);
                    self.state = match framing {
                        Framing::Length(0) => continue,
                        Framing::Length(length) => State::Body(length),
                        Framing::Chunked => State::ChunkSize(Vec::new()),
                    };
                    break;
                }
                passed
            }
            _ => 0,
        }
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
                    let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end.saturating_add(1));
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
            let before = out.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, out))?;
            let came = out.filled().get(before..).unwrap_or_default();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let (stays, length) = (this.as_they_are(came), came.len());
            if stays < length {
                let rest = came.get(stays..).unwrap_or_default().to_vec();
                out.set_filled(before.saturating_add(stays));
                if let Err(why) = this.take(&rest)
                    && let Err(broken) = this.refuse(why)
                {
                    out.set_filled(before);
                    return Poll::Ready(Err(broken));
                }
            }
            if stays > 0 {
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

/// The length and framing of the head that these bytes begin with, if all of it is there and nothing is wrong with it.
fn whole_head(bytes: &[u8]) -> Option<(usize, Framing)> {
    let mut end = 0_usize;
    for line in memchr::memchr_iter(b'\n', bytes) {
        let length = line.saturating_add(1);
        // A bare LF, or too long a head: `take` knows.
        if length > limits::HTTP1_BUFFER_BYTES || !bytes.get(..line)?.ends_with(b"\r") {
            return None;
        }
        if length.saturating_sub(end) == 2 && end > 0 {
            return Some((length, head(bytes.get(..length)?).ok()?));
        }
        end = length;
    }
    None
}

/// Reads a whole head, as strictly as the grammar is written, and says how its body ends.
pub(crate) fn head(bytes: &[u8]) -> Result<Framing, &'static str> {
    let bytes = bytes.strip_suffix(b"\r\n\r\n").ok_or("the head does not end")?;
    let mut lines = Lines(Some(bytes));
    let first = lines.next().unwrap_or_default();
    request_line(first)?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = field(line)?;
        if is_named(name, b"content-length") {
            if name.contains(&b'_') || length.is_some() {
                return Err("a repeated length");
            }
            length = Some(decimal(value)?);
        } else if is_named(name, b"transfer-encoding") {
            if name.contains(&b'_') || chunked {
                return Err("a repeated transfer encoding");
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer encoding other than chunked");
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err("a length beside a transfer encoding"),
        (_, true) if first.ends_with(b"HTTP/1.0") => Err("HTTP/1.0 knows no chunks"),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or_default())),
    }
}

/// The lines of a head without their ends.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let line = match memchr::memchr(b'\n', rest) {
            Some(end) => {
                let (line, rest) = rest.split_at(end);
                self.0 = Some(rest.get(1..).unwrap_or_default());
                line
            }
            None => rest,
        };
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Whether a name is this one (lower-case) in some parser's eyes: capitals are the same, and so is `_` for `-`.
fn is_named(name: &[u8], meant: &[u8]) -> bool {
    let same = |(its, meant): (&u8, &u8)| its.to_ascii_lowercase() == *meant || (*its == b'_' && *meant == b'-');
    name.len() == meant.len() && name.iter().zip(meant).all(same)
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

/// Which bytes a token may have (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    #[expect(clippy::indexing_slicing, reason = "the table has a place for every byte, and this is evaluated by the compiler")]
    while byte < 0x80 {
        let other = matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        table[byte as usize] = byte.is_ascii_alphanumeric() || other;
        byte += 1;
    }
    table
};

/// Name and trimmed value of a field line (RFC 9112, section 5).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let colon = memchr::memchr(b':', line).ok_or("a field without a colon")?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().all(|byte| TOKEN.get(usize::from(*byte)).is_some_and(|is| *is)) {
        return Err("a field's name is malformed, or folded");
    }
    let value = value.get(1..).unwrap_or_default();
    // All of them at once, without a way out on the way: several bytes are compared together so.
    if value.iter().fold(false, |found, byte| found | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f)) {
        return Err("a field's value has a control character");
    }
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
