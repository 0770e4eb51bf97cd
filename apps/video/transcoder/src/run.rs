//! Running FFmpeg: a child that dies with the one who waits for it.
//!
//! Guarantees: I7 an end to every run, by the wall clock and when it stalls; the child is killed when its run is dropped.
//! Not here:   the sandbox around this whole service.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::progress::{Progress, Report};

/// How long FFmpeg may say nothing.
const STALL_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of complaint that are kept.
const COMPLAINT_BYTES: u64 = 2000;
/// Signals that say something about the input or the limits: ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
const SIGNALS_OF_FAILURE: [i32; 9] = [4, 5, 6, 7, 8, 11, 24, 25, 31];

/// The program, and how long it may take.
#[derive(Clone, Debug)]
pub struct Ffmpeg {
    /// The program.
    pub program: PathBuf,
    /// The longest that one run may take.
    pub wall: Duration,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunFault {
    /// It could not be started, or was stopped from outside: another try may succeed.
    #[error("the transcoder was interrupted: {0}")]
    Interrupted(String),
    /// It failed by itself: it will fail again.
    #[error("{0}")]
    Failed(String),
}

impl Ffmpeg {
    fn start(&self, line: Vec<OsString>, folder: &Path) -> Result<Child, RunFault> {
        Command::new(&self.program)
            .args(line)
            .current_dir(folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| RunFault::Interrupted(format!("{} does not start: {error}", self.program.display())))
    }

    /// Runs one command line to its end and tells its reports as they come.
    ///
    /// # Errors
    /// [`RunFault::Failed`] when it gave up, crashed, stalled or took too long; [`RunFault::Interrupted`] when it could
    /// not start or someone killed it.
    pub async fn run(
        &self,
        line: Vec<OsString>,
        folder: &Path,
        mut progress: Progress,
        reports: &watch::Sender<Option<Report>>,
    ) -> Result<(), RunFault> {
        let broken = |error: std::io::Error| RunFault::Interrupted(error.to_string());
        let end = Instant::now() + self.wall;
        let mut child = self.start(line, folder)?;
        let complaint = child.stderr.take().map(|stderr| tokio::spawn(last_words(stderr)));
        let stdout = child.stdout.take().ok_or_else(|| RunFault::Interrupted(String::from("no pipe")))?;
        let mut lines = BufReader::new(stdout).lines();
        loop {
            let limit = end.min(Instant::now() + STALL_LIMIT);
            match timeout_at(limit, lines.next_line()).await {
                Ok(Ok(Some(line))) => {
                    if let Some(report) = progress.line(&line) {
                        reports.send_replace(Some(report));
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(broken(error)),
                Err(_) => {
                    child.kill().await.map_err(broken)?;
                    return Err(RunFault::Failed(format!("transcoding did not end within {} minutes", self.wall.as_secs().div_ceil(60))));
                }
            }
        }
        let status = timeout_at(end, child.wait()).await;
        let status = match status {
            Ok(status) => status.map_err(broken)?,
            Err(_) => return Err(RunFault::Failed(String::from("transcoding did not end in time"))),
        };
        let complaint = match complaint {
            Some(reading) => reading.await.unwrap_or_default(),
            None => String::new(),
        };
        judge(status, &complaint)
    }
}

fn judge(status: ExitStatus, complaint: &str) -> Result<(), RunFault> {
    match (status.success(), status.signal()) {
        (true, _) => Ok(()),
        (_, Some(signal)) if !SIGNALS_OF_FAILURE.contains(&signal) => Err(RunFault::Interrupted(format!("signal {signal}"))),
        (_, Some(signal)) => Err(RunFault::Failed(format!("the video broke the transcoder (signal {signal})"))),
        (_, None) => {
            let last = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word about why");
            Err(RunFault::Failed(format!("the video could not be transcoded: {}", last.trim())))
        }
    }
}

/// Reads a child's complaints to the end, so that it never waits, and keeps the beginning.
async fn last_words(mut stderr: tokio::process::ChildStderr) -> String {
    let mut kept = Vec::new();
    // What cannot be read is not told; the exit status decides.
    let _unread = (&mut stderr).take(COMPLAINT_BYTES).read_to_end(&mut kept).await;
    let _rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    //! Tests with other programs in FFmpeg's place.
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
    use super::*;

    async fn shell(script: &str, wall: Duration) -> (Result<(), RunFault>, Option<Report>) {
        let ffmpeg = Ffmpeg { program: PathBuf::from("/bin/sh"), wall };
        let (sender, receiver) = watch::channel(None);
        let line = vec![OsString::from("-c"), OsString::from(script)];
        let outcome = ffmpeg.run(line, Path::new("/"), Progress::new(10.0), &sender).await;
        (outcome, *receiver.borrow())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn reports_come_through() {
        let (outcome, report) = shell("echo out_time_us=5000000; echo progress=continue", LONG).await;
        outcome.unwrap();
        assert_eq!(report, Some(Report { percent: 50, out_us: 5_000_000 }));
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_programs_words_and_a_kill_is_none() {
        let (outcome, _) = shell("echo first >&2; echo moov atom not found >&2; exit 1", LONG).await;
        assert!(matches!(outcome, Err(RunFault::Failed(why)) if why.contains("moov atom not found")));
        let (outcome, _) = shell("kill -KILL $$", LONG).await;
        assert!(matches!(outcome, Err(RunFault::Interrupted(_))), "someone killed it");
        let (outcome, _) = shell("kill -SEGV $$", LONG).await;
        assert!(matches!(outcome, Err(RunFault::Failed(_))), "the input crashed it");
    }

    // I7
    #[tokio::test]
    async fn a_run_without_end_is_ended() {
        let begun = Instant::now();
        let (outcome, _) = shell("exec sleep 60", Duration::from_millis(200)).await;
        assert!(matches!(outcome, Err(RunFault::Failed(why)) if why.contains("did not end")));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn the_child_dies_with_the_one_who_waits() {
        let folder = tempfile::tempdir().unwrap();
        let ffmpeg = Ffmpeg { program: PathBuf::from("/bin/sh"), wall: LONG };
        let (sender, _receiver) = watch::channel(None);
        let line = vec![OsString::from("-c"), OsString::from("echo $$ > pid; exec sleep 60")];
        let pid = folder.path().join("pid");
        let running = ffmpeg.run(line, folder.path(), Progress::new(1.0), &sender);
        assert!(tokio::time::timeout(Duration::from_millis(500), running).await.is_err(), "dropped while it runs");
        let pid = std::fs::read_to_string(pid).unwrap();
        let proc = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        for _ in 0..100 {
            // Gone, or a zombie that the runtime has still to reap.
            match std::fs::read_to_string(&proc) {
                Ok(stat) if !stat.contains(") Z") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return,
            }
        }
        panic!("the child outlived its run");
    }
}
