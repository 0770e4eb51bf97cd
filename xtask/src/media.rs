//! Media: looked at with ffprobe, made with ffmpeg.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Outcome, tree};

/// What ffprobe says of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// Codec of the first video stream.
    pub video: String,
    /// Codec of the first audio stream, if there is one.
    pub audio: Option<String>,
    /// Pixels.
    pub width: u64,
    /// Pixels.
    pub height: u64,
    /// Seconds.
    pub duration_s: f64,
}

/// Asks ffprobe, and decodes every frame: a file that does not decode is an error.
///
/// # Errors
/// When it is no video or does not decode.
pub fn probe(file: &Path) -> Outcome<Probed> {
    let text = tree::output(Command::new("ffprobe").args(["-v", "error", "-of", "json", "-show_format", "-show_streams"]).arg(file))?;
    let probed: Value = serde_json::from_str(&text)?;
    let streams = probed["streams"].as_array().ok_or("no streams")?;
    let of = |kind: &str| streams.iter().find(|s| s["codec_type"] == kind);
    let video = of("video").ok_or("no video stream")?;
    let decoded = Command::new("ffmpeg").args(["-v", "error", "-xerror", "-nostdin", "-i"]).arg(file).args(["-f", "null", "-"]).output()?;
    if !decoded.status.success() {
        return Err(format!("{} does not decode: {}", file.display(), String::from_utf8_lossy(&decoded.stderr)).into());
    }
    Ok(Probed {
        video: video["codec_name"].as_str().unwrap_or_default().to_owned(),
        audio: of("audio").and_then(|a| a["codec_name"].as_str()).map(str::to_owned),
        width: video["width"].as_u64().unwrap_or(0),
        height: video["height"].as_u64().unwrap_or(0),
        duration_s: probed["format"]["duration"].as_str().and_then(|d| d.parse().ok()).unwrap_or(0.0),
    })
}

/// Makes a test video with ffmpeg: `seconds` of a moving picture with a tone.
///
/// # Errors
/// When ffmpeg fails.
pub fn make(file: &Path, seconds: u32, size: &str, more: &[&str]) -> Outcome {
    let picture = format!("testsrc2=size={size}:rate=25:duration={seconds}");
    let tone = format!("sine=frequency=440:duration={seconds}");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone, "-shortest"]);
    tree::run(command.args(more).arg(file))
}

/// The media type by a file's ending.
#[must_use]
pub fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("webm") => "video/webm",
        _ => "video/mp4",
    }
}
