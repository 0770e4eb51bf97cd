//! The sandbox from outside (the guard's part) and inside (the attacker's): real kernel, real processes.
//!
//! The test binary is also init, the attacker and a guard of another uid: `entry` runs before the test harness makes a
//! thread. Needs: Linux with Landlock ABI 6, user namespaces, Python 3; as root also the right to become uid 65534.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests; one link-section attribute"
)]

mod ahead;
mod backends;
mod confined;
mod contained;
mod drift;
mod groups;
mod keys;
mod refused;
mod syscalls;
mod talking;
mod unreachable;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::attack::{Plan, Reached};
use crate::*;

#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: extern "C" fn() = entry;

/// What this binary is when it is not the tests.
extern "C" fn entry() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = match arguments.first().map(String::as_str) {
        Some("sandbox-init") => init_main(),
        Some("attack") => attack::main(&arguments[1..]).into(),
        Some("as-guard") => as_guard(),
        Some("as-guard-ahead") => ahead::as_guard(),
        Some("as-service") => as_service(),
        Some("as-member") => groups::as_member(Path::new(&arguments[1])),
        _ => return,
    };
    std::process::exit(code);
}

/// This binary, where a user other than its builder may execute it: a copy, if it was built in somebody's private folder. Not in `/tmp`,
/// of which every sandbox has its own.
fn ourselves() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let built = std::env::current_exe().unwrap();
    let open = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o001 != 0);
    if built.ancestors().all(open) {
        return built;
    }
    let found = std::fs::metadata(&built).unwrap();
    let copy = Path::new("/var/tmp").join(format!("sandbox-tests-{}-{}-{}", found.uid(), found.ino(), found.mtime()));
    if !copy.exists() {
        // Each test is a process of its own; whoever is first puts it there whole.
        let next = copy.with_extension(std::process::id().to_string());
        std::fs::copy(&built, &next).unwrap();
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&next, &copy).unwrap();
    }
    copy
}

/// A guard in a process of its own: the profile comes by stdin, the outcome goes to stdout.
fn as_guard() -> i32 {
    // I12: as the real one does; everything below must work nevertheless.
    forbid_dumps().unwrap();
    assert!(nix::unistd::geteuid().is_root() || std::fs::File::open("/proc/self/environ").is_err(), "it is root's now");
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let running = match spawn(serde_json::from_str(&text).unwrap()) {
        Ok(running) => running,
        Err(error) => {
            println!("{error}");
            return 1;
        }
    };
    let (exit, lines) = finish(running);
    println!("{}", lines.join("\n"));
    exit.code.unwrap_or(99)
}

/// An ordinary asynchronous service: all that tokio does at its start and with a request.
fn as_service() -> i32 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await.unwrap();
        loop {
            let mut stream = tokio::select! {
                stream = listener.accept() => stream.unwrap().0,
                _ = end.recv() => return 0,
            };
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).await.unwrap();
                tokio::fs::write("written", &buffer[..count]).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let status = tokio::process::Command::new("/usr/bin/true").status().await.unwrap();
                stream.write_all(format!("{} {status}", String::from_utf8_lossy(&buffer[..count])).as_bytes()).await.unwrap();
            });
        }
    })
}

/// Whose sandboxes are tested: with `SANDBOX_BACKEND=bwrap`, which `backends` sets, bubblewrap's.
fn backend() -> Backend {
    if std::env::var_os("SANDBOX_BACKEND").is_some_and(|word| word == "bwrap") { Backend::Bwrap } else { Backend::Own }
}

/// A folder for one test, which the service's uid can pass through.
pub(crate) struct Ground(TempDir);

impl Ground {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A profile whose program is the attacker.
    pub(crate) fn profile(&self, arguments: &[&str]) -> Profile {
        let program = Artefact::measure(ourselves()).unwrap();
        Profile {
            name: "attacker".to_owned(),
            required_level: Level::Full,
            backend: backend(),
            program,
            arguments: std::iter::once("attack").chain(arguments.iter().copied()).map(str::to_owned).collect(),
            environment: BTreeMap::from([("LANG".to_owned(), "C".to_owned())]),
            port: None,
            flows: Vec::new(),
            tools: Vec::new(),
            scripts: Vec::new(),
            read: Profile::system_read(),
            state: Some(self.state()),
            work_dir: None,
            calls: Calls::General,
            limits: Limits {
                memory_bytes: 512 << 20,
                processes: 64,
                open_files: 256,
                file_bytes: 64 << 20,
                cpu_seconds: None,
                cpu_cores: None,
                wall_ms: Some(30_000),
                tmp_bytes: 8 << 20,
                state_bytes: 1 << 30,
            },
            run_as_id: 65_534,
            start_patience_ms: 5_000,
            dangerous_simulate: Simulate::default(),
            dangerous_without: None,
        }
    }

    fn probing(&self, plan: &Plan) -> Profile {
        self.profile(&["probe", &serde_json::to_string(plan).unwrap()])
    }
}

/// A plan that walks nothing, for tests that look at one thing.
fn still() -> Plan {
    Plan { walk: Vec::new(), ..Plan::default() }
}

/// Waits for the end and gives what was printed.
fn finish(mut running: Running) -> (Exit, Vec<String>) {
    let mut lines = running.take_lines().unwrap();
    let mut all = Vec::new();
    while let Some(line) = lines.blocking_recv() {
        all.push(line.text);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    (runtime.block_on(running.wait()), all)
}

fn output(profile: Profile) -> String {
    let (exit, lines) = finish(spawn(profile).unwrap());
    assert!(exit.success(), "{exit:?}: {lines:?}");
    lines.join("\n")
}

/// What the attacker reached. A line longer than a line comes in pieces, so pieces are joined.
fn reached(profile: Profile) -> Reached {
    let (exit, lines) = finish(spawn(profile).unwrap());
    serde_json::from_str(&lines.concat()).unwrap_or_else(|cause| panic!("{cause}: {exit:?} {lines:?}"))
}

fn own_listener() -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn below(path: &Path, declared: &[PathBuf]) -> bool {
    declared.iter().any(|above| path.starts_with(above))
}
