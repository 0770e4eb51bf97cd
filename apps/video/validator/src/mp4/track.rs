//! `trak`: one track of a film.
//!
//! Spec:       ISO/IEC 14496-12 section 8.3 (`trak`, `tkhd`), 8.4 (`mdia`), 8.5 (`stsd`), 8.7 (`dref`).
//! Guarantees: I10 media only from this very file, only listed codecs, no protection.

use std::num::NonZeroU32;

use crate::{fourcc::FourCc, rejection::Rejection};

use super::{
    MediaData,
    atom::{Atom, Budget},
    samples::Samples,
};

/// Codecs of pictures.
const VIDEO: [&[u8; 4]; 10] = [b"avc1", b"avc3", b"hev1", b"hvc1", b"av01", b"vp08", b"vp09", b"mp4v", b"dvh1", b"dvhe"];
/// Codecs of sound.
const AUDIO: [&[u8; 4]; 7] = [b"mp4a", b"Opus", b"fLaC", b"alac", b"ac-3", b"ec-3", b".mp3"];
/// What a track may be for, beside pictures and sound; such tracks are never decoded.
const OTHER: [&[u8; 4]; 8] = [b"meta", b"tmcd", b"text", b"sbtl", b"subt", b"clcp", b"camm", b"mdta"];

/// One track.
pub(crate) struct Track {
    pub(crate) id: u32,
    handler: FourCc,
    pub(crate) codec: FourCc,
    /// As shown: a picture that is to be turned counts as turned.
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) timescale: NonZeroU32,
    pub(crate) samples: Samples,
}

/// What a sample description says.
struct Description {
    codec: FourCc,
    width: u32,
    height: u32,
}

impl Track {
    pub(crate) fn is_video(&self) -> bool {
        self.handler.0 == *b"vide"
    }

    pub(crate) fn parse(trak: &Atom<'_>, budget: &mut Budget, media: &MediaData, fragmented: bool) -> Result<Self, Rejection> {
        let (mut head, mut mdia) = (None, None);
        for atom in budget.children(trak.kind, trak.body, 2)? {
            match &atom.kind.0 {
                b"tkhd" => once(&mut head, &atom)?,
                b"mdia" => once(&mut mdia, &atom)?,
                b"edts" => edits(&atom, budget)?,
                b"udta" | b"meta" => budget.count_metadata(&atom, 3)?,
                b"tref" | b"tapt" | b"uuid" | b"free" | b"skip" | b"load" => (),
                _ => return Err(atom.unknown()),
            }
        }
        let (id, turned) = track_header(&head.ok_or(Rejection::NoIndex { part: "tkhd" })?)?;
        let mdia = mdia.ok_or(Rejection::NoIndex { part: "mdia" })?;
        let (mut clock, mut handler, mut minf) = (None, None, None);
        for atom in budget.children(mdia.kind, mdia.body, 3)? {
            match &atom.kind.0 {
                b"mdhd" => once(&mut clock, &atom)?,
                b"hdlr" => once(&mut handler, &atom)?,
                b"minf" => once(&mut minf, &atom)?,
                b"elng" | b"udta" | b"uuid" | b"free" => (),
                _ => return Err(atom.unknown()),
            }
        }
        let timescale = media_header(&clock.ok_or(Rejection::NoIndex { part: "mdhd" })?)?;
        let handler = handler_kind(&handler.ok_or(Rejection::NoIndex { part: "hdlr" })?)?;
        let minf = minf.ok_or(Rejection::NoIndex { part: "minf" })?;
        let (mut dinf, mut stbl) = (None, None);
        for atom in budget.children(minf.kind, minf.body, 4)? {
            match &atom.kind.0 {
                b"dinf" => once(&mut dinf, &atom)?,
                b"stbl" => once(&mut stbl, &atom)?,
                b"vmhd" | b"smhd" | b"nmhd" | b"hmhd" | b"sthd" | b"gmhd" | b"gmin" | b"hdlr" | b"uuid" | b"free" => (),
                _ => return Err(atom.unknown()),
            }
        }
        let sources = data_references(&dinf.ok_or(Rejection::NoIndex { part: "dinf" })?, budget)?;
        let stbl = stbl.ok_or(Rejection::NoIndex { part: "stbl" })?;
        let tables = budget.children(stbl.kind, stbl.body, 5)?;
        let stsd = tables.iter().find(|atom| atom.is(b"stsd")).ok_or(Rejection::NoIndex { part: "stsd" })?;
        let description = descriptions(stsd, budget, handler, sources)?;
        let (width, height) = (description.width, description.height);
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let samples = Samples::parse(&tables, media, fragmented)?;
        Ok(Self { id, handler, codec: description.codec, width, height, timescale, samples })
    }
}

/// Keeps a box that may come once.
fn once<'a>(place: &mut Option<Atom<'a>>, atom: &Atom<'a>) -> Result<(), Rejection> {
    match place.replace(*atom) {
        None => Ok(()),
        Some(_) => Err(Rejection::Duplicate { part: atom.kind.to_string() }),
    }
}

/// Section 8.3.2: the track's number, and whether its matrix turns the picture by a quarter.
fn track_header(atom: &Atom<'_>) -> Result<(u32, bool), Rejection> {
    let mut fields = atom.fields();
    let (version, _) = fields.version_flags()?;
    fields.wide(version)?;
    fields.wide(version)?;
    let id = fields.u32()?;
    fields.u32()?;
    fields.wide(version)?;
    // Reserved, layer, group, volume, reserved: 16 bytes.
    fields.take(16)?;
    let (a, b) = (fields.u32()?, fields.u32()?);
    fields.u32()?;
    let (c, d) = (fields.u32()?, fields.u32()?);
    // The rest of the matrix, then width and height.
    fields.take(16)?;
    fields.take(8)?;
    if id == 0 {
        return Err(atom.malformed("the track has no number"));
    }
    Ok((id, a == 0 && d == 0 && b != 0 && c != 0))
}

/// Section 8.4.2: units of time in a second.
fn media_header(atom: &Atom<'_>) -> Result<NonZeroU32, Rejection> {
    let mut fields = atom.fields();
    let (version, _) = fields.version_flags()?;
    fields.wide(version)?;
    fields.wide(version)?;
    let timescale = NonZeroU32::new(fields.u32()?).ok_or_else(|| atom.malformed("the clock stands still"))?;
    fields.wide(version)?;
    Ok(timescale)
}

/// Section 8.4.3.
fn handler_kind(atom: &Atom<'_>) -> Result<FourCc, Rejection> {
    let mut fields = atom.fields();
    fields.version_flags()?;
    fields.u32()?;
    let handler = FourCc(fields.array()?);
    let known = handler.0 == *b"vide" || handler.0 == *b"soun" || OTHER.contains(&&handler.0);
    if known { Ok(handler) } else { Err(Rejection::malformed("hdlr", "the track is of an unknown kind")) }
}

/// Section 8.6.6.
fn edits(edts: &Atom<'_>, budget: &mut Budget) -> Result<(), Rejection> {
    for atom in budget.children(edts.kind, edts.body, 3)? {
        if !atom.is(b"elst") {
            return Err(atom.unknown());
        }
        let mut fields = atom.fields();
        let (version, _) = fields.version_flags()?;
        let rows = fields.table(if version == 1 { 20 } else { 12 })?.len();
        if rows > 1000 {
            return Err(atom.malformed("there are more than 1,000 cuts"));
        }
    }
    Ok(())
}

/// Section 8.7.2: every source must be this file; gives back how many there are.
fn data_references(dinf: &Atom<'_>, budget: &mut Budget) -> Result<u32, Rejection> {
    let children = budget.children(dinf.kind, dinf.body, 5)?;
    let [dref] = children.as_slice() else { return Err(dinf.malformed("it should hold one list of sources")) };
    if !dref.is(b"dref") {
        return Err(dref.unknown());
    }
    let mut fields = dref.fields();
    fields.version_flags()?;
    let said = fields.u32()?;
    let entries = budget.children(dref.kind, fields.rest(), 6)?;
    for entry in &entries {
        let (_, flags) = entry.fields().version_flags()?;
        // Flag 1: the media is in this file. With a location behind it, it is not to be believed.
        if !entry.is(b"url ") || flags != 1 || entry.body.len() > 4 {
            return Err(Rejection::ExternalMedia);
        }
    }
    if said == 0 || u32::try_from(entries.len()) != Ok(said) {
        return Err(dref.malformed("the number of sources is wrong"));
    }
    Ok(said)
}

/// Section 8.5.2: the descriptions of a track's samples; all must be of one listed codec.
fn descriptions(stsd: &Atom<'_>, budget: &mut Budget, handler: FourCc, sources: u32) -> Result<Description, Rejection> {
    let mut fields = stsd.fields();
    fields.version_flags()?;
    let said = fields.u32()?;
    let entries = budget.children(stsd.kind, fields.rest(), 6)?;
    if u32::try_from(entries.len()) != Ok(said) || entries.len() > 16 {
        return Err(stsd.malformed("the number of descriptions is wrong"));
    }
    let mut first: Option<Description> = None;
    for entry in &entries {
        let described = description(entry, budget, handler, sources)?;
        match &first {
            None => first = Some(described),
            Some(first) if first.codec == described.codec => (),
            Some(_) => return Err(stsd.malformed("the codec changes within a track")),
        }
    }
    first.ok_or_else(|| stsd.malformed("there is no description"))
}

/// One sample entry: 6 reserved bytes, the source's number, then by kind.
fn description(entry: &Atom<'_>, budget: &mut Budget, handler: FourCc, sources: u32) -> Result<Description, Rejection> {
    if matches!(&entry.kind.0, b"encv" | b"enca" | b"enct" | b"encs" | b"drmi" | b"drms") {
        return Err(Rejection::Encrypted);
    }
    let mut fields = entry.fields();
    fields.take(6)?;
    let source = u32::from(fields.u16()?);
    if source == 0 || source > sources {
        return Err(Rejection::ExternalMedia);
    }
    let not_taken = || Rejection::Codec { codec: entry.kind.to_string() };
    let codec = entry.kind;
    match &handler.0 {
        b"vide" => {
            if !VIDEO.contains(&&codec.0) {
                return Err(not_taken());
            }
            fields.take(16)?;
            let (width, height) = (u32::from(fields.u16()?), u32::from(fields.u16()?));
            // Resolution, reserved, frame count, compressor's name, depth, predefined: 50 bytes.
            fields.take(50)?;
            refuse_protection(entry, fields.rest(), budget)?;
            Ok(Description { codec, width, height })
        }
        b"soun" => {
            if !AUDIO.contains(&&codec.0) {
                return Err(not_taken());
            }
            let version = fields.u16()?;
            fields.take(18)?;
            // QuickTime's versions of the sound description are longer by 16 and 36 bytes.
            fields.take(match version {
                0 => 0,
                1 => 16,
                2 => 36,
                _ => return Err(entry.malformed("its version is unknown")),
            })?;
            refuse_protection(entry, fields.rest(), budget)?;
            Ok(Description { codec, width: 0, height: 0 })
        }
        _ => Ok(Description { codec, width: 0, height: 0 }),
    }
}

/// Section 8.12: a protection scheme hides inside the description.
fn refuse_protection(entry: &Atom<'_>, body: &[u8], budget: &mut Budget) -> Result<(), Rejection> {
    let children = budget.children_zero_ended(entry.kind, body, 7)?;
    if children.iter().any(|atom| atom.is(b"sinf")) { Err(Rejection::Encrypted) } else { Ok(()) }
}
