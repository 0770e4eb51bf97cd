//! The system: which processes a manifest becomes, with which listeners, folders and settings.
//!
//! This is the composition root of `palisade up`: parse, build, run.

mod layout;
mod peps;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::identity::Artefact;
use manifest::{Lock, Manifest, Search};
use proxy::client::CollectorUrl;
use trust::{Digest, Entropy, SpiffeId, clock};

use crate::access_log;
use crate::boot::Boot;
use crate::dangerous::{self, DangerousSwitch};
use crate::folder;
use crate::roles;
use crate::supervisor::{Artefacts, BootTemplate, Member, Replacement};
use crate::users;

pub use layout::Layout;

/// Why a system cannot be started; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A folder, file or socket.
    #[error("{what}: {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The manifest, with its places.
    #[error(transparent)]
    Manifest(#[from] Box<manifest::ManifestError>),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] manifest::LockError),
    /// What is there differs from the lock.
    #[error("{}\nwhat is there is not what was locked; if the change was meant, write the lock anew with `palisade lock`", .0.join("\n"))]
    Tampered(Vec<String>),
    /// Another system uses this folder.
    #[error("{0} is in use by another running system; stop it first, or name another folder with --dir")]
    InUse(String),
    /// A socket for another user.
    #[error(
        "the enforcement point {pep} runs as the user {uid}, and only root can open a socket for another user: run Palisade as root, or run the proxy as the user that runs Palisade and leave 'uid' out"
    )]
    PepUser {
        /// Which.
        pep: String,
        /// The user that the manifest names.
        uid: u32,
    },
    /// Others could change the folder.
    #[error(
        "{0} belongs to another user, or others may write in it; whoever can write there is the system: choose a folder of your own with --dir"
    )]
    NotOurs(String),
}

/// A manifest with what stands beside it.
#[derive(Debug)]
pub struct Applied {
    /// The system.
    pub manifest: Manifest,
    /// Its text.
    pub text: String,
    /// Hand-written policies by file name.
    pub policies: BTreeMap<String, String>,
    /// Where its programs are.
    pub search: Search,
}

impl Applied {
    /// Opens a manifest and the policies beside it.
    ///
    /// # Errors
    /// `Manifest` with every problem in its place; `Io`.
    pub fn open(path: &Path) -> Result<Self, SystemError> {
        let manifest = Manifest::open(path).map_err(Box::new)?;
        let text = fs::read_to_string(path).map_err(io("cannot read", path))?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().map_err(io("cannot find", folder))?;
        let binary = std::env::current_exe().map_err(io("cannot find", Path::new("/proc/self/exe")))?;
        let search = Search { folder: folder.clone(), bin: binary.parent().map(Path::to_path_buf) };
        let mut policies = BTreeMap::new();
        let policy_dir = folder.join("policies");
        if policy_dir.is_dir() {
            for entry in fs::read_dir(&policy_dir).map_err(io("cannot read", &policy_dir))? {
                let file = entry.map_err(io("cannot read", &policy_dir))?.path();
                if file.extension().is_some_and(|e| e == "cedar") {
                    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                    policies.insert(name, fs::read_to_string(&file).map_err(io("cannot read", &file))?);
                }
            }
        }
        Ok(Self { manifest, text, policies, search })
    }

    /// Checks what is there against the lock. Without a lock, writes one at the very first start; later that is tampering.
    ///
    /// # Errors
    /// `Tampered` with each difference; `Lock`.
    pub fn check_lock(&self, path: &Path) -> Result<Lock, SystemError> {
        let palisade = own_digest()?;
        if !path.exists() {
            // A folder that has keys has run before, and had a lock then.
            if path.parent().is_some_and(|dir| dir.join("keys").exists()) {
                return Err(SystemError::Tampered(vec![format!("{} is gone", path.display())]));
            }
            let lock = Lock::create(&self.manifest, &self.policies, &self.search, palisade)?;
            lock.write(path)?;
            return Ok(lock);
        }
        let lock = Lock::open(path)?;
        let found = lock.verify(&self.manifest, &self.policies, &self.search, palisade)?;
        if found.is_empty() { Ok(lock) } else { Err(SystemError::Tampered(found.iter().map(ToString::to_string).collect())) }
    }

    /// What a service runs, with absolute paths, as the lock has it.
    #[must_use]
    pub fn artefacts(&self, lock: &Lock, service: &str) -> Vec<Artefact> {
        artefacts(&self.search, lock, service)
    }
}

fn artefacts(search: &Search, lock: &Lock, service: &str) -> Vec<Artefact> {
    let rows = lock.artefacts(service).cloned().unwrap_or_default();
    rows.into_iter().map(|(path, digest)| Artefact { path: search.absolute(&path).display().to_string(), digest }).collect()
}

/// What everybody must know who starts a system in which things go wrong on purpose.
#[must_use]
pub fn faults_warning(manifest: &Manifest) -> Option<String> {
    let names: Vec<&str> = manifest.faults.keys().map(String::as_str).collect();
    let names = if names.is_empty() { return None } else { names.join(", ") };
    Some(format!(
        "FAULTS ON PURPOSE: in this system requests are delayed, refused or broken off as its manifest says ({names}); nobody should rely on it"
    ))
}

/// What everybody must know whose manifest declares what nothing serves yet: the flow is there, and leads nowhere.
#[must_use]
pub fn unserved_warning(manifest: &Manifest) -> Option<String> {
    let each = |(service, flows): (String, std::collections::BTreeSet<String>)| {
        format!("{service} declares {}", flows.into_iter().collect::<Vec<_>>().join(", "))
    };
    let all: Vec<String> = manifest.unserved().into_iter().map(each).collect();
    let all = if all.is_empty() { return None } else { all.join("; ") };
    Some(format!(
        "NOT SERVED YET: {all}: no role serves secrets, and the store has no route to share objects; the service finds no address for it"
    ))
}

/// The digest of this very binary.
///
/// # Errors
/// `Io` when it cannot be read.
pub fn own_digest() -> Result<Digest, SystemError> {
    let path = Path::new("/proc/self/exe");
    fs::File::open(path).and_then(Digest::of_reader).map_err(io("cannot read", path))
}

/// All members of a system, and the public address.
#[derive(Debug)]
pub struct System {
    /// Its processes.
    pub members: Vec<Member>,
    /// `https://localhost:PORT`.
    pub origin: String,
    /// The socket of each enforcement point.
    pub peps: Vec<(String, PathBuf)>,
}

/// Builds a system: folders, keys, listeners, and what each process is told.
///
/// # Errors
/// `Io` with the path.
pub fn build(
    applied: &Applied,
    lock: &Lock,
    layout: &Layout,
    listen: std::net::SocketAddr,
    otlp: Option<&CollectorUrl>,
    traced: Option<&str>,
    entropy: &dyn Entropy,
) -> Result<System, SystemError> {
    let manifest = &applied.manifest;
    for folder in [layout.run(), layout.dir.join("data"), layout.dir.join("keys"), layout.logs()] {
        folder::private(&folder)?;
    }
    let public = proxy::listen::at(listen).map_err(io(
        "cannot listen; is another program using this address? Choose another with --listen:",
        Path::new(&listen.to_string()),
    ))?;
    let port = public.local_addr().map_err(io("cannot listen", Path::new("edge")))?.port();
    let at = |host: &str| if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    let origin = at(manifest.edge.main_host());
    let content = manifest.edge.content.as_deref().map_or_else(|| origin.clone(), at);

    let mut builder = Builder { applied, lock, layout, traced, entropy, addresses: BTreeMap::new(), members: Vec::new(), peps: Vec::new() };
    let mesh: Vec<(&str, OwnedFd)> = ["control", "login", "objects", "queue", "evidence"]
        .into_iter()
        .map(|role| Ok((role, builder.mesh_listener(&manifest.trust_domain.role(role))?)))
        .collect::<Result<_, SystemError>>()?;
    let mut guards: Vec<(String, u32, OwnedFd)> = Vec::new();
    for (name, service) in &manifest.services {
        for replica in 0..service.replicas.max {
            guards.push((name.clone(), replica, builder.mesh_listener(&manifest.trust_domain.service(name))?));
        }
    }

    for pep in manifest.peps.keys() {
        // It listens for nobody of the mesh; that it is there says that it runs.
        builder.addresses.entry(manifest.trust_domain.pdp(pep)).or_default();
    }
    builder.identity(&manifest.edge.local_hosts())?;
    for (role, listener) in mesh {
        let settings = match role {
            "control" => builder.control_settings()?,
            "login" => serde_json::json!(roles::login::Settings {
                origin: origin.clone(),
                system: manifest.name.clone(),
                scopes: manifest.services.values().flat_map(|s| &s.routes).filter_map(|r| r.scope.clone()).collect(),
                clients: manifest.edge.clients.iter().map(declared).collect(),
            }),
            "evidence" => {
                serde_json::json!(roles::evidence::Settings { anchor: layout.data("anchor"), otlp: otlp.map(ToString::to_string) })
            }
            // Where presigned URLs are.
            "objects" => serde_json::json!(roles::OriginSettings { origin: content.clone() }),
            _ => serde_json::json!(roles::OriginSettings { origin: origin.clone() }),
        };
        let mut listeners = vec![("mesh".to_owned(), listener)];
        if matches!(role, "control" | "login" | "evidence") {
            listeners.push(("operator".to_owned(), unix_listener(&layout.operator(role))?));
        }
        let stage = if matches!(role, "control" | "evidence") { 1 } else { 2 };
        builder.role(role, stage, listeners, settings)?;
    }
    let users =
        users::of_services(manifest.services.keys().map(String::as_str)).map_err(io("cannot find users for", Path::new("services")))?;
    for (service, replica, listener) in guards {
        // Each of them has one; without one nothing would start.
        let run_as_id = users.get(&service).copied().unwrap_or_default();
        builder.guard(&service, replica, listener, run_as_id)?;
    }
    for (name, pep) in &manifest.peps {
        builder.pdp(name, pep, &origin)?;
    }
    let edge = builder.edge_settings(port);
    builder.role("edge", 4, vec![("public".to_owned(), public.into())], serde_json::json!(edge))?;
    Ok(System { members: builder.members, origin, peps: builder.peps })
}

impl System {
    /// Switches controls off. For a throw-away copy alone: a process that is handed a switch elsewhere does not start.
    pub(crate) fn dangerous_switch_off(&mut self, switches: &[DangerousSwitch]) {
        for member in &mut self.members {
            member.boot.0.dangerous_without = dangerous::dangerous_of(switches, &member.name);
        }
    }
}

struct Builder<'a> {
    applied: &'a Applied,
    lock: &'a Lock,
    layout: &'a Layout,
    traced: Option<&'a str>,
    entropy: &'a dyn Entropy,
    addresses: BTreeMap<SpiffeId, Vec<String>>,
    members: Vec<Member>,
    peps: Vec<(String, PathBuf)>,
}

impl Builder<'_> {
    fn mesh_listener(&mut self, id: &SpiffeId) -> Result<OwnedFd, SystemError> {
        let failed = "cannot listen on loopback for";
        let listener = proxy::listen::loopback().map_err(io(failed, Path::new(&id.to_string())))?;
        let address = listener.local_addr().map_err(io(failed, Path::new(&id.to_string())))?;
        self.addresses.entry(id.clone()).or_default().push(address.to_string());
        Ok(listener.into())
    }

    fn identity(&mut self, hosts: &std::collections::BTreeSet<String>) -> Result<(), SystemError> {
        let svid_life_s = self.applied.manifest.svid_life_ms / 1000;
        let settings = roles::identity::Settings { hosts: hosts.iter().cloned().collect(), svid_life_s };
        let listener = unix_listener(&self.layout.run().join("identity.sock"))?;
        self.role("identity", 0, vec![("join".to_owned(), listener)], serde_json::json!(settings))
    }

    fn edge_settings(&self, port: u16) -> roles::edge::Settings {
        let edge = &self.applied.manifest.edge;
        // An absolute path stays what it is.
        let absolute = |file: &str| self.applied.search.folder.join(file);
        let listed = |hosts: &std::collections::BTreeSet<String>| hosts.iter().cloned().collect::<Vec<_>>();
        let brought = edge.certificates.iter().map(|(name, certificate)| roles::edge::Brought {
            name: name.clone(),
            hosts: listed(&certificate.hosts),
            chain: absolute(&certificate.chain),
            key: absolute(&certificate.key),
        });
        let authority = edge.acme.as_ref().map(|acme| roles::edge::Authority {
            directory: acme.directory.clone(),
            hosts: listed(&acme.hosts),
            contact: acme.contact.clone(),
            root: acme.root.as_deref().map(absolute),
        });
        roles::edge::Settings {
            hosts: listed(&edge.hosts),
            content: edge.content.clone(),
            port,
            tls_dir: self.layout.data("identity").join("public"),
            local_hosts: listed(&edge.local_hosts()),
            certificates: brought.collect(),
            acme: authority,
            balancers: edge.proxies.iter().copied().collect(),
            client_ca: edge.client_ca.as_deref().map(absolute),
            session_idle_s: edge.session_idle_ms / 1000,
            session_life_s: edge.session_life_ms / 1000,
            limits: edge.limits.into(),
            access_log: self.access_log("edge", ""),
        }
    }

    /// A door's access log.
    fn access_log(&self, door: &str, service: &str) -> access_log::Settings {
        let kept = &self.applied.manifest.edge.access_log;
        access_log::Settings {
            folder: self.layout.access_logs(),
            door: door.to_owned(),
            service: service.to_owned(),
            bytes_max: kept.bytes,
            age_ms_max: kept.age_ms,
        }
    }

    fn control_settings(&self) -> Result<serde_json::Value, SystemError> {
        let settings = roles::control::Settings {
            manifest: self.applied.text.clone(),
            policies: self.applied.policies.clone(),
            lock: self.lock.to_toml(),
            folder: self.applied.search.folder.clone(),
            bin: self.applied.search.bin.clone(),
            palisade: self.lock.palisade,
            addresses: self.addresses.clone(),
        };
        serde_json::to_value(settings).map_err(|e| SystemError::Io { what: "cannot describe", path: "control".into(), source: e.into() })
    }

    fn role(&mut self, role: &str, stage: u8, listeners: Vec<(String, OwnedFd)>, settings: serde_json::Value) -> Result<(), SystemError> {
        let id = self.applied.manifest.trust_domain.role(role);
        let sealing_key = self.sealing_key(role)?;
        let boot = self.boot(id, self.layout.data(role), sealing_key, Vec::new(), settings)?;
        let args = vec!["role".to_owned(), role.to_owned()];
        let (name, boot, replacement) = (role.to_owned(), BootTemplate(boot), Replacement::Never);
        self.members.push(Member { name, args, artefacts: Vec::new(), listeners, boot, stage, replacement });
        Ok(())
    }

    /// A guard for one replica of a service: the same name, a process, a key and a listener of its own.
    fn guard(&mut self, service: &str, replica: u32, listener: OwnedFd, run_as_id: u32) -> Result<(), SystemError> {
        let id = self.applied.manifest.trust_domain.service(service);
        // No service's name has a dot in it.
        let name = if replica == 0 { format!("guard-{service}") } else { format!("guard-{service}.{}", replica.saturating_add(1)) };
        let artefacts = self.applied.artefacts(self.lock, service);
        let paths = artefacts.iter().map(|a| a.path.clone()).collect();
        let state_dir = self.layout.data(&format!("service-{service}"));
        // Its owner is the service's user once it has run; the folder above is ours.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir).map_err(io("cannot make the folder", &state_dir))?;
        users::take_over(&state_dir, run_as_id).map_err(io("cannot give to its service", &state_dir))?;
        let trace = (self.traced == Some(service)).then(|| self.layout.data(&name).join(crate::guard::TRACED));
        let has_access_log = self.applied.manifest.services.get(service).is_some_and(|service| service.access_log);
        let access_log = has_access_log.then(|| self.access_log(&name, service));
        let settings = serde_json::json!(crate::guard::Settings {
            state_dir,
            run_as_id,
            evidence_dir: self.layout.contained(service),
            replica,
            trace,
            access_log,
            dangerous_without: None,
            dangerous_unlocked: false,
        });
        let boot = self.boot(id, self.layout.data(&name), String::new(), paths, settings)?;
        let args = vec!["guard".to_owned(), service.to_owned()];
        let listeners = vec![("mesh".to_owned(), listener)];
        let replacement = self.replacement(service);
        self.members.push(Member { name, args, artefacts, listeners, boot: BootTemplate(boot), stage: 3, replacement });
        Ok(())
    }

    fn replacement(&self, service: &str) -> Replacement {
        let (search, path, name) = (self.applied.search.clone(), self.layout.lock(), service.to_owned());
        let locked: Artefacts = Arc::new(move || {
            let lock = Lock::open(&path).map_err(|error| error.to_string())?;
            Ok(artefacts(&search, &lock, &name))
        });
        let keeps_state = self.applied.manifest.services.get(service).is_none_or(|s| s.state);
        if keeps_state { Replacement::After(locked) } else { Replacement::Beside(locked) }
    }

    fn boot(
        &self,
        spiffe_id: SpiffeId,
        dir: PathBuf,
        sealing_key: String,
        artefacts: Vec<String>,
        settings: serde_json::Value,
    ) -> Result<Boot, SystemError> {
        folder::private(&dir)?;
        let early = ["control", "evidence"].map(|role| self.applied.manifest.trust_domain.role(role));
        let addresses = early.into_iter().filter_map(|id| Some((id.clone(), self.addresses.get(&id)?.first()?.clone()))).collect();
        Ok(Boot {
            spiffe_id,
            trust_domain: self.applied.manifest.trust_domain.clone(),
            dir,
            identity_socket: self.layout.run().join("identity.sock"),
            token: String::new(),
            roots: Vec::new(),
            addresses,
            listeners: Vec::new(),
            artefacts,
            sealing_key,
            dangerous_without: std::collections::BTreeSet::new(),
            settings,
        })
    }

    /// The key under which a role seals what it keeps: in a file of its own, apart from the data that it opens.
    fn sealing_key(&self, role: &str) -> Result<String, SystemError> {
        let path = self.layout.dir.join("keys").join(format!("{role}.key"));
        match fs::read_to_string(&path) {
            Ok(key) => Ok(key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = clock::random_hex(self.entropy, 32);
                let write = || -> std::io::Result<()> {
                    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                    std::io::Write::write_all(&mut file, key.as_bytes())?;
                    file.sync_all()
                };
                write().map_err(io("cannot write the sealing key", &path))?;
                Ok(key)
            }
            Err(error) => Err(io("cannot read the sealing key", &path)(error)),
        }
    }
}

fn unix_listener(path: &Path) -> Result<OwnedFd, SystemError> {
    proxy::listen::unix(path).map(Into::into).map_err(io("cannot listen on", path))
}

fn io<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> SystemError + 'p {
    move |source| SystemError::Io { what, path: path.display().to_string(), source }
}

/// An application as `login` knows it.
fn declared((id, client): (&String, &manifest::Client)) -> contract::login::ClientProfile {
    let manifest::Client { returns, opaque, proof_required, certificate } = client.clone();
    contract::login::ClientProfile { id: id.clone(), returns, opaque, proof_required, certificate }
}
