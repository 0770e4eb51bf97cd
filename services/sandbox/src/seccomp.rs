//! The filters: which system calls may be made, and how.
//!
//! What may not be made is asked of init (`notify`), which says no, tells the guard what was tried, and ends a program that reached for
//! what only attacks use. One filter does that, since the kernel lets a process have one that asks. `missing` answers ENOSYS where libc has
//! a fall-back that can be inspected.
//!
//! Where another filter around us asks already (some containers), the kernel answers by itself, with the same answers, and nobody is told.
//! A trace is that with every allowed call asked for too, and let pass.
//!
//! Spec:       `seccomp(2)`, `seccomp_unotify(2)`.
//! Guarantees: I4 no UDP, raw, packet, netlink, vsock, MPTCP, UNIX or io_uring socket; no memory outside the limits
//!             (memfd, shared anonymous, System V). I6 default deny, by a list of the service's own where it has one.
//! Not here:   the lists (`calls`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use crate::calls::{self, Calls, MISSING};
use crate::profile::{Level, Simulate};
use crate::sys;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Kinds of UNIX pairs.
const PAIRS: [i32; 2] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];
/// Where `clone` has the signal of its end (`CSIGNAL`).
const CLONE_END_MASK: i32 = 0xff;
const F_SETSIG: u64 = 10; // fcntl(2); libc has no name for it
const TCP: u64 = libc::IPPROTO_TCP as u64;
const SOCKET_TYPE_MASK: u64 = 0xf;
/// What `seccompiler` writes for [`ask`]; its place is taken by the action that it has no name for.
const ASK: u32 = libc::SECCOMP_RET_TRACE;

/// Everything that is installed, in this order.
pub(crate) struct Filters {
    /// Before the one that asks.
    before: Vec<BpfProgram>,
    /// The one that asks; the kernel hands out a descriptor to answer at.
    asking: BpfProgram,
    /// After it: what forbids installing more.
    after: Vec<BpfProgram>,
    /// In the place of all of the above where no filter may ask.
    silent: Option<Vec<BpfProgram>>,
    listener_is_taken: bool,
}

impl Filters {
    /// Compiles them.
    ///
    /// # Errors
    /// The architecture is neither x86_64 nor aarch64.
    pub(crate) fn compile(wanted: &Calls, level: Level, simulate: &Simulate) -> Result<Self, String> {
        Self::try_compile(wanted, level, simulate).map_err(|cause: BackendError| cause.to_string())
    }

    fn try_compile(wanted: &Calls, level: Level, simulate: &Simulate) -> Result<Self, BackendError> {
        let brokered = level == Level::Confined;
        let mut asked = allow(wanted, brokered)?;
        let missing = || program(missing(), SeccompAction::Allow, errno(libc::ENOSYS));
        let silent = || -> Result<Vec<BpfProgram>, BackendError> {
            Ok(vec![
                missing()?,
                program(family()?, SeccompAction::Allow, errno(libc::EAFNOSUPPORT))?,
                program(kill()?, SeccompAction::Allow, SeccompAction::KillProcess)?,
                program(but_sockets(allow(wanted, false)?), errno(libc::EPERM), SeccompAction::Allow)?,
            ])
        };
        let listener_is_taken = simulate.seccomp_listener_taken;
        if *wanted != Calls::Traced {
            let silent = if brokered { None } else { Some(silent()?) };
            let asking = asking(program(asked, ask(), SeccompAction::Allow)?);
            let quiet = program(quiet(), SeccompAction::Allow, errno(libc::EPERM))?;
            return Ok(Self { before: vec![missing()?, quiet], asking, after: Vec::new(), silent, listener_is_taken });
        }
        // Handing the descriptor over, and executing, must not be asked for: nobody answers yet.
        let unasked = calls::always().chain([libc::SYS_seccomp]);
        asked = unasked.map(|call| (call, Vec::new())).collect();
        let mut before = silent()?;
        let after = before.pop().into_iter().collect();
        Ok(Self { before, asking: asking(program(asked, ask(), SeccompAction::Allow)?), after, silent: None, listener_is_taken })
    }

    /// Installs them for this thread and what it becomes; `no_new_privs` must be set. The descriptor to answer at is given to `hand_over`
    /// once there is one.
    ///
    /// # Errors
    /// The kernel's; also when another filter asks already and this level cannot do without.
    pub(crate) fn install(&self, hand_over: impl FnOnce(OwnedFd) -> io::Result<()>) -> io::Result<()> {
        for program in &self.before {
            sys::install_filter(&native(program), false)?;
        }
        let taken = || io::Error::from_raw_os_error(Errno::EBUSY as i32);
        let installed = if self.listener_is_taken { Err(taken()) } else { sys::install_filter(&native(&self.asking), true) };
        match (installed, &self.silent) {
            (Ok(listener), _) => hand_over(listener.ok_or_else(|| io::Error::other("no listener"))?)?,
            (Err(cause), Some(silent)) if cause.raw_os_error() == Some(Errno::EBUSY as i32) => {
                for program in silent {
                    sys::install_filter(&native(program), false)?;
                }
            }
            (Err(cause), _) => return Err(cause),
        }
        for program in &self.after {
            sys::install_filter(&native(program), false)?;
        }
        Ok(())
    }
}

/// Whether init ends the program for this denied call: it is one that only attacks use. (`clone` is denied with namespaces alone.)
pub(crate) fn is_fatal(call: i64) -> bool {
    call == libc::SYS_clone || calls::fatal().any(|fatal| fatal == call)
}

/// What a denied call is answered with.
pub(crate) fn denial(call: i64) -> i32 {
    if call == libc::SYS_socket || call == libc::SYS_socketpair { libc::EAFNOSUPPORT } else { libc::EPERM }
}

fn native(program: &BpfProgram) -> Vec<libc::sock_filter> {
    program.iter().map(|it| libc::sock_filter { code: it.code, jt: it.jt, jf: it.jf, k: it.k }).collect()
}

fn ask() -> SeccompAction {
    SeccompAction::Trace(0)
}

/// Puts "ask init" where the program says `ASK`.
fn asking(mut program: BpfProgram) -> BpfProgram {
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    for instruction in program.iter_mut().filter(|it| it.code == RETURN && it.k == ASK) {
        instruction.k = libc::SECCOMP_RET_USER_NOTIF;
    }
    program
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let all = conditions.iter().map(|(argument, operator, value)| condition(*argument, operator.clone(), *value));
    SeccompRule::new(all.collect::<Result<_, _>>()?)
}

fn masked(mask: i32) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()))
}

fn allow(wanted: &Calls, brokered: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = wanted.allowed().into_iter().map(|call| (call, Vec::new())).collect();
    let mut narrower = conditions()?;
    if brokered {
        narrower.extend(among_others()?);
    }
    for (call, conditions) in narrower {
        if let Some(rule) = rules.get_mut(&call) {
            *rule = conditions;
        }
    }
    if brokered {
        // Init decides these by destination.
        rules.retain(|call, _| !calls::BROKERED.contains(call));
    }
    // Another filter answers these.
    rules.extend(missing());
    Ok(rules)
}

/// Without its conditions on sockets, whose answer is another filter's (`family`).
fn but_sockets(mut rules: Rules) -> Rules {
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.entry(call).and_modify(Vec::clear);
    }
    rules
}

/// Calls that are allowed with certain arguments only.
fn conditions() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    // No new namespaces.
    let namespaces = NAMESPACE_FLAGS.into_iter().fold(0, |all, flag| all | flag);
    // No signal to the parent but the usual one, when it ends.
    let clone = |end: i32| rule(&[(0, masked(namespaces | CLONE_END_MASK), end.cast_unsigned().into())]);
    rules.insert(libc::SYS_clone, [0, libc::SIGCHLD].into_iter().map(clone).collect::<Result<_, _>>()?);
    // TCP over IPv4 and IPv6, and UNIX pairs that are born connected. (One of datagrams could send to any path.)
    let (kind, pair) = (|value: i32| u64::from(value.cast_unsigned()), SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK));
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [0, TCP] {
            let stream = (1, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), kind(libc::SOCK_STREAM));
            sockets.push(rule(&[(0, SeccompCmpOp::Eq, kind(family)), stream, (2, SeccompCmpOp::Eq, protocol)])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    let unix = (0, SeccompCmpOp::Eq, kind(libc::AF_UNIX));
    let pairs = PAIRS.map(|it| rule(&[unix.clone(), (1, pair.clone(), kind(it))]));
    rules.insert(libc::SYS_socketpair, pairs.into_iter().collect::<Result<_, _>>()?);
    // Limits of oneself only; `prctl` without seccomp (a filter of the program's own could answer for ours).
    rules.insert(libc::SYS_prlimit64, vec![rule(&[(0, SeccompCmpOp::Eq, 0)])?]);
    let (seccomp, with_parent) = (libc::PR_SET_SECCOMP as u64, libc::PR_SET_PDEATHSIG as u64);
    let goes_on = u64::from(libc::SIGCONT.cast_unsigned());
    // Nor does the kernel send the signal that lets who is stopped go on: not with the end of a parent, not with input.
    // And nobody hides from who looks into the sandbox: what it holds (`fill`), what it is (`frozen`).
    let dumpable = libc::PR_SET_DUMPABLE as u64;
    let others = rule(&[seccomp, with_parent, dumpable].map(|option| (0, SeccompCmpOp::Ne, option)))?;
    let with_parent = rule(&[(0, SeccompCmpOp::Eq, with_parent), (1, SeccompCmpOp::Ne, goes_on)])?;
    rules.insert(libc::SYS_prctl, vec![others, with_parent, rule(&[(0, SeccompCmpOp::Eq, dumpable), (1, SeccompCmpOp::Eq, 1)])?]);
    rules.insert(libc::SYS_fcntl, vec![rule(&[(1, SeccompCmpOp::Ne, F_SETSIG)])?]);
    // No keystrokes into a terminal.
    let (push, linux) = (libc::TIOCSTI, 0x541C);
    rules.insert(libc::SYS_ioctl, vec![rule(&[(1, SeccompCmpOp::Ne, push), (1, SeccompCmpOp::Ne, linux)])?]);
    // Shared anonymous memory counts against no rlimit, so it is not to be had.
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let private = |kind: i32| rule(&[(3, masked(shared), kind.cast_unsigned().into())]);
    let kinds = [libc::MAP_SHARED, libc::MAP_ANONYMOUS, 0];
    rules.insert(libc::SYS_mmap, kinds.into_iter().map(private).collect::<Result<_, _>>()?);
    // TCP Fast Open connects by sending, past every rule about `connect`.
    let no_fast_open = |argument| rule(&[(argument, masked(libc::MSG_FASTOPEN), 0)]);
    rules.insert(libc::SYS_sendto, vec![no_fast_open(3)?]);
    rules.insert(libc::SYS_sendmsg, vec![no_fast_open(2)?]);
    rules.insert(libc::SYS_sendmmsg, vec![no_fast_open(3)?]);
    Ok(rules)
}

/// Calls that are allowed about oneself only where other processes have numbers, too (without a PID namespace).
fn among_others() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for call in [libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler] {
        rules.insert(call, vec![rule(&[(0, SeccompCmpOp::Eq, 0)])?]);
    }
    let process = u64::from(libc::PRIO_PROCESS);
    rules.insert(libc::SYS_setpriority, vec![rule(&[(0, SeccompCmpOp::Eq, process), (1, SeccompCmpOp::Eq, 0)])?]);
    Ok(rules)
}

fn kill() -> Result<Rules, BackendError> {
    let mut rules: Rules = calls::fatal().map(|call| (call, Vec::new())).collect();
    let flag = |flag: i32| rule(&[(0, masked(flag), flag.cast_unsigned().into())]);
    rules.insert(libc::SYS_clone, NAMESPACE_FLAGS.into_iter().map(flag).collect::<Result<_, _>>()?);
    Ok(rules)
}

/// The answer to other sockets, where the kernel gives it: like one without those protocols. Each rule names one way to be something else.
fn family() -> Result<Rules, BackendError> {
    let not = |argument, values: &[i32]| {
        let all: Vec<_> = values.iter().map(|value| (argument, SeccompCmpOp::Ne, u64::from(value.cast_unsigned()))).collect();
        rule(&all)
    };
    let kind = |value: u64| rule(&[(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), value)]);
    let mut socket = vec![not(0, &[libc::AF_INET, libc::AF_INET6])?];
    socket.push(rule(&[(2, SeccompCmpOp::Ne, 0), (2, SeccompCmpOp::Ne, TCP)])?);
    let mut pair = vec![not(0, &[libc::AF_UNIX])?];
    for value in 0..=SOCKET_TYPE_MASK {
        let as_int = i32::try_from(value).unwrap_or_default();
        if as_int != libc::SOCK_STREAM {
            socket.push(kind(value)?);
        }
        if !PAIRS.contains(&as_int) {
            pair.push(kind(value)?);
        }
    }
    Ok(Rules::from([(libc::SYS_socket, socket), (libc::SYS_socketpair, pair)]))
}

/// What libraries try at their start, wherever they are, and do well without: denied, and not told.
fn quiet() -> Rules {
    [libc::SYS_set_mempolicy, libc::SYS_mbind].into_iter().map(|call| (call, Vec::new())).collect()
}

fn missing() -> Rules {
    MISSING.iter().map(|call| (*call, Vec::new())).collect()
}

#[cfg(test)]
mod tests {
    //! Tests of the programs.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_not_allowed_is_asked_for_and_never_let_pass_by_default() {
        // I6
        for (calls, level) in [(Calls::General, Level::Full), (Calls::General, Level::Confined), (Calls::Traced, Level::Full)] {
            let filters = Filters::compile(&calls, level, &Simulate::default()).unwrap();
            let answers: Vec<u32> = filters.asking.iter().filter(|it| it.code == 0x06).map(|it| it.k).collect();
            assert!(answers.contains(&libc::SECCOMP_RET_USER_NOTIF) && !answers.contains(&ASK), "{answers:?}");
            let enforcing = filters.after.last().unwrap_or(&filters.asking);
            assert!(enforcing.len() > 400, "the list is in it: {}", enforcing.len());
        }
        let listed = Calls::parse("openat\n").unwrap();
        let filters = Filters::compile(&listed, Level::Full, &Simulate::default()).unwrap();
        assert!(filters.asking.len() < 250, "a short list: {}", filters.asking.len());
    }
}
