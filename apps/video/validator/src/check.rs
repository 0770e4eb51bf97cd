//! The check of one file, from its first bytes to a verdict.
//!
//! Guarantees: N4 the declared type, the sniffed type and the structure must all say the same.

use crate::{
    media::{Container, MediaInfo},
    mp4,
    read::{RandomRead, Source},
    rejection::Rejection,
    sniff::{Sniffed, sniff},
    webm,
};

/// Bytes that are looked at to tell what a file is.
const HEAD_BYTES: usize = 512;
/// The largest width and height, in pixels.
pub(crate) const SIDE_PIXELS_MAX: u32 = 8192;
/// The longest duration, in hours.
pub(crate) const HOURS_MAX: u64 = 12;
/// The most tracks.
pub(crate) const TRACKS_MAX: usize = 16;

/// Why there is no [`MediaInfo`].
#[derive(Debug)]
pub enum CheckFault<F> {
    /// The file is refused.
    Rejected(Rejection),
    /// The file could not be read; that says nothing about it.
    Unreadable(F),
}

impl<F> From<Rejection> for CheckFault<F> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Checks a file that was declared as `declared_type`.
///
/// # Errors
/// [`CheckFault::Rejected`] with the reason when the file is not a sound video of that type;
/// [`CheckFault::Unreadable`] when the reader failed.
pub async fn check<R: RandomRead>(reader: R, declared_type: &str) -> Result<MediaInfo, CheckFault<R::Fault>> {
    let declared = Container::from_media_type(declared_type)
        .ok_or_else(|| Rejection::TypeNotTaken { declared: declared_type.chars().take(60).collect() })?;
    let mut source = Source::new(reader);
    if source.size() == 0 {
        return Err(Rejection::Empty.into());
    }
    let head = source.peek(0, HEAD_BYTES).await.map_err(CheckFault::Unreadable)?;
    let found = match sniff(&head) {
        Sniffed::Video(container) => container,
        Sniffed::Other(looks_like) => return Err(Rejection::NotVideo { looks_like }.into()),
    };
    if found != declared {
        let (declared, found) = (declared.media_type(), found.media_type());
        return Err(Rejection::TypeMismatch { declared, found }.into());
    }
    match found {
        Container::Mp4 => mp4::check(&mut source).await,
        Container::Webm => webm::check(&mut source).await,
    }
}

/// Refuses a picture that is too small or too large.
pub(crate) fn dimensions(width: u32, height: u32) -> Result<(), Rejection> {
    let fits = |side| (2..=SIDE_PIXELS_MAX).contains(&side);
    if fits(width) && fits(height) { Ok(()) } else { Err(Rejection::Dimensions { width, height, limit: SIDE_PIXELS_MAX }) }
}

/// Refuses a duration of nothing or of more than [`HOURS_MAX`], and gives it back in seconds.
pub(crate) fn duration(seconds: f64) -> Result<f64, Rejection> {
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(Rejection::NoDuration);
    }
    let hours = (seconds / 3600.0).ceil();
    if seconds > (HOURS_MAX * 3600) as f64 {
        // A float-to-integer cast saturates.
        return Err(Rejection::TooLong { hours: hours as u64, limit_hours: HOURS_MAX });
    }
    Ok(seconds)
}
