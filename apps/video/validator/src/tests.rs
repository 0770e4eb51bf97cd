//! Tests of the check: sound files pass, each bad one is refused for its own reason, and no bytes make it panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;

use crate::{
    CheckFault,
    bad_media::{
        self, Recipe, atom,
        hostile::{self, Fate},
        mp4,
        mutation::{Shuffle, mutant},
    },
    check,
    media::MediaInfo,
    read::RandomRead,
    rejection::Rejection,
};

const GOOD_MP4: &[u8] = include_bytes!("../fixtures/good.mp4");
const FRAGMENTED: &[u8] = include_bytes!("../fixtures/fragmented.mp4");
const TURNED: &[u8] = include_bytes!("../fixtures/turned.mp4");
const GOOD_WEBM: &[u8] = include_bytes!("../fixtures/good.webm");
const LIVE_WEBM: &[u8] = include_bytes!("../fixtures/live.webm");

/// Memory that counts what is read of it.
struct Counted(Bytes, Arc<AtomicU64>);

impl RandomRead for Counted {
    type Fault = std::io::Error;

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&mut self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.1.fetch_add(len as u64, Ordering::Relaxed);
        RandomRead::read_at(&mut self.0, offset, len).await
    }
}

/// Runs a check that never waits.
fn verdict_counted(bytes: &[u8], declared: &str) -> (Result<MediaInfo, Rejection>, u64) {
    let read = Arc::new(AtomicU64::new(0));
    let mut checking = pin!(check(Counted(Bytes::copy_from_slice(bytes), Arc::clone(&read)), declared));
    let mut context = std::task::Context::from_waker(Waker::noop());
    let Poll::Ready(outcome) = checking.as_mut().poll(&mut context) else { panic!("memory never waits") };
    let verdict = outcome.map_err(|fault| match fault {
        CheckFault::Rejected(rejection) => rejection,
        CheckFault::Unreadable(error) => panic!("read outside of the file: {error}"),
    });
    (verdict, read.load(Ordering::Relaxed))
}

fn verdict(bytes: &[u8], declared: &str) -> Result<MediaInfo, Rejection> {
    verdict_counted(bytes, declared).0
}

fn made(recipe: Recipe) -> Result<MediaInfo, Rejection> {
    verdict(&mp4(&recipe), "video/mp4")
}

#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let rejection = verdict(bytes, "video/mp4").expect_err(words);
    assert!(rejection.to_string().contains(words), "{rejection} should say {words:?}");
}

/// A file with one stretch replaced wherever it occurs.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the stretch is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn sound_files_pass_with_their_size_and_duration() {
    for (name, bytes, declared, (width, height)) in [
        ("mp4", GOOD_MP4, "video/mp4", (128, 72)),
        ("fragmented mp4", FRAGMENTED, "video/mp4", (128, 72)),
        ("turned mp4", TURNED, "video/mp4", (128, 72)),
        ("webm", GOOD_WEBM, "video/webm", (128, 72)),
        ("live webm", LIVE_WEBM, "video/webm; codecs=vp8", (128, 72)),
    ] {
        let info = verdict(bytes, declared).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        assert_eq!((info.width, info.height), (width, height), "{name}");
        assert!((1.7..2.2).contains(&info.duration_s), "{name}: {} s", info.duration_s);
    }
    let info = made(Recipe::default()).unwrap();
    assert_eq!((info.width, info.height, info.video_codec.as_str()), (320, 180, "avc1"));
    assert!((info.duration_s - 2.0).abs() < 1e-9);
}

// I10
#[test]
fn what_is_no_video_is_named() {
    refused(b"", "empty");
    refused(&bad_media::text(), "a text file");
    refused(&bad_media::playlist(), "an HLS playlist");
    refused("\u{feff}\n #EXTM3U\n".as_bytes(), "an HLS playlist");
    refused(b"ffconcat version 1.0\nfile /etc/passwd\n", "a list of other files");
    refused(b"\x89PNG\r\n\x1a\n\0\0\0\0", "a PNG picture");
    refused(&[0; 600], "an unknown kind of file");
    refused("naïve Prosa, sonst nichts".as_bytes(), "a text file");
}

#[test]
fn the_declared_type_must_be_the_true_one() {
    refused(GOOD_WEBM, "declared as video/mp4 but it is video/webm");
    assert!(matches!(verdict(GOOD_MP4, "video/webm"), Err(Rejection::TypeMismatch { .. })));
    assert!(matches!(verdict(GOOD_MP4, "video/quicktime"), Err(Rejection::TypeNotTaken { .. })));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for cut in 1..GOOD_MP4.len() {
        assert!(verdict(&GOOD_MP4[..cut], "video/mp4").is_err(), "the first {cut} bytes of an MP4");
    }
    for cut in 1..GOOD_WEBM.len() {
        assert!(verdict(&GOOD_WEBM[..cut], "video/webm").is_err(), "the first {cut} bytes of a WebM");
    }
    refused(&bad_media::truncated(GOOD_MP4), "cut off");
}

// I10
#[test]
fn media_from_elsewhere_is_refused() {
    let external = "fetches its media from another file";
    refused(&bad_media::external_dref(), external);
    for source in [
        atom(b"url ", b"\0\0\0\x01file:///etc/passwd\0"),
        atom(b"urn ", b"\0\0\0\0urn:x\0"),
        atom(b"alis", &[0, 0, 0, 1]),
        atom(b"alis", &[0; 40]),
    ] {
        let rejection = made(Recipe { source, ..Recipe::default() }).unwrap_err();
        assert_eq!(rejection, Rejection::ExternalMedia);
    }
    assert_eq!(made(Recipe { extra: atom(b"rmra", &[]), ..Recipe::default() }).unwrap_err(), Rejection::ExternalMedia);
}

#[test]
fn bombs_of_boxes_are_refused_without_reading_them_all() {
    refused(&bad_media::box_bomb(), "more than 10000 parts");
    refused(&bad_media::box_tower(), "nested more than 16 deep");
    let at_top = [mp4(&Recipe::default()), atom(b"free", &[]).repeat(100_000)].concat();
    refused(&at_top, "more than 10000 parts");
    let in_user_data = atom(b"udta", &atom(b"free", &[]).repeat(100_000));
    let rejection = made(Recipe { extra: in_user_data, ..Recipe::default() }).unwrap_err();
    assert!(matches!(rejection, Rejection::TooManyParts { .. }), "{rejection}");
}

#[test]
fn boxes_that_lie_about_their_size_are_refused() {
    let good = mp4(&Recipe::default());
    let size_of = |kind: &[u8; 4]| {
        let at = good.windows(4).position(|window| window == kind).unwrap();
        good[at - 4..at + 4].to_vec()
    };
    for kind in [b"moov", b"mdat", b"trak", b"stbl", b"stco", b"dref"] {
        let head = size_of(kind);
        for lie in [0u32, 2, 7, u32::MAX] {
            let bytes = patched(&good, &head, &[&lie.to_be_bytes()[..], kind].concat());
            assert!(verdict(&bytes, "video/mp4").is_err(), "{} with size {lie}", String::from_utf8_lossy(kind));
        }
    }
    // A 64-bit size that overflows every sum.
    let bytes = [atom(b"ftyp", b"isom\0\0\0\0isom"), [&[0, 0, 0, 1], &b"mdat"[..], &[0xff; 8]].concat()].concat();
    assert!(verdict(&bytes, "video/mp4").is_err());
}

#[test]
fn each_other_fault_has_its_own_reason() {
    let recipe = Recipe::default;
    for (recipe, expected) in [
        (Recipe { brand: *b"qt  ", ..recipe() }, "not an MP4 video"),
        (Recipe { brand: *b"heic", ..recipe() }, "not an MP4 video"),
        (Recipe { brand: *b"zzzz", ..recipe() }, "not an MP4 video"),
        (Recipe { codec: *b"rv40", ..recipe() }, "codec 'rv40'"),
        (Recipe { codec: *b"encv", ..recipe() }, "encrypted"),
        (Recipe { description: atom(b"sinf", &[]), ..recipe() }, "encrypted"),
        (Recipe { extra: atom(b"pssh", &[0; 24]), ..recipe() }, "encrypted"),
        (Recipe { extra: atom(b"cmov", &[]), ..recipe() }, "compressed"),
        (Recipe { extra: atom(b"evil", &[]), ..recipe() }, "'evil'"),
        (Recipe { size: (8194, 100), ..recipe() }, "8194 × 100"),
        (Recipe { size: (0, 100), ..recipe() }, "0 × 100"),
        (Recipe { sample_ticks: 25 * 3600, ..recipe() }, "50 hours"),
        (Recipe { sample_ticks: 0, ..recipe() }, "no duration"),
        (Recipe { samples: 0, ..recipe() }, "no pictures or sound"),
        (Recipe { shift: 1, ..recipe() }, "not in the file"),
        (Recipe { shift: -1, ..recipe() }, "not in the file"),
        (Recipe { shift: 1 << 20, ..recipe() }, "not in the file"),
        (Recipe { handler: *b"hint", ..recipe() }, "unknown kind"),
        (Recipe { handler: *b"meta", ..recipe() }, "no video track"),
    ] {
        let rejection = made(recipe).expect_err(expected).to_string();
        assert!(rejection.contains(expected), "{rejection} should say {expected:?}");
    }
    refused(&patched(GOOD_MP4, b"moov", b"free"), "no film index");
    refused(&patched(GOOD_MP4, b"mdat", b"free"), "no pictures or sound");
    refused(&patched(GOOD_MP4, b"mp4a", b"lpcm"), "codec 'lpcm'");
}

#[test]
fn what_is_glued_behind_a_video_is_refused() {
    refused(&bad_media::web_page_behind(), "after the end");
    refused(&bad_media::playlist_behind_brand(), "after the end");
    let webm = [GOOD_WEBM, b"PK\x03\x04 and more of it"].concat();
    assert!(matches!(verdict(&webm, "video/webm"), Err(Rejection::TrailingData { .. })));
}

#[test]
fn every_file_of_the_collection_is_refused() {
    for (name, bytes) in bad_media::all(GOOD_MP4) {
        assert!(verdict(&bytes, "video/mp4").is_err(), "{name}");
    }
}

/// An EBML element with an eight-byte size.
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (1u64 << 56 | body.len() as u64).to_be_bytes();
    [id, &size, body].concat()
}

/// A WebM with these parts of the track and beside the tracks.
fn webm(track: &[u8], beside: &[u8], cluster: &[u8]) -> Vec<u8> {
    let header = element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], b"webm"));
    let video = element(&[0xe0], &[element(&[0xb0], &[0, 128]), element(&[0xba], &[72])].concat());
    let entry = [element(&[0xd7], &[1]), element(&[0x83], &[1]), element(&[0x86], b"V_VP8"), video, track.to_vec()];
    let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &element(&[0xae], &entry.concat()));
    let info = element(&[0x15, 0x49, 0xa9, 0x66], &element(&[0x2a, 0xd7, 0xb1], &1_000_000u32.to_be_bytes()));
    let segment = [info, tracks, beside.to_vec(), cluster.to_vec()].concat();
    [header, element(&[0x18, 0x53, 0x80, 0x67], &segment)].concat()
}

fn cluster_body() -> Vec<u8> {
    let block = |ms: u8| element(&[0xa3], &[0x81, 0, ms, 0x80, 1, 2, 3]);
    [element(&[0xe7], &1000u16.to_be_bytes()), block(0), block(40), block(80)].concat()
}

// I10
#[test]
fn webm_parts_are_refused_for_their_own_reasons() {
    let cluster = element(&[0x1f, 0x43, 0xb6, 0x75], &cluster_body());
    let info = verdict(&webm(&[], &[], &cluster), "video/webm").unwrap();
    assert!((info.duration_s - 1.08).abs() < 1e-9, "{}", info.duration_s);
    let unknown = [&[0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &cluster_body()[..]].concat();
    let twice = [unknown.clone(), unknown].concat();
    assert!(verdict(&webm(&[], &[], &twice), "video/webm").is_ok(), "clusters without a size");

    let encoding = |part: Vec<u8>| element(&[0x6d, 0x80], &element(&[0x62, 0x40], &part));
    let deflate = element(&[0x50, 0x34], &element(&[0x42, 0x54], &[0]));
    let stripped = element(&[0x50, 0x34], &element(&[0x42, 0x54], &[3]));
    assert!(verdict(&webm(&encoding(stripped), &[], &cluster), "video/webm").is_ok());
    let next = element(&[0x15, 0x49, 0xa9, 0x66], &element(&[0x3e, 0x83, 0xbb], b"other.mkv"));
    for (track, beside, cluster, expected) in [
        (encoding(element(&[0x50, 0x35], &[])), vec![], cluster.clone(), "encrypted"),
        (encoding(deflate), vec![], cluster.clone(), "compressed once more"),
        (vec![], element(&[0x19, 0x41, 0xa4, 0x69], &[]), cluster.clone(), "attachments"),
        (vec![], next, cluster.clone(), "twice"),
        (vec![], element(&[0xec], &[]).repeat(100_000), cluster.clone(), "more than 10000 parts"),
        (vec![], vec![0x12, 0x54, 0xc3, 0x67, 0xff], cluster.clone(), "how large"),
        (vec![], element(&[0x12, 0x34, 0x56, 0x78], &[]), cluster.clone(), "0x12345678"),
        (vec![], vec![], vec![], "no pictures or sound"),
        (vec![], vec![], element(&[0x1f, 0x43, 0xb6, 0x75], b"\x86\x81x"), "does not belong"),
    ] {
        let rejection = verdict(&webm(&track, &beside, &cluster), "video/webm").expect_err(expected).to_string();
        assert!(rejection.contains(expected), "{rejection} should say {expected:?}");
    }
    let other_codec = patched(&webm(&[], &[], &cluster), b"V_VP8", b"V_XX8");
    assert!(matches!(verdict(&other_codec, "video/webm"), Err(Rejection::Codec { .. })));
    let other_document = patched(GOOD_WEBM, b"webm", b"evil");
    assert!(matches!(verdict(&other_document, "video/webm"), Err(Rejection::Malformed { .. })));
}

// N4: every hostile file comes to the fate that it says, is refused with a sentence, and costs no more to read than its own size.
#[test]
fn every_hostile_file_is_refused_with_a_reason_or_is_a_sound_video_besides() {
    let corpus = hostile::corpus(FRAGMENTED, LIVE_WEBM, "http://127.0.0.1:9");
    let (mut processed, mut unharmed) = (0, 0);
    for file in &corpus {
        let (outcome, read) = verdict_counted(&file.bytes, file.declared);
        assert!(read <= 4 * file.bytes.len() as u64 + 65_536, "{}: {read} bytes read of {}", file.name, file.bytes.len());
        match (file.fate, outcome) {
            (Fate::Refused, Err(rejection)) => assert!(rejection.to_string().len() > 10, "{}: {rejection}", file.name),
            (Fate::Processed, Ok(_)) => processed += 1,
            (Fate::Contained, Ok(_)) => unharmed += 1,
            (Fate::Contained, Err(rejection)) => assert!(rejection.to_string().len() > 10, "{}: {rejection}", file.name),
            (fate, outcome) => panic!("{} should be {fate:?} and is {outcome:?}", file.name),
        }
    }
    assert_eq!((corpus.len(), processed, unharmed), (90, 6, 3), "files, those that are sound besides, and those whose damage does no harm");
    let names: std::collections::BTreeSet<&str> = corpus.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.len(), corpus.len(), "two files have one name");
}

// N4: 100,000 damaged files; the index of each is hit more often than its media.
#[test]
fn no_damage_makes_the_check_panic_or_read_without_end() {
    let made = mp4(&Recipe::default());
    let sound: [(&[u8], &str); 5] =
        [(GOOD_MP4, "video/mp4"), (FRAGMENTED, "video/mp4"), (&made, "video/mp4"), (GOOD_WEBM, "video/webm"), (LIVE_WEBM, "video/webm")];
    let mut shuffle = Shuffle::new(0x005e_ed0f_9a11_5ade);
    let mut refusals = 0;
    for round in 0..100_000 {
        let (good, declared) = sound[round % sound.len()];
        let mut bytes = good.to_vec();
        for _ in 0..=shuffle.below(4) {
            let near = if shuffle.below(4) == 0 { bytes.len() } else { bytes.len().min(2500) };
            let at = shuffle.below(near);
            match shuffle.below(5) {
                0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][shuffle.below(5)],
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.splice(at..at, [0xff; 4])),
                _ => bytes[at] ^= 1 << shuffle.below(8),
            }
        }
        let (outcome, read) = verdict_counted(&bytes, declared);
        refusals += usize::from(outcome.is_err());
        assert!(read <= 4 * bytes.len() as u64 + 65_536, "round {round}: {read} bytes read of {}", bytes.len());
    }
    assert!(refusals > 30_000, "damage is mostly seen: {refusals}");
    // The same for the corpus's own damage: lengths, and parts that are doubled, moved and cut off.
    let mut refusals = 0;
    for seed in 0..20_000 {
        let (good, declared) = sound[usize::try_from(seed).unwrap() % sound.len()];
        let bytes = mutant(good, seed);
        let (outcome, read) = verdict_counted(&bytes, declared);
        refusals += usize::from(outcome.is_err());
        assert!(read <= 4 * bytes.len() as u64 + 65_536, "seed {seed}: {read} bytes read of {}", bytes.len());
    }
    assert!((5000..20_000).contains(&refusals), "damage is seen, and some of it is none: {refusals}");
}

#[test]
fn media_is_never_read() {
    let recipe = Recipe { samples: 1_000_000, ..Recipe::default() };
    let (_, read) = verdict_counted(&mp4(&Recipe { sample_ticks: 1, ..recipe }), "video/mp4");
    assert!(read < 128 * 1024, "{read} bytes read of 16 MB");
}

// I7: an index that is all table is bounded by its own size, not a multiple of it.
#[test]
fn an_index_that_is_too_large_is_refused_before_it_is_read() {
    let recipe = Recipe { extra: atom(b"free", &vec![0; 65 << 20]), ..Recipe::default() };
    let (outcome, read) = verdict_counted(&mp4(&recipe), "video/mp4");
    assert!(matches!(outcome, Err(Rejection::PartTooLarge { .. })));
    assert!(read < 64 * 1024, "{read} bytes read");
}
