//! MP4: the top of the file, then its index, then whether the index and the media belong together.
//!
//! Spec:       ISO/IEC 14496-12: section 4.3 (`ftyp`), 8.1.1 (`mdat`), 8.2 (`moov`), 8.8 (fragments).
//! Guarantees: N4, I10 every sample that the index names lies inside an `mdat` of this very file.
//! Not here:   the content of `mdat`; not a byte of it is read.

mod atom;
mod fragment;
mod movie;
mod samples;
mod track;

use crate::{
    check::{CheckFault, dimensions, duration},
    fourcc::FourCc,
    media::{Container, MediaInfo},
    read::{RandomRead, Source},
    rejection::Rejection,
};
use atom::{Atom, BOXES_MAX, Budget, Header};
use fragment::Fragments;
use movie::Movie;

/// The largest index that is taken.
const MOOV_BYTES_MAX: u64 = 64 << 20;
/// The largest index of one fragment.
const MOOF_BYTES_MAX: u64 = 4 << 20;
/// The most fragments.
const FRAGMENTS_MAX: u32 = 10_000;
/// Brands of MP4 video files.
const BRANDS: [&[u8; 4]; 26] = [
    b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71", b"avc1", b"av01", b"hvc1",
    b"M4V ", b"M4VH", b"M4VP", b"MSNV", b"dash", b"msdh", b"msix", b"cmfc", b"f4v ", b"3gp4", b"3gp5",
];
/// Brands of other files of the same family, if they come first.
const OTHER_BRANDS: [&[u8; 4]; 9] = [b"qt  ", b"heic", b"heix", b"mif1", b"avif", b"avis", b"M4A ", b"M4B ", b"crx "];

/// A stretch of bytes of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// The `mdat` payloads, in the order of the file.
#[derive(Default)]
pub(crate) struct MediaData(Vec<Extent>);

impl MediaData {
    /// Whether a stretch lies inside one payload.
    fn holds(&self, extent: Extent) -> bool {
        let after = self.0.partition_point(|data| data.start <= extent.start);
        let Some(data) = after.checked_sub(1).and_then(|index| self.0.get(index)) else { return false };
        match (extent.start.checked_add(extent.len), data.start.checked_add(data.len)) {
            (Some(end), Some(limit)) => end <= limit,
            _ => false,
        }
    }

    pub(crate) fn require(&self, extent: Extent) -> Result<(), Rejection> {
        if extent.len == 0 || self.holds(extent) { Ok(()) } else { Err(Rejection::SamplesOutside) }
    }
}

/// Checks an MP4 file.
pub(crate) async fn check<R: RandomRead>(source: &mut Source<R>) -> Result<MediaInfo, CheckFault<R::Fault>> {
    let mut budget = Budget::new(BOXES_MAX);
    let mut media = MediaData::default();
    let mut moov: Option<Vec<u8>> = None;
    let mut fragments = Fragments::default();
    let mut offset = 0;
    while offset < source.size() {
        let room = source.size().saturating_sub(offset);
        let header = match Header::parse(&source.peek(offset, 16).await.map_err(CheckFault::Unreadable)?) {
            Err(Rejection::Truncated { .. }) => return Err(Rejection::TrailingData { bytes: room }.into()),
            other => other?,
        };
        let whole = Extent { start: offset.saturating_add(header.head), len: header.size.saturating_sub(header.head) };
        if header.size > room {
            let known = known(header.kind);
            let missing = header.size.saturating_sub(room);
            return Err(if known {
                Rejection::Truncated { part: header.kind.to_string(), missing }
            } else {
                Rejection::TrailingData { bytes: room }
            }
            .into());
        }
        if (offset == 0) != (header.kind.0 == *b"ftyp") {
            return Err(Rejection::malformed(header.kind, "it stands at the wrong place").into());
        }
        match &header.kind.0 {
            b"mdat" => {
                if !fragments.is_empty() {
                    fragments.spend_media()?;
                } else {
                    budget.spend()?;
                }
                media.0.push(whole);
            }
            b"moof" => {
                let bytes = part(source, header.kind, whole, MOOF_BYTES_MAX).await?;
                let movie = moov.as_deref().ok_or(Rejection::NoIndex { part: "moov" })?;
                fragments.add(movie, offset, &bytes)?;
            }
            b"moov" => {
                budget.spend()?;
                if moov.is_some() {
                    return Err(Rejection::Duplicate { part: header.kind.to_string() }.into());
                }
                moov = Some(part(source, header.kind, whole, MOOV_BYTES_MAX).await?);
            }
            b"ftyp" => {
                budget.spend()?;
                brand(&part(source, header.kind, whole, 4096).await?)?;
            }
            // Of no consequence for the film, or only another index of its fragments.
            b"free" | b"skip" | b"wide" | b"uuid" | b"udta" | b"pdin" | b"mfra" => budget.spend()?,
            b"styp" | b"sidx" | b"ssix" | b"prft" | b"emsg" => fragments.spend_media()?,
            _ => return Err(Rejection::UnknownPart { part: header.kind.to_string() }.into()),
        }
        offset = offset.saturating_add(header.size);
    }
    let moov = moov.ok_or(Rejection::NoIndex { part: "moov" })?;
    if media.0.iter().all(|data| data.len == 0) {
        return Err(Rejection::NoMedia.into());
    }
    Ok(judge(&moov, &mut budget, &media, &fragments)?)
}

/// Whether a box may stand at the top of the file.
fn known(kind: FourCc) -> bool {
    const TOP: [&[u8; 4]; 15] = [
        b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"udta", b"pdin", b"mfra", b"styp", b"sidx", b"prft",
        b"emsg",
    ];
    TOP.contains(&&kind.0)
}

/// Reads the payload of a box of bearable size.
async fn part<R: RandomRead>(source: &mut Source<R>, kind: FourCc, payload: Extent, limit: u64) -> Result<Vec<u8>, CheckFault<R::Fault>> {
    if payload.len > limit {
        return Err(Rejection::PartTooLarge { part: kind.to_string(), bytes: payload.len, limit }.into());
    }
    let len = usize::try_from(payload.len).unwrap_or(0);
    source.part(payload.start, len).await.map_err(CheckFault::Unreadable)
}

/// Section 4.3: major brand, minor version, compatible brands.
fn brand(ftyp: &[u8]) -> Result<(), Rejection> {
    let atom = Atom { kind: FourCc(*b"ftyp"), body: ftyp };
    let mut fields = atom.fields();
    let major = FourCc(fields.array()?);
    fields.u32()?;
    let compatible = fields.rest();
    if !compatible.len().is_multiple_of(4) {
        return Err(atom.malformed("its list of brands is cut off"));
    }
    let ours = |brand: &[u8]| BRANDS.iter().any(|known| known.as_slice() == brand);
    let video = ours(&major.0) || compatible.chunks_exact(4).any(ours);
    if !video || OTHER_BRANDS.contains(&&major.0) { Err(Rejection::Brand { brand: major }) } else { Ok(()) }
}

/// Whether index and media belong together, and what the film is.
fn judge(moov: &[u8], budget: &mut Budget, media: &MediaData, fragments: &Fragments) -> Result<MediaInfo, Rejection> {
    let movie = Movie::parse(moov, budget, media)?;
    fragments.require_inside(media)?;
    let film = movie.tracks.iter().find(|track| track.is_video()).ok_or(Rejection::NoVideoTrack)?;
    for track in movie.tracks.iter().filter(|track| track.is_video()) {
        dimensions(track.width, track.height)?;
    }
    let ticks = film.samples.ticks.saturating_add(fragments.ticks(film.id));
    for track in &movie.tracks {
        let ticks = track.samples.ticks.saturating_add(fragments.ticks(track.id));
        if ticks > 0 {
            duration(ticks as f64 / f64::from(track.timescale.get()))?;
        }
    }
    Ok(MediaInfo {
        container: Container::Mp4,
        video_codec: film.codec.to_string(),
        width: film.width,
        height: film.height,
        duration_s: duration(ticks as f64 / f64::from(film.timescale.get()))?,
    })
}
