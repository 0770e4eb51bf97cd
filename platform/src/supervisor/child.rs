//! One member: start, look after, start again; replace while it runs; drain.
//!
//! A guard that learns of something new for its service (another program, other limits, another flow) says so; it is replaced by a
//! fresh run under the artefacts that the lock then names, one member of the system at a time. Where the service keeps no state the new
//! run gets ready first, on the same listener, and the old one then finishes what it has begun; a new run that does not get ready
//! changes nothing. `identity` compares what the new run measures with what was announced, as at every start.
//!
//! Guarantees: D3, M9.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::identity::Artefact;

use super::run::{Run, begin, log_path};
use super::{Artefacts, Member, RESTART_PAUSE, RESTART_PAUSE_MAX, Replacement, STEADY, SUCCESSOR_MAX, Shared, Standing};
use crate::boot::{BootError, Line};

/// A log is cut past this, in bytes.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often logs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(30);

/// How long the lock may take to agree with what is in force, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(100);

/// How a run ended.
enum End {
    /// It drained, as asked.
    Drained,
    /// It said that it cannot start.
    Refused,
    /// It ended by itself or was killed.
    Died,
    /// It drained for another to take its place.
    MadeRoom,
}

/// Runs `member` until it is drained.
pub(super) async fn keep_running(shared: Arc<Shared>, mut member: Member, earlier: Vec<String>) {
    let mut standings = shared.standings.subscribe();
    let ready = async {
        let _closed = standings.wait_for(|all| earlier.iter().all(|name| all.get(name).is_some_and(|s| s.ready))).await;
    };
    tokio::select! {
        () = ready => {}
        () = shared.stopped(member.stage) => return,
    }
    let cutter = tokio::spawn(keep_short(log_path(&shared, &member)));
    let mut pause = RESTART_PAUSE;
    loop {
        let started = shared.clock.monotonic();
        let ended = run_once(&shared, &mut member).await;
        shared.update(&member.name, |s| {
            s.pid = 0;
            s.ready = false;
        });
        match ended {
            Ok(End::Drained | End::Refused) => break,
            Ok(End::MadeRoom) => continue,
            Ok(End::Died) => tracing::warn!(member = member.name, "ended by itself; it is started again"),
            Err(error) => {
                tracing::error!(member = member.name, %error, cause = std::error::Error::source(&error).map(tracing::field::display), "could not be started; trying again")
            }
        }
        shared.update(&member.name, |s| s.restarts = s.restarts.saturating_add(1));
        let lasted = shared.clock.monotonic().saturating_sub(started);
        pause = if lasted >= STEADY { RESTART_PAUSE } else { (pause * 2).min(RESTART_PAUSE_MAX) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.stopped(member.stage) => break,
        }
    }
    cutter.abort();
}

/// One run, and those that take its place while it still runs.
async fn run_once(shared: &Shared, member: &mut Member) -> Result<End, BootError> {
    let Some(mut run) = begin(shared, member).await? else { return Ok(End::Drained) };
    let (mut said, mut outdated) = (run.said.clone(), 0);
    loop {
        let now = said.borrow_and_update().clone();
        shared.update(&member.name, |standing| standing.follow(&run, &now));
        if now.outdated > outdated {
            outdated = now.outdated;
            match replace(shared, member, &mut run, now.wanted).await? {
                Replaced::By(next) => {
                    (said, outdated) = (next.said.clone(), 0);
                    run = next;
                }
                Replaced::MadeRoom => return Ok(End::MadeRoom),
                Replaced::Kept(why) => {
                    tracing::error!(member = member.name, why, "is not replaced; the run that there is stays");
                    run.tell(&Line::Kept { why }).await?;
                }
            }
            continue;
        }
        tokio::select! {
            // When nothing more is said its end is near: `ended` waits for it.
            Ok(()) = said.changed() => {}
            status = run.ended() => {
                let status = status?;
                tracing::warn!(member = member.name, code = status.code(), signal = status.signal(), "process ended");
                let refused = run.said.borrow().refused.clone();
                shared.update(&member.name, |standing| standing.refused.clone_from(&refused));
                return Ok(if refused.is_some() { End::Refused } else { End::Died });
            }
            () = shared.stopped(member.stage) => {
                run.drain(&member.name).await?;
                return Ok(End::Drained);
            }
        }
    }
}

/// What came of a replacement.
enum Replaced {
    /// The new run serves, the old one has drained.
    By(Run),
    /// The old run has drained; the next is started as after any end.
    MadeRoom,
    /// The old run stays, for this reason.
    Kept(String),
}

async fn replace(shared: &Shared, member: &mut Member, run: &mut Run, wanted: Vec<Artefact>) -> Result<Replaced, BootError> {
    let _one_at_a_time = tokio::select! {
        turn = shared.replacing.lock() => turn,
        // The caller's loop drains it.
        () = shared.stopped(member.stage) => return Ok(Replaced::Kept("the system drains".to_owned())),
    };
    let (artefacts, beside) = match &member.replacement {
        Replacement::Never => return Ok(Replaced::Kept("it is replaced with the whole system only".to_owned())),
        Replacement::Beside(artefacts) => (artefacts.clone(), true),
        Replacement::After(artefacts) => (artefacts.clone(), false),
    };
    let before = match locked(&artefacts, wanted).await {
        Ok(now) => member.lock(now),
        Err(why) => return Ok(Replaced::Kept(why)),
    };
    tracing::info!(member = member.name, beside, "what is in force for it has changed; it is replaced");
    if !beside {
        run.drain(&member.name).await?;
        return Ok(Replaced::MadeRoom);
    }
    match successor(shared, member).await? {
        Ok(next) => {
            run.drain(&member.name).await?;
            Ok(Replaced::By(next))
        }
        Err(why) => {
            member.lock(before);
            Ok(Replaced::Kept(why))
        }
    }
}

/// The service's artefacts as the lock has them, once they are those that are in force: `palisade apply` writes the lock a moment after.
async fn locked(artefacts: &Artefacts, mut wanted: Vec<Artefact>) -> Result<Vec<Artefact>, String> {
    let by_path = |a: &Artefact, b: &Artefact| a.path.cmp(&b.path);
    wanted.sort_by(by_path);
    let agreeing = async {
        loop {
            let mut found = artefacts()?;
            found.sort_by(by_path);
            if found == wanted {
                return Ok(found);
            }
            tokio::time::sleep(LOCK_LOOK).await;
        }
    };
    let differ = "palisade.lock does not pin what is in force for it; was it edited? `palisade apply` writes both";
    tokio::time::timeout(LOCK_PATIENCE, agreeing).await.unwrap_or_else(|_| Err(differ.to_owned()))
}

/// A further run of `member` that is ready; or why there is none.
async fn successor(shared: &Shared, member: &Member) -> Result<Result<Run, String>, BootError> {
    let Some(mut next) = begin(shared, member).await? else { return Ok(Err("the system drains".to_owned())) };
    let why = tokio::select! {
        ready = tokio::time::timeout(SUCCESSOR_MAX, ready(&mut next)) => match ready {
            Ok(Ok(())) => return Ok(Ok(next)),
            Ok(Err(why)) => why,
            Err(_) => format!("the new run was not ready within {} s", SUCCESSOR_MAX.as_secs()),
        },
        () = shared.stopped(member.stage) => "the system drains".to_owned(),
    };
    next.kill().await?;
    Ok(Err(why))
}

async fn ready(run: &mut Run) -> Result<(), String> {
    let mut said = run.said.clone();
    tokio::select! {
        Ok(_) = said.wait_for(|said| said.ready) => return Ok(()),
        _ = run.ended() => {}
    }
    Err(run.said.borrow().refused.clone().unwrap_or_else(|| "the new run ended before it was ready; see its log".to_owned()))
}

impl Member {
    /// Takes other artefacts for the next run; gives those that it had.
    fn lock(&mut self, artefacts: Vec<Artefact>) -> Vec<Artefact> {
        self.boot.0.artefacts = artefacts.iter().map(|a| a.path.clone()).collect();
        std::mem::replace(&mut self.artefacts, artefacts)
    }
}

impl Standing {
    /// As `run` has it.
    fn follow(&mut self, run: &Run, said: &super::run::Said) {
        self.pid = run.pid();
        self.ready = said.ready;
        self.refused.clone_from(&said.refused);
        if said.notice.is_some() {
            self.notice.clone_from(&said.notice);
        }
    }
}

/// Keeps a log at most twice `LOG_BYTES_MAX`: what is there becomes `NAME.log.1`, and the log begins anew in place (its writers append).
async fn keep_short(path: PathBuf) {
    loop {
        tokio::time::sleep(LOG_LOOK).await;
        let is_long = std::fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES_MAX);
        if is_long {
            let kept = std::fs::copy(&path, path.with_extension("log.1"));
            let cut = kept.and_then(|_| OpenOptions::new().write(true).open(&path)?.set_len(0));
            if let Err(error) = cut {
                tracing::warn!(%error, path = %path.display(), "a log cannot be cut");
            }
        }
    }
}
