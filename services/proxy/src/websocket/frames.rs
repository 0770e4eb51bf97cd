//! Following the frames of one direction of a WebSocket as its bytes go by, to know where a Close can be put between two of them.
//!
//! Nothing is held back or unmasked; ten bytes of a header are all that is kept. What cannot be a frame breaks the tunnel.
//!
//! Spec: RFC 6455 sections 5.2 (base framing), 5.5.1 (Close).

use std::io;

use bytes::Bytes;

/// A header without its mask has at most ten bytes.
const HEADER_BYTES_MAX: usize = 10;
const OPCODE_CLOSE: u8 = 0x8;

/// Where a direction is among its frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    /// Bytes of the present frame's payload (and mask) that have not come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Takes note of bytes.
    ///
    /// # Errors
    /// `InvalidData` for a reserved opcode or a length that no frame has.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(now..).unwrap_or_default();
                self.left = self.left.saturating_sub(now as u64);
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.header.push(*first);
            self.read_header()?;
        }
        Ok(())
    }

    /// Reads the header once it is whole.
    fn read_header(&mut self) -> io::Result<()> {
        let (&[first, second, ref extended @ ..], malformed) = (&*self.header, || io::Error::from(io::ErrorKind::InvalidData)) else {
            return Ok(());
        };
        let (opcode, mask) = (first & 0x0f, if second & 0x80 == 0 { 0 } else { 4 });
        if matches!(opcode, 0x3..=0x7 | 0xb..=0xf) || self.header.len() > HEADER_BYTES_MAX {
            return Err(malformed());
        }
        let length = match (second & 0x7f, extended) {
            (126, &[high, low]) => u64::from(u16::from_be_bytes([high, low])),
            (127, extended) if extended.len() == 8 => {
                let bytes: [u8; 8] = extended.try_into().map_err(|_| malformed())?;
                // The most significant bit is zero (section 5.2).
                u64::from_be_bytes(bytes)
                    .checked_add(mask)
                    .filter(|length| *length <= i64::MAX as u64)
                    .ok_or_else(malformed)?
                    .saturating_sub(mask)
            }
            (126 | 127, _) => return Ok(()),
            (length, _) => u64::from(length),
        };
        self.left = length.saturating_add(mask);
        self.closed = self.closed || opcode == OPCODE_CLOSE;
        self.header.clear();
        Ok(())
    }

    /// Whether what has gone by ends with a whole frame.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }

    /// Whether a Close can be said now: between frames, and none was said.
    pub(crate) fn takes_close(&self) -> bool {
        self.is_between() && !self.closed
    }

    /// A Close frame of a server, with that status.
    pub(crate) fn close(status: u16) -> Bytes {
        let [high, low] = status.to_be_bytes();
        Bytes::copy_from_slice(&[0x80 | OPCODE_CLOSE, 2, high, low])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![7; if masked { 4 } else { 0 }]);
        bytes.extend(vec![1; length]);
        bytes
    }

    #[test]
    fn every_boundary_is_found_however_the_bytes_are_cut() {
        let frames: Vec<Vec<u8>> =
            [0, 1, 125, 126, 127, 65_535, 65_536].into_iter().flat_map(|n| [frame(2, n, false), frame(1, n, true)]).collect();
        let (whole, mut ends, mut at) = (frames.concat(), vec![0], 0);
        for one in &frames {
            at += one.len();
            ends.push(at);
        }
        for step in [1, 2, 3, 7, 1000, whole.len()] {
            let (mut follower, mut gone) = (Frames::default(), 0);
            for piece in whole.chunks(step) {
                follower.follow(piece).unwrap();
                gone += piece.len();
                assert_eq!(follower.is_between(), ends.contains(&gone), "after {gone} bytes in steps of {step}");
            }
        }
    }

    #[test]
    fn after_a_close_none_is_added_and_what_is_no_frame_breaks() {
        let mut follower = Frames::default();
        follower.follow(&frame(OPCODE_CLOSE, 2, false)).unwrap();
        assert!(follower.is_between() && !follower.takes_close());
        assert!(Frames::default().follow(&[0x83, 0]).is_err(), "opcode 3 is reserved");
        assert!(Frames::default().follow(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]).is_err(), "the length has its highest bit set");
        let mut ours = Frames::default();
        ours.follow(&Frames::close(1001)).unwrap();
        assert!(ours.is_between());
    }
}
