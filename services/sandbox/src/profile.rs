//! The profile: everything one service may have, as data.
//!
//! It crosses the socketpair from the guard to init as JSON, so it must never hold a secret.
//!
//! Guarantees: I2, I3, I7 are read from here and from nowhere else.
//! Not here:   how each field is enforced (`root`, `landlock`, `seccomp`, `limits`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artefact;
use crate::calls::Calls;

/// How strong a confinement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Without namespaces: Landlock, seccomp, rlimits; `connect` and `bind` decided by init through seccomp notification.
    Confined,
    /// User, mount, PID, network, IPC and UTS namespaces; Landlock, seccomp and rlimits under them.
    Full,
}

/// Who builds namespaces and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// This crate.
    Own,
    /// The program bubblewrap; it must be installed.
    Bwrap,
}

/// A file that runs or is read by a program that runs, bound to its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Absolute path on the host; inside the sandbox it has the same one.
    pub path: PathBuf,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
}

impl Artefact {
    /// Measures a file: what `palisade lock` writes down.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn measure(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let sha256 = artefact::digest(&std::fs::File::open(&path)?)?;
        Ok(Self { path, sha256 })
    }
}

/// One declared outbound flow: a listening socket at `127.0.0.1:port`, which the guard serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// The flow's name, for instance `queue` or `bucket.originals`.
    pub name: String,
    /// TCP port on 127.0.0.1 inside the sandbox; 0 for any that is free.
    pub port: u16,
}

/// Limits of one service. Without a delegated cgroup, memory and file size hold for each process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Writable private memory, bytes (`RLIMIT_DATA`; `memory.max` where there is a cgroup).
    pub memory_bytes: u64,
    /// Processes and threads together (`RLIMIT_NPROC`, `pids.max`).
    pub processes: u64,
    /// Open file descriptors for each process.
    pub open_files: u64,
    /// Largest file that can be written, bytes.
    pub file_bytes: u64,
    /// CPU seconds for each process, if limited.
    pub cpu_seconds: Option<u64>,
    /// CPU cores (`cpu.max`; only where there is a cgroup).
    pub cpu_cores: Option<f64>,
    /// Wall clock from the start of the program until everything is killed, milliseconds.
    pub wall_ms: Option<u64>,
    /// Size of the private `/tmp`, bytes.
    pub tmp_bytes: u64,
    /// What the state folder may take on the disk, bytes: looked at once a second, and the service ends that is over it.
    pub state_bytes: u64,
}

/// Pretends that the kernel lacks something, and really goes without it. For tests of refusal and of older kernels only;
/// the report shows what is then missing, and a required level that is not reached is refused as ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulate {
    /// As if user namespaces were forbidden (I1).
    #[serde(default)]
    pub no_user_namespaces: bool,
    /// As if the kernel had this Landlock ABI; 0 is none (I4, I5).
    #[serde(default)]
    pub landlock_abi: Option<i32>,
    /// As if the kernel had no seccomp filters (I5).
    #[serde(default)]
    pub no_seccomp: bool,
    /// As if a filter around this process asked somebody already, so that ours may not (I5, I6).
    #[serde(default)]
    pub seccomp_listener_taken: bool,
}

/// One wall of the sandbox that is left out on purpose, to see that an attack on a throw-away copy of a system finds that. Never two: what
/// was made to be tried within a sandbox is tried behind the others. Those that are not here carry the rest: without a user namespace an
/// unprivileged guard has no other, without a PID namespace what was started would outlive its sandbox, and without `no_new_privs` there
/// is neither Landlock nor seccomp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DangerousWithout {
    /// No filter of system calls.
    Seccomp,
    /// No Landlock rules.
    Landlock,
    /// The network of the guard.
    NetworkNamespace,
    /// The guard's tree of files, with this folder for temporary ones.
    MountNamespace(PathBuf),
    /// Neither rlimits nor a control group.
    Limits,
}

impl DangerousWithout {
    /// The layer, as messages name it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "Landlock",
            Self::NetworkNamespace => "network namespace",
            Self::MountNamespace(_) => "root of its own",
            Self::Limits => "limits",
        }
    }
}

/// Everything that one sandboxed service may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name of the service; becomes its host name.
    pub name: String,
    /// The weakest level at which it may start.
    pub required_level: Level,
    /// Who builds namespaces and root, where the level has them.
    pub backend: Backend,
    /// The program; executed only if its content has this digest.
    pub program: Artefact,
    /// Arguments after the program's own name.
    pub arguments: Vec<String>,
    /// The whole environment. In its values `{port}` stands for the service's port and `{flow:NAME}` for a flow's. At level `Confined`
    /// the value of `TMPDIR`, if it is set, is replaced by the private folder.
    pub environment: BTreeMap<String, String>,
    /// Where it listens, on 127.0.0.1 of its namespace; 0 for any port that is free, which is kept for it.
    pub port: Option<u16>,
    /// Its outbound flows.
    pub flows: Vec<Flow>,
    /// Further programs it may execute.
    pub tools: Vec<Artefact>,
    /// Files that the program interprets (scripts): readable, measured, not executable.
    pub scripts: Vec<Artefact>,
    /// Readable files and folders; each must exist. [`Profile::system_read`] gives the usual ones.
    pub read: Vec<PathBuf>,
    /// The one folder that is writable and outlives a start. Owned by `run_as_id` afterwards if the guard is root.
    pub state: Option<PathBuf>,
    /// Working directory inside; the state folder or `/tmp` if absent.
    pub work_dir: Option<PathBuf>,
    /// System calls that it may make.
    pub calls: Calls,
    /// Limits.
    pub limits: Limits,
    /// uid and gid of the service if the guard is root; without effect otherwise. Never 0.
    pub run_as_id: u32,
    /// How long an inbound connection waits for the service to listen, from its start, milliseconds.
    pub start_patience_ms: u64,
    /// For tests of refusal.
    #[serde(default)]
    pub dangerous_simulate: Simulate,
    /// A wall that is left out, in a throw-away copy of a system alone: init refuses it where there is more of a network than loopback, to
    /// root, at another level than `Full`, and with another backend than its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dangerous_without: Option<DangerousWithout>,
}

/// Flows of one service at most: one message carries all their sockets (`SCM_MAX_FD` is 253).
pub(crate) const FLOWS_MAX: usize = 200;

impl Profile {
    /// The read-only paths that ordinary dynamically linked programs need, those of them that exist here.
    #[must_use]
    pub fn system_read() -> Vec<PathBuf> {
        const USUAL: [&str; 13] = [
            "/usr",
            "/lib",
            "/lib64",
            "/lib32",
            "/bin",
            "/sbin",
            "/etc/ld.so.cache",
            "/etc/ld.so.conf",
            "/etc/ld.so.conf.d",
            "/etc/alternatives",
            "/etc/localtime",
            "/etc/mime.types",
            "/etc/nsswitch.conf",
        ];
        USUAL.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
    }

    /// Everything whose content is bound: program, tools, scripts.
    pub(crate) fn artefacts(&self) -> impl Iterator<Item = &Artefact> {
        std::iter::once(&self.program).chain(&self.tools).chain(&self.scripts)
    }

    /// The same with the ports that were taken for it, `flows` in order.
    pub(crate) fn with_ports(&self, flows: &[u16], own: Option<u16>) -> Self {
        let mut settled = self.clone();
        settled.port = own;
        for (flow, port) in settled.flows.iter_mut().zip(flows) {
            flow.port = *port;
        }
        for value in settled.environment.values_mut().filter(|value| value.contains('{')) {
            if let Some(port) = own {
                *value = value.replace("{port}", &port.to_string());
            }
            for flow in &settled.flows {
                *value = value.replace(&format!("{{flow:{}}}", flow.name), &flow.port.to_string());
            }
        }
        settled
    }

    /// The temporary folder, where the tree of files is left as it is.
    pub(crate) fn dangerous_tmp(&self) -> Option<&Path> {
        if let Some(DangerousWithout::MountNamespace(tmp)) = &self.dangerous_without { Some(tmp) } else { None }
    }

    /// Checks what can be checked without the kernel.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(wall) = &self.dangerous_without
            && (self.required_level != Level::Full
                || self.backend != Backend::Own
                || self.dangerous_tmp().is_some_and(|tmp| !is_plain(tmp)))
        {
            return Err(format!("{}: a wall is left out of a sandbox of our own at level `full` alone", wall.word()));
        }
        let paths = self.artefacts().map(|artefact| &artefact.path).chain(&self.read).chain(&self.state);
        for path in paths.chain(&self.work_dir) {
            if !is_plain(path) {
                return Err(format!("{}: must be an absolute path without `..`, and not `/`", path.display()));
            }
        }
        let own = ["/proc", "/dev", "/sys"];
        let under_own = |path: &&PathBuf| own.iter().any(|own| path.starts_with(own)) || path.as_path() == Path::new("/tmp");
        if let Some(path) = self.artefacts().map(|artefact| &artefact.path).chain(&self.read).chain(&self.state).find(under_own) {
            return Err(format!("{}: /proc, /dev, /sys and /tmp itself cannot be declared; the sandbox has its own", path.display()));
        }
        if let Some(state) = &self.state {
            let others = self.artefacts().map(|artefact| &artefact.path).chain(&self.read);
            for path in others {
                if path.starts_with(state) || state.starts_with(path) {
                    return Err(format!(
                        "{}: overlaps the state folder {}; what a service may write must not be what it runs or reads as given",
                        path.display(),
                        state.display()
                    ));
                }
            }
        }
        let mut ports = BTreeSet::new();
        for port in self.flows.iter().map(|flow| flow.port).chain(self.port) {
            if port != 0 && !ports.insert(port) {
                return Err(format!("port {port}: every flow and the service need a port of their own, or 0 for any"));
            }
        }
        if self.flows.len() > FLOWS_MAX {
            return Err(format!("{} flows; {FLOWS_MAX} at most", self.flows.len()));
        }
        if self.run_as_id == 0 {
            return Err("run_as_id: a service never runs as root".to_owned());
        }
        let texts = self.arguments.iter().chain(self.environment.keys()).chain(self.environment.values());
        if texts.clone().any(|text| text.contains('\0')) || self.environment.keys().any(|key| key.contains('=')) {
            return Err("arguments and environment must not contain NUL, nor a variable's name `=`".to_owned());
        }
        Ok(())
    }
}

fn is_plain(path: &Path) -> bool {
    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && path.parent().is_some()
        && components.all(|component| matches!(component, Component::Normal(_)))
}
