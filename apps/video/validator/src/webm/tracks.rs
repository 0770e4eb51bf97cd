//! `Tracks`: what is in a WebM file, and in which codec.
//!
//! Spec:       RFC 9559 section 5.1.4 (Tracks), 5.1.4.1.31 (ContentEncodings); Matroska codec mappings.
//! Guarantees: I10 only listed codecs, no encryption, no compression that could unfold into more.

use crate::{
    check::{TRACKS_MAX, dimensions},
    rejection::Rejection,
};

use super::element::{
    Budget, CODEC_ID, CONTENT_COMPRESSION, CONTENT_COMPRESSION_ALGORITHM, CONTENT_ENCODING, CONTENT_ENCODING_TYPE, CONTENT_ENCODINGS,
    CONTENT_ENCRYPTION, Element, PIXEL_HEIGHT, PIXEL_WIDTH, TRACK_ENTRY, TRACK_NUMBER, TRACK_OPERATION, TRACK_TYPE, TRACKS, VIDEO,
};

const VIDEO_CODECS: [&str; 7] = ["V_VP8", "V_VP9", "V_AV1", "V_MPEG4/ISO/AVC", "V_MPEGH/ISO/HEVC", "V_MPEG4/ISO/ASP", "V_MPEG4/ISO/SP"];
const AUDIO_CODECS: [&str; 7] = ["A_OPUS", "A_VORBIS", "A_AAC", "A_FLAC", "A_MPEG/L3", "A_AC3", "A_EAC3"];
const TEXT_CODECS: [&str; 5] = ["S_TEXT/UTF8", "S_TEXT/WEBVTT", "D_WEBVTT/SUBTITLES", "D_WEBVTT/CAPTIONS", "D_WEBVTT/METADATA"];
/// The most elements in `Tracks`.
const ELEMENTS_MAX: u32 = 2000;

/// The film's own track.
pub(crate) struct Picture {
    pub(crate) codec: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Checks all tracks and gives back the first with pictures.
pub(crate) fn parse(body: &[u8]) -> Result<Picture, Rejection> {
    let mut budget = Budget::new(ELEMENTS_MAX);
    // Once through everything, for depth and number.
    budget.walk(TRACKS, body, 1, &mut |_, _| Ok(()))?;
    let mut budget = Budget::new(ELEMENTS_MAX);
    let mut picture = None;
    let mut numbers = Vec::new();
    for entry in budget.children(TRACKS, body)?.iter().filter(|element| element.id == TRACK_ENTRY) {
        if numbers.len() >= TRACKS_MAX {
            return Err(Rejection::TooManyTracks { limit: TRACKS_MAX });
        }
        let (number, found) = track(entry, &mut budget)?;
        if number == 0 || numbers.contains(&number) {
            return Err(entry.malformed("a track has no number of its own"));
        }
        numbers.push(number);
        picture = picture.or(found);
    }
    picture.ok_or(Rejection::NoVideoTrack)
}

fn track(entry: &Element<'_>, budget: &mut Budget) -> Result<(u64, Option<Picture>), Rejection> {
    let children = budget.children(TRACK_ENTRY, entry.body)?;
    let find = |id| children.iter().find(|element| element.id == id);
    let need = |id| find(id).ok_or_else(|| entry.malformed("something that every track has is missing"));
    let number = need(TRACK_NUMBER)?.unsigned()?;
    let codec = need(CODEC_ID)?.text()?;
    for element in &children {
        match element.id {
            CONTENT_ENCODINGS => encodings(element, budget)?,
            TRACK_OPERATION => return Err(entry.malformed("the track is put together from others")),
            _ => (),
        }
    }
    let known: &[&str] = match need(TRACK_TYPE)?.unsigned()? {
        1 => &VIDEO_CODECS,
        2 => &AUDIO_CODECS,
        0x11 | 0x21 => &TEXT_CODECS,
        _ => return Err(entry.malformed("the track is of an unknown kind")),
    };
    if !known.contains(&codec) {
        return Err(Rejection::Codec { codec: codec.to_owned() });
    }
    if known != VIDEO_CODECS {
        return Ok((number, None));
    }
    let video = budget.children(VIDEO, need(VIDEO)?.body)?;
    let side = |id| match video.iter().find(|element| element.id == id) {
        Some(element) => Ok(u32::try_from(element.unsigned()?).unwrap_or(u32::MAX)),
        None => Ok(0),
    };
    let (width, height) = (side(PIXEL_WIDTH)?, side(PIXEL_HEIGHT)?);
    dimensions(width, height)?;
    Ok((number, Some(Picture { codec: codec.to_owned(), width, height })))
}

/// RFC 9559 section 5.1.4.1.31: of all encodings only header stripping (algorithm 3) unfolds into nothing.
fn encodings(encodings: &Element<'_>, budget: &mut Budget) -> Result<(), Rejection> {
    for encoding in budget.children(CONTENT_ENCODINGS, encodings.body)? {
        let mut harmless = false;
        for part in budget.children(CONTENT_ENCODING, encoding.body)? {
            match part.id {
                CONTENT_ENCRYPTION => return Err(Rejection::Encrypted),
                CONTENT_ENCODING_TYPE if part.unsigned()? != 0 => return Err(Rejection::Encrypted),
                CONTENT_COMPRESSION => {
                    let inside = budget.children(CONTENT_COMPRESSION, part.body)?;
                    let algorithm = inside.iter().find(|element| element.id == CONTENT_COMPRESSION_ALGORITHM);
                    harmless = match algorithm {
                        Some(algorithm) => algorithm.unsigned()? == 3,
                        None => false,
                    };
                }
                _ => (),
            }
        }
        if !harmless {
            return Err(encodings.malformed("the track is compressed once more"));
        }
    }
    Ok(())
}
