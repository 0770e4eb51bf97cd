//! Fragments: a film whose index comes in pieces, as browsers and cameras record it.
//!
//! Spec:       ISO/IEC 14496-12 section 8.8 (`moof`, `traf`, `tfhd`, `trun`).
//! Guarantees: I10 every run of samples lies inside the media of this file; pieces and their parts are counted.

use std::collections::BTreeMap;

use crate::{fourcc::FourCc, rejection::Rejection};

use super::{
    Extent, FRAGMENTS_MAX, MediaData,
    atom::{Atom, BOXES_MAX, Budget, be32},
    movie::{Defaults, defaults},
};

/// The most boxes of one fragment.
const PARTS_MAX: u32 = 64;
/// The most samples of a run.
const RUN_MAX: u32 = 1_000_000;

/// What the fragments seen so far say.
#[derive(Default)]
pub(crate) struct Fragments {
    count: u32,
    beside: u32,
    defaults: Option<Vec<Defaults>>,
    runs: Vec<Extent>,
    ticks: BTreeMap<u32, u64>,
}

/// What a `tfhd` says.
struct TrackHead {
    track: u32,
    base: u64,
    duration: u32,
    size: u32,
}

impl Fragments {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Units of time of a track in sum.
    pub(crate) fn ticks(&self, track: u32) -> u64 {
        self.ticks.get(&track).copied().unwrap_or_default()
    }

    pub(crate) fn require_inside(&self, media: &MediaData) -> Result<(), Rejection> {
        self.runs.iter().try_for_each(|run| media.require(*run))
    }

    /// Counts a box beside the fragments' own: their media and segment marks.
    pub(crate) fn spend_media(&mut self) -> Result<(), Rejection> {
        self.beside += 1;
        let limit = FRAGMENTS_MAX * 3;
        if self.beside > limit { Err(Rejection::TooManyParts { limit }) } else { Ok(()) }
    }

    /// Reads a `moof` that begins at `offset`.
    pub(crate) fn add(&mut self, moov: &[u8], offset: u64, moof: &[u8]) -> Result<(), Rejection> {
        self.count += 1;
        if self.count > FRAGMENTS_MAX {
            return Err(Rejection::TooManyParts { limit: FRAGMENTS_MAX });
        }
        let defaults = match self.defaults.take() {
            Some(found) => found,
            None => fragment_defaults(moov)?,
        };
        let mut budget = Budget::new(PARTS_MAX);
        for atom in budget.children(FourCc(*b"moof"), moof, 1)? {
            match &atom.kind.0 {
                b"mfhd" | b"free" | b"uuid" => (),
                b"traf" => self.track(&atom, &mut budget, offset, &defaults)?,
                b"pssh" => return Err(Rejection::Encrypted),
                _ => return Err(atom.unknown()),
            }
        }
        self.defaults = Some(defaults);
        Ok(())
    }

    fn track(&mut self, traf: &Atom<'_>, budget: &mut Budget, moof: u64, defaults: &[Defaults]) -> Result<(), Rejection> {
        let children = budget.children(traf.kind, traf.body, 2)?;
        let head = children.iter().find(|atom| atom.is(b"tfhd")).ok_or(Rejection::NoIndex { part: "tfhd" })?;
        let head = track_head(head, moof, defaults)?;
        let mut next = head.base;
        for atom in &children {
            match &atom.kind.0 {
                b"trun" => next = self.run(atom, &head, next)?,
                b"tfhd" | b"tfdt" | b"sdtp" | b"sbgp" | b"sgpd" | b"subs" | b"uuid" | b"free" => (),
                b"senc" | b"saiz" | b"saio" => return Err(Rejection::Encrypted),
                _ => return Err(atom.unknown()),
            }
        }
        Ok(())
    }

    /// Section 8.8.8; gives back where the next run begins if it does not say so itself.
    fn run(&mut self, trun: &Atom<'_>, head: &TrackHead, next: u64) -> Result<u64, Rejection> {
        let mut fields = trun.fields();
        let (_, flags) = fields.version_flags()?;
        let count = fields.u32()?;
        if count > RUN_MAX {
            return Err(trun.malformed("there are more than a million samples"));
        }
        let start = if flags & 1 == 0 {
            next
        } else {
            let offset = i64::from(i32::from_be_bytes(fields.array()?));
            head.base.checked_add_signed(offset).ok_or(Rejection::SamplesOutside)?
        };
        if flags & 4 != 0 {
            fields.u32()?;
        }
        let has = |flag: u32| flags & flag != 0;
        let row = 4 * [0x100, 0x200, 0x400, 0x800].iter().filter(|flag| has(**flag)).count();
        let rows = fields.rest();
        let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(row));
        if expected != Some(rows.len()) {
            return Err(trun.malformed("the number of rows does not match its size"));
        }
        let (mut bytes, mut ticks) = (0u64, 0u64);
        let size_at = if has(0x100) { 4 } else { 0 };
        if row > 0 {
            for row in rows.chunks_exact(row) {
                let duration = if has(0x100) { be32(row, 0) } else { head.duration };
                let size = if has(0x200) { be32(row, size_at) } else { head.size };
                (bytes, ticks) = (bytes.saturating_add(u64::from(size)), ticks.saturating_add(u64::from(duration)));
            }
        } else {
            bytes = u64::from(count) * u64::from(head.size);
            ticks = u64::from(count) * u64::from(head.duration);
        }
        self.runs.push(Extent { start, len: bytes });
        let sum = self.ticks.entry(head.track).or_default();
        *sum = sum.saturating_add(ticks);
        start.checked_add(bytes).ok_or(Rejection::SamplesOutside)
    }
}

/// The `trex` boxes of the film, without which it has no fragments.
fn fragment_defaults(moov: &[u8]) -> Result<Vec<Defaults>, Rejection> {
    let mut budget = Budget::new(BOXES_MAX);
    let children = budget.children(FourCc(*b"moov"), moov, 1)?;
    let mvex = children.iter().find(|atom| atom.is(b"mvex")).ok_or(Rejection::NoIndex { part: "mvex" })?;
    defaults(mvex.body, &mut budget)
}

/// Section 8.8.7.
fn track_head(atom: &Atom<'_>, moof: u64, defaults: &[Defaults]) -> Result<TrackHead, Rejection> {
    let mut fields = atom.fields();
    let (_, flags) = fields.version_flags()?;
    let track = fields.u32()?;
    let wrong = || atom.malformed("it belongs to no track");
    let default = defaults.iter().find(|default| default.track == track).ok_or_else(wrong)?;
    let mut head = TrackHead { track, base: moof, duration: default.duration, size: default.size };
    if flags & 0x1 != 0 {
        head.base = fields.u64()?;
    }
    if flags & 0x2 != 0 {
        fields.u32()?;
    }
    if flags & 0x8 != 0 {
        head.duration = fields.u32()?;
    }
    if flags & 0x10 != 0 {
        head.size = fields.u32()?;
    }
    if flags & 0x20 != 0 {
        fields.u32()?;
    }
    if fields.rest().is_empty() { Ok(head) } else { Err(atom.malformed("something is left over")) }
}
