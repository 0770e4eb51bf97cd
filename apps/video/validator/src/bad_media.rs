//! Files that must be refused, and a small sound one to compare: material for tests, made in memory.
//!
//! Guarantees: each file is as sound as can be but for the one thing that its name says.
//! Not here:   files that exploit a decoder; what people send who mean harm (`hostile`).

pub mod hostile;
pub mod matroska;
pub mod mutation;

/// What the made MP4 is like; [`Recipe::default`] is sound.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The major brand, and the only compatible one.
    pub brand: [u8; 4],
    /// The codec of the picture.
    pub codec: [u8; 4],
    /// Width and height in pixels.
    pub size: (u16, u16),
    /// How many samples, of 16 bytes and 1/25 second each.
    pub samples: u32,
    /// How long a sample lasts, in 1/25 seconds.
    pub sample_ticks: u32,
    /// The entry of the list of sources.
    pub source: Vec<u8>,
    /// Boxes put into the index beside the track.
    pub extra: Vec<u8>,
    /// Boxes put into the description of the picture.
    pub description: Vec<u8>,
    /// What is added to the place of the first sample.
    pub shift: i64,
    /// The kind of the track.
    pub handler: [u8; 4],
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            brand: *b"isom",
            codec: *b"avc1",
            size: (320, 180),
            samples: 50,
            sample_ticks: 1,
            source: atom(b"url ", &[0, 0, 0, 1]),
            extra: Vec::new(),
            description: Vec::new(),
            shift: 0,
            handler: *b"vide",
        }
    }
}

/// A box of this kind around these bytes.
#[must_use]
pub fn atom(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..], kind, body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// An MP4 after a recipe.
#[must_use]
pub fn mp4(recipe: &Recipe) -> Vec<u8> {
    let ftyp = atom(b"ftyp", &[&recipe.brand[..], &[0; 4], &recipe.brand].concat());
    // The index has the same size wherever it points to.
    let before = ftyp.len() + index(recipe, 0).len() + 8;
    let first = u64::try_from(before).unwrap_or(0).saturating_add_signed(recipe.shift);
    let moov = index(recipe, u32::try_from(first).unwrap_or(u32::MAX));
    let media = vec![0x5a; recipe.samples as usize * 16];
    [ftyp, moov, atom(b"mdat", &media)].concat()
}

fn index(recipe: &Recipe, first: u32) -> Vec<u8> {
    let ticks = recipe.samples.saturating_mul(recipe.sample_ticks);
    let (width, height) = (u32::from(recipe.size.0), u32::from(recipe.size.1));
    let unity = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
    let mvhd = atom(b"mvhd", &[words(&[0, 0, 0, 25, ticks, 0x1_0000, 0, 0, 0]), words(&unity), vec![0; 24], words(&[2])].concat());
    let head = [words(&[3, 0, 0, 1, 0, ticks, 0, 0, 0, 0]), words(&unity), words(&[width << 16, height << 16])];
    let mdhd = atom(b"mdhd", &words(&[0, 0, 0, 25, ticks, 0]));
    let hdlr = atom(b"hdlr", &[&[0; 8][..], &recipe.handler, &[0; 13]].concat());
    let dref = atom(b"dref", &[words(&[0, 1]), recipe.source.clone()].concat());
    let entry = [
        vec![0, 0, 0, 0, 0, 0, 0, 1],
        vec![0; 16],
        words(&[width << 16 | height, 0x48_0000, 0x48_0000, 0, 0x1_0000]),
        vec![0; 30],
        vec![0, 24, 0xff, 0xff],
        recipe.description.clone(),
    ];
    let stbl = [
        atom(b"stsd", &[words(&[0, 1]), atom(&recipe.codec, &entry.concat())].concat()),
        atom(b"stts", &words(&[0, 1, recipe.samples, recipe.sample_ticks])),
        atom(b"stsc", &words(&[0, 1, 1, recipe.samples, 1])),
        atom(b"stsz", &words(&[0, 16, recipe.samples])),
        atom(b"stco", &words(&[0, 1, first])),
    ];
    let minf = [atom(b"vmhd", &words(&[1, 0, 0])), atom(b"dinf", &dref), atom(b"stbl", &stbl.concat())];
    let mdia = [mdhd, hdlr, atom(b"minf", &minf.concat())];
    let trak = [atom(b"tkhd", &head.concat()), atom(b"mdia", &mdia.concat())];
    atom(b"moov", &[mvhd, atom(b"trak", &trak.concat()), recipe.extra.clone()].concat())
}

/// A text with the name of a video.
#[must_use]
pub fn text() -> Vec<u8> {
    b"Dear reader,\nthis was never a video. It only has the name of one.\n".repeat(20)
}

/// An HLS playlist that would make a player fetch a local file and a neighbour's address.
#[must_use]
pub fn playlist() -> Vec<u8> {
    b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXTINF:10.0,\nhttp://127.0.0.1:9/latest/meta-data\n#EXT-X-ENDLIST\n".to_vec()
}

/// The first two thirds of a video.
#[must_use]
pub fn truncated(good: &[u8]) -> Vec<u8> {
    good.iter().copied().take(good.len() * 2 / 3).collect()
}

/// An MP4 whose media is another file (`url ` without the flag that says "this file").
#[must_use]
pub fn external_dref() -> Vec<u8> {
    mp4(&Recipe { source: atom(b"url ", b"\0\0\0\0file:///etc/passwd\0"), ..Recipe::default() })
}

/// An MP4 with 100,000 boxes in its index.
#[must_use]
pub fn box_bomb() -> Vec<u8> {
    mp4(&Recipe { extra: atom(b"free", &[]).repeat(100_000), ..Recipe::default() })
}

/// An MP4 with boxes nested two thousand deep.
#[must_use]
pub fn box_tower() -> Vec<u8> {
    let tower = (0..2000).fold(Vec::new(), |inside, _| atom(b"ilst", &inside));
    mp4(&Recipe { extra: atom(b"udta", &tower), ..Recipe::default() })
}

/// An MP4 that is also a web page.
#[must_use]
pub fn web_page_behind() -> Vec<u8> {
    [mp4(&Recipe::default()), b"<html><script>alert(document.domain)</script></html>".to_vec()].concat()
}

/// A playlist behind the first box of an MP4.
#[must_use]
pub fn playlist_behind_brand() -> Vec<u8> {
    [atom(b"ftyp", b"isom\0\0\0\0isom"), playlist()].concat()
}

/// Every bad file with its name; `good` is a sound MP4 to cut.
#[must_use]
pub fn all(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let encrypted = Recipe { codec: *b"encv", ..Recipe::default() };
    let huge = Recipe { size: (16_384, 16_384), ..Recipe::default() };
    let endless = Recipe { sample_ticks: 25 * 3600, ..Recipe::default() };
    vec![
        ("text.mp4", text()),
        ("playlist.mp4", playlist()),
        ("truncated.mp4", truncated(good)),
        ("external-dref.mp4", external_dref()),
        ("box-bomb.mp4", box_bomb()),
        ("box-tower.mp4", box_tower()),
        ("compressed-index.mp4", mp4(&Recipe { extra: atom(b"cmov", &[0; 8]), ..Recipe::default() })),
        ("encrypted.mp4", mp4(&encrypted)),
        ("huge-picture.mp4", mp4(&huge)),
        ("endless.mp4", mp4(&endless)),
        ("polyglot-web-page.mp4", web_page_behind()),
        ("polyglot-playlist.mp4", playlist_behind_brand()),
    ]
}
