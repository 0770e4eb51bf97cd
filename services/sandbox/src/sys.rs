//! The system calls that have no safe binding, each in one small function.
//!
//! Together with `notify`, the only place of this workspace where `unsafe` is allowed.
//!
//! Not here: any decision.
#![allow(unsafe_code, reason = "the one place where the kernel is called directly")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::sockopt;
use nix::unistd::{ForkResult, Pid};

/// Takes ownership of a descriptor that the kernel just gave to this process.
pub(crate) fn own_fd(raw: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that a system call returned as new, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = check(result)?;
    RawFd::try_from(raw).map(own_fd).map_err(io::Error::other)
}

fn path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Forks a single-threaded process. `None` in the child.
///
/// # Errors
/// The process has other threads (their locks would stay locked in the child), or the kernel refuses.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if threads() > 1 {
        return Err(io::Error::other("only a single-threaded process may fork"));
    }
    // SAFETY: the check above; with one thread, the child is an ordinary process.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// [`fork`], with the child born in a control group of version 2: the folder that is open there (`clone3(2)`, Linux 5.7).
///
/// # Errors
/// As [`fork`]; and where this process could not move itself there.
pub(crate) fn fork_into(group: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    if threads() > 1 {
        return Err(io::Error::other("only a single-threaded process may fork"));
    }
    // SAFETY: all zero is a valid value: no flag, no stack of its own, no place to write to.
    let mut wish: libc::clone_args = unsafe { std::mem::zeroed() };
    wish.flags = INTO_CGROUP;
    wish.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    wish.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    // SAFETY: the struct lives through the call and its true size is passed; without CLONE_VM the child has memory of its own, and as in
    // `fork` it is the copy of a process with one thread.
    let child = check(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&wish), size_of::<libc::clone_args>()) })?;
    if child == 0 {
        return Ok(None);
    }
    i32::try_from(child).map(|child| Some(Pid::from_raw(child))).map_err(io::Error::other)
}

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// A descriptor of a process: a signal sent through it reaches that process or nobody (`pidfd_open(2)`).
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process of that descriptor (`pidfd_send_signal(2)`).
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the null pointer asks for the information that `kill(2)` would give.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }).map(drop)
}

/// Gives the allocator's free pages back to the kernel.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no precondition; it takes the allocator's own locks and moves nothing that is in use. Its answer only says whether
    // there was something to give.
    let _given = unsafe { libc::malloc_trim(0) };
}

/// Locks all memory of this process, what it has and what it will have, each page when it is first used.
pub(crate) fn lock_all() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) }.into()).map(drop)
}

/// Unlocks all of it.
pub(crate) fn unlock_all() {
    // SAFETY: has no precondition; it cannot fail for a living process.
    let _done = unsafe { libc::munlockall() };
}

/// Locks a range of pages, each when it is first used.
pub(crate) fn lock_range(start: u64, length: u64) -> io::Result<()> {
    // SAFETY: the kernel checks the range and reads nothing of it; a range that is not mapped is an error.
    check(unsafe { libc::syscall(libc::SYS_mlock2, start, length, libc::MLOCK_ONFAULT) }).map(drop)
}

/// Threads of this process; 0 where there is no `/proc` (then it is a child of a process that was checked).
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// In a freshly forked child before its exec: puts `fd` at number 3 without close-on-exec, and asks to be killed when
/// the creating thread ends. Only async-signal-safe calls.
pub(crate) fn prepare_init(command: &mut std::process::Command, fd: OwnedFd) {
    use std::os::unix::process::CommandExt;
    let hook = move || {
        let raw = fd.as_raw_fd();
        // SAFETY: plain system calls on numbers, all async-signal-safe.
        let result = unsafe { if raw == WIRE_FD { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, WIRE_FD) } };
        check(result.into())?;
        // SAFETY: as above; no pointer is passed.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into())?;
        Ok(())
    };
    // SAFETY: the hook allocates nothing, takes no lock and calls only async-signal-safe functions.
    unsafe { command.pre_exec(hook) };
}

/// The number of the wire in init.
pub(crate) const WIRE_FD: RawFd = 3;

/// Takes the wire at its fixed number, if one is open there; it becomes close-on-exec.
pub(crate) fn take_wire() -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD on a number; fails with EBADF if it is not open.
    check(unsafe { libc::fcntl(WIRE_FD, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    Ok(own_fd(WIRE_FD))
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from `first` on. Callers own none of them.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called at the start of init, before it owns any descriptor at or above `first`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// A detached copy of the mount tree at `at` (`open_tree(2)`).
pub(crate) fn clone_tree(at: &Path) -> io::Result<OwnedFd> {
    let at = path(at)?;
    open_tree(libc::AT_FDCWD, &at, 0)
}

/// A detached bind mount of exactly the opened file.
pub(crate) fn clone_tree_of(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_tree(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH.cast_unsigned())
}

fn open_tree(at: RawFd, path: &CStr, extra: u32) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | libc::AT_RECURSIVE.cast_unsigned() | extra;
    // SAFETY: the string lives through the call.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })
}

/// Sets mount attributes on a detached tree and everything in it.
pub(crate) fn set_attributes(tree: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    let wish = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct lives through the call and its true size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&wish),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached tree.
pub(crate) fn attach(tree: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    let at = path(at)?;
    // SAFETY: both strings live through the call.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, at.as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH)
    })
    .map(drop)
}

/// Brings an interface up (`SIOCSIFFLAGS`).
pub(crate) fn interface_up(socket: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call and has the type that this ioctl expects.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) }.into()).map(drop)
}

/// Gives an interface, or an alias of one (`lo:1`), an address (`SIOCSIFADDR`).
pub(crate) fn interface_address(socket: BorrowedFd<'_>, name: &CStr, address: std::net::Ipv4Addr) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    let mut bytes = [0; 14];
    for (to, from) in bytes.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_addr = libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: bytes };
    // SAFETY: the request lives through the call and has the type that this ioctl expects.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, std::ptr::from_ref(&request)) }.into()).map(drop)
}

/// Gives the interface of this number an IPv6 address, alone in its network.
pub(crate) fn interface_address_6(socket: BorrowedFd<'_>, interface: u32, address: std::net::Ipv6Addr) -> io::Result<()> {
    /// `struct in6_ifreq` (linux/ipv6.h).
    #[repr(C)]
    struct Request {
        address: [u8; 16],
        prefix: u32,
        interface: u32,
    }
    let request = Request { address: address.octets(), prefix: 128, interface };
    // SAFETY: the request lives through the call and has the type that this ioctl expects of a socket of IPv6.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, std::ptr::from_ref(&request)) }.into()).map(drop)
}

/// Empties the bounding and ambient sets and locks the secure bits; then gives up every capability.
///
/// With `bounding` false (no `CAP_SETPCAP` to begin with) the bounding set is left alone.
pub(crate) fn drop_capabilities(bounding: bool) -> io::Result<()> {
    if bounding {
        // No root, no keeping, no ambient; each locked.
        const SECUREBITS: libc::c_ulong = 0b1110_1111;
        // SAFETY: no pointers.
        check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) }.into())?;
        for capability in 0..64_u64 {
            // SAFETY: no pointers; EINVAL past the last capability that the kernel knows.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                break;
            }
        }
    }
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    let header = [0x2008_0522_u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let sets = [0_u32; 6];
    // SAFETY: both arrays have the layout of the kernel's version 3 structs and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// The Landlock ABI of the kernel, or why there is none.
pub(crate) fn landlock_abi() -> io::Result<i32> {
    // SAFETY: with the VERSION flag the kernel reads no attribute.
    let abi = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, 1_u32) })?;
    i32::try_from(abi).map_err(io::Error::other)
}

/// Installs a seccomp filter for this thread and what it becomes; with `listener`, returns the notification descriptor.
pub(crate) fn install_filter(program: &[libc::sock_filter], listener: bool) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let flags = if listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: the program lives through the call, the kernel only reads it, and its true length is passed.
    let result = check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) })?;
    if listener { RawFd::try_from(result).map(|raw| Some(own_fd(raw))).map_err(io::Error::other) } else { Ok(None) }
}

/// Whether the kernel knows seccomp's `action`.
pub(crate) fn seccomp_knows(action: u32) -> bool {
    // SAFETY: the kernel reads one u32, which lives through the call.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, std::ptr::from_ref(&action)) == 0 }
}

/// Replaces the process by the opened program; returns only on failure.
pub(crate) fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in null, and they and their strings live through the call.
    unsafe {
        libc::syscall(libc::SYS_execveat, program.as_raw_fd(), c"".as_ptr(), arguments.as_ptr(), environment.as_ptr(), libc::AT_EMPTY_PATH)
    };
    io::Error::last_os_error()
}

/// Whether the backlog of a connect is done: writes become possible.
pub(crate) fn socket_error(fd: &OwnedFd) -> io::Result<i32> {
    Ok(nix::sys::socket::getsockopt(fd, sockopt::SocketError)?)
}

/// Ends this process now, without running anything else.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Makes this process the one that inherits its orphaned descendants.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// The shortest turn that there is, in nanoseconds, and the usual one.
const SHORT_NS: u64 = 100_000;
const USUAL_NS: u64 = 0;

/// Short turns for this thread from now on: as soon as it has something to do, it goes on before whoever has longer ones. It gets no more of
/// the processors by that, and what it forks has the usual turns. Where the kernel has no such thing (before Linux 6.12), or refuses,
/// whoever waits for this thread waits longer.
pub(crate) fn take_short_turns() {
    let _usual = set_turns(SHORT_NS, libc::SCHED_FLAG_RESET_ON_FORK);
}

/// The same for as long as the answer takes, in a thread that is somebody else's.
pub(crate) fn in_short_turns<T>(answer: impl FnOnce() -> T) -> T {
    let short = set_turns(SHORT_NS, 0);
    let answer = answer();
    let _usual = short.and_then(|()| set_turns(USUAL_NS, 0));
    answer
}

/// `sched_setattr(2)`: how long the turns of an ordinary thread are. A thread of another kind keeps what it has.
fn set_turns(slice_ns: u64, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    let (kind, nice) = unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if kind != libc::SCHED_OTHER {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: all zero is a valid value: an ordinary thread.
    let mut wish: libc::sched_attr = unsafe { std::mem::zeroed() };
    wish.size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
    wish.sched_flags = u64::try_from(flags).map_err(io::Error::other)?;
    (wish.sched_nice, wish.sched_runtime) = (nice, slice_ns);
    // SAFETY: the value lives through the call, which only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) }).map(drop)
}

/// Default dispositions and an empty mask: what a program expects to start with.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is always valid; SIGKILL, SIGSTOP and libc's own signals answer EINVAL, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Keeps permitted capabilities over a change of uid, until they are given up explicitly.
pub(crate) fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }.into()).map(drop)
}

/// After a change of uid: makes `CAP_SETPCAP` effective again, to empty the bounding set with.
pub(crate) fn restore_effective() -> io::Result<()> {
    const SETPCAP: u32 = 1 << 8;
    let header = [0x2008_0522_u32, 0];
    let sets = [SETPCAP, SETPCAP, 0, 0, 0, 0]; // effective, permitted, inheritable; low, then high words
    // SAFETY: both arrays have the layout of the kernel's version 3 structs and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Runs `hook` in the forked child before its exec. The hook must make plain system calls only.
pub(crate) fn before_exec(command: &mut std::process::Command, hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    use std::os::unix::process::CommandExt;
    // SAFETY: callers' hooks (in `probe`) allocate nothing and take no lock.
    unsafe { command.pre_exec(hook) };
}

/// Forks in order to try something, in a single-threaded process. `act` answers like a system call: negative, and `errno`.
pub(crate) fn in_child(act: impl FnOnce() -> libc::c_long) -> io::Result<nix::sys::wait::WaitStatus> {
    let Some(child) = fork()? else {
        let code = if act() < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(255) } else { 0 };
        exit_now(code);
    };
    Ok(nix::sys::wait::waitpid(child, None)?)
}

/// Any system call with any numbers; for [`crate::attack`], which is there to be refused.
pub(crate) fn raw_call(number: libc::c_long, arguments: [libc::c_long; 6]) -> libc::c_long {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: not sound in general: `attack` passes numbers and addresses of live values only, in a child made for it.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}
