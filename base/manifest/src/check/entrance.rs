//! The edge: address, hosts, and for each host exactly one certificate.
//!
//! Guarantees: A1 a host without a certificate is a mistake of the manifest and not of the first handshake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Component, Path};

use trust::Network;

use super::{Check, LIST_MAX, clients, is_host, issuers};
use crate::model::entrance::{covers, is_local};
use crate::model::{AccessLog, Acme, Certificate, Edge, EdgeLimits, PublicAt};
use crate::problem::suggestion;

/// Fields that one service's routes may ask for.
const HEADERS_MAX: usize = 4;
/// Fields that say something else than which release is meant, or that no service is ever handed.
const HEADERS_TAKEN: &[&str] = &[
    "host",
    "authorization",
    "cookie",
    "connection",
    "content-length",
    "content-type",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "origin",
    "forwarded",
    "dpop",
    "txn-token",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
];
/// Least size of an access log.
const ACCESS_LOG_BYTES_MIN: u64 = 1 << 20;
/// Certificates of one edge.
const CERTIFICATES_MAX: usize = 64;
/// Most requests or connections that the edge can be told to have under way.
const IN_FLIGHT_MAX: u32 = 100_000;
/// Addresses that an authority may write to.
const CONTACTS_MAX: usize = 8;

impl Check<'_, '_, '_> {
    pub(super) fn edge(&mut self) -> Option<Edge> {
        let w = &self.written.edge;
        let listen = w.listen.as_deref().unwrap_or("127.0.0.1:8443").parse();
        if listen.is_err() {
            self.document.problem(&["edge", "listen"], "write an address and a port, as in \"127.0.0.1:8443\"", None);
        }
        let mut hosts: BTreeSet<_> = w.hosts.clone().unwrap_or_else(|| vec!["localhost".to_owned()]).into_iter().collect();
        if hosts.is_empty() || hosts.len() > LIST_MAX || !hosts.iter().all(|h| is_host(h)) {
            self.document.problem(&["edge", "hosts"], "write host names in lower case, as in [\"video.example\"]", None);
        }
        let content = self.content(&hosts);
        hosts.extend(content.clone());
        let idle = w.session_idle.map_or(30 * 60_000, |d| d.0);
        let life = w.session_life.map_or(12 * 3_600_000, |d| d.0);
        if idle > life {
            self.document.problem(&["edge", "session_idle"], "a session cannot be idle for longer than it lives", None);
        }
        let issuers = issuers::issuers(self.document, &w.issuer);
        let clients = clients::clients(self.document, &w.client, w.client_ca.is_some());
        let certificates = self.certificates(&hosts);
        let acme = self.acme(&hosts, &certificates);
        let proxies = self.proxies();
        let limits = self.edge_limits();
        let (session_idle_ms, session_life_ms) = (idle, life);
        let client_ca = w.client_ca.clone();
        if let Some(file) = &client_ca {
            self.file(&["edge", "client_ca"], file);
        }
        let edge = Edge {
            listen: listen.ok()?,
            hosts,
            content,
            session_idle_ms,
            session_life_ms,
            issuers,
            clients,
            client_ca,
            certificates,
            acme,
            proxies,
            limits,
            access_log: self.access_log(),
        };
        for host in edge.local_hosts().iter().filter(|host| is_host(host) && !is_local(host)) {
            let help = "name it in [edge.certificate.NAME], with the files of its certificate, or in the hosts of [edge.acme]";
            self.document.problem(&["edge", "hosts"], format!("'{host}' has no certificate"), Some(help.to_owned()));
        }
        Some(edge)
    }

    /// The host of what people have stored: one of its own, since a browser keeps apart what is at different hosts and nothing else.
    fn content(&mut self, hosts: &BTreeSet<String>) -> Option<String> {
        let content = self.written.edge.content.clone()?;
        let at = &["edge", "content"];
        if !is_host(&content) || content.parse::<IpAddr>().is_ok() {
            self.document.problem(at, "write one host name in lower case, as in \"content.video.example\"", None);
        } else if hosts.contains(&content) {
            let help = "leave it out of edge.hosts: at a host of its own nothing is served but what people have stored";
            self.document.problem(at, format!("'{content}' is for pages and callers already"), Some(help.to_owned()));
        }
        Some(content)
    }

    fn access_log(&mut self) -> AccessLog {
        let w = &self.written.edge.access_log;
        let standard = AccessLog::STANDARD;
        let kept = AccessLog { bytes: w.bytes.map_or(standard.bytes, |bytes| bytes.0), age_ms: w.age.map_or(standard.age_ms, |age| age.0) };
        if kept.bytes < ACCESS_LOG_BYTES_MIN {
            self.document.problem(&["edge", "access_log", "bytes"], "an access log needs 1MiB at least", None);
        }
        kept
    }

    fn certificates(&mut self, hosts: &BTreeSet<String>) -> BTreeMap<String, Certificate> {
        let written = self.written;
        if written.edge.certificate.len() > CERTIFICATES_MAX {
            self.document.problem(&["edge", "certificate"], format!("more than {CERTIFICATES_MAX} of them"), None);
        }
        let mut named: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, w) in &written.edge.certificate {
            if !trust::spiffe::is_name(name) {
                self.not_a_name(&["edge", "certificate", name], name);
            }
            self.file(&["edge", "certificate", name, "chain"], &w.chain);
            self.file(&["edge", "certificate", name, "key"], &w.key);
            if w.hosts.is_empty() || w.hosts.len() > LIST_MAX {
                let message = "write the names that it is for, as in [\"shop.example\", \"*.shop.example\"]";
                self.document.problem(&["edge", "certificate", name, "hosts"], message, None);
            }
            for (i, host) in w.hosts.iter().enumerate() {
                let path: &[&str] = &["edge", "certificate", name, "hosts", &i.to_string()];
                if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
                    self.document.problem(path, format!("'{host}' is no host name and no wildcard as in \"*.shop.example\""), None);
                } else if !hosts.iter().any(|own| covers(host, own)) {
                    let help = suggestion(host, hosts.iter().map(String::as_str));
                    self.document.problem(path, format!("the edge has no host '{host}'; add it to edge.hosts"), Some(help));
                } else if let Some(other) = named.insert(host, name) {
                    self.document.problem(path, format!("the certificate '{other}' is also for '{host}'"), None);
                }
            }
        }
        // A name in full wins over a wildcard.
        let of = |host: &str| {
            let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            named.get(host).or_else(|| named.get(wildcard?.as_str())).copied()
        };
        let certificate = |name: &String, w: &crate::written::Certificate| Certificate {
            names: w.hosts.iter().cloned().collect(),
            hosts: hosts.iter().filter(|host| of(host) == Some(name)).cloned().collect(),
            chain: w.chain.clone(),
            key: w.key.clone(),
        };
        written.edge.certificate.iter().map(|(name, w)| (name.clone(), certificate(name, w))).collect()
    }

    fn acme(&mut self, hosts: &BTreeSet<String>, certificates: &BTreeMap<String, Certificate>) -> Option<Acme> {
        let w = self.written.edge.acme.as_ref()?;
        let at = |key| ["edge", "acme", key];
        let rest = w.directory.strip_prefix("https://").unwrap_or_default();
        if rest.is_empty() || w.directory.len() > 255 || rest.contains(['#', '@', ' ']) {
            self.document.problem(&at("directory"), "write the address of the authority's directory, which begins with https://", None);
        }
        if !w.terms_agreed {
            let help = Some("read the terms that the directory names, and write terms_agreed = true".to_owned());
            self.document.problem(&at("terms_agreed"), "without agreement to its terms an authority gives no account", help);
        }
        if w.contact.len() > CONTACTS_MAX || w.contact.iter().any(|to| to.strip_prefix("mailto:").is_none_or(|to| !to.contains('@'))) {
            self.document.problem(
                &at("contact"),
                format!("write at most {CONTACTS_MAX} addresses, as in [\"mailto:operator@shop.example\"]"),
                None,
            );
        }
        if let Some(root) = &w.root {
            self.file(&at("root"), root);
        }
        if w.hosts.is_empty() {
            self.document.problem(&at("hosts"), "write the hosts that it gets certificates for", None);
        }
        for (i, host) in w.hosts.iter().enumerate() {
            let path: &[&str] = &["edge", "acme", "hosts", &i.to_string()];
            let brought = certificates.iter().find(|(_, certificate)| certificate.hosts.contains(host));
            if host.starts_with("*.") {
                let help = Some("bring that certificate as files, in [edge.certificate.NAME]".to_owned());
                self.document.problem(path, "a wildcard is proved by DNS alone, which the edge does not do", help);
            } else if host.parse::<IpAddr>().is_ok() || is_local(host) {
                let help = Some("leave it out: its certificate is made on this machine".to_owned());
                self.document.problem(path, format!("no authority gives a certificate for '{host}'"), help);
            } else if !hosts.contains(host) {
                let help = suggestion(host, hosts.iter().map(String::as_str));
                self.document.problem(path, format!("the edge has no host '{host}'; add it to edge.hosts"), Some(help));
            } else if let Some((name, _)) = brought {
                self.document.problem(path, format!("'{host}' has the certificate '{name}' already"), None);
            }
        }
        Some(Acme {
            directory: w.directory.clone(),
            hosts: w.hosts.iter().cloned().collect(),
            contact: w.contact.clone(),
            root: w.root.clone(),
        })
    }

    pub(super) fn public_at(&mut self, name: &str, w: &crate::written::Service) -> PublicAt {
        let at = |key| ["service", name, "public_at", key];
        let content = self.written.edge.content.as_ref();
        let hosts: BTreeSet<String> = self.written.edge.hosts.iter().flatten().filter(|host| Some(*host) != content).cloned().collect();
        let main = hosts.get("localhost").or_else(|| hosts.first()).cloned().unwrap_or_default();
        let public_at = PublicAt { host: w.public_at.host.clone(), headers: w.public_at.headers.clone() };
        if !public_at.is_anything() && w.public.is_empty() {
            self.document.problem(&["service", name, "public_at"], "it has no public routes", None);
        }
        if let Some(host) = &public_at.host {
            if *host == main {
                let help = Some("leave it out: this is the host that people sign in at".to_owned());
                self.document.problem(&at("host"), format!("'{host}' serves every service that names no host"), help);
            } else if !hosts.contains(host) {
                let help = suggestion(host, hosts.iter().map(String::as_str));
                self.document.problem(&at("host"), format!("the edge has no host '{host}'; add it to edge.hosts"), Some(help));
            }
            if w.public.iter().any(|route| route.page) {
                let message = format!("people sign in at '{main}', so a page at '{host}' would never know who looks at it");
                self.document.problem(&at("host"), message, Some("offer pages by a service without public_at".to_owned()));
            }
        }
        if public_at.headers.len() > HEADERS_MAX {
            self.document.problem(&at("headers"), format!("more than {HEADERS_MAX} of them"), None);
        }
        for (field, value) in &public_at.headers {
            let path: &[&str] = &["service", name, "public_at", "headers", field];
            let plain = field.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if field.is_empty() || field.len() > 63 || !plain {
                self.document.problem(path, format!("'{field}' is no name of a field: 1 to 63 of a-z, 0-9 and '-'"), None);
            } else if HEADERS_TAKEN.contains(&field.as_str())
                || ["x-b3-", "x-forwarded-", "x-palisade-", "sec-", "proxy-"].iter().any(|p| field.starts_with(p))
            {
                let help = Some("choose a field of your own, as \"x-release\"".to_owned());
                self.document.problem(path, format!("'{field}' means something else already"), help);
            }
            if value.is_empty() || value.len() > 128 || !value.bytes().all(|b| b.is_ascii_graphic()) {
                self.document.problem(path, "write 1 to 128 visible ASCII characters", None);
            }
        }
        public_at
    }

    fn edge_limits(&mut self) -> EdgeLimits {
        let w = &self.written.edge.limits;
        for (key, rate) in [("address", w.address), ("person", w.person)] {
            if rate.is_some_and(|rate| rate.0.period_ms != 1000) {
                self.document.problem(&["edge", "limits", key], "write it for a second, as in \"100/s burst 200\"", None);
            }
        }
        for (key, count) in [
            ("address_in_flight", w.address_in_flight),
            ("person_in_flight", w.person_in_flight),
            ("in_flight", w.in_flight),
            ("address_connections", w.address_connections),
        ] {
            if count.is_some_and(|count| !(1..=IN_FLIGHT_MAX).contains(&count)) {
                self.document.problem(&["edge", "limits", key], format!("write 1 to {IN_FLIGHT_MAX}"), None);
            }
        }
        EdgeLimits {
            address: w.address.map(|rate| rate.0),
            person: w.person.map(|rate| rate.0),
            address_in_flight: w.address_in_flight,
            person_in_flight: w.person_in_flight,
            in_flight: w.in_flight,
            address_connections: w.address_connections,
        }
    }

    fn proxies(&mut self) -> BTreeSet<Network> {
        let Some(w) = &self.written.edge.proxy_protocol else { return BTreeSet::new() };
        let mut networks = BTreeSet::new();
        if w.from.is_empty() || w.from.len() > LIST_MAX {
            let message = format!("write 1 to {LIST_MAX} networks of load balancers, as in [\"10.0.0.0/8\"]");
            self.document.problem(&["edge", "proxy_protocol", "from"], message, None);
        }
        for (i, text) in w.from.iter().enumerate() {
            let path: &[&str] = &["edge", "proxy_protocol", "from", &i.to_string()];
            match text.parse::<Network>() {
                // Everybody could say to be anybody.
                Ok(_) if text.ends_with("/0") => {
                    self.document.problem(path, "this trusts every address there is; write the load balancers' own networks", None);
                }
                Ok(network) => {
                    networks.insert(network);
                }
                Err(error) => self.document.problem(path, error.to_string(), None),
            }
        }
        networks
    }

    /// A file beside the manifest, or an absolute path.
    pub(super) fn file(&mut self, path: &[&str], file: &str) {
        let plain = !file.is_empty() && Path::new(file).components().all(|part| !matches!(part, Component::ParentDir));
        if !plain {
            self.document.problem(path, format!("'{file}' is no file's path without '..'"), None);
        }
    }
}
