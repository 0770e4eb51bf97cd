//! System calls by name: what a sandbox can allow, what it always allows, what ends a program.
//!
//! A service may be given less than the general list: a list of its own, which `palisade sandbox trace` writes. What is then allowed is
//! (the list and what every start needs) and nothing that the general list lacks.
//!
//! Spec:       `syscalls(2)`; aarch64 lacks the older calls, so those are a list of their own.
//! Guarantees: I6 a list of a service's own only ever narrows.
//! Not here:   the filters (`seccomp`), how calls are seen (`notify`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Which system calls a service may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calls {
    /// What ordinary programs use.
    General,
    /// Of the general list only these, by name, and what every start needs.
    Listed(BTreeSet<String>),
    /// The general list, and each call is told once ([`crate::Seen::Traced`]). Slow: for writing a list, not for service.
    Traced,
}

/// One call: its name with `SYS_`, and its number.
pub(crate) struct Call(&'static str, pub(crate) i64);

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        self.0.strip_prefix("SYS_").unwrap_or(self.0)
    }
}

/// `names![SYS_read]` is `&[Call("SYS_read", libc::SYS_read)]`.
macro_rules! names {
    ($($(#[$when:meta])* $name:ident),* $(,)?) => { &[$($(#[$when])* Call(stringify!($name), libc::$name)),*] };
}

/// The general list. `seccomp` looks at the arguments of some.
#[rustfmt::skip]
const GENERAL: &[Call] = names![
    // Files.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64,
    SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_openat,
    SYS_openat2, SYS_close, SYS_close_range, SYS_fstat, SYS_newfstatat, SYS_statx,
    SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd,
    SYS_chdir, SYS_fchdir, SYS_mkdirat, SYS_unlinkat, SYS_renameat2,
    SYS_linkat, SYS_symlinkat, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat,
    SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_fsync, SYS_fdatasync,
    SYS_utimensat, SYS_flock, SYS_fcntl, SYS_dup, SYS_dup3,
    SYS_pipe2, SYS_sendfile, SYS_splice, SYS_tee, SYS_copy_file_range, SYS_statfs,
    SYS_fstatfs, SYS_umask, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
    SYS_fadvise64, SYS_readahead, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr,
    SYS_listxattr, SYS_llistxattr, SYS_flistxattr,
    // Memory.
    SYS_mprotect, SYS_munmap, SYS_mremap, SYS_brk, SYS_madvise, SYS_msync,
    SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mincore, SYS_membarrier, SYS_rseq,
    SYS_get_mempolicy,
    // Processes and threads.
    SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_execve,
    SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill,
    SYS_tkill, SYS_tgkill, SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid,
    SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid,
    SYS_getgroups, SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getparam,
    SYS_sched_getscheduler, SYS_sched_setscheduler, SYS_sched_getattr,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_setpriority, SYS_getpriority,
    SYS_getrusage, SYS_times, SYS_sysinfo, SYS_uname,
    SYS_getcpu, SYS_getrandom, SYS_capget, SYS_pidfd_open, SYS_pidfd_send_signal,
    // Signals.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigsuspend,
    SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_restart_syscall,
    SYS_signalfd4,
    // Time and waiting.
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_gettimeofday, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
    SYS_getitimer, SYS_setitimer, SYS_ppoll, SYS_pselect6, SYS_epoll_create1,
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_futex,
    SYS_futex_waitv,
    // Sockets that `family` let be made.
    SYS_socket, SYS_socketpair, SYS_bind, SYS_listen, SYS_accept, SYS_accept4,
    SYS_connect, SYS_getsockname, SYS_getpeername, SYS_recvfrom, SYS_recvmsg,
    SYS_recvmmsg, SYS_shutdown, SYS_setsockopt, SYS_getsockopt,
    // With conditions.
    SYS_clone, SYS_prlimit64, SYS_prctl, SYS_ioctl, SYS_mmap, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
];

/// The older spellings of x86_64.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const GENERAL_OLD: &[Call] = names![
    SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_readlink,
    SYS_getdents, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_rename, SYS_link,
    SYS_symlink, SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes,
    SYS_futimesat, SYS_dup2, SYS_pipe, SYS_inotify_init, SYS_fork, SYS_vfork,
    SYS_getpgrp, SYS_arch_prctl, SYS_pause, SYS_alarm, SYS_time, SYS_poll,
    SYS_select, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_signalfd,
    SYS_renameat, SYS_sync_file_range, SYS_getrlimit, SYS_setrlimit,
];
/// Calls of aarch64 for which `libc` has no name.
#[cfg(target_arch = "aarch64")]
const GENERAL_OLD: &[Call] =
    &[Call("SYS_renameat", 38), Call("SYS_sync_file_range", 84), Call("SYS_getrlimit", 163), Call("SYS_setrlimit", 164)];

/// What every start needs between the filter and the program's first own call, and what a program needs in order to end, whatever
/// else it does. None of it reaches anything that is not open already, but for executing what Landlock lets be executed.
#[rustfmt::skip]
const ALWAYS: &[Call] = names![
    SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_restart_syscall, SYS_rt_sigprocmask,
    SYS_rt_sigaction, SYS_sigaltstack, SYS_tgkill, SYS_getpid, SYS_gettid, SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect,
    SYS_madvise, SYS_futex, SYS_sched_yield, SYS_clock_gettime, SYS_gettimeofday, SYS_getrandom, SYS_set_robust_list,
    SYS_set_tid_address, SYS_rseq, SYS_close, SYS_fcntl, SYS_read, SYS_write, SYS_writev, SYS_sendmsg,
    #[cfg(target_arch = "x86_64")] SYS_arch_prctl,
];

/// Calls that seem not to be there: libc and runtimes fall back to one of the others. `clone3` has its flags in memory,
/// where a filter cannot look; `memfd` is memory outside every rlimit. The numbers without a name are the same on every
/// architecture: cachestat, fchmodat2, map_shadow_stack, futex_wake, futex_wait, futex_requeue, mseal.
pub(crate) const MISSING: &[i64] = &[libc::SYS_clone3, libc::SYS_memfd_create, 451, 452, 453, 454, 455, 456, 462];

/// Calls that init makes, or does not, where there is no network of one's own. To listen without a port of one's own is to listen at
/// every address.
pub(crate) const BROKERED: [i64; 3] = [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// Calls that end the program.
#[rustfmt::skip]
const FATAL: &[Call] = names![
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd, SYS_keyctl, SYS_add_key,
    SYS_request_key, SYS_bpf, SYS_userfaultfd, SYS_perf_event_open, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen,
    SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_unshare, SYS_setns, SYS_kexec_load, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_open_by_handle_at, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct,
];
/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const FATAL_OLD: &[Call] = names![SYS_kexec_file_load, SYS_iopl, SYS_ioperm];
#[cfg(target_arch = "aarch64")]
const FATAL_OLD: &[Call] = &[];

/// Calls that are answered with EPERM and are told by name. A timer of `timer_create` sends any signal, also the one that lets a stopped
/// process go on, and names it in memory, where a filter cannot look.
#[rustfmt::skip]
const NAMED: &[Call] = names![
    SYS_personality, SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid,
    SYS_setfsgid, SYS_setgroups, SYS_capset, SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_semget, SYS_semop,
    SYS_semctl, SYS_semtimedop, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_seccomp,
    SYS_mknodat, SYS_name_to_handle_at, SYS_fanotify_init, SYS_fanotify_mark, SYS_syslog, SYS_sethostname,
    SYS_setdomainname, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_quotactl, SYS_sync,
    SYS_vhangup, SYS_mbind, SYS_set_mempolicy, SYS_migrate_pages, SYS_move_pages, SYS_ioprio_set, SYS_ioprio_get,
    SYS_sched_setattr, SYS_sched_setparam, SYS_sched_rr_get_interval, SYS_mlockall, SYS_munlockall,
    SYS_remap_file_pages, SYS_vmsplice, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr,
    SYS_fremovexattr, SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    SYS_process_madvise, SYS_process_mrelease, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_io_setup,
    SYS_io_submit, SYS_io_destroy, SYS_io_getevents, SYS_io_cancel, SYS_syncfs, SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo, SYS_lookup_dcookie, SYS_nfsservctl, SYS_memfd_secret, SYS_timer_create, SYS_timer_settime,
    SYS_timer_gettime, SYS_timer_delete, SYS_timer_getoverrun,
    #[cfg(target_arch = "x86_64")] SYS_mknod,
    #[cfg(target_arch = "x86_64")] SYS_modify_ldt,
];

/// How many calls the general list has.
pub(crate) fn general_count() -> usize {
    GENERAL.len() + GENERAL_OLD.len()
}

fn general() -> impl Iterator<Item = &'static Call> {
    GENERAL.iter().chain(GENERAL_OLD)
}

/// What every start needs, by number.
pub(crate) fn always() -> impl Iterator<Item = i64> {
    ALWAYS.iter().map(|call| call.1)
}

/// Numbers of calls that end the program.
pub(crate) fn fatal() -> impl Iterator<Item = i64> {
    FATAL.iter().chain(FATAL_OLD).map(|call| call.1)
}

/// The name of a call, for people.
pub(crate) fn name(number: i64) -> String {
    let known = general().chain(FATAL).chain(FATAL_OLD).chain(NAMED);
    match known.into_iter().find(|call| call.1 == number) {
        Some(call) => call.name().to_owned(),
        None => format!("call {number}"),
    }
}

/// A socket that was asked for, for people. At most 8,192 different ones, whatever is asked.
pub(crate) fn socket(family: u64, kind: u64) -> String {
    const FAMILIES: [(i32, &str); 7] = [
        (libc::AF_UNIX, "unix"),
        (libc::AF_INET, "inet"),
        (libc::AF_INET6, "inet6"),
        (libc::AF_NETLINK, "netlink"),
        (libc::AF_PACKET, "packet"),
        (libc::AF_ALG, "alg"),
        (libc::AF_VSOCK, "vsock"),
    ];
    const KINDS: [(i32, &str); 4] =
        [(libc::SOCK_STREAM, "stream"), (libc::SOCK_DGRAM, "datagram"), (libc::SOCK_RAW, "raw"), (libc::SOCK_SEQPACKET, "seqpacket")];
    let named = |list: &[(i32, &str)], value: u64| {
        let known = list.iter().find(|(number, _)| u64::from(number.cast_unsigned()) == value);
        known.map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
    };
    format!("socket {} {}", named(&FAMILIES, family & 0x1ff), named(&KINDS, kind & 0xf))
}

impl Calls {
    /// Numbers that are allowed: never one that the general list lacks.
    pub(crate) fn allowed(&self) -> BTreeSet<i64> {
        match self {
            Self::General | Self::Traced => general().map(|call| call.1).collect(),
            Self::Listed(names) => {
                let listed = general().filter(|call| names.contains(call.name())).map(|call| call.1);
                listed.chain(always()).collect()
            }
        }
    }

    /// How many calls are allowed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.allowed().len()
    }

    /// One line for a report.
    #[must_use]
    pub fn describe(&self) -> String {
        let general = general_count();
        match self {
            Self::General => format!("{general} calls allowed, the general list"),
            Self::Listed(_) => format!("{} calls allowed, a list of its own (the general one has {general})", self.count()),
            Self::Traced => format!("{general} calls allowed, each told once: for writing a list"),
        }
    }

    /// Reads a list: one name in each line, `#` begins a comment.
    ///
    /// # Errors
    /// A line that names no call which a sandbox can allow, with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        const LINES_MAX: usize = 1_000;
        let mut names = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let number = index.saturating_add(1);
            if number > LINES_MAX {
                return Err(format!("more than {LINES_MAX} lines; `palisade sandbox trace` writes it anew"));
            }
            let name = line.split('#').next().unwrap_or_default().trim();
            if name.is_empty() {
                continue;
            }
            if !general().any(|call| call.name() == name) && !ELSEWHERE.contains(&name) {
                return Err(format!("line {number}: `{name}` is no system call that a sandbox can allow; leave it out"));
            }
            names.insert(name.to_owned());
        }
        Ok(Self::Listed(names))
    }

    /// The text of a list of these names, as [`Calls::parse`] reads it. What every start needs is left out: it is always allowed.
    #[must_use]
    pub fn text<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
        let always: BTreeSet<&str> = ALWAYS.iter().map(Call::name).collect();
        let names: BTreeSet<&str> = names.into_iter().filter(|name| !always.contains(name)).collect();
        let mut text =
            String::from("# System calls of this service, seen by `palisade sandbox trace`. What every start needs is allowed besides.\n");
        for name in names {
            text.push_str(name);
            text.push('\n');
        }
        text
    }
}

/// Calls that another architecture's general list has: a list that was traced there is read here, without effect for these.
#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
const ELSEWHERE: &[&str] = &[
    "open", "creat", "stat", "lstat", "access", "readlink", "getdents", "mkdir", "rmdir", "unlink", "rename", "link",
    "symlink", "chmod", "chown", "lchown", "utime", "utimes", "futimesat", "dup2", "pipe", "inotify_init", "fork",
    "vfork", "getpgrp", "arch_prctl", "pause", "alarm", "time", "poll", "select", "epoll_create", "epoll_wait",
    "eventfd", "signalfd",
];
#[cfg(target_arch = "x86_64")]
const ELSEWHERE: &[&str] = &[];

#[cfg(test)]
mod tests {
    //! Tests of the lists.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_list_of_a_services_own_only_narrows() {
        // I6
        let general = Calls::General.allowed();
        assert_eq!(general.len(), general_count(), "no call is there twice");
        let few = Calls::parse("# few\nopenat\n\npoll # old\n").unwrap_or(Calls::General);
        assert!(few.allowed().is_subset(&general) && few.count() < general.len() / 3, "{}", few.count());
        assert!(few.allowed().contains(&libc::SYS_openat) && !few.allowed().contains(&libc::SYS_socket));
        let forged = Calls::Listed(["ptrace", "io_uring_setup", "openat"].map(str::to_owned).into());
        assert!(forged.allowed().is_subset(&general), "a forged list widens nothing");
        assert!(always().all(|call| general.contains(&call)), "what every start needs is on the general list");
        assert!(fatal().all(|call| !general.contains(&call)));
    }

    #[test]
    fn a_line_that_cannot_be_allowed_is_refused_with_its_number() {
        // I6
        for (text, words) in [("read\nptrace\n", "line 2: `ptrace`"), ("nonsense", "line 1: `nonsense`"), ("x y", "line 1: `x y`")] {
            assert!(Calls::parse(text).is_err_and(|why| why.contains(words)), "{text}");
        }
        assert!(Calls::parse(&"read\n".repeat(1_000)).is_ok());
        assert!(Calls::parse(&"read\n".repeat(1_001)).is_err());
    }

    #[test]
    fn a_list_that_is_written_is_read_again() {
        let text = Calls::text(["poll", "openat", "read"]);
        assert!(text.ends_with("openat\npoll\n") || text.ends_with("openat\n"), "sorted, without what every start needs: {text}");
        assert_eq!(Calls::parse(&text), Ok(Calls::Listed(["poll", "openat"].map(str::to_owned).into())));
    }

    #[test]
    fn calls_are_told_by_name() {
        assert_eq!(name(libc::SYS_ptrace), "ptrace");
        assert_eq!(name(libc::SYS_setuid), "setuid");
        assert_eq!(name(10_000), "call 10000");
        assert_eq!(socket(2, 3 | 0o2_000_000), "socket inet raw");
        assert_eq!(socket(40, 9), "socket vsock 9");
    }
}
