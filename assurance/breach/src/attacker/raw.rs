//! Raw flows, as the attacker speaks on them: a line of JSON, and a line back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::heard;
use super::http::{Answer, Port, Request};

/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The method that stands for raw flows in a manifest's routes.
pub const METHOD: &str = "TCP";

/// Says a line, and waits for the one that comes back.
///
/// # Errors
/// There is nobody, or no answer.
pub fn ask(port: Port, line: &[u8]) -> io::Result<Answer> {
    let answer = said(port, line);
    heard::hear(answer.as_ref().ok());
    answer
}

fn said(port: Port, line: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(port.0)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(&[line, b"\n"].concat())?;
    let mut body = Vec::new();
    BufReader::new(stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut body)?;
    if body.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Answer { status: 200, headers: Vec::new(), body }) }
}

/// Hears a line, as a request that no header comes with.
///
/// # Errors
/// Those of reading.
pub(super) fn heard(from: &TcpStream) -> io::Result<Request> {
    let mut body = Vec::new();
    BufReader::new(from.try_clone()?).take(LINE_BYTES_MAX).read_until(b'\n', &mut body)?;
    Ok(Request { body, ..Request::new(METHOD, "/") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_is_answered_with_a_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let request = heard(&stream).unwrap();
            stream.write_all(&[b"heard ", request.body.as_slice()].concat()).unwrap();
            drop(listener.accept().unwrap());
        });
        assert_eq!(ask(Port(at), b"hello").unwrap().body, b"heard hello\n");
        assert!(ask(Port(at), b"hello").is_err(), "closed without a word");
        answering.join().unwrap();
    }
}
