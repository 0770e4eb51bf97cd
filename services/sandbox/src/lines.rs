//! What a service writes, line by line.
//!
//! Not here: how much of it is kept (the guard).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

/// Longest line that is passed on whole, bytes; a longer one comes in pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines that wait for the guard; past this, lines are lost and counted, and the service never stalls.
const LINES_WAITING_MAX: usize = 1024;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that the service wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where.
    pub stream: Stream,
    /// The text without its end of line; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Lines that were lost before this one because nobody read in time.
    pub lost: u64,
}

/// Reads both outputs in one thread until both end.
pub(crate) fn read_lines(child: &mut Child) -> io::Result<mpsc::Receiver<Line>> {
    let missing = || io::Error::other("no pipe");
    let out: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
    let err: OwnedFd = child.stderr.take().ok_or_else(missing)?.into();
    let (tell, told) = mpsc::channel(LINES_WAITING_MAX);
    let sources = VecDeque::from([Source::new(Stream::Stdout, out), Source::new(Stream::Stderr, err)]);
    let thread = std::thread::Builder::new().name("sandbox-output".to_owned()).stack_size(128 * 1024);
    thread.spawn(move || copy_lines(sources, &tell))?;
    Ok(told)
}

struct Source {
    stream: Stream,
    file: std::fs::File,
    part: Vec<u8>,
}

impl Source {
    fn new(stream: Stream, fd: OwnedFd) -> Self {
        Self { stream, file: fd.into(), part: Vec::new() }
    }
}

fn copy_lines(mut sources: VecDeque<Source>, tell: &mpsc::Sender<Line>) {
    let mut lost = 0;
    let mut buffer = vec![0_u8; 8192];
    while !sources.is_empty() {
        let mut fds: Vec<_> = sources.iter().map(|source| PollFd::new(source.file.as_fd(), PollFlags::POLLIN)).collect();
        if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(nix::Error::EINTR)) {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        let mut open = VecDeque::new();
        for (mut source, ready) in std::mem::take(&mut sources).into_iter().zip(ready) {
            if !ready {
                open.push_back(source);
                continue;
            }
            let count = source.file.read(&mut buffer).unwrap_or(0);
            source.part.extend_from_slice(buffer.get(..count).unwrap_or_default());
            while let Some(end) = line_end(&source.part, count == 0) {
                let line: Vec<u8> = source.part.drain(..end).collect();
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                match tell.try_send(Line { stream: source.stream, text, lost }) {
                    Ok(()) => lost = 0,
                    Err(_) => lost += 1,
                }
            }
            if count > 0 {
                open.push_back(source);
            }
        }
        sources = open;
    }
}

fn line_end(part: &[u8], is_end: bool) -> Option<usize> {
    let end = part.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    end.or_else(|| ((is_end && !part.is_empty()) || part.len() >= LINE_BYTES_MAX).then_some(part.len()))
}
