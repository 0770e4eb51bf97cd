//! What this host can give, for `palisade sandbox explain`.
//!
//! Guarantees: I5 in advance: the same questions that a start asks. User namespaces are tried out in a child process.
//! Not here:   what one start really got ([`crate::Running::applied`]).

use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::calls::Calls;
use crate::landlock::{self, ABI_SCOPES, ABI_TCP};
use crate::profile::{Level, Simulate};
use crate::report::{LayerName, Report};
use crate::{cgroup, sys};

/// Looks at this host. Starts one short-lived child.
#[must_use]
pub fn probe() -> Report {
    let mut report = Report::default();
    let namespaces = user_namespaces();
    match &namespaces {
        Ok(()) => {
            let who = if geteuid().is_root() { "as root" } else { "without root" };
            report.applied(LayerName::UserNamespace, format!("allowed {who}"));
        }
        Err(why) => report.absent(LayerName::UserNamespace, why.clone()),
    }
    for name in [
        LayerName::MountNamespace,
        LayerName::PidNamespace,
        LayerName::NetworkNamespace,
        LayerName::OtherNamespaces,
        LayerName::PrivateProc,
    ] {
        match &namespaces {
            Ok(()) => report.applied(name, "with the user namespace"),
            Err(_) => report.absent(name, "needs a user namespace"),
        }
    }
    report.applied(LayerName::Capabilities, "always");

    let (abi, detail) = landlock::abi(&Simulate::default());
    for (name, needed) in [(LayerName::LandlockFiles, 1), (LayerName::LandlockTcp, ABI_TCP), (LayerName::LandlockScopes, ABI_SCOPES)] {
        if abi >= needed {
            report.applied(name, detail.clone());
        } else {
            report.absent(name, format!("{detail}; needs ABI {needed}"));
        }
    }

    let filters = sys::seccomp_knows(libc::SECCOMP_RET_KILL_PROCESS);
    if filters {
        report.applied(LayerName::Seccomp, Calls::General.describe());
    } else {
        report.absent(LayerName::Seccomp, "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)");
    }
    let notify = filters && sys::seccomp_knows(libc::SECCOMP_RET_USER_NOTIF);
    if notify {
        report.applied(LayerName::SeccompNotify, "used where there are no namespaces");
        report.applied(LayerName::DeniedCalls, "by a start, unless a filter around this system asks already");
    } else {
        report.absent(LayerName::SeccompNotify, "needs Linux 5.6");
        report.absent(LayerName::DeniedCalls, "needs Linux 5.6");
    }
    report.applied(LayerName::Rlimits, "always");
    match cgroup::place() {
        Ok(cgroup::Place::Unified { above, .. }) => report.applied(LayerName::Cgroup, format!("v2, below {}", above.display())),
        Ok(cgroup::Place::Split(parts)) => {
            let controllers: Vec<&str> = parts.iter().map(|(controller, _)| *controller).collect();
            report.applied(LayerName::Cgroup, format!("v1: {}", controllers.join(", ")));
        }
        Err(why) => report.absent(LayerName::Cgroup, why),
    }
    report.applied(LayerName::Artefacts, "always");
    report.level = match (namespaces.is_ok(), abi, filters, notify) {
        (true, 1.., true, _) => Some(Level::Full),
        (false, ABI_SCOPES.., true, true) => Some(Level::Confined),
        _ => None,
    };
    report.layers.sort_by_key(|layer| layer.name);
    report
}

/// Tries it in a child that does nothing else: entering is for ever.
fn user_namespaces() -> Result<(), String> {
    let mut child = Command::new("/proc/self/exe");
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::before_exec(&mut child, || {
        let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
        unshare(all)?;
        // The question is answered; the error keeps the child from executing anything.
        Err(std::io::Error::from_raw_os_error(libc::ECANCELED))
    });
    match child.spawn() {
        Err(cause) if cause.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
        Err(cause) => Err(format!(
            "{cause}; look at user.max_user_namespaces, kernel.unprivileged_userns_clone and, on Ubuntu, \
             kernel.apparmor_restrict_unprivileged_userns"
        )),
        Ok(mut child) => {
            let _ = child.wait(); // Cannot happen: the hook always fails.
            Err("the trial did not run".to_owned())
        }
    }
}
