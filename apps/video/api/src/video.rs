//! A video as the catalogue knows it, and what is asked of a new one.
//!
//! Guarantees: a state moves forward only; the end of the road is `rejected`, `failed` or `ready`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest video, in bytes: 2 GiB.
pub const SIZE_BYTES_MAX: u64 = 2 << 30;
/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 200;
/// The media types that are taken.
const TYPES: [&str; 2] = ["video/mp4", "video/webm"];

/// How far a video is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
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
    pub fn name(self) -> &'static str {
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
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a video may go from here to there; staying is allowed where there is progress to note.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Rejected | Self::Ready => false,
            Self::Transcoding => next >= self,
            _ => next > self,
        }
    }
}

/// A rendition of a video.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rendition {
    /// `720p`.
    pub name: String,
    /// Where it is in the bucket of renditions.
    pub key: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Seconds.
    pub duration_s: f64,
    /// Its size.
    pub bytes: u64,
}

/// A video.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Video {
    /// Version 7: newer ones are greater.
    pub id: Uuid,
    /// Whose it is.
    #[serde(skip)]
    pub owner: String,
    /// As its person calls it.
    pub name: String,
    /// As it was announced.
    #[serde(rename = "type")]
    pub media_type: String,
    /// Bytes of the original.
    pub size: u64,
    /// How far it is.
    pub state: State,
    /// Percent of the transcoding.
    pub progress: u8,
    /// Why it was refused or failed, for its owner.
    pub reason: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// Seconds, once it is checked.
    pub duration_s: Option<f64>,
    /// What was made of it.
    pub renditions: Vec<Rendition>,
    /// Where its picture is in the bucket of renditions.
    pub poster: Option<String>,
}

/// What is asked of a new video.
#[derive(Debug, Deserialize)]
pub struct Wish {
    /// What the person calls it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The media type that the person says it has.
    #[serde(rename = "type")]
    pub media_type: String,
}

/// What is wrong with a wish: the error and what to do about it.
pub type Objection = (&'static str, &'static str);

impl Wish {
    /// The wish with its name trimmed and its type without parameters.
    ///
    /// # Errors
    /// An [`Objection`] for a name, size or type that is not taken.
    pub fn checked(self) -> Result<Self, Objection> {
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
