//! Landlock: the second wall around files, ports, signals and abstract sockets.
//!
//! Under namespaces it narrows further (execute only the declared programs; write only state and `/tmp`); without them
//! it is the file wall. Landlock's network rules know ports, not addresses: destinations are the network namespace's
//! business, or `notify`'s.
//!
//! Spec:       kernel `Documentation/userspace-api/landlock.rst`.
//! Guarantees: I2, I5 what the kernel's ABI can enforce is enforced as a hard requirement, never "best effort".

use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

use crate::profile::{Profile, Simulate};
use crate::root::DEVICES;
use crate::sys;

/// From this ABI on, TCP ports.
pub(crate) const ABI_TCP: i32 = 4;
/// From this ABI on, signals and abstract UNIX sockets.
pub(crate) const ABI_SCOPES: i32 = 6;

/// Dynamic loaders: the kernel executes them for each dynamically linked program.
const LOADERS: [&str; 4] =
    ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1"];

/// The usable ABI; 0 if there is none, with the reason.
pub(crate) fn abi(simulate: &Simulate) -> (i32, String) {
    let (real, why) = match sys::landlock_abi() {
        Ok(abi) => (abi, format!("ABI {abi}")),
        Err(cause) => (0, format!("{cause}; boot with landlock in the lsm= list, Linux 5.13 or later")),
    };
    match simulate.landlock_abi {
        Some(abi) if abi < real => (abi.max(0), format!("ABI {abi} (simulated)")),
        _ => (real, why),
    }
}

/// What the rules need to know beside the profile.
pub(crate) struct Places<'a> {
    /// Programs, tools with links resolved.
    pub(crate) executables: &'a [PathBuf],
    /// Scripts with links resolved.
    pub(crate) readables: &'a [PathBuf],
    /// The private temporary folder.
    pub(crate) tmp: &'a Path,
    /// The root is the sandbox's own, so its generated files are there to be read.
    pub(crate) own_root: bool,
    /// A `/proc` of its own is there to be read.
    pub(crate) proc: bool,
}

/// Restricts this thread and all that it becomes, for ever. `abi` is at least 1.
pub(crate) fn restrict(profile: &Profile, places: &Places<'_>, abi: i32) -> Result<(), String> {
    try_restrict(profile, places, abi).map_err(|cause| cause.to_string())
}

fn try_restrict(profile: &Profile, places: &Places<'_>, number: i32) -> Result<(), RulesetError> {
    let abi = ABI::from(number);
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(abi))?;
    if number >= ABI_TCP {
        rules = rules.handle_access(AccessNet::from_all(abi))?;
    }
    if number >= ABI_SCOPES {
        rules = rules.scope(Scope::from_all(abi))?;
    }
    let mut rules = rules.create()?;

    let readable = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let executable = make_bitflags!(AccessFs::{ReadFile | Execute});
    let forbidden = make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | MakeSock | IoctlDev});
    let writable = AccessFs::from_all(abi) & !forbidden;
    for path in profile.read.iter().chain(places.readables) {
        rules = allow(rules, path, readable, abi)?;
    }
    for path in places.executables {
        rules = allow(rules, path, executable, abi)?;
    }
    for path in LOADERS.iter().map(Path::new).filter(|path| path.exists()) {
        rules = allow(rules, path, executable, abi)?;
    }
    for path in DEVICES.iter().map(Path::new) {
        rules = allow(rules, path, make_bitflags!(AccessFs::{ReadFile | WriteFile}), abi)?;
    }
    if places.proc {
        rules = allow(rules, Path::new("/proc"), readable, abi)?;
    }
    for path in ["/etc/hosts", "/etc/passwd", "/etc/group"].iter().map(Path::new).filter(|path| places.own_root && path.exists()) {
        rules = allow(rules, path, AccessFs::ReadFile.into(), abi)?;
    }
    for path in profile.state.iter().map(PathBuf::as_path).chain(std::iter::once(places.tmp)) {
        rules = allow(rules, path, writable, abi)?;
    }
    if number >= ABI_TCP {
        for flow in &profile.flows {
            rules = rules.add_rule(NetPort::new(flow.port, AccessNet::ConnectTcp))?;
        }
        if let Some(port) = profile.port {
            rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
        }
    }
    rules.restrict_self()?;
    Ok(())
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>, abi: ABI) -> Result<RulesetCreated, RulesetError> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(rules); // Not there: nothing to allow. What must be there was checked when the root was built.
    };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
    rules.add_rule(PathBeneath::new(fd, access))
}
