//! One job: fetch the original, make renditions and a poster, bring them to the store.
//!
//! Guarantees: I8 the job's folder is fresh and removed however the job ends; the original goes to disk in pieces, never
//!             more than was announced; doing a job twice leaves the same objects.
//! Not here:   what FFmpeg is told (`command`).

use std::path::{Path, PathBuf};

use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    sync::watch,
    time::{Duration, timeout},
};
use uuid::Uuid;
use video_wire::{context::Context, fault::Fault, span::Tracer, store::Store};

use crate::{
    command::{self, Demuxer},
    ladder::{Rung, ladder},
    media::measure,
    progress::{Progress, Report},
    run::{Ffmpeg, RunFault},
};

/// The bucket that renditions go to.
const RENDITIONS: &str = "renditions";
/// How long the store may pause while it sends.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);
/// What the names of job folders begin with.
const FOLDER: &str = "job-";

/// The data of `video.validated`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Original {
    pub(crate) video_id: Uuid,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) demuxer: Demuxer,
    pub(crate) height: u32,
    pub(crate) duration_s: f64,
}

/// A rendition as it is told to the catalogue.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rendition {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) duration_s: f64,
    pub(crate) bytes: u64,
}

/// What a job made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) poster: String,
    pub(crate) duration_s: f64,
}

/// Why a job made nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobFault {
    /// The video is at fault; the reason is for the person who sent it.
    #[error("{0}")]
    Hopeless(String),
    /// The original is not there any more.
    #[error("the original is gone: {0}")]
    Gone(Fault),
    /// A neighbour, the disk or a signal is at fault.
    #[error("{0}")]
    Passing(String),
}

impl From<Fault> for JobFault {
    fn from(fault: Fault) -> Self {
        Self::Passing(fault.to_string())
    }
}

impl From<RunFault> for JobFault {
    fn from(fault: RunFault) -> Self {
        match fault {
            RunFault::Failed(reason) => Self::Hopeless(reason),
            RunFault::Interrupted(_) => Self::Passing(fault.to_string()),
        }
    }
}

impl From<std::io::Error> for JobFault {
    fn from(error: std::io::Error) -> Self {
        Self::Passing(format!("the working folder: {error}"))
    }
}

/// A folder that goes away with its job.
struct Folder(PathBuf);

impl Folder {
    fn create(parent: &Path) -> std::io::Result<Self> {
        let path = parent.join(format!("{FOLDER}{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Also when the job was dropped half-way; what cannot be removed is removed at the next start.
        let _kept = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what an earlier life left behind.
pub(crate) fn sweep(parent: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(FOLDER) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// What jobs work with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) store: Store,
    pub(crate) tracer: Tracer,
    pub(crate) ffmpeg: Ffmpeg,
    pub(crate) parent: PathBuf,
}

impl Workshop {
    /// Does a job from beginning to end.
    pub(crate) async fn make(
        &self,
        context: &Context,
        original: &Original,
        reports: &watch::Sender<Option<Report>>,
    ) -> Result<Made, JobFault> {
        let folder = Folder::create(&self.parent)?;
        let input = folder.0.join("in");
        self.step(context, original, "download", self.fetch(context, original, &input)).await?;
        let rungs = ladder(original.height);
        let line = command::transcode(original.demuxer, &input, &folder.0, &rungs);
        let transcoding = async {
            let progress = Progress::new(original.duration_s);
            self.ffmpeg.run(line, &folder.0, progress, reports).await.map_err(JobFault::from)
        };
        self.step(context, original, "ffmpeg", transcoding).await?;
        // The space is needed no longer.
        tokio::fs::remove_file(&input).await?;
        let renditions = renditions(&folder.0, original.video_id, &rungs).await?;
        let duration_s = renditions.iter().map(|made| made.duration_s).fold(0.0, f64::max);
        let poster = folder.0.join("poster.jpg");
        self.step(context, original, "poster", self.poster(&folder.0, &rungs, duration_s, &poster)).await?;
        let poster_key = format!("{}/poster.jpg", original.video_id);
        let upload = async {
            for (rung, made) in rungs.iter().zip(&renditions) {
                self.bring(context, &made.key, "video/mp4", &command::output(&folder.0, rung)).await?;
            }
            self.bring(context, &poster_key, "image/jpeg", &poster).await
        };
        self.step(context, original, "upload", upload).await?;
        Ok(Made { renditions, poster: poster_key, duration_s })
    }

    /// Runs one step of the job as a span of the trace.
    async fn step<T>(
        &self,
        context: &Context,
        original: &Original,
        name: &'static str,
        work: impl Future<Output = Result<T, JobFault>>,
    ) -> Result<T, JobFault> {
        let mut span = self.tracer.begin(context, name);
        span.note("video.id", original.video_id);
        let outcome = work.await;
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.tracer.end(span, error.as_deref());
        outcome
    }

    async fn fetch(&self, context: &Context, original: &Original, target: &Path) -> Result<(), JobFault> {
        let object = (original.bucket.as_str(), original.key.as_str());
        let opened = self.store.open(context, object).await;
        let mut opened = opened.map_err(|fault| if fault.is_gone() { JobFault::Gone(fault) } else { fault.into() })?;
        if opened.bytes != original.size {
            let text = format!("the original has {} bytes, {} were checked", opened.bytes, original.size);
            return Err(JobFault::Passing(text));
        }
        let mut file = File::create_new(target).await?;
        let mut written = 0u64;
        let paused = || JobFault::Passing(String::from("the store stopped sending"));
        while let Some(frame) = timeout(PAUSE_LIMIT, opened.body.frame()).await.map_err(|_| paused())? {
            let frame = frame.map_err(|error| JobFault::Passing(format!("the store broke off: {error}")))?;
            let Ok(piece) = frame.into_data() else { continue };
            written = written.saturating_add(piece.len() as u64);
            if written > original.size {
                break;
            }
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        if written == original.size {
            Ok(())
        } else {
            Err(JobFault::Passing(format!("{written} bytes of the original came, {} were announced", original.size)))
        }
    }

    /// Takes the picture at a tenth of the film, or the first if there is none.
    async fn poster(&self, folder: &Path, rungs: &[Rung], duration_s: f64, target: &Path) -> Result<(), JobFault> {
        let tallest = rungs.first().ok_or_else(|| JobFault::Hopeless(String::from("no rendition was made")))?;
        let rendition = command::output(folder, tallest);
        let (silent, _unread) = watch::channel(None);
        for at_s in [duration_s / 10.0, 0.0] {
            let line = command::poster(&rendition, at_s, target);
            self.ffmpeg.run(line, folder, Progress::new(1.0), &silent).await?;
            if tokio::fs::metadata(target).await.is_ok_and(|file| file.len() > 0) {
                return Ok(());
            }
        }
        Err(JobFault::Hopeless(String::from("no picture could be taken out of the video")))
    }

    async fn bring(&self, context: &Context, key: &str, media_type: &'static str, path: &Path) -> Result<(), JobFault> {
        let file = File::open(path).await?;
        let bytes = file.metadata().await?.len();
        self.store.put(context, (RENDITIONS, key), media_type, (file, bytes)).await.map_err(JobFault::from)
    }
}

/// Measures what was made.
async fn renditions(folder: &Path, video: Uuid, rungs: &[Rung]) -> Result<Vec<Rendition>, JobFault> {
    let mut made = Vec::new();
    for rung in rungs {
        let measured = measure(&command::output(folder, rung)).await?;
        let measured = measured.filter(|measured| measured.duration_s > 0.0);
        let measured = measured.ok_or_else(|| JobFault::Hopeless(String::from("the video has no pictures in it")))?;
        made.push(Rendition {
            key: format!("{video}/{}", rung.file()),
            name: rung.name(),
            width: measured.width,
            height: measured.height,
            duration_s: measured.duration_s,
            bytes: measured.bytes,
        });
    }
    Ok(made)
}
