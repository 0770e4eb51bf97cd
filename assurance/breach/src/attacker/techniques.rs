//! The table of techniques. One is one small file: its row, and the function that tries it.
//!
//! To add one: a file in `techniques/` with a `ROW`, its name in `mod` and in `ALL` below. Nothing else has to know of it.
//!
//! Spec:       MITRE ATT&CK for Containers v16 (ids), STRIDE.
//! Guarantees: L10.

use std::io;
use std::time::Duration;

use manifest::Isolation;

pub use bound::{Bound, BoundTo, Thief, proven};
pub use elsewhere::Credential;
pub use forged::carried;

use super::http::{Answer, Ask, Request};
use super::nearby::Nearby;
use super::note::Notes;
use super::script::Script;
use super::{Act, Fates, Hand, TryCalls};
use crate::untried::KERNEL_LACKS;
use crate::{Cell, Control, Outcome, Stride, Technique};

mod addresses;
mod after;
mod bound;
mod calls_of_kernel;
mod console;
mod cross_person;
mod descriptors;
mod devices;
mod edge_surfaces;
mod elsewhere;
mod environment;
mod exhaustion;
mod families;
mod files;
mod forged;
mod handshakes;
mod insider;
mod jobs_of_others;
mod leases;
pub(super) mod leftovers;
mod login_surface;
mod loopback;
mod memory;
mod metadata;
mod mounts;
mod name_servers;
mod namespaces;
mod objects_of_others;
mod operator_sockets;
mod other_destinations;
mod own_token;
mod own_work;
mod parsing;
mod privileges;
mod proc_sys;
mod processes;
pub(crate) mod programs;
mod public_routes;
mod queues_of_others;
mod rates;
mod replay;
mod routes_of_others;
mod scopes;
mod signals;
mod sockets;
mod standing;
mod tokens_outside;
mod traces;
mod tracing;
pub(super) mod unvalidated;
mod walls;
mod writing;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Id, kebab-case and for good.
    pub id: &'static str,
    /// What it tries.
    pub title: &'static str,
    /// MITRE ATT&CK for Containers.
    pub attack: &'static str,
    /// STRIDE.
    pub stride: Stride,
    /// Controls that it tests.
    pub controls: &'static [Control],
    /// The function.
    pub run: Run,
}

impl Row {
    /// Whether it is tried in a process of its own when it is the turn of this act.
    #[must_use]
    pub fn is_alone(&self, act: Act) -> bool {
        match self.run {
            Run::Alone(..) => act == Act::Attack,
            Run::Pressing(_) => act == Act::Press,
            Run::First(_) | Run::InHand(..) | Run::After(_) | Run::Outside(..) => false,
        }
    }
}

/// Where a technique is tried from.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// From a process in the sandbox, with nothing in hand; with the system calls that it makes and a sandbox may deny, as `SyscallDenied`
    /// names them, so that what is told of them can be told apart.
    Alone(fn(&Alone<'_>, &mut Notes), &'static [&'static str]),
    /// From a process in the sandbox, in a round of its own, while other people's work is timed.
    Pressing(fn(&Alone<'_>, &mut Notes)),
    /// With a request or job in hand, before anything is done with it.
    First(fn(&Hand<'_>, &mut Notes)),
    /// While a request or job is in hand.
    InHand(fn(&Hand<'_>, &mut Notes), Act),
    /// With what was kept of work that is over.
    After(fn(&Hand<'_>, &mut Notes)),
    /// From outside, by these.
    Outside(fn(&Visitor<'_>, &mut Notes), &'static [Who]),
}

/// Who comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Nobody in particular.
    Stranger,
    /// A signed-in person.
    Person,
    /// An administrator's session without a second proof.
    Insider,
    /// An administrator who proved a second factor just now.
    InsiderMfa,
    /// A partner with a key of limited scope.
    Vendor,
}

/// What a process alone in a sandbox knows.
#[derive(Clone, Copy)]
pub struct Alone<'a> {
    /// What the system is.
    pub script: &'a Script,
    /// Which service it is in.
    pub service: &'a str,
    /// Whose work it came with.
    pub person: &'a str,
    /// Who started this process: the program in its service's place.
    pub started_by: Option<i32>,
    /// Tries system calls by their names.
    pub calls: TryCalls,
}

impl Alone<'_> {
    /// Tries these system calls.
    fn fates(&self, names: &[&str]) -> Fates {
        (self.calls)(names, self.started_by)
    }

    /// Whether its sandbox has namespaces of its own.
    fn is_full(&self) -> bool {
        self.script.services.get(self.service).is_none_or(|part| part.isolation == Isolation::Full)
    }
}

/// Somebody outside, at the edge's door.
pub struct Visitor<'a> {
    /// Who.
    pub who: Who,
    /// The way in, with the visitor's own credential.
    pub door: &'a dyn Ask,
    /// The way in without any.
    pub bare: &'a dyn Ask,
    /// What the system is.
    pub script: &'a Script,
    /// Mark of the visitor's own things.
    pub own: String,
    /// Mark of the victim's things.
    pub victim: String,
    /// Scopes of the visitor's key; nothing where it has a session.
    pub scopes: Option<Vec<String>>,
    /// The way in with a lesser key of the same owner, if there is one.
    pub lesser: Option<&'a dyn Ask>,
    /// Things that were stolen elsewhere: what it is, and its text.
    pub stolen: &'a [(String, String)],
    /// Sessions and keys that were stolen from others.
    pub credentials: &'a [Credential],
    /// Tokens that were stolen from applications, and are bound to a key or a certificate.
    pub bound: &'a [Bound],
    /// Why some of these could not be had.
    pub unbound: &'a [String],
    /// What a thief of such a token has.
    pub thief: &'a dyn Thief,
    /// Calls a UNIX socket as another user of the machine, if wished with the modes of all files on the way set aside; gives what was said.
    pub as_another_user: &'a dyn Fn(&str, bool) -> io::Result<String>,
    /// A place in the network of the system.
    pub nearby: &'a dyn Nearby,
    /// Signs in anew with an administrator's password and nothing else; whether that gives a session.
    pub by_password_alone: &'a dyn Fn() -> io::Result<bool>,
}

/// Every technique, in the order in which they are tried: what breaks something comes last.
pub const ALL: &[Row] = &[
    // Tried by a process alone in the sandbox.
    walls::ROW,
    files::ROW,
    writing::ROW,
    mounts::ROW,
    processes::ROW,
    signals::ROW,
    tracing::ROW,
    namespaces::ROW,
    privileges::ROW,
    devices::ROW,
    calls_of_kernel::ROW,
    proc_sys::ROW,
    descriptors::ROW,
    environment::ROW,
    programs::ROW,
    families::ROW,
    sockets::ROW,
    loopback::ROW,
    addresses::ROW,
    metadata::ROW,
    name_servers::ROW,
    exhaustion::ROW,
    // With work in hand.
    unvalidated::ROW,
    memory::ROW,
    leftovers::ROW,
    own_work::ROW,
    objects_of_others::ROW,
    jobs_of_others::ROW,
    queues_of_others::ROW,
    routes_of_others::ROW,
    other_destinations::ROW,
    standing::ROW,
    forged::ROW,
    parsing::ROW,
    traces::ROW,
    replay::ROW,
    leases::ROW,
    after::ROW,
    // From outside.
    public_routes::ROW,
    own_token::ROW,
    login_surface::ROW,
    console::ROW,
    edge_surfaces::ROW,
    tokens_outside::ROW,
    elsewhere::ROW,
    cross_person::ROW,
    scopes::ROW,
    insider::ROW,
    operator_sockets::ROW,
    bound::ROW,
    handshakes::ROW,
    rates::ROW,
];

/// The table as reports have it.
#[must_use]
pub fn catalogue() -> Vec<Technique> {
    let technique = |row: &Row| Technique {
        id: row.id.to_owned(),
        title: row.title.to_owned(),
        attack: row.attack.to_owned(),
        stride: row.stride,
        controls: row.controls.to_vec(),
    };
    ALL.iter().map(technique).collect()
}

/// What is seen where a request could not be sent at all.
pub const NO_WAY: &str = "there is no way to it";

/// How long somebody waits who was told to, and how often.
const TOO_FAST: Duration = Duration::from_millis(100);
const TOO_FAST_MAX: usize = 100;

/// Asks as slowly as it takes: that somebody asks too often says nothing of what they were shown.
fn patiently(ask: &dyn Ask, request: &Request) -> io::Result<Answer> {
    for _ in 0..TOO_FAST_MAX {
        let answer = ask.ask(request)?;
        if answer.status != 429 {
            return Ok(answer);
        }
        std::thread::sleep(TOO_FAST);
    }
    ask.ask(request)
}

/// Notes what came of a call of a destination outside. That its guard let it out is what counts: nobody needs to be there.
fn let_out(notes: &mut Notes, answer: io::Result<Answer>, cell: Cell) {
    match answer {
        Ok(answer) if matches!(answer.status, 502..=504) && !answer.text().contains("\"reason\"") => {
            notes.reached(cell, "the guard lets it out; nobody is there");
        }
        other => {
            judged(notes, other, cell, "a destination outside");
        }
    }
}

/// Notes what came of a request: success is `cell`, everything else a refusal.
fn judged(notes: &mut Notes, answer: io::Result<Answer>, cell: Cell, what: &str) -> bool {
    match answer {
        Ok(answer) if answer.is_success() => {
            notes.reached(cell, format!("{what}: {}", answer.status));
            return true;
        }
        Ok(answer) => notes.stopped(None, format!("{what}: {}", answer.status)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            notes.stopped(Some(Control::NetworkNamespace), format!("{what}: {NO_WAY}"));
        }
        Err(_) => notes.stopped(None, format!("{what}: no answer")),
    }
    false
}

/// Where this program lies, without a system call that a list may lack.
fn own_program() -> std::path::PathBuf {
    std::env::args_os().next().map(Into::into).unwrap_or_default()
}

/// Tries calls of these names, and notes what the kernel answered.
fn fated(alone: &Alone<'_>, notes: &mut Notes, names: &[&str]) {
    fated_as(alone, notes, names, &|name| Cell::done("kernel", name, crate::Extent::Standing));
}

/// As `fated`, with what each is worth that is done.
fn fated_as(alone: &Alone<'_>, notes: &mut Notes, names: &[&str], worth: &dyn Fn(&str) -> Cell) {
    /// The name by which `sandbox` tells whether there is a filter at all.
    const FILTER: &str = "filter";
    let asked: Vec<&str> = names.iter().copied().chain([FILTER]).collect();
    let fates = alone.fates(&asked);
    let filtered = fates.get(FILTER).is_some_and(|said| said == "there");
    for name in names {
        let Some(fate) = fates.get(*name) else {
            notes.untried(format!("{name} could not be tried in this sandbox"));
            continue;
        };
        match judged_fate(name, fate, filtered) {
            Outcome::Reached => notes.reached(worth(name), format!("{name}: {fate}")),
            Outcome::Stopped { by } => notes.stopped(by, format!("{name}: {fate}")),
            Outcome::Untried { why } => notes.untried(why),
        }
    }
}

/// What the kernel's answer to a call tells. Who stopped it is said where the answer can be of that one alone; where nothing refused and
/// nothing was done either, nothing is known.
fn judged_fate(name: &str, fate: &str, filtered: bool) -> Outcome {
    let stopped = |by| Outcome::Stopped { by: Some(by) };
    match (name, fate) {
        (_, "done") => Outcome::Reached,
        // It may, and only did not know where: the same question with the right address is answered.
        ("process_vm_readv parent", "EFAULT") | ("tcp fast open", "ECONNREFUSED" | "ENETUNREACH") => Outcome::Reached,
        (_, "ENOSYS" | "EAFNOSUPPORT") if filtered => stopped(Control::Seccomp),
        (_, "ENOSYS" | "EAFNOSUPPORT" | "EPROTONOSUPPORT" | "ESOCKTNOSUPPORT" | "ENODEV") => {
            Outcome::Untried { why: format!("{KERNEL_LACKS}: {name}, {fate}") }
        }
        (_, killed) if killed.starts_with("killed") => Outcome::Stopped { by: filtered.then_some(Control::Seccomp) },
        // The call itself is allowed, with whom it is about; what it asks for takes a capability.
        ("raise own limit", "EPERM") => stopped(Control::NoNewPrivileges),
        // Without a filter only capabilities and rules about files are left.
        (_, "EPERM") if !filtered && name.starts_with("mount") | name.starts_with("pivot_root") && name.ends_with("own root") => {
            stopped(Control::Landlock)
        }
        ("kexec_load" | "init_module" | "bpf" | "perf_event_open" | "setns" | "socket raw4" | "socket packet", "EPERM" | "EACCES")
            if !filtered =>
        {
            stopped(Control::NoNewPrivileges)
        }
        ("setuid root" | "setgid root", "EINVAL") => stopped(Control::UserNamespace),
        ("core dump", "no core") => stopped(Control::Limits),
        ("push terminal input", "ENOTTY") => stopped(Control::MountNamespace),
        (_, "ESRCH") => stopped(Control::ProcessNamespace),
        (_, "EPERM" | "EACCES" | "EROFS") => Outcome::Stopped { by: None },
        (_, fate) => Outcome::Untried { why: format!("{name}: {fate}; nothing refused it, and it did nothing") },
    }
}

/// Numbers of errors on Linux, the same on both architectures.
const EPERM: i32 = 1;
const EAFNOSUPPORT: i32 = 97;
/// What is seen where EPERM was answered.
pub const NOT_PERMITTED: &str = "not permitted";

/// The error's name, as far as it says who refused.
fn refusal(error: &io::Error) -> (Option<Control>, &'static str) {
    match error.kind() {
        io::ErrorKind::NotFound => (Some(Control::MountNamespace), "not there"),
        // EPERM is what a filter answers, EACCES what rights and Landlock do; which filter it was, the audit log tells.
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(EPERM) => (None, NOT_PERMITTED),
        io::ErrorKind::PermissionDenied => (None, "permission denied"),
        _ if error.raw_os_error() == Some(EAFNOSUPPORT) => (Some(Control::Seccomp), "no such family"),
        io::ErrorKind::ReadOnlyFilesystem => (Some(Control::MountNamespace), "read-only"),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::ConnectionRefused => {
            (Some(Control::NetworkNamespace), "nothing there")
        }
        _ => (None, "refused"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // L10, L13: what was not there to be reached is no proof of a control, and what is only badly asked for is none either.
    #[test]
    fn a_control_is_credited_where_it_can_be_the_one_alone() {
        let by = |name, fate, filtered| match judged_fate(name, fate, filtered) {
            Outcome::Reached => "reached".to_owned(),
            Outcome::Untried { .. } => "untried".to_owned(),
            Outcome::Stopped { by } => by.map_or_else(|| "stopped".to_owned(), |by| by.to_string()),
        };
        for (name, fate, filtered, expect) in [
            ("bpf", "done", true, "reached"),
            ("bpf", "killed by SIGKILL", true, "seccomp"),
            ("bpf", "killed by SIGKILL", false, "stopped"),
            ("bpf", "ENOSYS", true, "seccomp"),
            ("bpf", "ENOSYS", false, "untried"),
            ("socket alg", "EAFNOSUPPORT", true, "seccomp"),
            ("socket alg", "EAFNOSUPPORT", false, "untried"),
            ("add_key", "EFAULT", true, "untried"),
            ("add_key", "not tried: no more processes", true, "untried"),
            ("process_vm_readv parent", "EFAULT", false, "reached"),
            ("process_vm_readv parent", "EPERM", false, "stopped"),
            ("tcp fast open", "ENOTSOCK", true, "untried"),
            ("kexec_load", "EPERM", true, "stopped"),
            ("kexec_load", "EPERM", false, "no-new-privileges"),
            ("mount tmpfs as its own root", "EPERM", false, "landlock"),
            ("signal others", "ESRCH", true, "process-namespace"),
        ] {
            assert_eq!(by(name, fate, filtered), expect, "{name}: {fate}, filter: {filtered}");
        }
    }

    // L10: each technique has an id of its own, an ATT&CK id, and controls that it tests.
    #[test]
    fn the_table_is_whole() {
        let ids: BTreeSet<&str> = ALL.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for row in ALL {
            assert!(row.attack.starts_with('T') && row.attack.len() >= 5, "{}", row.id);
            assert!(row.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", row.id);
            assert!(row.title.len() > 20 && !row.controls.is_empty() || row.id == "own-work", "{}", row.id);
        }
        assert_eq!(catalogue().len(), ALL.len());
    }
}
