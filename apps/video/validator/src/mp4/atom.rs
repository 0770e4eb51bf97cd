//! Boxes of an MP4 file and the fields inside them.
//!
//! Spec:       ISO/IEC 14496-12 section 4.2 (box header), 4.2.2 (full box).
//! Guarantees: no arithmetic that can wrap, no index that can miss; every box is counted against a budget.

use crate::{fourcc::FourCc, rejection::Rejection};

/// The most boxes outside of fragments.
pub(crate) const BOXES_MAX: u32 = 10_000;
/// The deepest nesting.
pub(crate) const DEPTH_MAX: u32 = 16;

/// The header of a box.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: FourCc,
    /// Bytes of the header itself.
    pub(crate) head: u64,
    /// Bytes of the box, header included.
    pub(crate) size: u64,
}

impl Header {
    /// Reads a header from its first 16 bytes (fewer at the end of the room).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let cut_off = || Rejection::Truncated { part: String::from("box header"), missing: 8 };
        let mut fields = Fields::new(FourCc(*b"????"), bytes);
        let short = fields.u32().map_err(|_| cut_off())?;
        let kind = FourCc(fields.array().map_err(|_| cut_off())?);
        let (head, size) = match short {
            0 => return Err(Rejection::UnknownSize { part: kind.to_string() }),
            1 => (16, fields.u64().map_err(|_| cut_off())?),
            size => (8, u64::from(size)),
        };
        if size < head {
            return Err(Rejection::malformed(kind, "the size is smaller than its own header"));
        }
        if size > i64::MAX as u64 {
            return Err(Rejection::malformed(kind, "the size is larger than any file"));
        }
        Ok(Self { kind, head, size })
    }
}

/// A box in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Atom<'a> {
    pub(crate) kind: FourCc,
    pub(crate) body: &'a [u8],
}

impl<'a> Atom<'a> {
    pub(crate) fn fields(&self) -> Fields<'a> {
        Fields::new(self.kind, self.body)
    }

    pub(crate) fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind.0 == *kind
    }

    pub(crate) fn malformed(&self, problem: &'static str) -> Rejection {
        Rejection::malformed(self.kind, problem)
    }

    pub(crate) fn unknown(&self) -> Rejection {
        Rejection::UnknownPart { part: self.kind.to_string() }
    }
}

/// How many boxes may still come, and how deep.
pub(crate) struct Budget {
    left: u32,
    limit: u32,
}

impl Budget {
    pub(crate) fn new(limit: u32) -> Self {
        Self { left: limit, limit }
    }

    pub(crate) fn spend(&mut self) -> Result<(), Rejection> {
        self.left = self.left.checked_sub(1).ok_or(Rejection::TooManyParts { limit: self.limit })?;
        Ok(())
    }

    /// The boxes inside of a box, at this depth.
    pub(crate) fn children<'a>(&mut self, parent: FourCc, body: &'a [u8], depth: u32) -> Result<Vec<Atom<'a>>, Rejection> {
        self.boxes(parent, body, depth, &[])
    }

    /// The same where QuickTime writers end the list with four zero bytes.
    pub(crate) fn children_zero_ended<'a>(&mut self, parent: FourCc, body: &'a [u8], depth: u32) -> Result<Vec<Atom<'a>>, Rejection> {
        self.boxes(parent, body, depth, &[0; 4])
    }

    fn boxes<'a>(&mut self, parent: FourCc, body: &'a [u8], depth: u32, end: &[u8]) -> Result<Vec<Atom<'a>>, Rejection> {
        if depth > DEPTH_MAX {
            return Err(Rejection::TooDeep { limit: DEPTH_MAX });
        }
        let mut found = Vec::new();
        let mut rest = body;
        while !rest.is_empty() && rest != end {
            self.spend()?;
            let inside = |_| Rejection::malformed(parent, "something is left over that is no part");
            let header = Header::parse(rest).map_err(|fault| match fault {
                Rejection::Truncated { .. } => inside(()),
                other => other,
            })?;
            let too_large = || Rejection::malformed(parent, "a part inside is larger than the part around it");
            let size = usize::try_from(header.size).map_err(|_| too_large())?;
            let (whole, after) = rest.split_at_checked(size).ok_or_else(too_large)?;
            let head = usize::try_from(header.head).unwrap_or(usize::MAX);
            found.push(Atom { kind: header.kind, body: whole.get(head..).unwrap_or_default() });
            rest = after;
        }
        Ok(found)
    }

    /// Counts boxes of metadata that nobody here reads, as deep as they go.
    pub(crate) fn count_metadata(&mut self, atom: &Atom<'_>, depth: u32) -> Result<(), Rejection> {
        let body = match &atom.kind.0 {
            // ISO `meta` is a full box, QuickTime's is not.
            b"meta" if atom.body.get(4..8) != Some(b"hdlr") => atom.body.get(4..).unwrap_or_default(),
            b"udta" | b"meta" | b"ilst" => atom.body,
            _ => return Ok(()),
        };
        for child in self.children_zero_ended(atom.kind, body, depth)? {
            self.count_metadata(&child, depth + 1)?;
        }
        Ok(())
    }
}

/// Fields of a box, read in order.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    part: FourCc,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(part: FourCc, rest: &'a [u8]) -> Self {
        Self { part, rest }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Rejection> {
        let short = || Rejection::malformed(self.part, "it ends too early");
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Rejection> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Rejection> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Rejection> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub(crate) fn version_flags(&mut self) -> Result<(u8, u32), Rejection> {
        let [version, a, b, c] = self.array()?;
        Ok((version, u32::from_be_bytes([0, a, b, c])))
    }

    /// A number of 32 bits, or 64 in a version 1 box.
    pub(crate) fn wide(&mut self, version: u8) -> Result<u64, Rejection> {
        if version == 1 { self.u64() } else { self.u32().map(u64::from) }
    }

    /// A counted table that fills the rest of the box exactly: the rows, each `row` bytes.
    pub(crate) fn table(&mut self, row: usize) -> Result<std::slice::ChunksExact<'a, u8>, Rejection> {
        let rows = self.u32()?;
        let wrong = || Rejection::malformed(self.part, "the number of rows does not match its size");
        let bytes = usize::try_from(rows).ok().and_then(|rows| rows.checked_mul(row)).ok_or_else(wrong)?;
        if bytes == self.rest.len() { Ok(self.rest.chunks_exact(row)) } else { Err(wrong()) }
    }
}

/// A 32-bit number at the beginning of a row; rows are cut to size before.
pub(crate) fn be32(row: &[u8], at: usize) -> u32 {
    let bytes = row.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
