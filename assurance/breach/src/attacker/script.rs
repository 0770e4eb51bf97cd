//! The script: what the system is made of, and what is worth a try on this machine. Every service of the copy may read it.
//!
//! It holds names and addresses, never a secret: what must not be found is written backwards, so that it is not found in the script.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use manifest::{Flow, Fresh, Isolation, Manifest, Protocol, Route};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Services by name.
    pub services: BTreeMap<String, Part>,
    /// Buckets by name: media type of what is stored, and who gives verdicts.
    pub buckets: BTreeMap<String, (String, Option<String>)>,
    /// Queues by name, with their purpose.
    pub queues: BTreeMap<String, String>,
    /// What is worth a try.
    pub targets: Targets,
    /// Techniques that are wanted, by the beginning of their id; empty for all.
    pub only: Vec<String>,
}

/// One service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it speaks on its port.
    pub protocol: Protocol,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Queues that it consumes.
    pub consumes: BTreeSet<String>,
    /// Its declared flows.
    pub flows: Vec<Flow>,
    /// Whether it has a folder.
    pub state: bool,
    /// How strong its sandbox is.
    pub isolation: Isolation,
    /// When its sandbox is a new one.
    pub fresh: Fresh,
    /// Processes and threads that it may have.
    pub processes: u64,
    /// Bytes of memory that it may have.
    pub memory_bytes: u64,
    /// Files that it was given.
    pub files: Vec<String>,
}

/// What is worth a try on this machine, all of it there while the attack runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Files and folders outside of every sandbox.
    pub files: Vec<String>,
    /// Folders of services, by service; they are among `files`.
    pub states: BTreeMap<String, String>,
    /// Palisade's folder of keys.
    pub keys: Option<String>,
    /// The folder of the audit log.
    pub evidence: Option<String>,
    /// UNIX sockets by path.
    pub sockets: Vec<String>,
    /// An abstract UNIX socket.
    pub abstract_name: String,
    /// Addresses beyond loopback.
    pub hosts: Vec<IpAddr>,
    /// Ports that are tried on them.
    pub ports: Vec<u16>,
    /// Texts that must be found nowhere, backwards.
    pub canaries_backwards: Vec<String>,
}

/// Largest script, in bytes.
const SCRIPT_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Script {
    /// The script of a system; `targets` is what is worth a try here.
    #[must_use]
    pub fn of(manifest: &Manifest, targets: Targets, only: Vec<String>) -> Self {
        let part = |service: &manifest::Service| Part {
            protocol: service.protocol,
            routes: service.routes.clone(),
            consumes: service.consumes.clone(),
            flows: service.flows.iter().cloned().collect(),
            state: service.state,
            isolation: service.isolation,
            fresh: service.fresh,
            processes: service.limits.pids.into(),
            memory_bytes: service.limits.memory_bytes,
            files: service.files.iter().chain(&service.tools).cloned().collect(),
        };
        let bucket = |bucket: &manifest::Bucket| (bucket.types.first().cloned().unwrap_or_default(), bucket.quarantine_until.clone());
        Self {
            services: manifest.services.iter().map(|(name, it)| (name.clone(), part(it))).collect(),
            buckets: manifest.buckets.iter().map(|(name, it)| (name.clone(), bucket(it))).collect(),
            queues: manifest.queues.iter().map(|(name, it)| (name.clone(), it.purpose.clone())).collect(),
            targets,
            only,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not a script.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.metadata()?.len() > SCRIPT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
    }

    /// Whether a technique is wanted.
    #[must_use]
    pub fn wants(&self, technique: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| technique.starts_with(wanted.as_str()))
    }

    /// Whether work of `from` comes to `service` by calls: then what that one holds is what this one passed on.
    #[must_use]
    pub fn passes_on(&self, from: &str, service: &str) -> bool {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(next) = waiting.pop() {
            for flow in self.services.get(next).into_iter().flat_map(|part| &part.flows) {
                match flow {
                    Flow::Call { service: to, .. } if to == service => return true,
                    Flow::Call { service: to, .. } if seen.insert(to.as_str()) => waiting.push(to),
                    _ => {}
                }
            }
        }
        false
    }

    /// What must be found nowhere.
    #[must_use]
    pub fn canaries(&self) -> Vec<String> {
        self.targets.canaries_backwards.iter().map(|text| text.chars().rev().collect()).collect()
    }
}

impl Part {
    /// The route that a request is on, by its method and path.
    #[must_use]
    pub fn route(&self, method: &str, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.method == method && fits(&route.path, path))
    }
}

/// Whether a path is one of a template's.
#[must_use]
pub fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(part), Some(_)) if part.starts_with("{*") => return true,
            (Some(part), Some(_)) if part.starts_with('{') => {}
            (Some(part), Some(given)) if part == given => {}
            _ => return false,
        }
    }
}

/// A path of a template, with `value` for each of its parameters.
#[must_use]
pub fn filled(template: &str, value: &str) -> String {
    let parts: Vec<&str> = template.split('/').map(|part| if part.starts_with('{') { value } else { part }).collect();
    parts.join("/")
}

/// Where the script of a service of the copy is: a file of what it runs, of its own, so that one can be changed apart from the others.
#[must_use]
pub fn script_of(service: &str) -> String {
    format!("breach/{service}.script.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::{VIDEO, parsed};

    #[test]
    fn work_is_passed_on_by_calls_alone() {
        let script = Script::of(&parsed(VIDEO), Targets::default(), Vec::new());
        assert!(script.passes_on("web", "api"));
        assert!(!script.passes_on("api", "web") && !script.passes_on("api", "transcoder"));
    }

    #[test]
    fn paths_fit_their_templates() {
        for (template, path, does) in [
            ("/", "/", true),
            ("/api/videos", "/api/videos", true),
            ("/api/videos/{id}", "/api/videos/x", true),
            ("/api/videos/{id}", "/api/videos", false),
            ("/static/{*file}", "/static/a/b", true),
            ("/api", "/apis", false),
        ] {
            assert_eq!(fits(template, path), does, "{template} {path}");
        }
        assert_eq!(filled("/a/{b}/c/{*d}", "x"), "/a/x/c/x");
    }
}
