//! What the first bytes of a file look like, to say so when it is no video.
//!
//! Guarantees: I10 playlists and scripts are recognised by what they are, whatever their name.

use crate::media::Container;

/// What the beginning of a file shows.
pub(crate) enum Sniffed {
    Video(Container),
    Other(&'static str),
}

/// Beginnings that have a name.
const MAGIC: [(&[u8], &str); 22] = [
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "a list of other files"),
    (b"[playlist]", "a playlist"),
    (b"<?xml", "an XML document"),
    (b"<MPD", "a DASH playlist"),
    (b"<svg", "an SVG drawing"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "an AVI or WAV file"),
    (b"OggS", "an Ogg file"),
    (b"FLV", "a Flash video"),
    (b"ID3", "an MP3 file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"SQLite format 3", "a database"),
];

/// Looks at the first bytes of a file (a few hundred are enough).
pub(crate) fn sniff(head: &[u8]) -> Sniffed {
    if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return Sniffed::Video(Container::Webm);
    }
    if head.get(4..8) == Some(b"ftyp") {
        return Sniffed::Video(Container::Mp4);
    }
    let bare = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bare.starts_with(magic)) {
        return Sniffed::Other(name);
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    if !head.is_empty() && head.iter().all(is_text) && std::str::from_utf8(clip(head)).is_ok() {
        return Sniffed::Other("a text file");
    }
    Sniffed::Other("an unknown kind of file")
}

/// The beginning without a character that the clipping cut in two.
fn clip(head: &[u8]) -> &[u8] {
    match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => head.get(..error.valid_up_to()).unwrap_or_default(),
        _ => head,
    }
}
