//! Init: the process between the guard and the service.
//!
//! The outer init is the guard's child on the host side of the PID namespace; it enters the namespaces, forks PID 1 and
//! waits. PID 1 builds the rest, becomes powerless, starts the service and supervises it. Without user namespaces there
//! is one init, which stays outside of the service's filters and decides its connections.
//!
//! Guarantees: I5 every missing layer that the required level names is a refusal; I12 neither init is dumpable.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid, pipe2, sethostname};

use crate::artefact::{self, BindError, Bound};
use crate::cgroup::Leaf;
use crate::landlock::{self, ABI_SCOPES, ABI_TCP};
use crate::namespaces::{self, Identity};
use crate::notify::Notifier;
use crate::profile::{Artefact, Backend, DangerousWithout, Level, Profile, Simulate};
use crate::report::{LayerName, Report};
use crate::root::Built;
use crate::seccomp::Filters;
use crate::seen::Watched;
use crate::service::{self, Plan};
use crate::supervise::{self, Watch};
use crate::wire::{ChildNote, Refusal, Reply, Request, Wire};
use crate::{attack, bwrap, cgroup, fill, limits, net, root, sys};

/// What the subcommand `sandbox-init` does. It must be called before any other thread exists.
///
/// The exit code is for nobody: the guard hears everything over the wire at descriptor 3.
pub fn init_main() -> ! {
    let parent = getppid();
    // What is built here must be passable for the service, whatever the guard keeps to itself.
    umask(Mode::from_bits_truncate(0o022));
    // First of all: the descriptors of the guard that were not close-on-exec.
    let started = sys::close_from(4).and_then(|()| sys::take_wire()).map(Wire::from);
    let Ok(guard) = started else { sys::exit_now(125) };
    sys::take_short_turns();
    // It may wait long for its profile (`Ahead`), and nobody is to get into it meanwhile.
    if die_with(parent).is_err() || limits::forbid_dumps().is_err() {
        sys::exit_now(125);
    }
    // bwrap's child is this program again, with what the first one found out.
    let mut rest = std::env::args().skip(2);
    let outcome = match (rest.next().as_deref(), rest.next()) {
        (Some("inside"), Some(cgroup)) => inside_bwrap(&guard, &cgroup),
        _ => start(&guard, parent),
    };
    let code = match outcome {
        Ok(()) => 0,
        Err(refusal) => {
            // What is unread when this ends would make the kernel say that the wire broke.
            while let Ok(Some(_)) = guard.receive_at_once::<Request>() {}
            // Without a guard there is nobody to tell.
            let _ = guard.send(&Reply::Refused(refusal), &[]);
            1
        }
    };
    sys::exit_now(code)
}

fn setup<T, E: std::fmt::Display>(step: &str, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|cause| Refusal::Setup { step: step.to_owned(), why: cause.to_string() })
}

fn need<T, E: std::fmt::Display>(layer: LayerName, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|cause| Refusal::Layer { layer, why: cause.to_string() })
}

/// Takes the profile from the guard, or with `peek` looks at it.
fn take_profile(guard: &Wire, peek: bool) -> Result<Box<Profile>, Refusal> {
    let request = if peek { guard.peek() } else { guard.receive().map(|got| got.map(|(request, _)| request)) };
    match setup("receiving the profile", request)? {
        Some(Request::Start(profile)) => {
            profile.check().map_err(Refusal::Profile)?;
            // The maps of a user namespace are files of `/proc` that are its own only while it is dumpable; it is so until it gives up
            // its powers.
            setup("receiving the profile", prctl::set_dumpable(true))?;
            Ok(profile)
        }
        _ => setup("receiving the profile", Err("the guard sent none")),
    }
}

/// The Landlock ABI. Filters are compiled for the level that is reached; here it is asked whether they can be had at all.
fn kernel(simulate: &Simulate) -> Result<i32, Refusal> {
    let (abi, detail) = landlock::abi(simulate);
    if abi < 1 {
        return need(LayerName::LandlockFiles, Err(detail));
    }
    need(LayerName::Seccomp, if simulate.no_seccomp { Err("simulated as missing") } else { Ok(abi) })
}

/// PID 1 in what bwrap built.
fn inside_bwrap(guard: &Wire, cgroup: &str) -> Result<(), Refusal> {
    let profile = take_profile(guard, false)?;
    let identity = Identity::of_this_process(profile.run_as_id);
    let abi = kernel(&profile.dangerous_simulate)?;
    let mut report = Report::default();
    report.applied(LayerName::UserNamespace, format!("by bwrap; the service has uid {} inside and outside", identity.uid));
    match cgroup.strip_prefix(LIMITED) {
        Some(detail) => report.applied(LayerName::Cgroup, detail),
        None => report.absent(LayerName::Cgroup, cgroup),
    }
    let stage = Stage { profile: &profile, guard, parent: getppid(), identity, abi, leaf: None };
    let artefacts = each_artefact(&profile, Bound::bind)?;
    let (settled, kept) = stage.pass_listeners()?;
    drop(kept);
    let built = need(LayerName::MountNamespace, root::narrow(&profile, identity))?;
    stage.furnished(&mut report, &built, "by bwrap: ", "IPC, UTS; cgroup where there is one");
    need(LayerName::Capabilities, namespaces::leave_powers(identity, true))?;
    // bwrap waits for this process, and dies with the guard.
    need(LayerName::PidNamespace, prctl::set_pdeathsig(Signal::SIGKILL))?;
    let place = Place { level: Level::Full, tmp: Path::new("/tmp"), proc: built.proc.is_ok(), outer: None };
    Stage { profile: &settled, ..stage }.run(report, &artefacts, &place)
}

/// A wall is left out in a throw-away copy of a system alone: in its network, which has loopback and nothing else, and never by root.
fn dangerous_only_in_a_copy(profile: &Profile) -> Result<(), Refusal> {
    let Some(wall) = &profile.dangerous_without else { return Ok(()) };
    if nix::unistd::geteuid().is_root() || !attack::outer::is_closed().unwrap_or(false) {
        let why = "may be left out in a throw-away copy of a system alone, which a user without rights breaks into";
        return Err(Refusal::Profile(format!("{}: {why}", wall.word())));
    }
    Ok(())
}

/// What the outer init says of a control group that it is in.
const LIMITED: &str = "limited: ";
/// What the report says of a wall that is not there.
const LEFT_OUT: &str = "left out on purpose (`dangerous_without`)";

fn start(guard: &Wire, parent: Pid) -> Result<(), Refusal> {
    let profile = take_profile(guard, true)?;
    dangerous_only_in_a_copy(&profile)?;
    let mut report = Report::default();
    let identity = Identity::of_this_process(profile.run_as_id);
    let abi = kernel(&profile.dangerous_simulate)?;
    let leaf = match &profile.dangerous_without {
        Some(DangerousWithout::Limits) => Err(LEFT_OUT.to_owned()),
        _ => cgroup::make(&profile.limits),
    };
    match &leaf {
        Ok(leaf) => report.applied(LayerName::Cgroup, leaf.detail.clone()),
        Err(why) => report.absent(LayerName::Cgroup, why.clone()),
    }
    if profile.backend == Backend::Bwrap && !profile.dangerous_simulate.no_user_namespaces {
        // The profile stays on the wire for the init inside.
        let cgroup = match &leaf {
            Ok(leaf) => need(LayerName::Cgroup, leaf.enter()).map(|()| format!("{LIMITED}{}", leaf.detail))?,
            Err(why) => why.clone(),
        };
        return need(LayerName::UserNamespace, bwrap::become_it(&profile, identity, guard, &cgroup)).map(|never| match never {});
    }
    let profile = take_profile(guard, false)?;

    let stage = Stage { profile: &profile, guard, parent, identity, abi, leaf: leaf.as_ref().ok() };
    let entered = match profile.dangerous_simulate.no_user_namespaces {
        true => Err(io::Error::other("simulated as missing")),
        // Entering is for ever, so where there is an alternative it is tried out first.
        false if profile.required_level == Level::Confined => namespaces::try_out().and_then(|()| namespaces::enter_user(identity)),
        false => namespaces::enter_user(identity),
    };
    match entered {
        Ok(()) => stage.full(report),
        Err(cause) if profile.required_level == Level::Full => {
            let advice = format!("{cause}; allow unprivileged user namespaces, or accept level `confined` in the manifest");
            need(LayerName::UserNamespace, Err(advice))
        }
        Err(cause) => {
            report.absent(LayerName::UserNamespace, cause.to_string());
            need(LayerName::Cgroup, stage.leaf.map_or(Ok(()), Leaf::enter))?;
            stage.confined(report)
        }
    }
}

#[derive(Clone, Copy)]
struct Stage<'a> {
    profile: &'a Profile,
    guard: &'a Wire,
    parent: Pid,
    identity: Identity,
    abi: i32,
    leaf: Option<&'a Leaf>,
}

impl Stage<'_> {
    /// Level `Full`, on the host side: forks PID 1 and waits for it.
    fn full(&self, mut report: Report) -> Result<(), Refusal> {
        let id = self.identity.uid;
        report.applied(LayerName::UserNamespace, format!("the service has uid {id} inside and outside"));
        let own_network = !self.dangerous_without(&DangerousWithout::NetworkNamespace);
        need(LayerName::NetworkNamespace, namespaces::enter_others(own_network))?;
        need(LayerName::UserNamespace, die_with(self.parent))?;
        let opened = each_artefact(self.profile, Bound::open)?;
        let (alive_read, alive_write) = setup("pipe", pipe2(nix::fcntl::OFlag::O_CLOEXEC))?;
        let (hear, tell) = setup("pipe", pipe2(nix::fcntl::OFlag::O_CLOEXEC))?;
        let Some(child) = setup("forking PID 1", self.leaf.map_or_else(sys::fork, Leaf::fork))? else {
            drop((alive_write, tell));
            sys::take_short_turns();
            let outcome =
                need(LayerName::PidNamespace, die_with_parent(&alive_read)).and_then(|()| self.inside(report, opened, hear, &alive_read));
            if let Err(refusal) = outcome {
                // Without a guard there is nobody to tell.
                let _ = self.guard.send(&Reply::Refused(refusal), &[]);
            }
            sys::exit_now(0);
        };
        drop((alive_read, hear));
        // From here on it can measure what runs, and wait: with PID 1's uid, without which the kernel would not kill that with it.
        let powerless = namespaces::leave_powers(self.identity, true).and_then(|()| die_with(self.parent));
        // PID 1 misses what is not told, and refuses.
        let _ = artefact::tell_digests(&opened, tell);
        drop(opened);
        let waited = wait_for(child);
        drop(alive_write);
        if let Some(leaf) = self.leaf {
            leaf.leave();
        }
        setup("leaving powers", powerless)?;
        setup("waiting", waited)
    }

    /// PID 1.
    fn inside(&self, mut report: Report, opened: Vec<Bound>, digests: OwnedFd, alive: &OwnedFd) -> Result<(), Refusal> {
        let profile = self.profile;
        let own_cgroups = namespaces::enter_cgroups();
        setup("host name", sethostname(&profile.name))?;
        let own_network = !self.dangerous_without(&DangerousWithout::NetworkNamespace);
        if own_network {
            need(LayerName::NetworkNamespace, net::loopback_up())?;
        }
        let (settled, kept) = self.pass_listeners()?;
        // In a network of its own nobody else would take the port.
        let _kept = kept.filter(|_| !own_network);
        let (stage, profile) = (Stage { profile: &settled, ..*self }, &settled);
        let built = match profile.dangerous_tmp() {
            Some(_) => need(LayerName::MountNamespace, root::private_mounts()).map(|()| Built { proc: Err(LEFT_OUT.to_owned()) })?,
            None => need(LayerName::MountNamespace, root::build(profile, &opened, self.identity))?,
        };
        stage.furnished(
            &mut report,
            &built,
            "",
            if own_cgroups { "IPC, UTS, cgroup" } else { "IPC, UTS; this kernel gives no cgroup namespace" },
        );
        need(LayerName::Capabilities, namespaces::leave_powers(self.identity, true))?;
        // A change of uid takes the parent-death signal away.
        need(LayerName::PidNamespace, die_with_parent(alive))?;
        let artefacts = artefact::hear_digests(opened, digests).map_err(refusal)?;
        let tmp = profile.dangerous_tmp().unwrap_or(Path::new("/tmp"));
        let place = Place { level: Level::Full, tmp, proc: built.proc.is_ok(), outer: Some(alive) };
        stage.run(report, &artefacts, &place)
    }

    /// Whether this wall is left out.
    fn dangerous_without(&self, wall: &DangerousWithout) -> bool {
        self.profile.dangerous_without.as_ref() == Some(wall)
    }

    /// Says what the new world is like.
    fn furnished(&self, report: &mut Report, built: &Built, by: &str, others: &str) {
        let root = format!("{by}own root: declared paths, read-only but for state and /tmp");
        report.stands(LayerName::MountNamespace, self.profile.dangerous_tmp().is_none(), root);
        report.applied(LayerName::PidNamespace, format!("{by}own processes only; all die with init"));
        let network = format!("{by}{}", flows(self.profile));
        report.stands(LayerName::NetworkNamespace, !self.dangerous_without(&DangerousWithout::NetworkNamespace), network);
        report.applied(LayerName::OtherNamespaces, format!("{by}{others}"));
        match &built.proc {
            Ok(options) => report.applied(LayerName::PrivateProc, options.clone()),
            Err(why) => report.absent(LayerName::PrivateProc, why.clone()),
        }
    }

    /// Level `Confined`.
    fn confined(&self, mut report: Report) -> Result<(), Refusal> {
        if self.abi < ABI_SCOPES {
            let why = format!("ABI {}; without a PID namespace, ABI {ABI_SCOPES} (Linux 6.12) must keep signals inside", self.abi);
            return need(LayerName::LandlockScopes, Err(why));
        }
        let artefacts = each_artefact(self.profile, Bound::bind)?;
        let (settled, _kept) = self.pass_listeners()?;
        let stage = Stage { profile: &settled, ..*self };
        let tmp = setup("temporary folder", root::private_tmp(self.identity))?;
        for name in [LayerName::MountNamespace, LayerName::PidNamespace, LayerName::OtherNamespaces] {
            report.absent(name, "needs a user namespace");
        }
        let exposed = "needs a user namespace; other programs in this network can reach the service's port and its flows: \
                       run it in a container of its own";
        report.absent(LayerName::NetworkNamespace, exposed);
        report.absent(LayerName::PrivateProc, "no /proc can be read at all");
        let outcome = setup("subreaper", sys::become_subreaper())
            .and_then(|()| need(LayerName::Capabilities, self.give_state_away()))
            .and_then(|()| need(LayerName::Capabilities, namespaces::leave_powers(self.identity, self.identity.was_root)))
            // The end of the wire is the sign here: a killed init could not kill what the service started.
            .and_then(|()| setup("parent-death signal", prctl::set_pdeathsig(None)))
            .and_then(|()| stage.run(report, &artefacts, &Place { level: Level::Confined, tmp: &tmp, proc: false, outer: None }));
        let _ = fs::remove_dir_all(&tmp); // Best effort: its name is random and its owner the service's.
        outcome
    }

    fn give_state_away(&self) -> io::Result<()> {
        match &self.profile.state {
            Some(state) if self.identity.was_root => Ok(nix::unistd::chown(state, Some(self.identity.uid), Some(self.identity.gid))?),
            _ => Ok(()),
        }
    }

    /// Makes the listeners of the flows and passes them to the guard. Gives the profile with the ports that were taken, and what keeps
    /// the service's own port for it.
    fn pass_listeners(&self) -> Result<(Profile, Option<OwnedFd>), Refusal> {
        let (listeners, ports): (Vec<OwnedFd>, Vec<u16>) =
            need(LayerName::NetworkNamespace, net::listeners(&self.profile.flows))?.into_iter().unzip();
        let (kept, own) = match self.profile.port {
            Some(0) => need(LayerName::NetworkNamespace, net::reserve()).map(|(fd, port)| (Some(fd), Some(port)))?,
            own => (None, own),
        };
        let names = self.profile.flows.iter().map(|flow| flow.name.clone()).collect();
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        setup("passing listeners", self.guard.send(&Reply::Listeners { names }, &fds))?;
        Ok((self.profile.with_ports(&ports, own), kept))
    }

    /// Starts the service and stays with it until its end.
    fn run(&self, mut report: Report, artefacts: &[Bound], place: &Place<'_>) -> Result<(), Refusal> {
        let profile = self.profile;
        let filters = need(LayerName::Seccomp, Filters::compile(&profile.calls, place.level, &profile.dangerous_simulate))?;
        let children = setup("signals", supervise::watch_children())?;
        let (to_child, to_init) = setup("socketpair", Wire::pair())?;
        let own = place.level == Level::Full;
        if let Some(state) = &profile.state {
            setup("its state folder", fill::check(state, &[], profile.limits.state_bytes, profile.limits.file_bytes))?;
        }
        let plan = Plan {
            profile,
            artefacts,
            level: place.level,
            landlock_abi: self.abi,
            tasks_already: limits::counted_already(own, self.identity.uid),
            filters: &filters,
            tmp: place.tmp,
            proc: place.proc,
            parent: getpid(),
        };
        let started = supervise::now();
        let Some(service) = setup("forking the service", sys::fork())? else {
            drop(to_child);
            service::become_service(&plan, &to_init);
        };
        drop(to_init);
        let mut watch = Watch {
            profile,
            level: place.level,
            guard: self.guard,
            service,
            children,
            outer: place.outer,
            notifier: None,
            seen: Watched::default(),
            artefacts,
            started,
            waiting: Vec::new(),
        };
        let confirmed = hear_child(&to_child, &mut watch).and_then(|()| {
            self.confirm(&mut report, artefacts, place.level, watch.notifier.is_some())?;
            setup("reporting", self.guard.send(&Reply::Started { report, pid: service.as_raw() }, &[]))
        });
        if let Err(refusal) = confirmed {
            watch.kill_all();
            return Err(refusal);
        }
        watch.run();
        Ok(())
    }

    /// The program is executing, so every layer before it was accepted by the kernel.
    fn confirm(&self, report: &mut Report, artefacts: &[Bound], level: Level, asks: bool) -> Result<(), Refusal> {
        for bound in artefacts {
            bound.recheck(level == Level::Confined).map_err(refusal)?;
        }
        report.applied(LayerName::Artefacts, format!("{} measured, unchanged", artefacts.len()));
        report.applied(LayerName::Capabilities, "none; bounding and ambient sets empty; no_new_privs");
        let landlock = !self.dangerous_without(&DangerousWithout::Landlock);
        report.stands(LayerName::LandlockFiles, landlock, format!("ABI {}", self.abi));
        if self.abi >= ABI_TCP {
            report.stands(LayerName::LandlockTcp, landlock, "listens on its own port, connects to its flows' ports");
        } else {
            report.absent(LayerName::LandlockTcp, format!("ABI {}; needs {ABI_TCP} (Linux 6.7)", self.abi));
        }
        if self.abi >= ABI_SCOPES {
            report.stands(LayerName::LandlockScopes, landlock, "signals and abstract sockets");
        } else {
            report.absent(LayerName::LandlockScopes, format!("ABI {}; needs {ABI_SCOPES} (Linux 6.12)", self.abi));
        }
        report.stands(LayerName::Seccomp, !self.dangerous_without(&DangerousWithout::Seccomp), self.profile.calls.describe());
        match asks {
            true => report.applied(LayerName::DeniedCalls, "each kind twice a second"),
            false => report.absent(LayerName::DeniedCalls, "a filter around this system asks already; the kernel denies all the same"),
        }
        match level {
            Level::Full => report.absent(LayerName::SeccompNotify, "not needed: the namespace has no other destination"),
            Level::Confined => report.applied(LayerName::SeccompNotify, flows(self.profile)),
        }
        let limited = !self.dangerous_without(&DangerousWithout::Limits);
        report.stands(LayerName::Rlimits, limited, limits::describe(&self.profile.limits));
        report.level = Some(level);
        report.layers.sort_by_key(|layer| layer.name);
        Ok(())
    }
}

struct Place<'a> {
    level: Level,
    tmp: &'a Path,
    proc: bool,
    outer: Option<&'a OwnedFd>,
}

fn flows(profile: &Profile) -> String {
    format!("{} flows on 127.0.0.1, nothing else", profile.flows.len())
}

fn each_artefact(profile: &Profile, bind: fn(&Artefact) -> Result<Bound, BindError>) -> Result<Vec<Bound>, Refusal> {
    profile.artefacts().map(|artefact| bind(artefact).map_err(refusal)).collect()
}

fn refusal(cause: BindError) -> Refusal {
    match cause {
        BindError::Mismatch(mismatch) => Refusal::Mismatch(mismatch),
        BindError::Open(..) => Refusal::Setup { step: "opening artefacts".to_owned(), why: cause.to_string() },
    }
}

/// Notes of the child until it executes the program (then its end of the pair closes). What its filters ask meanwhile is answered.
fn hear_child(child: &Wire, watch: &mut Watch<'_>) -> Result<(), Refusal> {
    loop {
        if let Some(notifier) = &watch.notifier {
            let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(notifier.as_fd(), PollFlags::POLLIN)];
            setup("hearing the child", poll(&mut fds, PollTimeout::NONE))?;
            let [_, asks] = fds;
            if asks.revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                notifier.answer_one(&mut watch.seen);
                continue;
            }
        }
        match setup("hearing the child", child.receive())? {
            Some((ChildNote::Listener, fds)) => {
                watch.notifier = fds.into_iter().next().map(|fd| Notifier::new(fd, watch.profile, watch.level));
            }
            Some((ChildNote::Refused(refusal), _)) => return Err(refusal),
            None => return Ok(()),
        }
    }
}

/// Asks to be killed with the guard's thread, and looks whether that came too late.
fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("the guard died")) }
}

/// Asks to be killed with the outer init, and looks whether that came too late: the pipe's other end is only there.
fn die_with_parent(alive: &OwnedFd) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut fds = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let [fd] = fds;
    if fd.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
        return Err(io::Error::other("the outer init died"));
    }
    Ok(())
}

fn wait_for(child: Pid) -> io::Result<()> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return Ok(()),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
}
