//! Files on the disk: originals, parts of them on their way, and what was made of them; and how they are served.
//!
//! Spec:       RFC 9110 section 14 (ranges).
//! Guarantees: a path is made of an id and a name of ours, never of a text of a request; what is served is a picture or a video and
//!             nothing that a browser would run.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// The names of what may be served, and what it is.
const SERVED: [(&str, &str); 4] =
    [("720p.mp4", "video/mp4"), ("360p.mp4", "video/mp4"), ("small.mp4", "video/mp4"), ("poster.jpg", "image/jpeg")];

/// The folders.
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// Opens the folders, and removes what an earlier life was working on.
    pub(crate) fn open(dir: &Path) -> std::io::Result<Self> {
        let files = Self { root: dir.to_path_buf() };
        std::fs::create_dir_all(dir.join("objects"))?;
        if dir.join("work").exists() {
            std::fs::remove_dir_all(dir.join("work"))?;
        }
        std::fs::create_dir_all(dir.join("work"))?;
        Ok(files)
    }

    /// Everything of a video.
    pub(crate) fn of(&self, video: Uuid) -> PathBuf {
        self.root.join("objects").join(video.to_string())
    }

    pub(crate) fn original(&self, video: Uuid) -> PathBuf {
        self.of(video).join("original")
    }

    /// A new folder to work in.
    pub(crate) fn workplace(&self) -> PathBuf {
        self.root.join("work").join(Uuid::new_v4().simple().to_string())
    }

    /// Removes everything of a video; nothing there is as good.
    pub(crate) async fn remove(&self, video: Uuid) -> std::io::Result<()> {
        match tokio::fs::remove_dir_all(self.of(video)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Puts a file that is whole in its place: on the disk before it has its name.
pub(crate) async fn settle(file: File, from: &Path, to: &Path) -> std::io::Result<()> {
    file.sync_all().await?;
    tokio::fs::rename(from, to).await?;
    let folder = to.parent().map(Path::to_path_buf).unwrap_or_default();
    File::open(folder).await?.sync_all().await
}

/// A file as an answer, whole or the one range that was asked for.
pub(crate) async fn serve(folder: &Path, name: &str, asked: &HeaderMap) -> std::io::Result<Response> {
    let Some((name, kind)) = SERVED.iter().find(|(served, _)| *served == name) else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let mut file = match File::open(folder.join(name)).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(StatusCode::NOT_FOUND.into_response()),
        file => file?,
    };
    let bytes = file.metadata().await?.len();
    let wanted = asked.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(range);
    let (status, first, last) = match wanted.map(|wanted| wanted.within(bytes)) {
        None => (StatusCode::OK, 0, bytes.saturating_sub(1)),
        Some(Some((first, last))) => (StatusCode::PARTIAL_CONTENT, first, last),
        Some(None) => {
            let told = HeaderValue::from_str(&format!("bytes */{bytes}")).ok();
            let mut answer = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            answer.headers_mut().extend(told.map(|told| (header::CONTENT_RANGE, told)));
            return Ok(answer);
        }
    };
    let len = last.saturating_sub(first).saturating_add(u64::from(bytes > 0));
    file.seek(std::io::SeekFrom::Start(first)).await?;
    let mut answer = Response::new(Body::from_stream(ReaderStream::with_capacity(file.take(len), 64 * 1024)));
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    let range = HeaderValue::from_str(&format!("bytes {first}-{last}/{bytes}")).ok().filter(|_| status == StatusCode::PARTIAL_CONTENT);
    fields.extend(range.map(|range| (header::CONTENT_RANGE, range)));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(answer)
}

/// One range, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    From(u64, Option<u64>),
    Last(u64),
}

/// The range of a header; what cannot be read is no range (RFC 9110, section 14.2).
fn range(text: &str) -> Option<Wanted> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return last.parse().ok().map(Wanted::Last);
    }
    let first = first.parse().ok()?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok().filter(|last| *last >= first)?) };
    Some(Wanted::From(first, last))
}

impl Wanted {
    /// First and last byte of a file of this size; nothing if there is no such byte.
    fn within(self, bytes: u64) -> Option<(u64, u64)> {
        let end = bytes.checked_sub(1)?;
        match self {
            Self::From(first, last) => (first <= end).then(|| (first, last.unwrap_or(end).min(end))),
            Self::Last(0) => None,
            Self::Last(count) => Some((bytes.saturating_sub(count), end)),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Tests of ranges.
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let within = |text: &str| range(text).map(|wanted| wanted.within(10));
        assert_eq!(within("bytes=0-3"), Some(Some((0, 3))));
        assert_eq!(within("bytes=4-"), Some(Some((4, 9))));
        assert_eq!(within("bytes=-3"), Some(Some((7, 9))));
        assert_eq!(within("bytes=5-99"), Some(Some((5, 9))));
        assert_eq!(within("bytes=10-"), Some(None));
        assert_eq!(within("bytes=-0"), Some(None));
        for none in ["bytes=3-1", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(within(none), None, "{none}");
        }
    }
}
