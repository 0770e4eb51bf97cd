//! WebM files, made in memory: elements, and a small sound file to put hostile parts into.
//!
//! Spec: RFC 8794 sections 5 and 6, RFC 9559 section 5.1.

/// An element with a size of eight bytes.
#[must_use]
pub fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    sized(id, body.len() as u64, body)
}

/// An element that says that it has so many bytes, whatever it has.
#[must_use]
pub fn sized(id: &[u8], bytes: u64, body: &[u8]) -> Vec<u8> {
    let size = (1u64 << 56 | (bytes & ((1 << 56) - 1))).to_be_bytes();
    [id, &size, body].concat()
}

/// A WebM of 128 × 72 pixels with these parts in its track, beside its tracks, and with these numbers as the size of its picture.
#[must_use]
pub fn webm(track: &[u8], beside: &[u8], (width, height): (u16, u16)) -> Vec<u8> {
    let header = element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], b"webm"));
    let sides = [element(&[0xb0], &width.to_be_bytes()), element(&[0xba], &height.to_be_bytes())];
    let video = element(&[0xe0], &sides.concat());
    let entry = [element(&[0xd7], &[1]), element(&[0x83], &[1]), element(&[0x86], b"V_VP8"), video, track.to_vec()];
    let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &element(&[0xae], &entry.concat()));
    let info = element(&[0x15, 0x49, 0xa9, 0x66], &element(&[0x2a, 0xd7, 0xb1], &1_000_000u32.to_be_bytes()));
    let block = |ms: u8| element(&[0xa3], &[0x81, 0, ms, 0x80, 1, 2, 3]);
    let blocks = [element(&[0xe7], &1000u16.to_be_bytes()), block(0), block(40), block(80)];
    let cluster = element(&[0x1f, 0x43, 0xb6, 0x75], &blocks.concat());
    let segment = [info, tracks, beside.to_vec(), cluster].concat();
    [header, element(&[0x18, 0x53, 0x80, 0x67], &segment)].concat()
}
