//! What becomes of each hostile file: refused, and for what in words that its person reads, or made into renditions.
//!
//! Guarantees: N4. A file that comes to be in the corpus and is not here has no expectation, which is a failure.

/// What must become of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is refused, with a reason that says this.
    Refused(&'static str),
    /// It is ready.
    Ready,
}

/// How many files there are, as SPECIFICATION.md says it.
pub const FILES: usize = 90;

/// What is expected of a file, if anything is.
pub fn of(name: &str) -> Option<Expected> {
    let reason = REFUSED.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| Expected::Refused(reason));
    reason.or_else(|| READY.contains(&name).then_some(Expected::Ready))
}

/// Words of the reason, and the files that are refused for it.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "is cut off: its part",
        &[
            "cut-off.webm",
            "mutant-0.mp4",
            "mutant-10.mp4",
            "mutant-12.mp4",
            "size-of-everything.webm",
            "size-past-the-end.webm",
            "truncated.mp4",
        ],
    ),
    ("more than 10000 parts", &["box-bomb.mp4", "identifiers-bomb.mp4", "tags-bomb.webm", "void-bomb.webm"]),
    ("more than 500000 parts", &["cues-bomb.webm"]),
    ("nested more than 16", &["box-tower.mp4"]),
    ("nested more than 8", &["tower.webm"]),
    (
        "fetches its media from another file",
        &["chapter-elsewhere.webm", "dref-alias.mp4", "dref-door.mp4", "dref-name.mp4", "external-dref.mp4", "reference-movie.mp4"],
    ),
    ("index is compressed", &["compressed-index.mp4"]),
    ("a list of other files", &["concat.mp4"]),
    ("DASH playlist", &["dash-bare.mp4"]),
    ("XML document", &["dash.mp4", "entity.svg.mp4"]),
    (
        "HLS playlist",
        &[
            "hls-behind-a-mark.mp4",
            "hls-concat.mp4",
            "hls-data.mp4",
            "hls-door.mp4",
            "hls-file.mp4",
            "hls-gopher.mp4",
            "hls-key.mp4",
            "hls-subfile.mp4",
            "playlist.mp4",
        ],
    ),
    ("compressed once more", &["deflated-track.webm"]),
    ("text file", &["eicar.mp4", "sdp.mp4", "text.mp4"]),
    ("is encrypted", &["encrypted-header.mp4", "encrypted-track.webm", "encrypted.mp4"]),
    ("50 hours long", &["endless.mp4"]),
    ("65535 × 2 pixels", &["flat-picture.mp4"]),
    ("65535 × 65535", &["widest-picture.mp4", "widest-picture.webm"]),
    ("16384 × 16384", &["huge-picture.mp4"]),
    ("0 × 0 pixels", &["no-picture.mp4", "no-picture.webm"]),
    ("more than eight million samples", &["four-billion-alike.mp4"]),
    ("number of rows does not match", &["four-billion-chunks.mp4", "four-billion-samples.mp4", "four-billion-times.mp4"]),
    ("'moov' twice", &["index-twice.mp4"]),
    ("'Info' twice", &["next-file.webm"]),
    ("declared as video/webm but it is video/mp4", &["mp4-as.webm"]),
    ("declared as video/mp4 but it is video/webm", &["webm-as.mp4"]),
    ("a part inside is larger than the part around it", &["mutant-11.webm", "mutant-4.mp4", "size-past-the-end.mp4"]),
    ("does not belong into a video", &["mutant-13.webm", "mutant-3.webm", "mutant-5.webm", "unknown-part.webm"]),
    (
        "after the end of the video",
        &[
            "mutant-14.mp4",
            "mutant-2.mp4",
            "mutant-8.mp4",
            "playlist-in-a-video.mp4",
            "polyglot-playlist.mp4",
            "polyglot-web-page.mp4",
            "zip-behind.mp4",
        ],
    ),
    ("pictures or sound that are not in the file", &["mutant-6.mp4"]),
    ("an identifier is too long", &["mutant-9.webm"]),
    ("no film index", &["only-a-head.mp4", "tracks-bomb.mp4"]),
    ("no WebM or Matroska", &["other-document.webm"]),
    ("larger than any file", &["size-of-everything.mp4"]),
    ("smaller than its own header", &["size-seven.mp4"]),
    ("does not say how large it is", &["size-zero-within.mp4", "tags-without-a-size.webm"]),
    ("codec 'evil'", &["unknown-codec.mp4"]),
    ("carries other files inside", &["zip-of-death-attached.webm"]),
];

/// Sound videos beside what they also are, and three that are damaged where it does no harm.
const READY: &[&str] = &[
    "archive.zip.mp4",
    "drawing.svg.mp4",
    "eicar-within.mp4",
    "mutant-1.webm",
    "mutant-15.webm",
    "mutant-7.webm",
    "page.html.mp4",
    "playlist-within.mp4",
    "script.js.mp4",
];
