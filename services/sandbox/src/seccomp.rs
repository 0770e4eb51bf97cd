//! The system-call allow-list.
//!
//! Four filters, since a filter of `seccompiler` has one answer; the kernel takes the strictest. `allow` lists what
//! ordinary programs (Rust, Python, FFmpeg) use and answers EPERM to the rest, also to calls that do not exist yet.
//! `kill` ends a program that reaches for what only attacks use. `family` answers like a kernel without those protocols.
//! `missing` answers ENOSYS where libc has a fall-back that can be inspected. A fifth one is for `notify`.
//!
//! Spec:       `seccomp(2)`; aarch64 lacks the older calls, so those are a list of their own.
//! Guarantees: I4 no UDP, raw, packet, netlink, vsock, MPTCP, UNIX or io_uring socket; no memory outside the limits
//!             (memfd, shared anonymous, System V).

use std::collections::BTreeMap;

use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use crate::sys;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are always allowed.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_openat,
    libc::SYS_openat2, libc::SYS_close, libc::SYS_close_range, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_getcwd,
    libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat2,
    libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat,
    libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_utimensat, libc::SYS_flock, libc::SYS_fcntl, libc::SYS_dup, libc::SYS_dup3,
    libc::SYS_pipe2, libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee, libc::SYS_copy_file_range, libc::SYS_statfs,
    libc::SYS_fstatfs, libc::SYS_umask, libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr,
    // Memory.
    libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_brk, libc::SYS_madvise, libc::SYS_msync,
    libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_mincore, libc::SYS_membarrier, libc::SYS_rseq,
    libc::SYS_get_mempolicy,
    // Processes and threads.
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_set_tid_address, libc::SYS_execve,
    libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_kill,
    libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid, libc::SYS_getresgid,
    libc::SYS_getgroups, libc::SYS_getpgid, libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sched_setscheduler, libc::SYS_sched_getattr,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_setpriority, libc::SYS_getpriority,
    libc::SYS_getrusage, libc::SYS_times, libc::SYS_sysinfo, libc::SYS_uname,
    libc::SYS_getcpu, libc::SYS_getrandom, libc::SYS_capget, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    // Signals.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    libc::SYS_signalfd4,
    // Time and waiting.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_timer_create, libc::SYS_timer_settime, libc::SYS_timer_gettime,
    libc::SYS_timer_delete, libc::SYS_timer_getoverrun, libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime, libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_ppoll, libc::SYS_pselect6,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_futex, libc::SYS_futex_waitv,
    // Sockets that `family` let be made.
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_connect, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_recvmmsg, libc::SYS_shutdown, libc::SYS_setsockopt, libc::SYS_getsockopt,
];

/// The older spellings of x86_64.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_OLD: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink,
    libc::SYS_getdents, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_link,
    libc::SYS_symlink, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes,
    libc::SYS_futimesat, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_inotify_init, libc::SYS_fork, libc::SYS_vfork,
    libc::SYS_getpgrp, libc::SYS_arch_prctl, libc::SYS_pause, libc::SYS_alarm, libc::SYS_time, libc::SYS_poll,
    libc::SYS_select, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd,
    libc::SYS_renameat, libc::SYS_sync_file_range, libc::SYS_getrlimit, libc::SYS_setrlimit,
];
/// renameat, sync_file_range, getrlimit, setrlimit: calls of aarch64 for which `libc` has no name.
#[cfg(target_arch = "aarch64")]
const ALLOWED_OLD: &[i64] = &[38, 84, 163, 164];

/// Calls that seem not to be there: libc and runtimes fall back to one of the others. `clone3` has its flags in memory,
/// where a filter cannot look; `memfd` is memory outside every rlimit. The numbers without a name are the same on every
/// architecture: cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait, futex_requeue, mseal.
const MISSING: &[i64] = &[libc::SYS_clone3, libc::SYS_memfd_create, 451, 452, 453, 454, 455, 456, 462];

/// Calls that end the program.
#[rustfmt::skip]
const KILLED: &[i64] = &[
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_pidfd_getfd,
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_bpf, libc::SYS_userfaultfd,
    libc::SYS_perf_event_open, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree,
    libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_unshare, libc::SYS_setns, libc::SYS_kexec_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_open_by_handle_at, libc::SYS_reboot, libc::SYS_swapon,
    libc::SYS_swapoff, libc::SYS_acct,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

const TCP: u64 = libc::IPPROTO_TCP as u64;
const SOCKET_TYPE_MASK: u64 = 0xf;

/// Everything that is installed, strictest last (it forbids installing more).
pub(crate) struct Filters(Vec<BpfProgram>);

/// Calls on the allow-list, for the report.
pub(crate) fn allowed_count() -> usize {
    ALLOWED.len() + ALLOWED_OLD.len()
}

impl Filters {
    /// Compiles them.
    ///
    /// # Errors
    /// The architecture is neither x86_64 nor aarch64.
    pub(crate) fn compile() -> Result<Self, String> {
        let text = |cause: BackendError| cause.to_string();
        Ok(Self(vec![
            program(missing(), SeccompAction::Allow, errno(libc::ENOSYS)).map_err(text)?,
            program(family().map_err(text)?, SeccompAction::Allow, errno(libc::EAFNOSUPPORT)).map_err(text)?,
            program(kill().map_err(text)?, SeccompAction::Allow, SeccompAction::KillProcess).map_err(text)?,
            program(allow().map_err(text)?, errno(libc::EPERM), SeccompAction::Allow).map_err(text)?,
        ]))
    }

    /// Installs them for this thread and what it becomes. `no_new_privs` must be set.
    pub(crate) fn install(&self) -> std::io::Result<()> {
        for program in &self.0 {
            let program: Vec<libc::sock_filter> =
                program.iter().map(|it| libc::sock_filter { code: it.code, jt: it.jt, jf: it.jf, k: it.k }).collect();
            sys::install_filter(&program, false)?;
        }
        Ok(())
    }
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

fn allow() -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_OLD).chain(MISSING).map(|call| (*call, Vec::new())).collect();
    // `clone` without namespaces: `kill` ends the others.
    rules.insert(libc::SYS_clone, Vec::new());
    // Limits of oneself only; `prctl` without seccomp (a filter of the program's own could answer for ours).
    rules.insert(libc::SYS_prlimit64, vec![rule(&[(0, SeccompCmpOp::Eq, 0)])?]);
    let seccomp = libc::PR_SET_SECCOMP as u64;
    rules.insert(libc::SYS_prctl, vec![rule(&[(0, SeccompCmpOp::Ne, seccomp)])?]);
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

fn kill() -> Result<Rules, BackendError> {
    let mut rules: Rules = KILLED.iter().map(|call| (*call, Vec::new())).collect();
    let flag = |flag: i32| rule(&[(0, masked(flag), flag.cast_unsigned().into())]);
    rules.insert(libc::SYS_clone, NAMESPACE_FLAGS.into_iter().map(flag).collect::<Result<_, _>>()?);
    Ok(rules)
}

/// TCP over IPv4 and IPv6, and UNIX pairs that are born connected. Each rule names one way to be something else.
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
        if ![libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].contains(&as_int) {
            pair.push(kind(value)?);
        }
    }
    Ok(Rules::from([(libc::SYS_socket, socket), (libc::SYS_socketpair, pair)]))
}

fn missing() -> Rules {
    MISSING.iter().map(|call| (*call, Vec::new())).collect()
}
