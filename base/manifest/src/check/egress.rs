//! Destinations outside: that they can be meant, and that no service carries to them what they may not have.
//!
//! Guarantees: D10 nothing is reachable that is not declared; metadata and link-local addresses cannot be declared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use trust::{Network, Reach, may_connect};

use super::{Check, LIST_MAX, is_host, services};
use crate::ROLE_NAMES;
use crate::flow::{Flow, FlowText, SecretOperation};
use crate::model::{Destination, Manifest, Service};
use crate::problem::suggestion;

/// Fields that a guard sets or takes away by itself.
const HEADERS_TAKEN: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "txn-token",
];
/// Longest explanation, in bytes.
const REASON_BYTES_MAX: usize = 512;

impl Check<'_, '_, '_> {
    pub(super) fn destinations(&mut self) -> BTreeMap<String, Destination> {
        let written = self.written;
        let mut destinations = BTreeMap::new();
        for (name, w) in &written.egress {
            let at = |key| ["egress", name.as_str(), key];
            if ROLE_NAMES.contains(&name.as_str()) || written.service.contains_key(name) {
                let help = Some("choose another name: services find it by NAME_URL".to_owned());
                self.document.problem(&["egress", name], format!("'{name}' is the name of a service or of one of Palisade's own"), help);
            }
            self.class(&at("data"), &w.data);
            let networks = self.networks(name, &w.networks);
            self.outside_host(&at("host"), &w.host, &networks);
            let files = w.root.iter().map(|root| (["egress", name, "root", ""], root));
            let shown = w.certificate.iter().flat_map(|c| [("chain", &c.chain), ("key", &c.key)]);
            let files = files.chain(shown.map(|(key, file)| (["egress", name, "certificate", key], file)));
            let files = files.chain(w.credential.iter().map(|c| (["egress", name, "credential", "file"], &c.file)));
            for (path, file) in files.collect::<Vec<_>>() {
                let path: Vec<&str> = path.into_iter().filter(|key| !key.is_empty()).collect();
                self.file(&path, file);
            }
            if let Some(credential) = &w.credential {
                let field = credential.header.as_str();
                let path: &[&str] = &["egress", name, "credential", "header"];
                let plain = field.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
                if field.is_empty() || field.len() > 63 || !plain {
                    self.document.problem(path, format!("'{field}' is no name of a field: 1 to 63 of a-z, 0-9, '-' and '_'"), None);
                } else if HEADERS_TAKEN.contains(&field) {
                    let help = Some("write the field that the destination reads credentials from, as \"authorization\"".to_owned());
                    self.document.problem(path, format!("'{field}' means something else already"), help);
                }
            }
            if w.declassified.as_ref().is_some_and(|why| why.trim().is_empty() || why.len() > REASON_BYTES_MAX) {
                let message = format!("say in 1 to {REASON_BYTES_MAX} bytes what keeps more sensitive data from going there");
                self.document.problem(&at("declassified"), message, None);
            }
            destinations.insert(
                name.clone(),
                Destination {
                    host: w.host.clone(),
                    port: w.port.unwrap_or(443),
                    data: w.data.clone(),
                    declassified: w.declassified.clone(),
                    root: w.root.clone(),
                    networks: networks.into_iter().collect(),
                    certificate: w.certificate.as_ref().map(|c| (c.chain.clone(), c.key.clone())),
                    credential: w.credential.as_ref().map(|c| (c.header.clone(), c.file.clone())),
                    body_bytes_max: w.max_body.map_or(1 << 20, |s| s.0),
                    answer_bytes_max: w.max_answer.map_or(16 << 20, |s| s.0),
                    wall_ms: w.wall.map_or(30_000, |d| d.0),
                    concurrency: w.concurrency.unwrap_or(32),
                    trace: w.trace,
                },
            );
        }
        destinations
    }

    fn networks(&mut self, name: &str, written: &[String]) -> Vec<Network> {
        let mut networks = Vec::new();
        if written.len() > LIST_MAX {
            self.document.problem(&["egress", name, "networks"], format!("more than {LIST_MAX} of them"), None);
        }
        for (i, text) in written.iter().enumerate() {
            let path: &[&str] = &["egress", name, "networks", &i.to_string()];
            match text.parse::<Network>() {
                Ok(network) => match Reach::of(network.first()) {
                    Reach::Never(why) => {
                        let help = Some("write the destination's own networks".to_owned());
                        self.document.problem(path, format!("{text} cannot be declared: {why}"), help);
                    }
                    Reach::Near(_) | Reach::Global => networks.push(network),
                },
                Err(error) => self.document.problem(path, error.to_string(), None),
            }
        }
        networks
    }

    /// A name, or an address that will be connected to. What only looks like a name (`127.1`, `0x7f000001`, `2130706433`) is neither.
    fn outside_host(&mut self, path: &[&str], host: &str, networks: &[Network]) {
        if let Ok(address) = host.parse::<IpAddr>() {
            if let Err(why) = may_connect(address, networks) {
                let help = matches!(Reach::of(address), Reach::Near(_)).then(|| "name its network in 'networks'".to_owned());
                self.document.problem(path, why.to_string(), help);
            }
            return;
        }
        let last = host.rsplit('.').next().unwrap_or_default();
        // As the WHATWG URL standard has it: a host that ends in a number is an IPv4 address in some spelling.
        let ends_in_number = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if !is_host(host) || ends_in_number {
            let message = format!("'{host}' is no host name: write it in lower case as in \"api.payments.example\", or one address");
            self.document.problem(path, message, None);
        }
    }

    /// One line of `calls` to a destination.
    pub(super) fn egress_flow(
        &mut self,
        path: &[&str],
        parts: &FlowText<'_>,
        purposes: &BTreeSet<String>,
        own: &BTreeSet<&str>,
    ) -> Option<Flow> {
        let Some((method, template)) = parts.operation.split_once(' ') else {
            let message = "a flow to a destination says method and path, as in \"egress.payments:POST /v1/charges for pay\"";
            self.document.problem(path, message, None);
            return None;
        };
        if !services::METHODS.contains(&method) {
            let help = suggestion(method, services::METHODS.iter().copied());
            self.document.problem(path, format!("unknown method '{method}'"), Some(help));
        }
        if let Err(why) = services::is_template(template) {
            self.document.problem(path, why, None);
        }
        let (destination, method, path_of) = (parts.name.to_owned(), method.to_owned(), template.to_owned());
        Some(Flow::Egress { destination, method, path: path_of, purposes: self.flow_purposes(path, parts, purposes, own)? })
    }

    /// No service calls a destination that may have less than the service handles; no two of its flows mean the same requests.
    pub(super) fn outward(&mut self, manifest: &Manifest) {
        for (name, service) in &manifest.services {
            let mut shapes = BTreeSet::new();
            let calls = self.written.service.get(name).map(|s| s.calls.as_slice()).unwrap_or_default();
            for flow in &service.flows {
                let Flow::Egress { destination, method, path: template, .. } = flow else { continue };
                let text = flow.to_string();
                let is_it = |call: &&String| **call == text || call.strip_prefix(&text).is_some_and(|rest| rest.starts_with(" for "));
                let at = calls.iter().position(|call| is_it(&call)).unwrap_or_default().to_string();
                let path: &[&str] = &["service", name, "calls", &at];
                if !shapes.insert((destination, method, services::shape(template))) {
                    let help = Some("name several purposes after one 'for'".to_owned());
                    self.document.problem(path, "another flow means the same requests", help);
                }
                let Some(to) = manifest.egress.get(destination) else { continue };
                let most = handled(manifest, service).into_iter().max_by_key(|class| manifest.sensitivity(class));
                let Some(class) = most.filter(|class| manifest.sensitivity(class) > manifest.sensitivity(&to.data)) else { continue };
                if to.declassified.is_none() {
                    let (more, less) = (manifest.sensitivity(class), manifest.sensitivity(&to.data));
                    let message = format!(
                        "'{name}' handles '{class}' (sensitivity {more}), but '{destination}' may have '{}' ({less}) at most",
                        to.data
                    );
                    let help = format!(
                        "let a service call it that handles less, give [egress.{destination}] the class that really goes there, or say there what keeps the rest back: declassified = \"…\""
                    );
                    self.document.problem(path, message, Some(help));
                }
            }
        }
    }
}

/// Classes of data that come through a service's hands.
fn handled<'m>(manifest: &'m Manifest, service: &'m Service) -> BTreeSet<&'m str> {
    let mut classes: BTreeSet<&str> = service.data.as_deref().into_iter().collect();
    classes.extend(service.consumes.iter().filter_map(|queue| manifest.queues.get(queue)).map(|queue| queue.data.as_str()));
    classes.extend(service.flows.iter().filter_map(|flow| match flow {
        Flow::Call { service, .. } => manifest.services.get(service).and_then(|s| s.data.as_deref()),
        Flow::Bucket { bucket, .. } => manifest.buckets.get(bucket).map(|b| b.data.as_str()),
        Flow::Publish { queue, .. } => manifest.queues.get(queue).map(|q| q.data.as_str()),
        Flow::Secret { secret, operation: SecretOperation::Read } => manifest.secrets.get(secret).map(|s| s.data.as_str()),
        Flow::Secret { .. } | Flow::Egress { .. } => None,
    }));
    classes
}
