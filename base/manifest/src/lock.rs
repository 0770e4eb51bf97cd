//! `palisade.lock`: the digest of every byte that a system runs, so that an identity can be bound to it.
//!
//! It names the manifest's digest, that of the Palisade binary, those of the hand-written policies, and of every artefact of every
//! service: program, tools, and each file. What catches which tampering:
//!
//! | changed | caught by |
//! |---|---|
//! | a byte of the lock, by accident or by a hand | `seal`, a digest over the lock's own content: `Lock::parse` |
//! | the lock, with a recomputed seal | the artefacts themselves: `Lock::verify` digests every file again. A forged line no longer fits its file |
//! | an artefact | `Lock::verify`; and at each start the guard's and `identity`'s check of the program against `Lock::service` |
//! | the manifest or a policy | `Lock::verify`, by their digests |
//! | lock and artefacts together | not this file alone: who may write both owns the system. A signature by CI over the seal is later work (K) |
//!
//! Guarantees: C5 identity bound to the artefact; issue point 9, an edited byte of the lock is found.
//! Not here:   who refuses an identity (`identity`), who starts a program (`guard`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trust::Digest;

use crate::canonical_json;
use crate::model::{Manifest, Service};

/// Longest lock, in bytes; most files of one folder.
const LOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
const FILES_MAX: usize = 4096;
const HEADER: &str = "# Written by `palisade lock`. Not for editing: one changed byte and nothing starts.\n";

/// What a system runs, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this form, 1.
    version: u32,
    /// Digest of the manifest's canonical form.
    pub manifest: Digest,
    /// Digest of the Palisade binary.
    pub palisade: Digest,
    /// Hand-written policies, by file name.
    #[serde(default)]
    pub policies: BTreeMap<String, Digest>,
    /// Artefacts by service, then by path as the manifest writes it (files of a folder below it).
    #[serde(default)]
    pub services: BTreeMap<String, BTreeMap<String, Digest>>,
    /// Digest over all of the above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<Digest>,
}

/// Where artefacts with relative paths are looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// The manifest's folder.
    pub folder: PathBuf,
    /// The folder of built programs, asked second and only for `run`.
    pub bin: Option<PathBuf>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a lock of this version.
    #[error("the lock is not well-formed: {0}")]
    Malformed(String),
    /// Its content is not what was sealed.
    #[error("the lock was edited: its seal does not fit; restore it, or write it anew with `palisade lock` if the change was meant")]
    SealBroken,
    /// A program or file of the manifest is not there.
    #[error("service {service}: {path} is not there")]
    Missing {
        /// Whose.
        service: String,
        /// As the manifest writes it.
        path: String,
    },
    /// A folder with too many files, or with something that is neither file nor folder.
    #[error("{path}: {why}")]
    Folder {
        /// Which.
        path: String,
        /// Why not.
        why: &'static str,
    },
}

/// One difference between the lock and what is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tampering {
    /// The manifest is another one.
    Manifest,
    /// The Palisade binary is another one.
    Palisade,
    /// A policy changed, came or went.
    Policy(String),
    /// An artefact has other bytes.
    Changed {
        /// Whose.
        service: String,
        /// Which.
        path: String,
    },
    /// An artefact is locked but gone.
    Gone {
        /// Whose.
        service: String,
        /// Which.
        path: String,
    },
    /// An artefact is there but not locked.
    Unlocked {
        /// Whose.
        service: String,
        /// Which.
        path: String,
    },
}

impl Lock {
    /// Digests everything that `manifest` runs.
    ///
    /// # Errors
    /// `Missing`, `Folder` or `Io` for the first artefact that cannot be digested.
    pub fn create(manifest: &Manifest, policies: &BTreeMap<String, String>, search: &Search, palisade: Digest) -> Result<Self, LockError> {
        let mut services = BTreeMap::new();
        for (name, service) in &manifest.services {
            services.insert(name.clone(), artefacts(name, service, search)?);
        }
        let policies = policies.iter().map(|(name, text)| (name.clone(), Digest::of(text.as_bytes()))).collect();
        let mut lock = Self { version: 1, manifest: manifest.digest(), palisade, policies, services, seal: None };
        lock.seal = Some(lock.content_digest());
        Ok(lock)
    }

    /// Reads a lock's text.
    ///
    /// # Errors
    /// `Malformed` for another form or an unknown key; `SealBroken` when anything in it was changed.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        if text.len() > LOCK_BYTES_MAX {
            return Err(LockError::Malformed(format!("larger than {LOCK_BYTES_MAX} bytes")));
        }
        let body = text.strip_prefix(HEADER).ok_or(LockError::SealBroken)?;
        let lock: Self = toml::from_str(body).map_err(|e| LockError::Malformed(e.message().to_owned()))?;
        if lock.version != 1 {
            return Err(LockError::Malformed(format!("version {}; this program knows version 1", lock.version)));
        }
        // The exact text counts too: white space or a comment that came in says that a hand was here.
        if lock.seal != Some(lock.content_digest()) || lock.to_toml() != text {
            return Err(LockError::SealBroken);
        }
        Ok(lock)
    }

    /// Opens the lock at `path`.
    ///
    /// # Errors
    /// As `parse`, and `Io`.
    pub fn open(path: &Path) -> Result<Self, LockError> {
        let text = std::fs::read_to_string(path).map_err(|source| LockError::Io { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Its text.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let seal = self.seal.unwrap_or_else(|| self.content_digest());
        let mut out = format!(
            "{HEADER}version = {}\nmanifest = \"{}\"\npalisade = \"{}\"\nseal = \"{seal}\"\n",
            self.version, self.manifest, self.palisade
        );
        let mut table = |name: &str, rows: &BTreeMap<String, Digest>| {
            out.push_str(&format!("\n[{name}]\n"));
            for (key, digest) in rows {
                out.push_str(&format!("{} = \"{digest}\"\n", toml::Value::String(key.clone())));
            }
        };
        table("policies", &self.policies);
        for (service, rows) in &self.services {
            table(&format!("services.{service}"), rows);
        }
        out
    }

    /// Writes it to `path`: whole or not at all.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        use std::io::Write as _;
        let io = |source| LockError::Io { path: path.display().to_string(), source };
        let next = path.with_extension("lock.next");
        let mut file = std::fs::File::create(&next).map_err(io)?;
        file.write_all(self.to_toml().as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        std::fs::rename(&next, path).map_err(io)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|d| d.sync_all()).map_err(io)
    }

    /// Digests everything again and compares: the differences, none if nothing was tampered with.
    ///
    /// # Errors
    /// `Io` or `Folder` when something cannot be read; a missing file is a difference, not an error.
    pub fn verify(
        &self,
        manifest: &Manifest,
        policies: &BTreeMap<String, String>,
        search: &Search,
        palisade: Digest,
    ) -> Result<Vec<Tampering>, LockError> {
        let mut found = Vec::new();
        if self.manifest != manifest.digest() {
            found.push(Tampering::Manifest);
        }
        if self.palisade != palisade {
            found.push(Tampering::Palisade);
        }
        let names: std::collections::BTreeSet<_> = self.policies.keys().chain(policies.keys()).collect();
        for name in names {
            if self.policies.get(name) != policies.get(name).map(|text| Digest::of(text.as_bytes())).as_ref() {
                found.push(Tampering::Policy(name.clone()));
            }
        }
        for (name, service) in &manifest.services {
            let none = BTreeMap::new();
            let locked = self.services.get(name).unwrap_or(&none);
            let actual = match artefacts(name, service, search) {
                Ok(actual) => actual,
                Err(LockError::Missing { service, path }) => {
                    found.push(Tampering::Gone { service, path });
                    continue;
                }
                Err(other) => return Err(other),
            };
            for (path, digest) in locked {
                let at = |path: &String| (name.clone(), path.clone());
                match actual.get(path) {
                    Some(same) if same == digest => {}
                    Some(_) => found.push({
                        let (service, path) = at(path);
                        Tampering::Changed { service, path }
                    }),
                    None => found.push({
                        let (service, path) = at(path);
                        Tampering::Gone { service, path }
                    }),
                }
            }
            for path in actual.keys().filter(|p| !locked.contains_key(*p)) {
                found.push(Tampering::Unlocked { service: name.clone(), path: path.clone() });
            }
        }
        Ok(found)
    }

    /// Artefacts of one service.
    #[must_use]
    pub fn artefacts(&self, service: &str) -> Option<&BTreeMap<String, Digest>> {
        self.services.get(service)
    }

    /// One digest over all artefacts of a service: what its identity is bound to.
    #[must_use]
    pub fn service(&self, service: &str) -> Option<Digest> {
        self.services.get(service).map(|rows| Digest::of(canonical_json(rows).as_bytes()))
    }

    fn content_digest(&self) -> Digest {
        let mut content = self.clone();
        content.seal = None;
        Digest::of(canonical_json(&content).as_bytes())
    }
}

impl Search {
    /// The file that the program `path` of a manifest means.
    #[must_use]
    pub fn program(&self, path: &str) -> Option<PathBuf> {
        if path.starts_with('/') {
            return Some(PathBuf::from(path)).filter(|p| p.is_file());
        }
        let folders = std::iter::once(&self.folder).chain(&self.bin);
        folders.map(|f| f.join(path.strip_prefix("./").unwrap_or(path))).find(|p| p.is_file())
    }

    /// Where a path of the manifest leads: to a program if there is one, else into the manifest's folder.
    #[must_use]
    pub fn absolute(&self, path: &str) -> PathBuf {
        self.program(path).unwrap_or_else(|| self.folder.join(path.strip_prefix("./").unwrap_or(path)))
    }
}

/// Digests of all artefacts of `service`, by the path that the manifest writes.
///
/// # Errors
/// As `Lock::create`.
pub fn artefacts(name: &str, service: &Service, search: &Search) -> Result<BTreeMap<String, Digest>, LockError> {
    let missing = |path: &str| LockError::Missing { service: name.to_owned(), path: path.to_owned() };
    let mut found = BTreeMap::new();
    for path in service.run.first().into_iter().chain(&service.tools) {
        let file = search.program(path).ok_or_else(|| missing(path))?;
        found.insert(path.clone(), digest_file(&file)?);
    }
    if let Some(path) = &service.syscalls {
        let list = search.folder.join(path);
        if !list.is_file() {
            return Err(missing(path));
        }
        found.insert(path.clone(), digest_file(&list)?);
    }
    for path in &service.files {
        let whole = search.folder.join(path.strip_prefix("./").unwrap_or(path));
        if !whole.exists() {
            return Err(missing(path));
        }
        walk(path.trim_end_matches('/'), &whole, &mut found)?;
    }
    Ok(found)
}

fn walk(name: &str, path: &Path, found: &mut BTreeMap<String, Digest>) -> Result<(), LockError> {
    let io = |source| LockError::Io { path: path.display().to_string(), source };
    let kind = std::fs::symlink_metadata(path).map_err(io)?.file_type();
    if kind.is_file() {
        found.insert(name.to_owned(), digest_file(path)?);
        return Ok(());
    }
    if !kind.is_dir() || found.len() > FILES_MAX {
        let why = if kind.is_dir() { "more files than a service may have" } else { "neither file nor folder; links are not followed" };
        return Err(LockError::Folder { path: path.display().to_string(), why });
    }
    let mut entries = std::fs::read_dir(path).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let file_name = entry.file_name();
        let Some(part) = file_name.to_str() else {
            return Err(LockError::Folder { path: entry.path().display().to_string(), why: "its name is not UTF-8" });
        };
        walk(&format!("{name}/{part}"), &entry.path(), found)?;
    }
    Ok(())
}

fn digest_file(path: &Path) -> Result<Digest, LockError> {
    let io = |source| LockError::Io { path: path.display().to_string(), source };
    std::fs::File::open(path).and_then(Digest::of_reader).map_err(io)
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("the manifest is not the locked one"),
            Self::Palisade => f.write_str("the palisade binary is not the locked one"),
            Self::Policy(name) => write!(f, "the policy {name} is not the locked one"),
            Self::Changed { service, path } => write!(f, "service {service}: {path} was changed"),
            Self::Gone { service, path } => write!(f, "service {service}: {path} is gone"),
            Self::Unlocked { service, path } => write!(f, "service {service}: {path} is not in the lock"),
        }
    }
}
