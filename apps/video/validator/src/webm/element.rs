//! Elements of EBML: identifiers, sizes, and values.
//!
//! Spec:       RFC 8794 section 4 (variable-size integers), 5 (identifiers), 6 (sizes), 7 (types).
//! Guarantees: no arithmetic that can wrap, no index that can miss; every element is counted against a budget.

use std::fmt;

use crate::rejection::Rejection;

/// The deepest nesting.
pub(crate) const DEPTH_MAX: u32 = 8;

/// An element's identifier, its length marker included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(*self) {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:X}", self.0),
        }
    }
}

macro_rules! ids {
    ($($name:ident = $id:literal,)*) => {
        $(pub(crate) const $name: Id = Id($id);)*
    };
}

// RFC 8794 section 11.2 and RFC 9559 section 5.1.
ids! {
    EBML = 0x1A45_DFA3, EBML_READ_VERSION = 0x42F7, EBML_MAX_ID = 0x42F2, EBML_MAX_SIZE = 0x42F3, DOC_TYPE = 0x4282,
    DOC_TYPE_READ_VERSION = 0x4285, VOID = 0xEC, CRC32 = 0xBF,
    SEGMENT = 0x1853_8067, SEEK_HEAD = 0x114D_9B74, SEEK = 0x4DBB, INFO = 0x1549_A966, TRACKS = 0x1654_AE6B,
    CLUSTER = 0x1F43_B675, CUES = 0x1C53_BB6B, CHAPTERS = 0x1043_A770, TAGS = 0x1254_C367, ATTACHMENTS = 0x1941_A469,
    TIMESTAMP_SCALE = 0x002A_D7B1, DURATION = 0x4489, PREV_UUID = 0x003C_B923, PREV_FILE = 0x003C_83AB,
    NEXT_UUID = 0x003E_B923, NEXT_FILE = 0x003E_83BB, CHAPTER_SEGMENT = 0x6E67, CHAPTER_EDITION = 0x6EBC,
    TRACK_ENTRY = 0xAE, TRACK_NUMBER = 0xD7, TRACK_TYPE = 0x83, CODEC_ID = 0x86, VIDEO = 0xE0, AUDIO = 0xE1,
    PIXEL_WIDTH = 0xB0, PIXEL_HEIGHT = 0xBA, CONTENT_ENCODINGS = 0x6D80, CONTENT_ENCODING = 0x6240,
    CONTENT_COMPRESSION = 0x5034, CONTENT_COMPRESSION_ALGORITHM = 0x4254, CONTENT_ENCODING_TYPE = 0x5033,
    CONTENT_ENCRYPTION = 0x5035, TRACK_OPERATION = 0xE2, COLOUR = 0x55B0, MASTERING = 0x55D0, PROJECTION = 0x7670,
    BLOCK_ADDITION_MAPPING = 0x41E4,
    TIMESTAMP = 0xE7, SIMPLE_BLOCK = 0xA3, BLOCK_GROUP = 0xA0, BLOCK = 0xA1, POSITION = 0xA7, PREV_SIZE = 0xAB,
    SILENT_TRACKS = 0x5854, ENCRYPTED_BLOCK = 0xAF,
    CUE_POINT = 0xBB, CUE_TRACK_POSITIONS = 0xB7, CUE_REFERENCE = 0xDB,
    TAG = 0x7373, TAG_TARGETS = 0x63C0, SIMPLE_TAG = 0x67C8,
    EDITION = 0x45B9, CHAPTER_ATOM = 0xB6, CHAPTER_DISPLAY = 0x80, CHAPTER_TRACK = 0x8F, CHAPTER_PROCESS = 0x6944,
}

/// Elements that contain elements, below the segment's own children.
const MASTERS: [Id; 24] = [
    SEEK,
    TRACK_ENTRY,
    VIDEO,
    AUDIO,
    CONTENT_ENCODINGS,
    CONTENT_ENCODING,
    CONTENT_COMPRESSION,
    CONTENT_ENCRYPTION,
    TRACK_OPERATION,
    COLOUR,
    MASTERING,
    PROJECTION,
    BLOCK_ADDITION_MAPPING,
    CUE_POINT,
    CUE_TRACK_POSITIONS,
    CUE_REFERENCE,
    TAG,
    TAG_TARGETS,
    SIMPLE_TAG,
    EDITION,
    CHAPTER_ATOM,
    CHAPTER_DISPLAY,
    CHAPTER_TRACK,
    CHAPTER_PROCESS,
];

/// The names of the parts that messages speak of.
fn name(id: Id) -> Option<&'static str> {
    Some(match id {
        EBML => "EBML header",
        SEGMENT => "Segment",
        SEEK_HEAD => "SeekHead",
        INFO => "Info",
        TRACKS => "Tracks",
        TRACK_ENTRY => "TrackEntry",
        CLUSTER => "Cluster",
        CUES => "Cues",
        CHAPTERS => "Chapters",
        TAGS => "Tags",
        ATTACHMENTS => "Attachments",
        VOID => "Void",
        SIMPLE_BLOCK => "SimpleBlock",
        BLOCK_GROUP => "BlockGroup",
        DURATION => "Duration",
        TIMESTAMP => "Timestamp",
        _ => return None,
    })
}

/// The head of an element.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) id: Id,
    /// Bytes of the head itself.
    pub(crate) len: usize,
    /// Bytes of the content, if the element says so.
    pub(crate) size: Option<u64>,
}

impl Head {
    /// The most bytes of a head.
    pub(crate) const BYTES_MAX: usize = 12;

    /// Reads a head; nothing if the bytes end within it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, Rejection> {
        let bad = |problem| Rejection::malformed("EBML element", problem);
        let Some((id, id_len)) = variable(bytes, 4, false).ok_or_else(|| bad("an identifier is too long"))? else {
            return Ok(None);
        };
        let id = Id(u32::try_from(id).map_err(|_| bad("an identifier is too long"))?);
        let rest = bytes.get(id_len..).unwrap_or_default();
        let Some((size, size_len)) = variable(rest, 8, true).ok_or_else(|| bad("a size is too long"))? else {
            return Ok(None);
        };
        // All bits of the value set: the size is not known (RFC 8794 section 6.2).
        let unknown = size == (1u64 << (7 * size_len)) - 1;
        Ok(Some(Self { id, len: id_len + size_len, size: (!unknown).then_some(size) }))
    }
}

/// A variable-size integer of at most `max` bytes: `None` if longer, `Some(None)` if the bytes end before.
#[expect(clippy::option_option, reason = "too long and not yet all there are different answers")]
fn variable(bytes: &[u8], max: usize, strip: bool) -> Option<Option<(u64, usize)>> {
    let Some(first) = bytes.first() else { return Some(None) };
    let len = first.leading_zeros() as usize + 1;
    if len > max {
        return None;
    }
    let Some(whole) = bytes.get(..len) else { return Some(None) };
    let value = whole.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    Some(Some((if strip { value & ((1u64 << (7 * len)) - 1) } else { value }, len)))
}

/// An element in memory.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) id: Id,
    pub(crate) body: &'a [u8],
}

impl<'a> Element<'a> {
    pub(crate) fn malformed(&self, problem: &'static str) -> Rejection {
        Rejection::malformed(self.id, problem)
    }

    /// RFC 8794 section 7.2.
    pub(crate) fn unsigned(&self) -> Result<u64, Rejection> {
        if self.body.len() > 8 {
            return Err(self.malformed("a number is too long"));
        }
        Ok(self.body.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// RFC 8794 section 7.3.
    pub(crate) fn float(&self) -> Result<f64, Rejection> {
        if let Some(bytes) = self.body.first_chunk::<8>().filter(|_| self.body.len() == 8) {
            return Ok(f64::from_be_bytes(*bytes));
        }
        match self.body.first_chunk::<4>().filter(|_| self.body.len() == 4) {
            Some(bytes) => Ok(f64::from(f32::from_be_bytes(*bytes))),
            None if self.body.is_empty() => Ok(0.0),
            None => Err(self.malformed("a number has the wrong length")),
        }
    }

    /// RFC 8794 section 7.4: printable ASCII, zero bytes at the end do not count.
    pub(crate) fn text(&self) -> Result<&'a str, Rejection> {
        let end = self.body.iter().position(|byte| *byte == 0).unwrap_or(self.body.len());
        let text = std::str::from_utf8(self.body.get(..end).unwrap_or_default());
        match text {
            Ok(text) if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text),
            _ => Err(self.malformed("a name is unreadable")),
        }
    }
}

/// How many elements may still come.
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

    /// The elements inside of one.
    pub(crate) fn children<'a>(&mut self, parent: Id, body: &'a [u8]) -> Result<Vec<Element<'a>>, Rejection> {
        let mut found = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            self.spend()?;
            let left_over = || Rejection::malformed(parent, "something is left over that is no part");
            let head = Head::parse(rest)?.ok_or_else(left_over)?;
            let size = head.size.ok_or_else(|| Rejection::UnknownSize { part: head.id.to_string() })?;
            let too_large = || Rejection::malformed(parent, "a part inside is larger than the part around it");
            let size = usize::try_from(size).map_err(|_| too_large())?;
            let content = rest.get(head.len..).unwrap_or_default();
            let (body, after) = content.split_at_checked(size).ok_or_else(too_large)?;
            found.push(Element { id: head.id, body });
            rest = after;
        }
        Ok(found)
    }

    /// Walks all elements inside of one and shows each to `see`.
    pub(crate) fn walk(
        &mut self,
        parent: Id,
        body: &[u8],
        depth: u32,
        see: &mut dyn FnMut(Id, &Element<'_>) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        if depth > DEPTH_MAX {
            return Err(Rejection::TooDeep { limit: DEPTH_MAX });
        }
        for element in self.children(parent, body)? {
            see(parent, &element)?;
            if MASTERS.contains(&element.id) {
                self.walk(element.id, element.body, depth + 1, see)?;
            }
        }
        Ok(())
    }
}
