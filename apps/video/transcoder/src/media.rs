//! What a finished rendition is, read from the file itself.
//!
//! Spec:       ISO/IEC 14496-12 section 8.2.2 (`mvhd`), 8.5.2 (`stsd`).
//! Guarantees: what is told of a rendition was measured, not computed.
//! Not here:   files of strangers; this reads only what FFmpeg has just written.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// The largest index that is read.
const MOOV_BYTES_MAX: u64 = 64 << 20;

/// A rendition in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Seconds.
    pub duration_s: f64,
    /// Its size.
    pub bytes: u64,
}

/// Reads a finished MP4's numbers; nothing if it is none.
///
/// # Errors
/// What the file system says.
pub async fn measure(path: &Path) -> std::io::Result<Option<Measured>> {
    let mut file = tokio::fs::File::open(path).await?;
    let bytes = file.metadata().await?.len();
    let mut offset = 0u64;
    while offset.saturating_add(8) <= bytes {
        file.seek(std::io::SeekFrom::Start(offset)).await?;
        let (mut size, kind) = (u64::from(file.read_u32().await?), file.read_u32().await?.to_be_bytes());
        let mut head = 8;
        if size == 1 {
            (size, head) = (file.read_u64().await?, 16);
        }
        if &kind == b"moov" {
            let mut moov = Vec::new();
            file.take(size.saturating_sub(head).min(MOOV_BYTES_MAX)).read_to_end(&mut moov).await?;
            return Ok(numbers(&moov, bytes));
        }
        offset = offset.saturating_add(size.max(8));
    }
    Ok(None)
}

fn numbers(moov: &[u8], bytes: u64) -> Option<Measured> {
    let mvhd = child(moov, b"mvhd")?;
    // Version 1 has 64-bit times.
    let (timescale, duration) = match mvhd.first()? {
        1 => (be(mvhd, 20, 4)?, be(mvhd, 24, 8)?),
        _ => (be(mvhd, 12, 4)?, be(mvhd, 16, 4)?),
    };
    let (width, height) = children(moov).filter(|(kind, _)| kind == b"trak").find_map(|(_, trak)| {
        let minf = child(child(trak, b"mdia")?, b"minf")?;
        child(minf, b"vmhd")?;
        let entry = child(child(minf, b"stbl")?, b"stsd")?;
        // Counted list, then the first entry's head (8), reserved and index (8), predefined (16).
        Some((be(entry, 40, 2)?, be(entry, 42, 2)?))
    })?;
    if timescale == 0 {
        return None;
    }
    let side = |value: u64| u32::try_from(value).ok();
    Some(Measured { width: side(width)?, height: side(height)?, duration_s: duration as f64 / timescale as f64, bytes })
}

/// A big-endian number of `len` bytes.
fn be(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(len)?)?;
    Some(field.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn children(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = usize::try_from(be(rest, 0, 4)?).ok()?;
        let kind = *rest.get(4..)?.first_chunk::<4>()?;
        let body = rest.get(8..size)?;
        rest = rest.get(size..)?;
        Some((kind, body))
    })
}

fn child<'a>(body: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(kind, _)| kind == wanted).map(|(_, body)| body)
}
