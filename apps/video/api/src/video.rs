//! A video as the catalogue knows it, and what is asked of a new one.
//!
//! Guarantees: a state moves forward only; the end of the road is `rejected`, `failed` or `ready`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest video, in bytes: 2 GiB.
pub(crate) const SIZE_BYTES_MAX: u64 = 2 << 30;
/// The longest name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 200;
/// The media types that are taken.
const TYPES: [&str; 2] = ["video/mp4", "video/webm"];

/// How far a video is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Announced; its bytes have not come.
    AwaitingUpload,
    /// Its bytes are there and are being checked.
    Uploaded,
    /// Checked and sound.
    Validated,
    /// Being turned into renditions.
    Transcoding,
    /// Refused by the check.
    Rejected,
    /// Not transcodable.
    Failed,
    /// Ready to watch. A failed one may still get there, when its job is tried again by hand.
    Ready,
}

impl State {
    /// All states in their order.
    const ALL: [Self; 7] =
        [Self::AwaitingUpload, Self::Uploaded, Self::Validated, Self::Transcoding, Self::Rejected, Self::Failed, Self::Ready];

    /// Its name, as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AwaitingUpload => "awaiting_upload",
            Self::Uploaded => "uploaded",
            Self::Validated => "validated",
            Self::Transcoding => "transcoding",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Ready => "ready",
        }
    }

    /// The state of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a video may go from here to there; staying is allowed where there is progress to note.
    pub(crate) fn may_become(self, next: Self) -> bool {
        match self {
            Self::Rejected | Self::Ready => false,
            Self::Transcoding => next >= self,
            _ => next > self,
        }
    }
}

/// A rendition of a video.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rendition {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) duration_s: f64,
    pub(crate) bytes: u64,
}

/// A video.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Video {
    pub(crate) id: Uuid,
    #[serde(skip)]
    pub(crate) owner: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) state: State,
    /// Percent of the transcoding.
    pub(crate) progress: u8,
    /// Why it was refused or failed, for its owner.
    pub(crate) reason: Option<String>,
    /// RFC 3339.
    pub(crate) created_at: String,
    pub(crate) duration_s: Option<f64>,
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) poster: Option<String>,
}

/// What is asked of a new video.
#[derive(Debug, Deserialize)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) size: u64,
    #[serde(rename = "type")]
    pub(crate) media_type: String,
}

/// What is wrong with a wish: the error and what to do about it.
pub(crate) type Objection = (&'static str, &'static str);

impl Wish {
    /// The wish with its name trimmed and its type without parameters.
    ///
    /// # Errors
    /// An [`Objection`] for a name, size or type that is not taken.
    pub(crate) fn checked(self) -> Result<Self, Objection> {
        let name = self.name.trim().to_owned();
        let media_type = self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if name.is_empty() {
            return Err(("The video has no name.", "Give it one of 1 to 200 characters."));
        }
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(("The name is too long.", "Use at most 200 characters."));
        }
        if name.chars().any(char::is_control) {
            return Err(("The name has unprintable characters.", "Rename the file and try again."));
        }
        if !TYPES.contains(&media_type.as_str()) {
            return Err(("This type of file is not taken.", "Send an MP4 (video/mp4) or a WebM (video/webm)."));
        }
        match self.size {
            0 => Err(("The file is empty.", "Choose another file.")),
            size if size > SIZE_BYTES_MAX => Err(("The file is too large.", "Send at most 2 GiB.")),
            size => Ok(Self { name, size, media_type }),
        }
    }
}
