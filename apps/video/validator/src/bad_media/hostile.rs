//! Hostile media: what people send who mean harm. Each file says what must become of it.
//!
//! Guarantees: N4, I10. Every file is made here, the same each time; none of them exploits a decoder (a program in FFmpeg's place stands
//!             for those, `system::contained`).

use super::matroska::{element, sized, webm};
use super::{Recipe, all, atom, mp4, mutation};

/// What must become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The check refuses it, with a reason.
    Refused,
    /// It is a sound video beside what it also is: it becomes renditions that are nothing else.
    Processed,
    /// Damaged at random: refused, given up by the decoder, or processed; in any case nothing else is touched.
    Contained,
}

/// A hostile file.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What it is, as the name of a file.
    pub name: String,
    /// The media type that it is declared as.
    pub declared: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
}

const MP4: &str = "video/mp4";
const WEBM: &str = "video/webm";
/// How many files are damaged at random.
const MUTANTS: usize = 16;

/// Every hostile file. `fragmented` is a sound MP4 in fragments, whose parts may move; `live` a sound WebM; `door` an address that a
/// reference leads to, such as `http://127.0.0.1:4000`.
#[must_use]
pub fn corpus(fragmented: &[u8], live: &[u8], door: &str) -> Vec<Hostile> {
    let refused =
        |(name, declared, bytes): (&str, &'static str, Vec<u8>)| Hostile { name: name.to_owned(), declared, bytes, fate: Fate::Refused };
    let known = all(fragmented).into_iter().map(|(name, bytes)| (name, MP4, bytes));
    let mut files: Vec<Hostile> = known.map(refused).collect();
    files.extend(playlists(door).into_iter().map(|(name, bytes)| refused((name, MP4, bytes))));
    files.extend(boxes(door).into_iter().map(|(name, bytes)| refused((name, MP4, bytes))));
    files.extend(elements(door).into_iter().map(|(name, bytes)| refused((name, WEBM, bytes))));
    files.extend([
        refused(("webm-as.mp4", MP4, live.to_vec())),
        refused(("mp4-as.webm", WEBM, fragmented.to_vec())),
        refused(("eicar.mp4", MP4, eicar())),
        refused(("zip-behind.mp4", MP4, [fragmented, &zip()].concat())),
    ]);
    files.extend(polyglots(fragmented).into_iter().map(|(name, bytes)| Hostile {
        name: name.to_owned(),
        declared: MP4,
        bytes,
        fate: Fate::Processed,
    }));
    files.extend((0..MUTANTS).map(|seed| {
        let (kind, declared, sound) = if seed % 2 == 0 { ("mp4", MP4, fragmented) } else { ("webm", WEBM, live) };
        let bytes = mutation::mutant(sound, seed as u64);
        Hostile { name: format!("mutant-{seed}.{kind}"), declared, bytes, fate: Fate::Contained }
    }));
    files
}

/// Texts that would make a player fetch something.
fn playlists(door: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hls = |entry: &str| format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{entry}\n#EXT-X-ENDLIST\n").into_bytes();
    let dash = format!(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period><AdaptationSet><Representation \
         id=\"1\"><BaseURL>{door}/x.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
    );
    vec![
        ("hls-door.mp4", hls(&format!("{door}/latest/meta-data"))),
        ("hls-file.mp4", hls("file:///etc/passwd")),
        ("hls-concat.mp4", hls(&format!("concat:{door}/x|file:///etc/passwd"))),
        ("hls-subfile.mp4", hls("subfile,,start,0,end,64,,:/etc/passwd")),
        ("hls-data.mp4", hls("data:video/mp4;base64,AAAAGGZ0eXBpc29t")),
        ("hls-gopher.mp4", hls(&door.replacen("http", "gopher", 1))),
        ("hls-behind-a-mark.mp4", [b"\xef\xbb\xbf\r\n ".to_vec(), hls(door)].concat()),
        ("hls-key.mp4", format!("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"{door}/key\"\n#EXTINF:1,\nx.ts\n").into_bytes()),
        ("dash.mp4", dash.clone().into_bytes()),
        ("dash-bare.mp4", dash.split_once("?>").map(|(_, rest)| rest.as_bytes().to_vec()).unwrap_or_default()),
        ("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n".to_vec()),
        ("sdp.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n".to_vec()),
        ("entity.svg.mp4", format!("<?xml version=\"1.0\"?><!DOCTYPE svg [<!ENTITY x SYSTEM \"{door}\">]><svg>&x;</svg>").into_bytes()),
        ("playlist-in-a-video.mp4", [atom(b"ftyp", b"isom\0\0\0\0isom"), hls(door)].concat()),
    ]
}

/// MP4s that lie, unfold, or lead elsewhere.
fn boxes(door: &str) -> Vec<(&'static str, Vec<u8>)> {
    let with = |extra: Vec<u8>| mp4(&Recipe { extra, ..Recipe::default() });
    let sound = mp4(&Recipe::default());
    let source = |kind: &[u8; 4], text: &str| {
        mp4(&Recipe { source: atom(kind, &[b"\0\0\0\0", text.as_bytes(), b"\0"].concat()), ..Recipe::default() })
    };
    let head = atom(b"ftyp", b"isom\0\0\0\0isom");
    let wide = [&[0, 0, 0, 1][..], b"mdat", &[0xff; 8]].concat();
    let table = |kind: &[u8; 4], words: &[u32]| {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        replaced(&sound, kind, &atom(kind, &body))
    };
    vec![
        ("dref-door.mp4", source(b"url ", door)),
        ("dref-name.mp4", source(b"urn ", "urn:x-elsewhere")),
        ("dref-alias.mp4", mp4(&Recipe { source: atom(b"alis", &[0; 64]), ..Recipe::default() })),
        (
            "reference-movie.mp4",
            with(atom(b"rmra", &atom(b"rmda", &atom(b"rdrf", &[b"\0\0\0\0url \0\0\0\x10", door.as_bytes()].concat())))),
        ),
        ("size-of-everything.mp4", [head.clone(), wide].concat()),
        ("size-zero-within.mp4", with([&[0, 0, 0, 0][..], b"free"].concat())),
        ("size-seven.mp4", with([&[0, 0, 0, 7][..], b"free"].concat())),
        ("size-past-the-end.mp4", with([&u32::MAX.to_be_bytes()[..], b"free"].concat())),
        ("four-billion-samples.mp4", table(b"stsz", &[0, 0, u32::MAX])),
        ("four-billion-alike.mp4", table(b"stsz", &[0, 16, u32::MAX])),
        ("four-billion-times.mp4", table(b"stts", &[0, u32::MAX, 1, 1])),
        ("four-billion-chunks.mp4", table(b"stco", &[0, u32::MAX, 8])),
        ("tracks-bomb.mp4", with(atom(b"trak", &[]).repeat(5000))),
        ("identifiers-bomb.mp4", [sound.clone(), atom(b"uuid", &[7; 16]).repeat(50_000)].concat()),
        ("index-twice.mp4", replaced_by_two(&sound)),
        ("widest-picture.mp4", mp4(&Recipe { size: (u16::MAX, u16::MAX), ..Recipe::default() })),
        ("flat-picture.mp4", mp4(&Recipe { size: (u16::MAX, 2), ..Recipe::default() })),
        ("no-picture.mp4", mp4(&Recipe { size: (0, 0), ..Recipe::default() })),
        ("encrypted-header.mp4", with(atom(b"pssh", &[0; 24]))),
        ("unknown-codec.mp4", mp4(&Recipe { codec: *b"evil", ..Recipe::default() })),
        ("only-a-head.mp4", head),
    ]
}

/// WebMs that lie, unfold, or carry other files.
fn elements(door: &str) -> Vec<(&'static str, Vec<u8>)> {
    let size = (128, 72);
    let beside = |part: Vec<u8>| webm(&[], &part, size);
    let coded = |part: Vec<u8>| webm(&element(&[0x6d, 0x80], &element(&[0x62, 0x40], &part)), &[], size);
    let tags = |body: &[u8]| element(&[0x12, 0x54, 0xc3, 0x67], body);
    let tower = (0..2000).fold(Vec::new(), |inside, _| element(&[0x67, 0xc8], &inside));
    let attached =
        [element(&[0x46, 0x6e], b"bomb.zip"), element(&[0x46, 0x60], b"application/zip"), element(&[0x46, 0x5c], &zip())].concat();
    let sound = beside(Vec::new());
    let document = |name: &[u8]| {
        let header = element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], name));
        [header, sound.get(24..).unwrap_or_default().to_vec()].concat()
    };
    vec![
        ("zip-of-death-attached.webm", beside(element(&[0x19, 0x41, 0xa4, 0x69], &element(&[0x61, 0xa7], &attached)))),
        ("tower.webm", beside(tags(&element(&[0x73, 0x73], &tower)))),
        ("void-bomb.webm", beside(element(&[0xec], &[]).repeat(100_000))),
        ("tags-bomb.webm", beside(tags(&element(&[0x73, 0x73], &element(&[0x67, 0xc8], &[])).repeat(20_000)))),
        ("cues-bomb.webm", beside(element(&[0x1c, 0x53, 0xbb, 0x6b], &element(&[0xbb], &[]).repeat(600_000)))),
        ("size-of-everything.webm", beside(sized(&[0x12, 0x54, 0xc3, 0x67], (1 << 56) - 2, &[]))),
        ("size-past-the-end.webm", beside(sized(&[0x12, 0x54, 0xc3, 0x67], 1 << 20, &[0; 64]))),
        ("tags-without-a-size.webm", beside([&[0x12, 0x54, 0xc3, 0x67][..], &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat())),
        ("next-file.webm", beside(element(&[0x15, 0x49, 0xa9, 0x66], &element(&[0x3e, 0x83, 0xbb], door.as_bytes())))),
        (
            "chapter-elsewhere.webm",
            beside(element(&[0x10, 0x43, 0xa7, 0x70], &element(&[0x45, 0xb9], &element(&[0xb6], &element(&[0x6e, 0x67], &[7; 16]))))),
        ),
        ("deflated-track.webm", coded(element(&[0x50, 0x34], &element(&[0x42, 0x54], &[0])))),
        ("encrypted-track.webm", coded(element(&[0x50, 0x35], &[]))),
        ("widest-picture.webm", webm(&[], &[], (u16::MAX, u16::MAX))),
        ("no-picture.webm", webm(&[], &[], (0, 0))),
        ("other-document.webm", document(b"evil")),
        ("unknown-part.webm", beside(element(&[0x12, 0x34, 0x56, 0x78], &[]))),
        ("cut-off.webm", sound.get(..sound.len() - 5).unwrap_or_default().to_vec()),
    ]
}

/// Files that are a sound video and something else at once.
fn polyglots(fragmented: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let page = b"<!doctype html><html><body><script>document.title='executed';fetch('/api/videos')</script></body></html>";
    let drawing = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"document.title='executed'\"><script>alert(1)</script></svg>";
    vec![
        ("page.html.mp4", second(fragmented, &atom(b"free", page))),
        ("drawing.svg.mp4", second(fragmented, &atom(b"free", drawing))),
        ("script.js.mp4", second(fragmented, &atom(b"free", b"*/=0;document.title='executed';/*"))),
        ("archive.zip.mp4", [fragmented, &atom(b"free", &zip())].concat()),
        ("eicar-within.mp4", second(fragmented, &atom(b"free", &eicar()))),
        ("playlist-within.mp4", second(fragmented, &atom(b"free", &super::playlist()))),
    ]
}

/// A part put behind the first box: in front of all that a browser sniffs at but the head.
fn second(video: &[u8], part: &[u8]) -> Vec<u8> {
    let head = video.first_chunk::<4>().map_or(0, |size| u32::from_be_bytes(*size) as usize).min(video.len());
    let (head, rest) = video.split_at(head);
    [head, part, rest].concat()
}

/// The first box of this kind replaced, and nothing else changed: the sizes around it stay as they were.
fn replaced(video: &[u8], kind: &[u8; 4], by: &[u8]) -> Vec<u8> {
    let Some(at) = video.windows(4).position(|window| window == kind).and_then(|at| at.checked_sub(4)) else { return Vec::new() };
    let mut bytes = video.to_vec();
    // As many bytes as before where it is shorter, so that only the numbers in it lie.
    for (place, new) in bytes.iter_mut().skip(at + 8).zip(by.iter().skip(8)) {
        *place = *new;
    }
    bytes
}

fn replaced_by_two(video: &[u8]) -> Vec<u8> {
    let Some(at) = video.windows(4).position(|window| window == b"moov").and_then(|at| at.checked_sub(4)) else { return Vec::new() };
    let (before, rest) = video.split_at(at);
    let size = rest.first_chunk::<4>().map_or(0, |size| u32::from_be_bytes(*size) as usize).min(rest.len());
    [before, rest.get(..size).unwrap_or_default(), rest].concat()
}

/// A ZIP archive of one stored file, whose entry says that it unfolds into four gigabytes.
fn zip() -> Vec<u8> {
    let (name, data) = (b"bomb", [0u8; 64]);
    let common = |sign: &[u8], more: &[u8]| {
        let sizes = [64u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        [sign, more, &[20, 0, 0, 0, 8, 0, 0, 0, 0, 0], &[0; 4], &sizes, &[4, 0, 0, 0]].concat()
    };
    let local = [common(b"PK\x03\x04", &[]), name.to_vec(), data.to_vec()].concat();
    let central = [common(b"PK\x01\x02", &[20, 0]), vec![0; 14], name.to_vec()].concat();
    let (at, size) = (u32::try_from(local.len()).unwrap_or(0), u32::try_from(central.len()).unwrap_or(0));
    let end = [&b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..], &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat();
    [local, central, end].concat()
}

/// The test text of virus scanners, put together here so that this file is none.
fn eicar() -> Vec<u8> {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-", "TEST-FILE!$H+H*"].concat().into_bytes()
}
