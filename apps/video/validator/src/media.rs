//! What a clean file turned out to be.

use serde::{Deserialize, Serialize};

/// The container of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// ISO base media (`video/mp4`).
    Mp4,
    /// Matroska or its profile WebM (`video/webm`).
    Webm,
}

impl Container {
    /// The media type of such a file.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Webm => "video/webm",
        }
    }

    /// The container that a media type names; parameters after `;` do not matter.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "video/mp4" => Some(Self::Mp4),
            "video/webm" => Some(Self::Webm),
            _ => None,
        }
    }

    /// The demuxer that is to read it; nobody needs to guess.
    #[must_use]
    pub fn demuxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mov",
            Self::Webm => "matroska",
        }
    }
}

/// A clean file in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MediaInfo {
    /// The container.
    pub container: Container,
    /// The codec of the picture, by the container's own name.
    pub video_codec: String,
    /// Width in pixels as shown (a rotated picture counts as rotated).
    pub width: u32,
    /// Height in pixels as shown.
    pub height: u32,
    /// Duration in seconds.
    pub duration_s: f64,
}
