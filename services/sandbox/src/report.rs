//! The report: which layers hold, and for those that do not, why.
//!
//! Guarantees: I5 a layer is `applied` only after the kernel accepted it; nothing is assumed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::profile::Level;

/// One layer of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerName {
    /// A user namespace of its own.
    UserNamespace,
    /// A root made of declared paths only.
    MountNamespace,
    /// Sees and signals only its own processes; all of them die with PID 1.
    PidNamespace,
    /// An empty network; flows are the only sockets in it.
    NetworkNamespace,
    /// IPC, UTS and (where there is one) cgroup namespaces.
    OtherNamespaces,
    /// Its own `/proc`, own processes only.
    PrivateProc,
    /// No capability, none to be gained.
    Capabilities,
    /// Declared files only (Landlock).
    LandlockFiles,
    /// TCP ports (Landlock ABI 4).
    LandlockTcp,
    /// Signals and abstract UNIX sockets stay inside (Landlock ABI 6).
    LandlockScopes,
    /// System-call allow-list.
    Seccomp,
    /// `connect` and `bind` decided by destination in init.
    SeccompNotify,
    /// What the allow-list denies is told to the guard.
    DeniedCalls,
    /// Limits for each process.
    Rlimits,
    /// Limits for the service as a whole.
    Cgroup,
    /// What runs has the declared digest.
    Artefacts,
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => "user namespace",
            Self::MountNamespace => "mount namespace, own root",
            Self::PidNamespace => "PID namespace",
            Self::NetworkNamespace => "network namespace",
            Self::OtherNamespaces => "IPC, UTS, cgroup namespaces",
            Self::PrivateProc => "private /proc",
            Self::Capabilities => "no capabilities",
            Self::LandlockFiles => "Landlock: files",
            Self::LandlockTcp => "Landlock: TCP ports",
            Self::LandlockScopes => "Landlock: signals, abstract sockets",
            Self::Seccomp => "seccomp allow-list",
            Self::SeccompNotify => "seccomp: destinations",
            Self::DeniedCalls => "seccomp: denied calls are told",
            Self::Rlimits => "rlimits",
            Self::Cgroup => "cgroup limits",
            Self::Artefacts => "artefact digests",
        })
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Which layer.
    pub name: LayerName,
    /// Whether it holds.
    pub applied: bool,
    /// What exactly holds, or why it does not and what to do.
    pub detail: String,
}

/// The layers of one sandbox, or (from [`crate::probe`]) those that this host can give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The level reached; `None` if nothing may start here.
    pub level: Option<Level>,
    /// Every layer, applied or not.
    pub layers: Vec<Layer>,
}

impl Report {
    /// Whether a layer holds.
    #[must_use]
    pub fn holds(&self, name: LayerName) -> bool {
        self.layers.iter().any(|layer| layer.name == name && layer.applied)
    }

    pub(crate) fn applied(&mut self, name: LayerName, detail: impl Into<String>) {
        self.layers.push(Layer { name, applied: true, detail: detail.into() });
    }

    /// A layer that holds, unless it was left out on purpose.
    pub(crate) fn stands(&mut self, name: LayerName, stands: bool, detail: impl Into<String>) {
        if stands { self.applied(name, detail) } else { self.absent(name, "left out on purpose (`dangerous_without`)") }
    }

    pub(crate) fn absent(&mut self, name: LayerName, why: impl Into<String>) {
        self.layers.push(Layer { name, applied: false, detail: why.into() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Some(Level::Full) => "full",
            Some(Level::Confined) => "confined (no namespaces)",
            None => "none: nothing may start",
        };
        writeln!(f, "level: {level}")?;
        for layer in &self.layers {
            let mark = if layer.applied { "yes" } else { "no " };
            writeln!(f, "  {mark}  {:<36} {}", layer.name.to_string(), layer.detail)?;
        }
        Ok(())
    }
}
