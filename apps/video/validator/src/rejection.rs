//! Why a file is refused: a closed list, each reason in words for the person who sent it.
//!
//! Guarantees: I10 every refusal has one name and one sentence; no text of the file is repeated but short codes.

use crate::fourcc::FourCc;

/// A reason to refuse a file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// Nothing was sent.
    #[error("the file is empty")]
    Empty,
    /// The declared type is not one we take.
    #[error("{declared:?} is not a type we take; send an MP4 or a WebM video")]
    TypeNotTaken {
        /// The type that was declared.
        declared: String,
    },
    /// The first bytes are no video's.
    #[error("this is {looks_like}, not a video; send an MP4 or a WebM video")]
    NotVideo {
        /// What it looks like.
        looks_like: &'static str,
    },
    /// The content is of another type than declared.
    #[error("the file was declared as {declared} but it is {found}; rename it or choose the right type")]
    TypeMismatch {
        /// The type that was declared.
        declared: &'static str,
        /// The type that it is.
        found: &'static str,
    },
    /// The file ends too early.
    #[error("the file is cut off: its part '{part}' misses {missing} bytes; the upload or the recording did not finish")]
    Truncated {
        /// The part that runs past the end.
        part: String,
        /// How many bytes are missing.
        missing: u64,
    },
    /// No index of the film.
    #[error("the file has no film index ('{part}'), so it cannot be played; the recording was probably cut off")]
    NoIndex {
        /// The missing part.
        part: &'static str,
    },
    /// No media at all.
    #[error("the file has an index but no pictures or sound in it")]
    NoMedia,
    /// A brand of ISO media that is no MP4 video.
    #[error("this kind of file ('{brand}') is not an MP4 video; convert it to MP4 first")]
    Brand {
        /// The brand found.
        brand: FourCc,
    },
    /// A part that has no place there.
    #[error("the file has a part '{part}' that does not belong into a video")]
    UnknownPart {
        /// The part.
        part: String,
    },
    /// A part that may be there once is there again.
    #[error("the file has its part '{part}' twice")]
    Duplicate {
        /// The part.
        part: String,
    },
    /// A part that contradicts itself.
    #[error("the file is damaged: in its part '{part}', {problem}")]
    Malformed {
        /// The part.
        part: String,
        /// What is wrong there.
        problem: &'static str,
    },
    /// More parts than any honest video has.
    #[error("the file consists of more than {limit} parts; no real video does")]
    TooManyParts {
        /// The limit.
        limit: u32,
    },
    /// Parts within parts within parts.
    #[error("the parts of the file are nested more than {limit} deep; no real video's are")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// A part that is larger than any honest one.
    #[error("the file's part '{part}' has {bytes} bytes, more than the {limit} that we take")]
    PartTooLarge {
        /// The part.
        part: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Media that is somewhere else.
    #[error("the file fetches its media from another file or address; send a video that contains everything itself")]
    ExternalMedia,
    /// A compressed index.
    #[error("the file's index is compressed, which hides what is in it; save it as a plain MP4")]
    CompressedIndex,
    /// Encrypted media.
    #[error("the video is encrypted (copy-protected); send one without protection")]
    Encrypted,
    /// Sound or data only.
    #[error("the file has no video track")]
    NoVideoTrack,
    /// More tracks than any honest video has.
    #[error("the file has more than {limit} tracks")]
    TooManyTracks {
        /// The limit.
        limit: usize,
    },
    /// A codec that we do not take.
    #[error("the codec '{codec}' is not one we take; use H.264, H.265, AV1, VP8, VP9 or MPEG-4 with AAC, Opus, Vorbis, MP3, FLAC or AC-3")]
    Codec {
        /// The codec.
        codec: String,
    },
    /// A picture of impossible size.
    #[error("the picture is {width} × {height} pixels; we take from 2 × 2 up to {limit} × {limit}")]
    Dimensions {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        limit: u32,
    },
    /// Longer than a day's work.
    #[error("the video says it is {hours} hours long; we take up to {limit_hours}")]
    TooLong {
        /// Hours, rounded up.
        hours: u64,
        /// The limit.
        limit_hours: u64,
    },
    /// A film without time.
    #[error("the video has no duration: there is no picture in it")]
    NoDuration,
    /// The index points outside of the media.
    #[error("the index points at pictures or sound that are not in the file; it is cut off or damaged")]
    SamplesOutside,
    /// Files within the file.
    #[error("the file carries other files inside (attachments); send the video alone")]
    Attachments,
    /// A part without a size.
    #[error("the file's part '{part}' does not say how large it is")]
    UnknownSize {
        /// The part.
        part: String,
    },
    /// Something after the end.
    #[error("there are {bytes} bytes after the end of the video; it was glued to something else or damaged")]
    TrailingData {
        /// How many.
        bytes: u64,
    },
}

impl Rejection {
    /// A refusal of a damaged part.
    pub(crate) fn malformed(part: impl ToString, problem: &'static str) -> Self {
        Self::Malformed { part: part.to_string(), problem }
    }
}
