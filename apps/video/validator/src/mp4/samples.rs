//! Sample tables: where the pictures and sounds of a track lie in the file, and how long they last.
//!
//! Spec:       ISO/IEC 14496-12 section 8.6.1 (`stts`, `ctts`), 8.7.3 (`stsz`, `stz2`), 8.7.4 (`stsc`), 8.7.5 (`stco`).
//! Guarantees: I10 the tables agree with each other, and every chunk lies inside the media of this file.

use crate::rejection::Rejection;

use super::{
    Extent, MediaData,
    atom::{Atom, be32},
};

/// The most samples of a track: twelve hours at 180 a second.
const SAMPLES_MAX: u64 = 8_000_000;

/// What the tables say.
pub(crate) struct Samples {
    /// Units of time in sum.
    pub(crate) ticks: u64,
}

/// The sizes of samples in bytes.
enum Sizes<'a> {
    Same { size: u32, count: u64 },
    Table { bytes: &'a [u8], bits: u8, count: u64 },
}

impl Sizes<'_> {
    fn count(&self) -> u64 {
        match self {
            Self::Same { count, .. } | Self::Table { count, .. } => *count,
        }
    }

    /// The bytes of `count` samples from number `first`, which lie inside the table.
    fn sum(&self, first: u64, count: u64) -> u64 {
        match self {
            Self::Same { size, .. } => u64::from(*size).saturating_mul(count),
            Self::Table { bytes, bits, .. } => {
                (first..first.saturating_add(count)).map(|index| size_at(bytes, *bits, index)).fold(0, u64::saturating_add)
            }
        }
    }
}

/// One size of a table whose entries have 4, 8, 16 or 32 bits.
fn size_at(bytes: &[u8], bits: u8, index: u64) -> u64 {
    let Ok(index) = usize::try_from(index) else { return 0 };
    let byte = |at: usize| u64::from(bytes.get(at).copied().unwrap_or_default());
    match bits {
        4 if index.is_multiple_of(2) => byte(index / 2) >> 4,
        4 => byte(index / 2) & 15,
        8 => byte(index),
        16 => byte(index * 2) << 8 | byte(index * 2 + 1),
        _ => u64::from(be32(bytes, index * 4)),
    }
}

impl Samples {
    /// Reads the tables of an `stbl`; only in a fragmented film may they be empty.
    pub(crate) fn parse(tables: &[Atom<'_>], media: &MediaData, fragmented: bool) -> Result<Self, Rejection> {
        for (index, atom) in tables.iter().enumerate() {
            match &atom.kind.0 {
                b"stsd" | b"stts" | b"stsc" | b"stsz" | b"stz2" | b"stco" | b"co64" | b"ctts" | b"stss" => {
                    if tables.iter().take(index).any(|other| other.kind == atom.kind) {
                        return Err(Rejection::Duplicate { part: atom.kind.to_string() });
                    }
                }
                b"stps" | b"sdtp" | b"sgpd" | b"sbgp" | b"subs" | b"cslg" | b"stsh" | b"padb" | b"stdp" => (),
                b"uuid" | b"free" | b"skip" => (),
                b"senc" => return Err(Rejection::Encrypted),
                _ => return Err(atom.unknown()),
            }
        }
        let need = |kinds: [&'static [u8; 4]; 2], part: &'static str| {
            let found = tables.iter().find(|atom| kinds.iter().any(|kind| atom.is(kind)));
            found.ok_or(Rejection::NoIndex { part })
        };
        let sizes = sizes(need([b"stsz", b"stz2"], "stsz")?)?;
        if sizes.count() > SAMPLES_MAX {
            return Err(Rejection::malformed("stsz", "there are more than eight million samples"));
        }
        let (timed, ticks) = times(need([b"stts", b"stts"], "stts")?)?;
        if timed != sizes.count() {
            return Err(Rejection::malformed("stts", "it does not time every sample once"));
        }
        bounded(tables, b"ctts", 8, sizes.count())?;
        bounded(tables, b"stss", 4, sizes.count())?;
        let offsets = need([b"stco", b"co64"], "stco")?;
        require_chunks(need([b"stsc", b"stsc"], "stsc")?, offsets, &sizes, media)?;
        if sizes.count() == 0 && !fragmented {
            return Err(Rejection::malformed("stsz", "the track has no samples"));
        }
        Ok(Self { ticks })
    }
}

/// Section 8.7.3.
fn sizes<'a>(atom: &Atom<'a>) -> Result<Sizes<'a>, Rejection> {
    let mut fields = atom.fields();
    fields.version_flags()?;
    let field = fields.u32()?;
    let count = u64::from(fields.u32()?);
    let bits = match (&atom.kind.0, field) {
        (b"stsz", 0) => 32,
        (b"stsz", size) if fields.rest().is_empty() => return Ok(Sizes::Same { size, count }),
        (b"stz2", 4) => 4,
        (b"stz2", 8) => 8,
        (b"stz2", 16) => 16,
        _ => return Err(atom.malformed("its sizes make no sense")),
    };
    let bytes = fields.rest();
    if (count * u64::from(bits)).div_ceil(8) != bytes.len() as u64 {
        return Err(atom.malformed("the number of rows does not match its size"));
    }
    Ok(Sizes::Table { bytes, bits, count })
}

/// Section 8.6.1.2: samples and units of time in sum.
fn times(atom: &Atom<'_>) -> Result<(u64, u64), Rejection> {
    let mut fields = atom.fields();
    fields.version_flags()?;
    let mut sum = (0u64, 0u64);
    for row in fields.table(8)? {
        let (count, delta) = (u64::from(be32(row, 0)), u64::from(be32(row, 4)));
        sum = (sum.0.saturating_add(count), sum.1.saturating_add(count.saturating_mul(delta)));
    }
    Ok(sum)
}

/// A table, if it is there, with no more rows than there are samples.
fn bounded(tables: &[Atom<'_>], kind: &[u8; 4], row: usize, samples: u64) -> Result<(), Rejection> {
    let Some(atom) = tables.iter().find(|atom| atom.is(kind)) else { return Ok(()) };
    let mut fields = atom.fields();
    fields.version_flags()?;
    let rows = fields.table(row)?;
    let named: u64 = if row == 8 { rows.map(|row| u64::from(be32(row, 0))).sum() } else { rows.len() as u64 };
    if named > samples { Err(atom.malformed("it names more samples than there are")) } else { Ok(()) }
}

/// Sections 8.7.4 and 8.7.5: each chunk, with the bytes of its samples in sum, lies inside the media of the file.
///
/// Nothing is kept: a table of millions of chunks must not become a list of millions of extents.
fn require_chunks(stsc: &Atom<'_>, offsets: &Atom<'_>, sizes: &Sizes<'_>, media: &MediaData) -> Result<(), Rejection> {
    let mut fields = offsets.fields();
    fields.version_flags()?;
    let wide = offsets.is(b"co64");
    let mut rows = fields.table(if wide { 8 } else { 4 })?;
    let total = rows.len() as u64;
    let mut fields = stsc.fields();
    fields.version_flags()?;
    let mut runs = fields.table(12)?.peekable();
    let (mut sample, mut seen, mut expected) = (0u64, 0u64, 1u64);
    while let Some(run) = runs.next() {
        let (first, per_chunk) = (u64::from(be32(run, 0)), u64::from(be32(run, 4)));
        let next = runs.peek().map_or(total.saturating_add(1), |run| u64::from(be32(run, 0)));
        if first != expected || per_chunk == 0 || next <= first || next > total.saturating_add(1) {
            return Err(stsc.malformed("its chunks are out of order"));
        }
        for _ in first..next {
            let Some(row) = rows.next() else { break };
            if sizes.count().saturating_sub(sample) < per_chunk {
                return Err(stsc.malformed("it names more samples than there are"));
            }
            let low = u64::from(be32(row, 0));
            let start = if wide { low << 32 | u64::from(be32(row, 4)) } else { low };
            media.require(Extent { start, len: sizes.sum(sample, per_chunk) })?;
            seen += 1;
            sample = sample.saturating_add(per_chunk);
        }
        expected = next;
    }
    if sample == sizes.count() && seen == total { Ok(()) } else { Err(stsc.malformed("not every sample has its chunk")) }
}
