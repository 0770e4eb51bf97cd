//! One member: announce, start, listen to it, start again; or drain.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use contract::Client;
use contract::identity::{IdentityClient, RegisterToken};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use trust::{Digest, clock};

use super::{DRAIN_MAX, Member, RESTART_PAUSE, RESTART_PAUSE_MAX, STEADY, Shared};
use crate::boot::{self, Boot, BootError, Line};

/// Name of the listener through which `identity` hears the supervisor.
pub const SUPERVISOR_STREAM: &str = "supervisor";

/// A log is cut past this, in bytes.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often logs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(30);

/// How a run ended.
enum End {
    /// It drained, as asked.
    Drained,
    /// It said that it cannot start.
    Refused,
    /// It ended by itself or was killed.
    Died,
}

/// Runs `member` until it is drained.
pub(super) async fn keep_running(shared: Arc<Shared>, member: Member, earlier: Vec<String>) {
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
        match run_once(&shared, &member).await {
            Ok(End::Drained | End::Refused) => break,
            Ok(End::Died) => tracing::warn!(member = member.name, "ended by itself; it is started again"),
            Err(error) => {
                tracing::error!(member = member.name, %error, cause = std::error::Error::source(&error).map(tracing::field::display), "could not be started; trying again")
            }
        }
        shared.update(&member.name, |s| {
            s.pid = 0;
            s.ready = false;
            s.restarts = s.restarts.saturating_add(1);
        });
        let lasted = shared.clock.monotonic().saturating_sub(started);
        pause = if lasted >= STEADY { RESTART_PAUSE } else { (pause * 2).min(RESTART_PAUSE_MAX) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.stopped(member.stage) => break,
        }
    }
    cutter.abort();
    shared.update(&member.name, |s| {
        s.pid = 0;
        s.ready = false;
    });
}

async fn run_once(shared: &Arc<Shared>, member: &Member) -> Result<End, BootError> {
    let is_identity = member.boot.0.spiffe_id.as_role() == Some("identity");
    let mut extra = None;
    let (token, roots) = if is_identity {
        let (ours, theirs) = UnixStream::pair()?;
        extra = Some(OwnedFd::from(theirs));
        let transport = proxy::client::PairTransport::new(ours).await.map_err(std::io::Error::other)?;
        shared.identity.send_replace(Some(IdentityClient(Client::new(transport))));
        (String::new(), Vec::new())
    } else {
        tokio::select! {
            announced = announce(shared, member) => announced,
            () = shared.stopped(member.stage) => return Ok(End::Drained),
        }
    };
    let (mut process, channel) = spawn(shared, member, token, roots, extra)?;
    shared.update(&member.name, |s| s.pid = process.id().unwrap_or(0));
    let (reader, mut writer) = channel.into_split();
    let listening = listen(shared.clone(), member.name.clone(), reader);
    tokio::pin!(listening);
    let mut refused = false;
    let mut heard_all = false;
    loop {
        tokio::select! {
            said = &mut listening, if !heard_all => { heard_all = true; refused = said; }
            status = process.wait() => {
                let status = status?;
                if !heard_all {
                    refused = tokio::time::timeout(Duration::from_millis(200), &mut listening).await.unwrap_or(false);
                }
                tracing::warn!(member = member.name, code = status.code(), signal = status.signal(), "process ended");
                return Ok(if refused { End::Refused } else { End::Died });
            }
            () = shared.stopped(member.stage) => {
                let mut line = serde_json::to_vec(&Line::Drain)?;
                line.push(b'\n');
                // A process that is already gone needs no request.
                let _gone = writer.write_all(&line).await;
                if tokio::time::timeout(DRAIN_MAX, process.wait()).await.is_err() {
                    tracing::warn!(member = member.name, "did not drain in time and is killed");
                    process.kill().await?;
                }
                return Ok(End::Drained);
            }
        }
    }
}

/// Announces the next run to `identity`, for as long as that takes.
async fn announce(shared: &Shared, member: &Member) -> (String, Vec<String>) {
    let mut identity = shared.identity.subscribe();
    loop {
        let client = identity.borrow_and_update().clone();
        if let Some(client) = client {
            let token = clock::random_hex(&*shared.entropy, 32);
            let request = RegisterToken {
                token_digest: Digest::of(token.as_bytes()),
                spiffe_id: member.boot.0.spiffe_id.clone(),
                uid: rustix::process::geteuid().as_raw(),
                binary: shared.binary,
                artefacts: member.artefacts.clone(),
            };
            match client.register(&request).await {
                Ok(registered) => return (token, registered.bundle.roots),
                Err(fault) => tracing::warn!(member = member.name, %fault, "identity does not take announcements yet"),
            }
        }
        // Either identity starts anew, or it is only slow.
        let _changed = tokio::time::timeout(Duration::from_millis(200), identity.changed()).await;
    }
}

fn spawn(
    shared: &Shared,
    member: &Member,
    token: String,
    roots: Vec<String>,
    extra: Option<OwnedFd>,
) -> Result<(tokio::process::Child, tokio::net::UnixStream), BootError> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let log = OpenOptions::new().create(true).append(true).open(log_path(shared, member))?;
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.args(&member.args).env_clear().envs(inherited_environment()).envs(LEAN).kill_on_drop(true);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::from(log));
    // Its own group: Ctrl-C in a terminal is for the supervisor, which drains the others in order.
    command.process_group(0);
    let process = command.spawn()?;
    // Our copy of the child's end closes with the command, so that a dead child is seen as the end of the channel.
    drop(command);
    let mut names: Vec<String> = member.listeners.iter().map(|(name, _)| name.clone()).collect();
    let mut fds: Vec<_> = member.listeners.iter().map(|(_, fd)| fd.as_fd()).collect();
    if let Some(fd) = &extra {
        names.push(SUPERVISOR_STREAM.to_owned());
        fds.push(fd.as_fd());
    }
    let template = &member.boot.0;
    let boot = Boot {
        spiffe_id: template.spiffe_id.clone(),
        trust_domain: template.trust_domain.clone(),
        dir: template.dir.clone(),
        identity_socket: template.identity_socket.clone(),
        token,
        roots,
        addresses: template.addresses.clone(),
        listeners: names,
        artefacts: template.artefacts.clone(),
        sealing_key: template.sealing_key.clone(),
        settings: template.settings.clone(),
    };
    boot::send(&mut ours, &boot, &fds)?;
    ours.set_nonblocking(true)?;
    Ok((process, tokio::net::UnixStream::from_std(ours)?))
}

/// Reads what the process says until it ends; whether it refused to start.
async fn listen(shared: Arc<Shared>, name: String, reader: tokio::net::unix::OwnedReadHalf) -> bool {
    let mut refused = false;
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Line::Ready { notice }) => shared.update(&name, |s| {
                s.ready = true;
                s.refused = None;
                if notice.is_some() {
                    s.notice = notice;
                }
            }),
            Ok(Line::Refused { why }) => {
                refused = true;
                shared.update(&name, |s| s.refused = Some(why));
            }
            Ok(Line::Drain) | Err(_) => tracing::warn!(member = name, "said something that no process says"),
        }
    }
    refused
}

/// How glibc's allocator keeps memory: in one arena instead of one for each thread, and from 128 KiB on not at all.
const LEAN: [(&str, &str); 3] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Variables of ours that Palisade's own processes see, besides `LEAN`. Nothing secret is ever in an environment (F8).
fn inherited_environment() -> Vec<(String, String)> {
    ["PATH", "PALISADE_LOG", "RUST_BACKTRACE", "TZ"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect()
}

fn log_path(shared: &Shared, member: &Member) -> PathBuf {
    shared.log_dir.join(format!("{}.log", member.name.replace('/', "-")))
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
