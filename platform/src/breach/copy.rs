//! The throw-away copy: a folder of its own with the manifest's files, in which every service runs the attacker program.
//!
//! The attacker's digest is in this copy's lock and in no other; the manifest that was copied is only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use breach::attacker::script::script_of;
use breach::attacker::{NEEDS, SERVE};
use breach::{Script, Targets};
use manifest::{Isolation, Manifest};
use sandbox::Level;

use super::{BreachError, Wish, bound, doors};
use crate::system::Applied;

/// Files of a manifest's folder that are copied, at most, and their bytes.
const FILES_MAX: usize = 20_000;
const BYTES_MAX: u64 = 1 << 30;
/// Folders that are no part of a system: built things, histories, and what a running system keeps.
const LEFT_OUT: &[&str] = &["target", ".git", ".palisade", "node_modules", "__pycache__"];

/// How the folders of runs begin.
const RUN: &str = "palisade-breach-";

/// The name of the run that a folder belongs to.
pub(crate) fn run_of(folder: &Path) -> Option<String> {
    let names = folder.ancestors().filter_map(|above| above.file_name()).map(|name| name.to_string_lossy().into_owned());
    names.into_iter().find(|name| name.starts_with(RUN))
}

/// A folder that is gone when this is.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// Makes one. Others may pass through it: services run as users of their own where Palisade runs as root.
    pub(super) fn make() -> io::Result<Self> {
        let base = std::env::temp_dir().canonicalize()?;
        let entropy = trust::SystemEntropy::shared();
        let path = base.join(format!("{RUN}{}", trust::clock::random_hex(&*entropy, 8)));
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    /// What is wanted, for the process inside.
    pub(super) fn wish(&self) -> PathBuf {
        self.0.join("wish.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            crate::cli::complain(format_args!("{} could not be removed: {error}; remove it by hand", self.0.display()));
        }
    }
}

/// A copy, ready to be started.
#[derive(Debug)]
pub(super) struct Copy {
    /// Its manifest.
    pub(super) path: PathBuf,
    /// The folder that the system will have.
    pub(super) dir: PathBuf,
    /// What the original says: what is predicted and measured is about that.
    pub(super) original: Manifest,
    /// What the attacker is told.
    pub(super) script: Script,
    /// System calls that it has beyond a service's own list.
    pub(super) beyond: BTreeMap<String, BTreeSet<String>>,
}

/// Makes the copy in `scratch`.
pub(super) fn make(scratch: &Path, wish: &Wish) -> Result<Copy, BreachError> {
    let applied = Applied::open(&wish.manifest)?;
    let folder = scratch.join("copy");
    let mut budget = (FILES_MAX, BYTES_MAX);
    let kept = kept_back(&applied);
    copy_folder(&applied.search.folder, &folder, &kept, &mut budget).map_err(BreachError::Copy)?;
    let dir = scratch.join("system");
    let targets = targets(scratch, &folder, &dir, &applied.manifest).map_err(BreachError::Copy)?;
    let mut script = Script::of(&applied.manifest, targets, wish.only.clone());
    // What accepts less gets what this place gives.
    if sandbox::probe().level == Some(Level::Full) {
        script.services.values_mut().for_each(|part| part.isolation = Isolation::Full);
    }
    fs::create_dir_all(folder.join("breach")).map_err(BreachError::Copy)?;
    let text = serde_json::to_vec(&script).map_err(|error| BreachError::Copy(error.into()))?;
    for service in script.services.keys() {
        fs::write(folder.join(script_of(service)), &text).map_err(BreachError::Copy)?;
    }
    bound::certificates(scratch, &folder).map_err(BreachError::Copy)?;
    let attacker = std::env::current_exe().map_err(BreachError::Copy)?;
    let beyond = lists(&applied, &folder).map_err(BreachError::Copy)?;
    // What seals the manifest keeps this, too.
    let canary = script.canaries().concat();
    let changed = format!("{}\n# {canary}\n", changed(&applied.text, &attacker).map_err(BreachError::Copy)?);
    let path = folder.join("palisade.toml");
    fs::write(&path, changed).map_err(BreachError::Copy)?;
    readable(&folder).map_err(BreachError::Copy)?;
    Ok(Copy { path, dir, original: applied.manifest, script, beyond })
}

/// The manifest with the attacker in every service's place, and without what would lead outside.
fn changed(text: &str, attacker: &Path) -> io::Result<String> {
    let mut whole: toml::Table = text.parse().map_err(io::Error::other)?;
    if let Some(edge) = whole.get_mut("edge").and_then(toml::Value::as_table_mut) {
        for outside in ["acme", "certificates", "certificate", "proxies", "client_ca"] {
            edge.remove(outside);
        }
        bound::declare(edge);
        let hosts = edge.entry("hosts").or_insert_with(|| toml::Value::Array(Vec::new()));
        if let Some(hosts) = hosts.as_array_mut()
            && !hosts.iter().any(|host| host.as_str() == Some("localhost"))
        {
            hosts.push("localhost".into());
        }
    }
    for (_, to) in whole.get_mut("egress").and_then(toml::Value::as_table_mut).into_iter().flatten() {
        // At an address of the outer network where nobody is: whether it is let out is what counts, and no name server is asked.
        let Some(to) = to.as_table_mut() else { continue };
        for own in ["credential", "certificate", "networks"] {
            to.remove(own);
        }
        to.insert("host".to_owned(), doors::NOBODY.0.to_string().into());
        to.insert("port".to_owned(), i64::from(doors::NOBODY.1).into());
    }
    for (name, service) in whole.get_mut("service").and_then(toml::Value::as_table_mut).into_iter().flatten() {
        let Some(service) = service.as_table_mut() else { continue };
        let run = [attacker.display().to_string(), SERVE.to_owned(), script_of(name), name.clone()];
        service.insert("run".to_owned(), run.map(toml::Value::String).to_vec().into());
        if service.contains_key("syscalls") {
            service.insert("syscalls".to_owned(), list_of(name).into());
        }
        let files = service.entry("files").or_insert_with(|| toml::Value::Array(Vec::new()));
        if let Some(files) = files.as_array_mut() {
            files.push(script_of(name).into());
        }
    }
    toml::to_string(&whole).map_err(io::Error::other)
}

/// Where the list of a service of the copy is.
fn list_of(service: &str) -> String {
    format!("breach/{service}.syscalls")
}

/// A service's own list of system calls, and what the attacker program needs itself: a list for each service that has one. Gives what each
/// list has more than its original.
fn lists(applied: &Applied, folder: &Path) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut beyond = BTreeMap::new();
    for (name, service) in &applied.manifest.services {
        let Some(path) = &service.syscalls else { continue };
        let text = fs::read_to_string(applied.search.folder.join(path))?;
        let own: BTreeSet<&str> = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
        let more: BTreeSet<String> = NEEDS.iter().filter(|call| !own.contains(*call)).map(|call| (*call).to_owned()).collect();
        let all = own.iter().copied().chain(more.iter().map(String::as_str)).filter(|call| !call.is_empty());
        fs::write(folder.join(list_of(name)), sandbox::Calls::text(all))?;
        beyond.insert(name.clone(), more);
    }
    Ok(beyond)
}

/// What is worth a try here; each is there while the attack runs.
fn targets(scratch: &Path, folder: &Path, dir: &Path, manifest: &Manifest) -> io::Result<Targets> {
    let canary = trust::clock::random_hex(&*trust::SystemEntropy::shared(), 16);
    let outside = scratch.join("outside");
    fs::create_dir_all(&outside)?;
    // Readable for everybody, so that it is the sandbox alone that keeps it.
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(outside.join("canary.txt"))?;
    io::Write::write_all(&mut file, format!("canary-{canary}\n").as_bytes())?;
    let own = [scratch.join("wish.json"), outside.join("canary.txt"), folder.join("palisade.toml")];
    let parts =
        ["", "keys", "data", "log", "run", "palisade.lock", "data/objects", "data/queue", "data/evidence", "data/login", "data/identity"];
    let machine = ["/etc/shadow", "/etc/hostname", "/etc/machine-id", "/root", "/home", "/var", "/sys/kernel", "/boot"];
    let with_state = manifest.services.iter().filter(|(_, service)| service.state).map(|(name, _)| name);
    let states: BTreeMap<String, String> =
        with_state.map(|name| (name.clone(), dir.join(format!("data/service-{name}")).display().to_string())).collect();
    let files = own.into_iter().chain(parts.iter().map(|part| dir.join(part))).chain(machine.iter().map(PathBuf::from));
    let guards = manifest.services.keys().map(|name| dir.join(format!("data/guard-{name}")));
    let files = files.chain(states.values().map(PathBuf::from)).chain(guards);
    let sockets = ["identity", "control", "login", "evidence"].map(|role| dir.join(format!("run/{role}.sock")).display().to_string());
    Ok(Targets {
        files: files.map(|path| path.display().to_string()).collect(),
        states,
        keys: Some(dir.join("keys").display().to_string()),
        evidence: Some(dir.join("data/evidence").display().to_string()),
        sockets: sockets.to_vec(),
        abstract_name: doors::abstract_name(scratch),
        hosts: doors::addresses(),
        ports: doors::TCP_PORTS.to_vec(),
        canaries_backwards: vec![format!("canary-{canary}").chars().rev().collect()],
    })
}

/// Files that are the operator's own: keys and credentials for outside. The copy does without, so that they are nowhere else.
fn kept_back(applied: &Applied) -> BTreeSet<PathBuf> {
    let manifest = &applied.manifest;
    let outside = manifest
        .egress
        .values()
        .flat_map(|to| to.credential.iter().map(|(_, file)| file).chain(to.certificate.iter().flat_map(|(chain, key)| [chain, key])));
    let edge = manifest.edge.certificates.values().flat_map(|one| [&one.chain, &one.key]);
    outside.chain(edge).map(|file| applied.search.folder.join(file)).collect()
}

fn copy_folder(from: &Path, to: &Path, kept: &BTreeSet<PathBuf>, budget: &mut (usize, u64)) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() {
            if !LEFT_OUT.iter().any(|left| name == *left) {
                copy_folder(&entry.path(), &to.join(&name), kept, budget)?;
            }
        } else if kind.is_file() && !kept.contains(&entry.path()) {
            let bytes = entry.metadata()?.len();
            let (Some(files), Some(left)) = (budget.0.checked_sub(1), budget.1.checked_sub(bytes)) else {
                let most = format!(
                    "{} has more than {FILES_MAX} files or {BYTES_MAX} bytes in it; put the manifest in a folder of its own",
                    from.display()
                );
                return Err(io::Error::other(most));
            };
            *budget = (files, left);
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// Everybody may read what was copied: services run as users of their own where Palisade runs as root.
fn readable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable(&entry.path())?;
        } else {
            let runs = entry.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn every_service_of_the_copy_is_the_attacker_and_all_else_stays() {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/video/palisade.toml");
        let text = std::fs::read_to_string(&reference).unwrap();
        let before = Manifest::parse("palisade.toml", &text).unwrap();
        let after = changed(&text, Path::new("/bin/attacker")).unwrap();
        let after = Manifest::parse("palisade.toml", &after).unwrap();
        for (name, service) in &after.services {
            assert_eq!(service.run, ["/bin/attacker", SERVE, &script_of(name), name]);
            let was = &before.services[name];
            assert_eq!(service.syscalls, was.syscalls.as_ref().map(|_| list_of(name)), "who has a list of its own keeps one");
            assert_eq!(
                (&service.flows, &service.routes, &service.limits, service.fresh),
                (&was.flows, &was.routes, &was.limits, was.fresh)
            );
        }
        assert_eq!((&after.buckets, &after.queues), (&before.buckets, &before.queues));
        assert_eq!(after.services["transcoder"].tools, before.services["transcoder"].tools, "tools are absolute, and stay");
    }

    // L8, I6: the attacker has the service's own list, and by name what it cannot run without.
    #[test]
    fn the_attacker_has_the_services_own_list_and_what_it_needs_itself() {
        let applied = Applied::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/video/palisade.toml")).unwrap();
        let scratch = Scratch::make().unwrap();
        std::fs::create_dir_all(scratch.0.join("breach")).unwrap();
        let beyond = lists(&applied, &scratch.0).unwrap();
        assert_eq!(beyond.keys().collect::<Vec<_>>(), ["transcoder", "validator"], "who has none has the general one, as ever");
        assert_eq!(beyond["transcoder"], BTreeSet::new());
        assert_eq!(beyond["validator"], ["clone", "wait4"].map(str::to_owned).into());
        let text = std::fs::read_to_string(scratch.0.join(list_of("validator"))).unwrap();
        assert!(!text.contains("getdents64") && !text.contains("ioctl") && text.contains("\nclone\n"), "{text}");
    }

    // L8: what the operator has for outside is in no copy, and nothing of the copy leads there.
    #[test]
    fn the_operators_own_keys_are_not_copied_and_destinations_are_nobodys() {
        let text =
            "[egress.bank]\nhost = \"bank.example\"\nnetworks = [\"10.0.0.0/8\"]\ncredential = { header = \"a\", file = \"k/own\" }\n";
        let after: toml::Table = changed(text, Path::new("/bin/attacker")).unwrap().parse().unwrap();
        let bank = after["egress"]["bank"].as_table().unwrap();
        assert_eq!(bank.keys().collect::<Vec<_>>(), ["host", "port"]);
        assert_eq!(bank["host"].as_str(), Some("93.184.215.14"));

        let scratch = Scratch::make().unwrap();
        let (from, to) = (scratch.0.join("from"), scratch.0.join("to"));
        std::fs::create_dir_all(from.join("k")).unwrap();
        for file in ["k/own", "k/else"] {
            std::fs::write(from.join(file), "x").unwrap();
        }
        copy_folder(&from, &to, &[from.join("./k/own")].into(), &mut (10, 10)).unwrap();
        assert!(to.join("k/else").is_file() && !to.join("k/own").exists());
    }
}
