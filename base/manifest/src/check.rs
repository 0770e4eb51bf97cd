//! From what is written to what is valid: every name looked up, every rule of the shape of a system checked.
//!
//! All problems are collected; a manifest comes out only if there is none.

use std::collections::{BTreeMap, BTreeSet};

use trust::TrustDomain;
use trust::spiffe::is_name;

use crate::canonical_json;
use crate::document::Document;
use crate::model::{Backoff, Bucket, Manifest, Queue, Secret, Service};
use crate::problem::{ManifestError, suggestion};
use crate::written::Written;
use crate::{MANIFEST_BYTES_MAX, PURPOSE_OPERATE, RESERVED_SEGMENTS, ROLE_NAMES};

mod buckets;
mod clients;
mod egress;
mod entrance;
mod faults;
mod health;
mod issuers;
mod peps;
mod services;

/// Shortest life of an SVID, ms.
const SVID_LIFE_MS_MIN: u64 = 120_000;
/// Most services, buckets, queues, secrets, destinations, classes or purposes; most routes, flows or files of one service.
const TABLES_MAX: usize = 256;
const LIST_MAX: usize = 128;

pub(crate) fn parse(file: &str, text: &str) -> Result<Manifest, ManifestError> {
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::unplaced(file, "", &format!("is larger than {MANIFEST_BYTES_MAX} bytes")));
    }
    let mut document = Document::parse(file, text);
    crate::schema::check(&mut document);
    if !document.problems.is_empty() {
        return Err(ManifestError::new(file, text, document.problems));
    }
    let written: Written = match toml::from_str(text) {
        Ok(written) => written,
        Err(error) => {
            document.problem_at(&[], error.span().unwrap_or(0..0), error.message().to_owned(), None);
            return Err(ManifestError::new(file, text, document.problems));
        }
    };
    let manifest = Check { document: &mut document, written: &written }.manifest();
    match manifest {
        Some(mut manifest) if document.problems.is_empty() => {
            manifest.digest = Some(trust::Digest::of(canonical_json(&manifest).as_bytes()));
            Ok(manifest)
        }
        _ => Err(ManifestError::new(file, text, document.problems)),
    }
}

struct Check<'d, 'a, 'w> {
    document: &'d mut Document<'a>,
    written: &'w Written,
}

impl Check<'_, '_, '_> {
    fn manifest(&mut self) -> Option<Manifest> {
        let written = self.written;
        self.names();
        let trust_domain = TrustDomain::parse(&written.system.trust_domain);
        if let Err(e) = &trust_domain {
            self.document.problem(&["system", "trust_domain"], e.to_string(), None);
        }
        let purposes = self.purposes();
        let edge = self.edge();
        let queues = self.queues(&purposes);
        let services = self.services(&purposes, &queues);
        let queues = self.leases(queues, &services);
        let buckets = self.buckets(&services);
        let faults = self.faults(&services);
        let peps = self.peps(&services);
        let manifest = Manifest {
            name: written.system.name.clone(),
            trust_domain: trust_domain.ok()?,
            purposes,
            svid_life_ms: self.svid_life_ms(),
            edge: edge?,
            data: written.data.iter().map(|(name, data)| (name.clone(), data.sensitivity)).collect(),
            services,
            buckets,
            queues,
            peps,
            secrets: self.secrets(),
            egress: self.destinations(),
            faults,
            digest: None,
        };
        self.public_routes(&manifest);
        self.untrusted(&manifest);
        self.outward(&manifest);
        Some(manifest)
    }

    /// Names are names, and there are not too many.
    fn names(&mut self) {
        let w = self.written;
        if !is_name(&w.system.name) {
            self.not_a_name(&["system", "name"], &w.system.name);
        }
        let tables: [(&str, Vec<&String>); 8] = [
            ("data", w.data.keys().collect()),
            ("service", w.service.keys().collect()),
            ("bucket", w.bucket.keys().collect()),
            ("queue", w.queue.keys().collect()),
            ("secret", w.secret.keys().collect()),
            ("egress", w.egress.keys().collect()),
            ("fault", w.fault.keys().collect()),
            ("pep", w.pep.keys().collect()),
        ];
        for (table, names) in tables {
            if names.len() > TABLES_MAX {
                self.document.problem(&[table], format!("more than {TABLES_MAX} of them"), None);
            }
            for name in names {
                if !is_name(name) {
                    self.not_a_name(&[table, name], name);
                } else if table == "service" && ROLE_NAMES.contains(&name.as_str()) {
                    let help = Some("choose another name for the service".to_owned());
                    self.document.problem(&[table, name], format!("'{name}' is the name of one of Palisade's own workloads"), help);
                } else if table == "bucket" && RESERVED_SEGMENTS.contains(&name.as_str()) {
                    self.document.problem(&[table, name], format!("the edge keeps the path /{name} for itself"), None);
                }
            }
        }
    }

    fn not_a_name(&mut self, path: &[&str], name: &str) {
        self.document.problem(path, format!("'{name}' is no name: 1 to 63 lower-case letters, digits and inner '-'"), None);
    }

    fn svid_life_ms(&mut self) -> u64 {
        let most = trust::limits::SVID_LIFE_S_MAX * 1000;
        let life = self.written.system.svid_life.map_or(most, |life| life.0);
        if !(SVID_LIFE_MS_MIN..=most).contains(&life) {
            let help = "shorter lives are renewed more often than a busy machine may manage; longer ones outlive a revocation that is lost";
            self.document.problem(&["system", "svid_life"], "write \"2m\" to \"1h\"", Some(help.to_owned()));
        }
        life
    }

    fn purposes(&mut self) -> BTreeSet<String> {
        let mut purposes = BTreeSet::from([PURPOSE_OPERATE.to_owned()]);
        let listed = &self.written.system.purposes;
        if listed.len() > LIST_MAX {
            self.document.problem(&["system", "purposes"], format!("more than {LIST_MAX} of them"), None);
        }
        for (i, purpose) in listed.iter().enumerate() {
            let path: &[&str] = &["system", "purposes", &i.to_string()];
            if !is_name(purpose) {
                self.not_a_name(path, purpose);
            } else if !purposes.insert(purpose.clone()) && purpose != PURPOSE_OPERATE {
                self.document.problem(path, format!("the purpose '{purpose}' is listed twice"), None);
            }
        }
        purposes
    }

    fn queues(&mut self, purposes: &BTreeSet<String>) -> BTreeMap<String, Queue> {
        let mut queues = BTreeMap::new();
        let names: Vec<_> = self.written.queue.keys().map(String::as_str).collect();
        for (name, w) in &self.written.queue {
            self.class(&["queue", name, "data"], &w.data);
            self.purpose(&["queue", name, "purpose"], &w.purpose, purposes);
            let (first, max) = (w.backoff.first.map_or(1000, |d| d.0), w.backoff.max.map_or(300_000, |d| d.0));
            if first > max {
                self.document.problem(&["queue", name, "backoff"], "'first' is longer than 'max'", None);
            }
            let at = ["queue", name, "dead_letters_to"];
            let told = w.dead_letters_to.as_deref().and_then(|text| self.reference(&at, "queue", text, &names));
            if let Some(other) = told.and_then(|to| self.written.queue.get(to)) {
                // Who hears of a dead letter gets its subject and authority; whose own dead letters went on would never end.
                if other.dead_letters_to.is_some() {
                    self.document.problem(&at, "that queue hands its own dead letters on; name one that does not", None);
                }
                if other.data != w.data {
                    self.document.problem(&at, format!("that queue has data of class '{}', this one of '{}'", other.data, w.data), None);
                }
            }
            queues.insert(
                name.clone(),
                Queue {
                    dead_letters_to: told.map(str::to_owned),
                    data: w.data.clone(),
                    purpose: w.purpose.clone(),
                    lease_ms: w.lease.map_or(0, |d| d.0),
                    attempts: w.attempts.unwrap_or(5),
                    backoff: Backoff { first_ms: first, max_ms: max },
                    depth_max: w.depth.unwrap_or(10_000),
                    keep_dead_ms: w.keep_dead.map_or(14 * 86_400_000, |d| d.0),
                },
            );
        }
        queues
    }

    /// A queue has one consumer at most, whose wall limit is the default for a lease.
    fn leases(&mut self, mut queues: BTreeMap<String, Queue>, services: &BTreeMap<String, Service>) -> BTreeMap<String, Queue> {
        for (name, queue) in &mut queues {
            let mut consumers = services.iter().filter(|(_, s)| s.consumes.contains(name));
            let first = consumers.next();
            for (other, _) in consumers {
                let taken = first.map_or("", |(name, _)| name.as_str());
                let message = format!("the queue '{name}' is already consumed by '{taken}'");
                self.document.problem(&["service", other, "consumes"], message, Some("give each consumer a queue of its own".to_owned()));
            }
            if queue.lease_ms == 0 {
                queue.lease_ms = first.map_or(60_000, |(_, s)| s.limits.wall_ms);
            }
        }
        queues
    }

    fn secrets(&mut self) -> BTreeMap<String, Secret> {
        for (name, w) in &self.written.secret {
            self.class(&["secret", name, "data"], &w.data);
        }
        self.written.secret.iter().map(|(name, w)| (name.clone(), Secret { data: w.data.clone() })).collect()
    }

    fn class(&mut self, path: &[&str], class: &str) {
        if !self.written.data.contains_key(class) {
            let help = suggestion(class, self.written.data.keys().map(String::as_str));
            self.document.problem(path, format!("there is no class of data '{class}'"), Some(help));
        }
    }

    fn purpose(&mut self, path: &[&str], purpose: &str, purposes: &BTreeSet<String>) {
        if !purposes.contains(purpose) {
            let help = suggestion(purpose, purposes.iter().map(String::as_str));
            self.document.problem(path, format!("the system has no purpose '{purpose}'"), Some(help));
        }
    }

    /// A name `kind.NAME` that must be declared; gives NAME.
    fn reference<'r>(&mut self, path: &[&str], kind: &str, text: &'r str, known: &[&str]) -> Option<&'r str> {
        let Some((found, name)) = text.split_once('.').filter(|(found, _)| *found == kind) else {
            self.document.problem(path, format!("write '{kind}.NAME'"), None);
            return None;
        };
        if !known.contains(&name) {
            let help = suggestion(name, known.iter().copied());
            self.document.problem(path, format!("there is no {found} '{name}'"), Some(help));
            return None;
        }
        Some(name)
    }

    /// No two services offer the same route, and none covers a path that the edge uses for itself or for a bucket.
    fn public_routes(&mut self, manifest: &Manifest) {
        let mut seen: BTreeMap<(String, String), Vec<&String>> = BTreeMap::new();
        for (name, service) in &manifest.services {
            for (i, w) in self.written.service.get(name).into_iter().flat_map(|s| s.public.iter().enumerate()) {
                let path: &[&str] = &["service", name, "public", &i.to_string(), "path"];
                let first = w.path.trim_start_matches('/').split('/').next().unwrap_or_default();
                let reserved = RESERVED_SEGMENTS.contains(&first);
                let bucket =
                    manifest.buckets.keys().find(|b| manifest.is_presignable(b) && (first == b.as_str() || first.starts_with('{')));
                if reserved || (first.starts_with("{*") && bucket.is_none()) {
                    let message = "this covers paths that the edge keeps for itself";
                    self.document.problem(path, message, Some(format!("the edge keeps /{}", RESERVED_SEGMENTS.join(", /"))));
                } else if let Some(bucket) = bucket {
                    let message = format!("this overlaps /{bucket}/…, where browsers reach the bucket '{bucket}' by presigned URLs");
                    self.document.problem(path, message, Some("begin the route with a literal segment that no bucket has".to_owned()));
                }
            }
            for route in service.routes.iter().filter(|r| r.public) {
                let shape = (services::shape(&route.path), route.method.clone());
                let others = seen.entry(shape).or_default();
                let same = |other: &&&String| {
                    **other != name && manifest.services.get(**other).is_some_and(|other| !service.public_at.is_told_from(&other.public_at))
                };
                if let Some(other) = others.iter().find(same) {
                    let message = format!("{} {} is also a public route of '{other}'", route.method, route.path);
                    let help = "nothing tells whose a request is; give one of them a host of its own, or a header, in public_at";
                    self.document.problem(&["service", name, "public"], message, Some(help.to_owned()));
                }
                others.push(name);
            }
        }
    }

    /// What takes untrusted input meets no class of sensitivity 3, hands out no URLs, and acts only on jobs.
    fn untrusted(&mut self, manifest: &Manifest) {
        use crate::flow::{BucketOperation as B, Flow};
        for (name, service) in manifest.services.iter().filter(|(_, s)| s.untrusted_input) {
            for (i, text) in self.written.service.get(name).into_iter().flat_map(|s| s.calls.iter().enumerate()) {
                let Some(flow) = service.flows.iter().find(|f| text.starts_with(&f.to_string())) else { continue };
                let class = match flow {
                    Flow::Call { service, .. } => manifest.services.get(service).and_then(|s| s.data.as_deref()),
                    Flow::Bucket { bucket, .. } => manifest.buckets.get(bucket).map(|b| b.data.as_str()),
                    Flow::Publish { queue, .. } => manifest.queues.get(queue).map(|q| q.data.as_str()),
                    Flow::Secret { secret, .. } => manifest.secrets.get(secret).map(|s| s.data.as_str()),
                    Flow::Egress { destination, .. } => manifest.egress.get(destination).map(|d| d.data.as_str()),
                };
                let path: &[&str] = &["service", name, "calls", &i.to_string()];
                if class.is_some_and(|c| manifest.sensitivity(c) >= 3) {
                    self.document.problem(path, "a service with untrusted input may not meet data of sensitivity 3", None);
                }
                match flow {
                    Flow::Call { method, .. } if method == crate::model::Route::TCP => {
                        let message = "a service with untrusted input acts only on what its job names, and a raw flow carries no job";
                        self.document.problem(path, message, None);
                    }
                    Flow::Egress { .. } => {
                        let help = Some("let another service call it, whose routes this one calls".to_owned());
                        let message = "a service with untrusted input reaches nothing outside: what takes it over could send data there";
                        self.document.problem(path, message, help);
                    }
                    Flow::Bucket { operation: B::PresignGet | B::PresignPut | B::Share | B::List, .. } => {
                        let message = "a service with untrusted input may not do this: it acts for a job, not for a person";
                        self.document.problem(path, message, None);
                    }
                    Flow::Bucket { .. } | Flow::Publish { .. } if service.consumes.is_empty() => {
                        let help = Some("let it consume a queue whose messages name its work".to_owned());
                        self.document.problem(path, "a service with untrusted input acts only on jobs, and this one gets none", help);
                    }
                    _ => {}
                }
            }
        }
    }
}

fn is_host(host: &str) -> bool {
    let label = |l: &str| is_name(l);
    host.len() <= 253 && host.split('.').all(label) || host.parse::<std::net::IpAddr>().is_ok()
}

/// For `Service` values: kept beside their checks.
impl Service {
    pub(crate) fn bucket_flows(&self) -> impl Iterator<Item = (&str, crate::flow::BucketOperation, &BTreeSet<String>)> {
        self.flows.iter().filter_map(|f| match f {
            crate::flow::Flow::Bucket { bucket, operation, purposes } => Some((bucket.as_str(), *operation, purposes)),
            _ => None,
        })
    }
}

/// Referenced by `buckets`.
type Buckets = BTreeMap<String, Bucket>;
