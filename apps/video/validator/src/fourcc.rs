//! Four-character codes, the names of MP4 boxes, brands and codecs.
//!
//! Spec: ISO/IEC 14496-12 section 4.2.

use std::fmt;

/// A four-character code; shown as text if it is printable, else as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            self.0.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
        } else {
            write!(f, "0x{:08x}", u32::from_be_bytes(self.0))
        }
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{self}'")
    }
}
