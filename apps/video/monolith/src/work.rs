//! The work on a video: the check, then FFmpeg as a child of this process, with the reference system's own command lines.
//!
//! Guarantees: I10 the file is checked before a decoder sees it; work that was noted is taken up again after a crash; a video that was
//!             deleted meanwhile leaves nothing.
//! Not here:   a wall around FFmpeg: it runs as the user that this process runs as.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{Semaphore, watch};
use video_api::catalogue::{Applied, CatalogueFault, Change};
use video_api::video::{Rendition, State, Video};
use video_transcoder::command::{self, Demuxer};
use video_transcoder::ladder::{Rung, ladder};
use video_transcoder::media::measure;
use video_transcoder::progress::{Progress, Report};
use video_transcoder::run::{Ffmpeg, RunFault};
use video_validator::media::{Container, MediaInfo};
use video_validator::read::RandomRead;
use video_validator::{CheckFault, check};

use crate::accounts::Job;
use crate::{App, Failure, log};

/// How many checks run at once.
const CHECKS_AT_ONCE: usize = 2;
/// How often a job is tried.
const TRIES_MAX: i64 = 3;

/// What work is done with.
pub(crate) struct Workshop {
    ffmpeg: Ffmpeg,
    checks: Semaphore,
    bench: Semaphore,
}

impl Workshop {
    pub(crate) fn new(ffmpeg: Ffmpeg) -> Self {
        Self { ffmpeg, checks: Semaphore::new(CHECKS_AT_ONCE), bench: Semaphore::new(1) }
    }
}

/// A file as something to read here and there.
struct OnDisk(File, u64);

impl RandomRead for OnDisk {
    type Fault = std::io::Error;

    fn size(&self) -> u64 {
        self.1
    }

    async fn read_at(&mut self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.0.seek(std::io::SeekFrom::Start(offset)).await?;
        let mut bytes = BytesMut::zeroed(len);
        self.0.read_exact(&mut bytes).await?;
        Ok(bytes.freeze())
    }
}

/// A folder that goes away with its work.
struct Workplace(PathBuf);

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed is removed at the next start.
        let _kept = std::fs::remove_dir_all(&self.0);
    }
}

/// Begins again what an earlier life did not end.
pub(crate) async fn take_up_again(app: &Arc<App>) -> Result<(), Failure> {
    for job in app.accounts.undone().await? {
        begin(app, job);
    }
    Ok(())
}

/// Begins work on a video that was uploaded and noted.
pub(crate) fn begin(app: &Arc<App>, job: Job) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        if let Err(error) = through(&app, &job).await {
            log(&format!("the work on {}: {error}", job.video));
        }
    });
}

/// Brings a video into a state.
pub(crate) async fn become_(app: &App, job: &Job, effect: &str, state: State, change: Change) -> Result<Applied, CatalogueFault> {
    app.catalogue.apply((&format!("{}:{effect}", job.video), job.video, Some(&job.owner)), state, change).await
}

async fn through(app: &Arc<App>, job: &Job) -> Result<(), Failure> {
    loop {
        let Some(video) = app.catalogue.find(&job.owner, job.video).await? else { break };
        let tries = app.accounts.tried(job).await?;
        match worked(app, job, &video, tries).await {
            Ok(()) => break,
            Err(Stop::Refused(reason)) => {
                become_(app, job, "rejected", State::Rejected, Change { reason: Some(reason), ..Change::default() }).await?;
                break;
            }
            Err(Stop::Hopeless(reason)) => {
                become_(app, job, "failed", State::Failed, Change { reason: Some(reason), ..Change::default() }).await?;
                break;
            }
            Err(Stop::Passing(reason)) => {
                log(&format!("{}: {reason}", job.video));
                if tries >= TRIES_MAX {
                    let reason = Some(String::from("processing was given up after several tries"));
                    become_(app, job, "given up", State::Failed, Change { reason, ..Change::default() }).await?;
                    break;
                }
            }
        }
    }
    app.accounts.done(job).await?;
    if app.catalogue.find(&job.owner, job.video).await?.is_none() {
        app.files.remove(job.video).await?;
    }
    Ok(())
}

/// Why work came to nothing.
enum Stop {
    Refused(String),
    Hopeless(String),
    Passing(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Passing(error.to_string())
    }
}

fn ran(outcome: Result<(), RunFault>) -> Result<(), Stop> {
    outcome.map_err(|fault| match fault {
        RunFault::Failed(reason) => Stop::Hopeless(reason),
        RunFault::Interrupted(_) => Stop::Passing(fault.to_string()),
    })
}

async fn worked(app: &Arc<App>, job: &Job, video: &Video, tries: i64) -> Result<(), Stop> {
    let original = app.files.original(job.video);
    let info = checked(app, &original, &video.media_type).await?;
    become_(app, job, "validated", State::Validated, Change { duration_s: Some(info.duration_s), ..Change::default() }).await?;
    let _alone = app.workshop.bench.acquire().await;
    let place = Workplace(app.files.workplace());
    tokio::fs::create_dir_all(&place.0).await?;
    let rungs = ladder(info.height);
    let demuxer = match info.container {
        Container::Mp4 => Demuxer::Mov,
        Container::Webm => Demuxer::Matroska,
    };
    let (reports, receiver) = watch::channel(Some(Report { percent: 0, out_us: 0 }));
    let line = command::transcode(demuxer, &original, &place.0, &rungs);
    let transcoding = app.workshop.ffmpeg.run(line, &place.0, Progress::new(info.duration_s), &reports);
    tokio::select! {
        outcome = transcoding => ran(outcome)?,
        never = told(app, job, tries, receiver) => match never {},
    }
    let change = made(app, job, &place.0, &rungs).await?;
    become_(app, job, "ready", State::Ready, change).await?;
    Ok(())
}

async fn checked(app: &App, original: &Path, declared: &str) -> Result<MediaInfo, Stop> {
    let _bench = app.workshop.checks.acquire().await;
    let file = File::open(original).await?;
    let bytes = file.metadata().await?.len();
    match check(OnDisk(file, bytes), declared).await {
        Ok(info) => Ok(info),
        Err(CheckFault::Rejected(rejection)) => Err(Stop::Refused(rejection.to_string())),
        Err(CheckFault::Unreadable(error)) => Err(Stop::Passing(error.to_string())),
    }
}

/// Tells the catalogue how far the work is, twice a second at most.
async fn told(app: &App, job: &Job, tries: i64, mut reports: watch::Receiver<Option<Report>>) -> std::convert::Infallible {
    loop {
        let report = *reports.borrow_and_update();
        if let Some(Report { percent, out_us }) = report {
            let change = Change { progress: Some(percent), ..Change::default() };
            if let Err(error) = become_(app, job, &format!("progress:{tries}:{out_us}"), State::Transcoding, change).await {
                log(&format!("progress of {} was not noted: {error}", job.video));
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        if reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Measures what was made, takes a picture out of it, and puts all of it in its place.
async fn made(app: &App, job: &Job, place: &Path, rungs: &[Rung]) -> Result<Change, Stop> {
    let mut renditions = Vec::new();
    for rung in rungs {
        let measured = measure(&command::output(place, rung)).await?.filter(|measured| measured.duration_s > 0.0);
        let measured = measured.ok_or_else(|| Stop::Hopeless(String::from("the video has no pictures in it")))?;
        renditions.push(Rendition {
            name: rung.name(),
            key: format!("{}/{}", job.video, rung.file()),
            width: measured.width,
            height: measured.height,
            duration_s: measured.duration_s,
            bytes: measured.bytes,
        });
    }
    let duration_s = renditions.iter().map(|made| made.duration_s).fold(0.0, f64::max);
    let tallest = rungs.first().ok_or_else(|| Stop::Hopeless(String::from("no rendition was made")))?;
    let poster = place.join("poster.jpg");
    let (silent, _unread) = watch::channel(None);
    for at_s in [duration_s / 10.0, 0.0] {
        let line = command::poster(&command::output(place, tallest), at_s, &poster);
        ran(app.workshop.ffmpeg.run(line, place, Progress::new(1.0), &silent).await)?;
        if tokio::fs::metadata(&poster).await.is_ok_and(|file| file.len() > 0) {
            break;
        }
    }
    let folder = app.files.of(job.video);
    for name in rungs.iter().map(Rung::file).chain([String::from("poster.jpg")]) {
        let from = place.join(&name);
        let file = File::open(&from).await?;
        crate::files::settle(file, &from, &folder.join(&name)).await?;
    }
    Ok(Change {
        progress: Some(100),
        reason: None,
        duration_s: Some(duration_s),
        renditions: Some(renditions),
        poster: Some(format!("{}/poster.jpg", job.video)),
    })
}
