//! The attacker: what a program taken over inside a sandbox would try, and what it reached.
//!
//! It prints one line of JSON ([`Reached`]), so tests (and a measured blast radius) can compare what was reached with
//! what was declared. It is an ordinary program; everything it does, any program could.
//!
//! Not here: any judgement of what should have been refused.
#![allow(clippy::disallowed_methods, reason = "a program of the outside world: it sleeps as it likes")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use serde::{Deserialize, Serialize};

use crate::sys;

mod bombs;
mod calls;
mod escape;
pub mod outer;

/// What to try. Every field has a default, for the case that the program is started with arguments meant for another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Files and folders to open for reading.
    pub read: Vec<PathBuf>,
    /// Files to create or open for writing.
    pub write: Vec<PathBuf>,
    /// Folders to walk; every file that can be opened below is listed, `walk_max` at most.
    pub walk: Vec<PathBuf>,
    /// Files listed at most.
    pub walk_max: usize,
    /// Addresses to connect to, `IP:PORT`.
    pub connect: Vec<SocketAddr>,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Programs to execute.
    pub execute: Vec<PathBuf>,
    /// Processes to signal (with signal 0), besides the parent.
    pub signal: Vec<i32>,
    /// Texts that must be nowhere: looked for in the environment, arguments and every walked file.
    pub canaries: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
        let addresses = |all: &[&str]| all.iter().filter_map(|it| it.parse().ok()).collect();
        Self {
            read: paths(&["/etc/shadow", "/etc/passwd", "/root", "/home", "/proc/1/environ", "/proc/1/root", "/sys", "/run", "/var"]),
            write: paths(&["/usr/bin/x", "/etc/x", "/x", "/proc/sys/kernel/core_pattern", "/dev/x"]),
            walk: paths(&[
                "/", "/boot", "/data", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp",
                "/var",
            ]),
            walk_max: 200_000,
            connect: addresses(&["127.0.0.1:22", "127.0.0.1:80", "127.0.0.1:443", "169.254.169.254:80", "1.1.1.1:53"]),
            listen: addresses(&["0.0.0.0:0", "127.0.0.1:1"]),
            execute: paths(&["/bin/sh", "/usr/bin/id"]),
            signal: vec![-1],
            canaries: ["PRIVATE KEY-----", "BEGIN CERTIFICATE"].map(str::to_owned).to_vec(),
        }
    }
}

/// What was reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reached {
    /// uid, gid and the lines of `/proc/self/status` about powers, if it can be read.
    pub powers: BTreeMap<String, String>,
    /// Paths that could be opened for reading.
    pub read: Vec<PathBuf>,
    /// Paths that could be written.
    pub written: Vec<PathBuf>,
    /// Files found below the walked folders that could be opened.
    pub walked: Vec<PathBuf>,
    /// Addresses that accepted a connection.
    pub connected: Vec<SocketAddr>,
    /// Addresses that could be listened on.
    pub listening: Vec<SocketAddr>,
    /// Programs that could be executed.
    pub executed: Vec<PathBuf>,
    /// Processes that could be signalled.
    pub signalled: Vec<i32>,
    /// Processes seen in `/proc`, and those whose environment could be read.
    pub processes: Vec<i32>,
    /// Of these, other than this one: environment or memory could be opened.
    pub spied: Vec<i32>,
    /// System calls and socket families: `done`, an error name, or `killed by SIGSYS`.
    pub calls: BTreeMap<String, String>,
    /// Where a canary was found.
    pub canaries: Vec<String>,
    /// Open descriptors and what they are, if `/proc` shows them.
    pub descriptors: BTreeMap<i32, String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
}

/// The program; returns its exit code. Without a mode that it knows, it probes by the default plan.
pub fn main(arguments: &[String]) -> u8 {
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match (arguments.first().map(String::as_str), rest.as_slice()) {
        (Some("serve"), _) => serve(),
        (Some("sleep"), _) => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        (Some("exit"), [code]) => code.parse().unwrap_or(1),
        (Some("echo"), words) => say(&words.join(" ")),
        (Some("connect"), [address]) => talk(address),
        (Some("fork-bomb"), _) => bombs::fork(),
        (Some("memory-bomb"), _) => bombs::memory(),
        (Some("shared-memory-bomb"), _) => bombs::shared_memory(),
        (Some("file-bomb"), [path]) => bombs::file(Path::new(path)),
        (Some("orphan"), [path]) => bombs::orphan(Path::new(path)),
        (Some("orphan-and-stay"), [path]) => bombs::orphan_and_stay(Path::new(path)),
        (Some("probe"), [plan]) => match serde_json::from_str(plan) {
            Ok(plan) => report(&plan),
            Err(cause) => say(&format!("plan: {cause}")),
        },
        _ => in_place_of(arguments),
    }
}

/// One line on standard output.
fn say(text: &str) -> u8 {
    let mut out = std::io::stdout();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_ok() { 0 } else { 1 }
}

fn report(plan: &Plan) -> u8 {
    match serde_json::to_string(&reach(plan)) {
        Ok(text) => say(&text),
        Err(cause) => say(&cause.to_string()),
    }
}

/// In another program's place: the last argument is likely the file that this one should write.
fn in_place_of(arguments: &[String]) -> u8 {
    let Ok(text) = serde_json::to_string(&reach(&Plan::default())) else { return 1 };
    if let Some(path) = arguments.last() {
        let _ = fs::write(path, &text); // An attempt like the others.
    }
    say(&text)
}

/// Tries everything.
#[must_use]
pub fn reach(plan: &Plan) -> Reached {
    let mut walked = Vec::new();
    for folder in &plan.walk {
        walk(folder, plan.walk_max, &mut walked);
    }
    let processes = processes();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let spy =
        |pid: &&i32| **pid != own && ["environ", "mem", "maps", "fd"].iter().any(|file| can_read(format!("/proc/{pid}/{file}").as_ref()));
    let parent = nix::unistd::getppid().as_raw();
    let signals = plan.signal.iter().copied().chain([parent]);
    Reached {
        powers: powers(),
        read: plan.read.iter().filter(|path| can_read(path)).cloned().collect(),
        written: plan.write.iter().filter(|path| can_write(path)).cloned().collect(),
        connected: plan.connect.iter().filter(|to| can_connect(to)).copied().collect(),
        listening: plan.listen.iter().filter(|at| TcpListener::bind(at).is_ok()).copied().collect(),
        executed: plan.execute.iter().filter(|path| can_execute(path)).cloned().collect(),
        signalled: signals.filter(|pid| *pid > 1 && can_signal(*pid)).collect(),
        spied: processes.iter().filter(spy).copied().collect(),
        descriptors: descriptors(),
        processes,
        calls: calls::try_those(&|name| name != FILTER),
        canaries: find(&plan.canaries, &walked),
        walked,
        environment: std::env::vars_os()
            .map(|(key, value)| (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect(),
    }
}

fn powers() -> BTreeMap<String, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    let mut powers: BTreeMap<_, _> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| wanted.contains(key))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    powers.insert("uid".to_owned(), nix::unistd::getuid().to_string());
    powers
}

fn can_read(path: &Path) -> bool {
    if path.is_dir() { fs::read_dir(path).is_ok() } else { fs::File::open(path).is_ok() }
}

fn can_write(path: &Path) -> bool {
    fs::OpenOptions::new().append(true).create(true).open(path).is_ok()
}

fn can_connect(to: &SocketAddr) -> bool {
    TcpStream::connect_timeout(to, Duration::from_millis(300)).is_ok()
}

fn can_execute(path: &Path) -> bool {
    std::process::Command::new(path).stdout(std::process::Stdio::null()).stdin(std::process::Stdio::null()).status().is_ok()
}

fn can_signal(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

fn processes() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

fn descriptors() -> BTreeMap<i32, String> {
    (0..1024).filter_map(|fd| Some((fd, fs::read_link(format!("/proc/self/fd/{fd}")).ok()?.to_string_lossy().into_owned()))).collect()
}

/// Every regular file below that can be opened, links not followed.
fn walk(folder: &Path, max: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if found.len() >= max {
            return;
        }
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => walk(&path, max, found),
            Ok(kind) if kind.is_file() && fs::File::open(&path).is_ok() => found.push(path),
            _ => {}
        }
    }
}

fn find(canaries: &[String], walked: &[PathBuf]) -> Vec<String> {
    const FILE_BYTES_MAX: u64 = 1 << 20;
    /// The distribution's own files, many and the same everywhere.
    const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/sbin"];
    let mut found = Vec::new();
    let mut look = |place: String, bytes: &[u8]| {
        for canary in canaries.iter().filter(|canary| !canary.is_empty()) {
            if bytes.windows(canary.len()).any(|window| window == canary.as_bytes()) {
                found.push(place.clone());
            }
        }
    };
    if canaries.is_empty() {
        return found;
    }
    for (key, value) in std::env::vars_os() {
        look(format!("environment {}", key.to_string_lossy()), value.as_encoded_bytes());
    }
    for path in walked.iter().filter(|path| !SYSTEM.iter().any(|system| path.starts_with(system))) {
        let mut bytes = Vec::new();
        if fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).is_ok() {
            look(path.display().to_string(), &bytes);
        }
    }
    found
}

/// Answers each connection on `$PORT` with what it said.
fn serve() -> u8 {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).unwrap_or_default();
    let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else { return 1 };
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                break;
            }
        }
    }
    0
}

/// Says hello to an address and prints the answer.
fn talk(address: &str) -> u8 {
    let answer = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"hello from inside\n")?;
        let mut buffer = [0; 256];
        let count = stream.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).trim().to_owned())
    });
    say(&answer.unwrap_or_else(|cause| format!("error: {cause}")))
}

/// What [`fates`] says whether this process has a filter of system calls by: `there` or `none`.
pub const FILTER: &str = "filter";

/// Tries the system calls, socket families and ways out of these names, each in a process of its own, and gives each one's fate by its
/// name: `done`, the name of an error, `killed by SIGKILL`, or `not tried` and why. To be called while this process has one thread.
///
/// Some of them change what is mounted, or where the root is. Root is no user of any sandbox, so as root nothing is tried. `started_by` is
/// who started this process, for a sandbox in which nothing tells.
#[must_use]
pub fn fates(names: &[&str], started_by: Option<i32>) -> BTreeMap<String, String> {
    if nix::unistd::geteuid().is_root() {
        return BTreeMap::new();
    }
    let wanted = |name: &str| names.contains(&name);
    let mut fates = calls::try_those(&wanted);
    fates.extend(escape::try_those(&wanted, started_by));
    fates
}

/// Who started this process. A list of calls may lack the one that asks; whoever started it may have said so, and `/proc` tells it as well.
fn parent(started_by: Option<i32>) -> libc::c_long {
    let asked = nix::unistd::getppid().as_raw();
    if let Some(told) = Some(asked).filter(|pid| *pid > 0).or(started_by) {
        return told.into();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or_default()
}

/// Runs `act` in a child and names its fate.
fn fate(act: impl FnOnce() -> libc::c_long) -> String {
    match sys::in_child(act) {
        Ok(WaitStatus::Exited(_, 0)) => "done".to_owned(),
        Ok(WaitStatus::Exited(_, code)) => format!("{:?}", nix::errno::Errno::from_raw(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        Ok(other) => format!("{other:?}"),
        Err(cause) => format!("not tried: {cause}"),
    }
}
