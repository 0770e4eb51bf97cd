//! `moov`: the index of a film.
//!
//! Spec:       ISO/IEC 14496-12 section 8.2 (`moov`, `mvhd`), 8.8.3 (`trex`).
//! Guarantees: I10 no compressed index, no references to other films, no protection.

use crate::{check::TRACKS_MAX, fourcc::FourCc, rejection::Rejection};

use super::{
    MediaData,
    atom::{Atom, Budget},
    track::Track,
};

/// What the index says.
pub(crate) struct Movie {
    pub(crate) tracks: Vec<Track>,
}

/// What holds for a track's samples in fragments unless they say otherwise (section 8.8.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) track: u32,
    pub(crate) duration: u32,
    pub(crate) size: u32,
}

impl Movie {
    pub(crate) fn parse(moov: &[u8], budget: &mut Budget, media: &MediaData) -> Result<Self, Rejection> {
        let kind = FourCc(*b"moov");
        let children = budget.children(kind, moov, 1)?;
        let fragmented = children.iter().any(|atom| atom.is(b"mvex"));
        let mut tracks: Vec<Track> = Vec::new();
        let mut headers = 0;
        for atom in &children {
            match &atom.kind.0 {
                b"mvhd" => {
                    headers += 1;
                    movie_header(atom)?;
                }
                b"trak" => {
                    if tracks.len() >= TRACKS_MAX {
                        return Err(Rejection::TooManyTracks { limit: TRACKS_MAX });
                    }
                    let track = Track::parse(atom, budget, media, fragmented)?;
                    if tracks.iter().any(|other| other.id == track.id) {
                        return Err(Rejection::malformed("tkhd", "two tracks have the same number"));
                    }
                    tracks.push(track);
                }
                b"mvex" => drop(defaults(atom.body, budget)?),
                b"udta" | b"meta" => budget.count_metadata(atom, 2)?,
                b"iods" | b"uuid" | b"free" | b"skip" => (),
                b"cmov" => return Err(Rejection::CompressedIndex),
                b"rmra" | b"rmda" | b"rdrf" => return Err(Rejection::ExternalMedia),
                b"pssh" => return Err(Rejection::Encrypted),
                _ => return Err(atom.unknown()),
            }
        }
        match headers {
            0 => Err(Rejection::NoIndex { part: "mvhd" }),
            1 => Ok(Self { tracks }),
            _ => Err(Rejection::Duplicate { part: String::from("mvhd") }),
        }
    }
}

/// Section 8.2.2.
fn movie_header(atom: &Atom<'_>) -> Result<(), Rejection> {
    let mut fields = atom.fields();
    let (version, _) = fields.version_flags()?;
    fields.wide(version)?;
    fields.wide(version)?;
    if fields.u32()? == 0 {
        return Err(atom.malformed("the clock stands still"));
    }
    fields.wide(version)?;
    // Rate, volume, reserved, matrix, predefined, next track: 80 bytes.
    fields.take(80)?;
    if fields.rest().is_empty() { Ok(()) } else { Err(atom.malformed("something is left over")) }
}

/// The `trex` boxes of an `mvex`.
pub(crate) fn defaults(mvex: &[u8], budget: &mut Budget) -> Result<Vec<Defaults>, Rejection> {
    let mut found = Vec::new();
    for atom in budget.children(FourCc(*b"mvex"), mvex, 2)? {
        match &atom.kind.0 {
            b"trex" => {
                let mut fields = atom.fields();
                fields.version_flags()?;
                let (track, _description) = (fields.u32()?, fields.u32()?);
                found.push(Defaults { track, duration: fields.u32()?, size: fields.u32()? });
            }
            b"mehd" | b"trep" | b"leva" | b"free" => (),
            _ => return Err(atom.unknown()),
        }
    }
    Ok(found)
}
