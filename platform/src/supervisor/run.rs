//! One run of a member: announced to `identity`, started, listened to, drained.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use contract::Client;
use contract::identity::{Artefact, IdentityClient, RegisterToken};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use trust::{Digest, clock};

use super::{DRAIN_MAX, Member, Shared};
use crate::boot::{self, Boot, BootError, Line};

/// Name of the listener through which `identity` hears the supervisor.
pub const SUPERVISOR_STREAM: &str = "supervisor";

/// How long what a process said last may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What a run has said so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) ready: bool,
    pub(super) notice: Option<String>,
    pub(super) refused: Option<String>,
    /// How often it said that it is outdated.
    pub(super) outdated: u32,
    /// What its service should run, as it said last.
    pub(super) wanted: Vec<Artefact>,
    /// It will say nothing more.
    silent: bool,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Run {
    process: tokio::process::Child,
    writer: OwnedWriteHalf,
    pub(super) said: watch::Receiver<Said>,
}

/// Announces and starts the next run of `member`; nothing when its stage drains first.
pub(super) async fn begin(shared: &Shared, member: &Member) -> Result<Option<Run>, BootError> {
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
            () = shared.stopped(member.stage) => return Ok(None),
        }
    };
    let (process, channel) = spawn(shared, member, token, roots, extra)?;
    let (reader, writer) = channel.into_split();
    let (tell, said) = watch::channel(Said::default());
    tokio::spawn(listen(member.name.clone(), reader, tell));
    Ok(Some(Run { process, writer, said }))
}

impl Run {
    /// Its process id; 0 once it has ended.
    pub(super) fn pid(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }

    /// Waits for its end, and for its last words.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        let _late = tokio::time::timeout(LAST_WORDS, self.said.wait_for(|said| said.silent)).await;
        Ok(status)
    }

    /// Tells it something. A process that is gone does not hear it.
    pub(super) async fn tell(&mut self, line: &Line) -> Result<(), BootError> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let _gone = self.writer.write_all(&text).await;
        Ok(())
    }

    /// Lets it finish what is under way, and ends it.
    pub(super) async fn drain(&mut self, name: &str) -> Result<(), BootError> {
        self.tell(&Line::Drain).await?;
        if tokio::time::timeout(DRAIN_MAX, self.process.wait()).await.is_err() {
            tracing::warn!(member = name, "did not drain in time and is killed");
            self.process.kill().await?;
        }
        Ok(())
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) -> std::io::Result<()> {
        self.process.kill().await
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
        dangerous_without: template.dangerous_without.clone(),
        settings: template.settings.clone(),
    };
    boot::send(&mut ours, &boot, &fds)?;
    ours.set_nonblocking(true)?;
    Ok((process, tokio::net::UnixStream::from_std(ours)?))
}

/// Hears what the process says until it ends.
async fn listen(name: String, reader: OwnedReadHalf, said: watch::Sender<Said>) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Line::Ready { notice }) => said.send_modify(|said| {
                said.ready = true;
                said.notice = notice;
            }),
            Ok(Line::Refused { why }) => said.send_modify(|said| said.refused = Some(why)),
            Ok(Line::Outdated { artefacts }) => said.send_modify(|said| {
                said.outdated = said.outdated.saturating_add(1);
                said.wanted = artefacts;
            }),
            Ok(Line::Drain | Line::Kept { .. }) | Err(_) => tracing::warn!(member = name, "said something that no process says"),
        }
    }
    said.send_modify(|said| said.silent = true);
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

/// Where a member's log is.
pub(super) fn log_path(shared: &Shared, member: &Member) -> PathBuf {
    shared.log_dir.join(format!("{}.log", member.name.replace('/', "-")))
}
