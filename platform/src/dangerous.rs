//! Controls that are switched off in a throw-away copy of a system, to see that breaking into it finds that.
//!
//! A switch is no setting: no manifest, option of `palisade up`, variable or file can say it. `palisade breach` gives it to the process that
//! starts its copy, and that one puts it into the description that each process of the copy is handed over its socket. Whoever is handed
//! one looks whether it is in such a copy, and does not start where it is not: where root runs it, where the network has more in it than
//! loopback, where the addresses and the socket are missing that a run puts up. Whoever honours one says so in its log and in the audit log.
//!
//! Guarantees: L13 each control can be missed, and none of them in a system that somebody relies on (docs/adr/0014).
//! Not here:   what goes without a control (`sandbox`, `proxy::mesh`, `policy`, `objects`), and who finds that (`breach`).

use std::collections::BTreeSet;
use std::fmt;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use breach::Control;
use manifest::ROLE_NAMES as ROLES;
use proxy::svid::WorkloadIdentity;
use proxy::view::ViewHolder;
use sandbox::DangerousWithout as Wall;
use sandbox::attack::outer;
use telemetry::Recorder;
use telemetry::event::ActDone;

use crate::boot::Boot;
use crate::breach::{ADDRESSES, run_of};
use crate::process::{Process, StartError};

/// One control, everywhere or at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DangerousSwitch {
    /// Which control.
    pub control: Control,
    /// A service or a role; nothing: wherever it is.
    pub at: Option<String>,
}

/// Where a control is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    /// In guards of services.
    guards: bool,
    /// In these roles.
    roles: &'static [&'static str],
}

/// Each guard.
const GUARD: Made = Made { guards: true, roles: &[] };
/// Each guard, the object store and the queue ask for themselves.
const ASKED: Made = Made { guards: true, roles: &["objects", "queue"] };
/// Whoever listens for others' calls.
const LISTENER: Made = Made { guards: true, roles: &["control", "evidence", "login", "objects", "queue"] };
const OBJECTS: Made = role(&["objects"]);
const EDGE: Made = role(&["edge"]);

const fn role(roles: &'static [&'static str]) -> Made {
    Made { guards: false, roles }
}

/// Controls that can be switched off, where each is made, and what is left out.
const SWITCHES: &[(Control, Made, &str)] = &[
    (Control::Seccomp, GUARD, "the filter of system calls"),
    (Control::Landlock, GUARD, "the rules about files and ports"),
    (Control::NetworkNamespace, GUARD, "the network of its own"),
    (Control::MountNamespace, GUARD, "the root of its own"),
    (Control::Limits, Made { guards: true, roles: &["edge"] }, "rlimits and the control group; at the edge, rates and counts"),
    (Control::FreshSandbox, GUARD, "the new sandbox for each job"),
    (Control::ArtefactDigest, GUARD, "whether what is started is what was locked"),
    (Control::Mtls, LISTENER, "who signed the certificate of a caller"),
    (Control::GuardOut, GUARD, "the list of routes on the way out"),
    (Control::GuardIn, GUARD, "the lists of callers and of routes on the way in"),
    (Control::EgressList, GUARD, "the list of destinations outside"),
    (Control::TransactionToken, GUARD, "whether a token is in flight here"),
    (Control::Policy, ASKED, "the question to the policies (with them a job's input and folder, and quarantine)"),
    (Control::JobToken, OBJECTS, "whether an object is a job's input or in its folder"),
    (Control::Quarantine, OBJECTS, "whether an object has its verdict"),
    (Control::Lease, OBJECTS, "the question whether a job's lease lives"),
    (Control::SignIn, EDGE, "who signed the token that somebody shows"),
    (Control::Scope, EDGE, "whether a token has a route's scope"),
    (Control::StepUp, EDGE, "whether somebody has given a second proof just now"),
    (Control::Role, role(&["edge", "evidence"]), "whether somebody has a page's role"),
    (Control::Sealing, role(&["control", "evidence", "identity", "login"]), "the encryption of keys on the disk"),
    (Control::AuditChain, role(&["evidence"]), "what chains a record to the one before it"),
];

/// Walls of a sandbox.
const WALLS: &[Control] = &[Control::Seccomp, Control::Landlock, Control::NetworkNamespace, Control::MountNamespace, Control::Limits];
/// Parts of one answer.
const ANSWER: &[Control] = &[Control::Policy, Control::JobToken, Control::Quarantine];

/// A switch that there is not.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' cannot be switched off; it is CONTROL, CONTROL@SERVICE or CONTROL@ROLE, and `palisade breach --list` has the controls")]
pub struct NoSwitch(String);

impl FromStr for DangerousSwitch {
    type Err = NoSwitch;

    fn from_str(text: &str) -> Result<Self, NoSwitch> {
        let (name, at) = text.split_once('@').map_or((text, None), |(name, at)| (name, Some(at.to_owned())));
        let row = SWITCHES.iter().find(|(control, ..)| control.as_str() == name).ok_or_else(|| NoSwitch(text.to_owned()))?;
        let Made { guards, roles } = row.1;
        // What is no role may be a service: whether there is one of that name, the manifest says.
        let fits = at.as_deref().is_none_or(|at| if ROLES.contains(&at) { roles.contains(&at) } else { guards });
        if fits { Ok(Self { control: row.0, at }) } else { Err(NoSwitch(text.to_owned())) }
    }
}

impl fmt::Display for DangerousSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.control)?;
        self.at.as_ref().map_or(Ok(()), |at| write!(f, "@{at}"))
    }
}

impl DangerousSwitch {
    /// Each with what it leaves out, for a list.
    #[must_use]
    pub fn all() -> Vec<(Control, &'static str)> {
        SWITCHES.iter().map(|(control, _, what)| (*control, *what)).collect()
    }

    /// Whether it is about this member of a system: `guard-SERVICE`, `guard-SERVICE.2`, or a role.
    fn concerns(&self, member: &str) -> bool {
        let Some((_, made, _)) = SWITCHES.iter().find(|(control, ..)| *control == self.control) else { return false };
        let place = match member.strip_prefix("guard-") {
            Some(name) if made.guards => name.split('.').next().unwrap_or(name),
            None if made.roles.contains(&member) => member,
            _ => return false,
        };
        self.at.as_deref().is_none_or(|at| at == place)
    }
}

/// Parses switches, and refuses two walls of one sandbox: what is tried within a sandbox was made to be tried behind the others.
///
/// # Errors
/// Why not, for whoever wrote them.
pub fn dangerous_switches(texts: &[String], services: &BTreeSet<&str>) -> Result<Vec<DangerousSwitch>, String> {
    let all: Vec<DangerousSwitch> =
        texts.iter().map(|text| text.parse()).collect::<Result<_, NoSwitch>>().map_err(|error| error.to_string())?;
    if let Some(at) = all.iter().filter_map(|one| one.at.as_deref()).find(|at| !services.contains(at) && !ROLES.contains(at)) {
        return Err(format!("the manifest has no service {at}"));
    }
    let two = |of: &[Control], member: &str| all.iter().filter(|one| of.contains(&one.control) && one.concerns(member)).count() > 1;
    if let Some(service) = services.iter().find(|service| two(WALLS, &format!("guard-{service}"))) {
        return Err(format!("one wall of a sandbox at a time: {service} would go without two"));
    }
    if two(ANSWER, "objects") {
        return Err("one part of the policies' answer at a time: objects would go without two".to_owned());
    }
    Ok(all)
}

/// What a member of a copy goes without.
pub(crate) fn dangerous_of(switches: &[DangerousSwitch], member: &str) -> BTreeSet<Control> {
    switches.iter().filter(|one| one.concerns(member)).map(|one| one.control).collect()
}

/// Whether a process with this folder is part of a throw-away copy that is being broken into.
///
/// # Errors
/// What is missing here that is there in a copy.
pub(crate) fn in_a_copy(dir: &Path) -> Result<(), &'static str> {
    if nix::unistd::geteuid().is_root() {
        return Err("root runs it");
    }
    let run = run_of(dir).ok_or("its folder is not that of a run")?;
    if !outer::is_closed().unwrap_or(false) {
        return Err("its network has more in it than loopback");
    }
    // Each is an address of this machine there, and nowhere else.
    if !ADDRESSES.iter().all(|address| UdpSocket::bind((*address, 0)).is_ok()) {
        return Err("its network has no addresses of a run");
    }
    let sockets = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let mark = format!("@{run}");
    if !sockets.lines().any(|line| line.split_whitespace().next_back() == Some(mark.as_str())) {
        return Err("nobody breaks in here");
    }
    Ok(())
}

/// What a process goes without: nothing, but in a throw-away copy of a system.
#[derive(Debug, Default)]
pub(crate) struct Without {
    /// INVARIANT: `admit` alone puts something here, after it has looked whether this is a copy. What goes without a control asks this, and
    /// not what the process was told.
    controls: BTreeSet<Control>,
}

/// Refuses to start with a switch where there is no copy; says loudly what this process goes without where there is one.
///
/// # Errors
/// `Refused`.
pub(crate) fn admit(boot: &Boot, recorder: &Recorder) -> Result<Without, StartError> {
    if boot.dangerous_without.is_empty() {
        return Ok(Without::default());
    }
    let names: Vec<&str> = boot.dangerous_without.iter().map(|control| control.as_str()).collect();
    let names = names.join(", ");
    if let Err(why) = in_a_copy(&boot.dir) {
        return Err(StartError::refused(format_args!(
            "it was told to go without {names}, which nothing does but a throw-away copy of a system (`palisade breach`): {why}"
        )));
    }
    tracing::warn!(without = names, "DANGEROUS: this process goes without a control; it is part of a copy that is broken into");
    let detail = "in a throw-away copy of a system".to_owned();
    let act = ActDone { act: "dangerous.without", by: boot.spiffe_id.to_string(), to: names, detail };
    recorder.record(None, &act).map_err(|_| StartError::refused("that it goes without a control could not be recorded"))?;
    Ok(Without { controls: boot.dangerous_without.clone() })
}

impl Process {
    /// Whether it goes without a control: in a throw-away copy of a system alone, which `admit` has made sure of.
    pub(crate) fn goes_without(&self, control: Control) -> bool {
        self.dangerous_without.controls.contains(&control)
    }
}

/// Opens a holder of views.
type Opener = fn(Arc<WorkloadIdentity>, Recorder, Option<PathBuf>) -> Arc<ViewHolder>;

/// How this process opens its view.
pub(crate) fn opener_of_views(process: &Process) -> Opener {
    match () {
        () if process.goes_without(Control::Policy) => ViewHolder::dangerous_open_without_policy,
        () if process.goes_without(Control::JobToken) => ViewHolder::dangerous_open_without_jobs,
        () if process.goes_without(Control::Quarantine) => ViewHolder::dangerous_open_without_quarantine,
        () => ViewHolder::open,
    }
}

/// The wall that a guard's sandboxes go without.
///
/// # Errors
/// `Refused` when the folder for temporary files cannot be made.
pub(crate) fn dangerous_wall(process: &Process) -> Result<Option<Wall>, StartError> {
    let walls = [
        (Control::Seccomp, Wall::Seccomp),
        (Control::Landlock, Wall::Landlock),
        (Control::NetworkNamespace, Wall::NetworkNamespace),
        (Control::Limits, Wall::Limits),
    ];
    if process.goes_without(Control::MountNamespace) {
        return Ok(Some(Wall::MountNamespace(process.folder("dangerous-tmp")?)));
    }
    Ok(walls.into_iter().find(|(control, _)| process.goes_without(*control)).map(|(_, wall)| wall))
}

#[cfg(test)]
mod tests;
