//! Services: programs, routes, flows, limits.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, LIST_MAX};
use crate::flow::{BucketOperation, Flow, FlowText, SecretOperation, take_apart};
use crate::model::{Fresh, Limits, Protocol, Queue, Replicas, Route, Service};
use crate::problem::suggestion;
use crate::written;

pub(super) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl Check<'_, '_, '_> {
    pub(super) fn services(&mut self, purposes: &BTreeSet<String>, queues: &BTreeMap<String, Queue>) -> BTreeMap<String, Service> {
        let written = self.written;
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        for (name, w) in &written.service {
            let service = self.service(name, w, purposes);
            services.insert(name.clone(), service);
        }
        // Flows last: they refer to the routes of other services.
        for (name, w) in &written.service {
            let flows = self.flows(name, w, &services, purposes, queues);
            if let Some(service) = services.get_mut(name) {
                service.flows = flows;
            }
        }
        services
    }

    fn service(&mut self, name: &str, w: &written::Service, purposes: &BTreeSet<String>) -> Service {
        let at = |key: &'static str| ["service", name, key].map(str::to_owned);
        self.programs(name, w);
        if let Some(owner) = w.owner.as_deref().filter(|o| !trust::spiffe::is_name(o)) {
            self.not_a_name(&["service", name, "owner"], owner);
        }
        let mut routes = self.routes(name, "public", &w.public, purposes);
        routes.extend(self.routes(name, "internal", &w.internal, purposes));
        if w.protocol == Protocol::Tcp {
            if !routes.is_empty() {
                let help = Some("take the routes away, or write protocol = \"http\"".to_owned());
                self.document.problem(&["service", name, "protocol"], "a service of raw flows has no routes", help);
            }
            routes.push(Route::tcp());
        }
        routes.sort();
        match &w.data {
            Some(class) => self.class(&["service", name, "data"], class),
            None if routes.is_empty() => {}
            None => {
                let help = Some("add data = \"CLASS\": the class of what its routes carry".to_owned());
                self.document.problem(&["service", name], "it has routes but no class of data", help);
            }
        }
        let known: Vec<_> = self.written.queue.keys().map(String::as_str).collect();
        let mut consumes = BTreeSet::new();
        for text in w.consumes.as_slice() {
            if let Some(queue) = self.reference(&["service", name, "consumes"], "queue", text, &known) {
                consumes.insert(queue.to_owned());
            }
        }
        let replicas = self.replicas(name, w, !routes.is_empty());
        let fresh = self.fresh(name, w, !routes.is_empty());
        if w.calls.len() > LIST_MAX {
            let [a, b, c] = at("calls");
            self.document.problem(&[&a, &b, &c], format!("more than {LIST_MAX} of them"), None);
        }
        let public_at = self.public_at(name, w);
        let health = self.health(name, w, fresh, &replicas);
        Service {
            public_at,
            owner: w.owner.clone(),
            run: w.run.clone(),
            files: w.files.iter().cloned().collect(),
            tools: w.tools.iter().cloned().collect(),
            untrusted_input: w.untrusted_input,
            state: w.state,
            isolation: w.isolation,
            sandbox: w.sandbox,
            syscalls: w.syscalls.clone(),
            fresh,
            data: w.data.clone(),
            routes,
            protocol: w.protocol,
            consumes,
            flows: BTreeSet::new(),
            limits: limits(&w.limits),
            replicas,
            health,
            access_log: w.access_log,
        }
    }

    fn programs(&mut self, name: &str, w: &written::Service) {
        match w.run.first() {
            None => self.document.problem(&["service", name, "run"], "name the program to run", None),
            Some(program) if !is_plain_path(program.trim_start_matches('/')) => {
                self.document.problem(&["service", name, "run"], "the program's path must have no empty or '..' segment", None);
            }
            Some(_) => {}
        }
        for (i, file) in w.files.iter().enumerate() {
            if file.starts_with('/') || !is_plain_path(file) {
                let message = "a file's path is relative to the manifest's folder, without empty or '..' segments";
                self.document.problem(&["service", name, "files", &i.to_string()], message, None);
            }
        }
        if w.syscalls.as_ref().is_some_and(|path| path.starts_with('/') || !is_plain_path(path)) {
            let message = "the list's path is relative to the manifest's folder, without empty or '..' segments";
            let help = "write it with `palisade sandbox trace`";
            self.document.problem(&["service", name, "syscalls"], message, Some(help.to_owned()));
        }
        for (i, tool) in w.tools.iter().enumerate() {
            if !tool.strip_prefix('/').is_some_and(is_plain_path) {
                let message = "a tool's path is absolute, without empty or '..' segments";
                self.document.problem(&["service", name, "tools", &i.to_string()], message, None);
            }
        }
        for (key, count) in [("run", w.run.len()), ("files", w.files.len()), ("tools", w.tools.len())] {
            if count > LIST_MAX {
                self.document.problem(&["service", name, key], format!("more than {LIST_MAX} of them"), None);
            }
        }
    }

    fn replicas(&mut self, name: &str, w: &written::Service, has_routes: bool) -> Replicas {
        let min = w.replicas.min.unwrap_or(1);
        let max = w.replicas.max.unwrap_or(min.max(1));
        if max > 1 && w.state {
            let message = "a service with a folder of its own has one replica: two would write to the same files";
            let help =
                "write max = 1 and give it more work at once with limits.concurrency, or keep its data in a bucket or a service of its own";
            self.document.problem(&["service", name, "replicas"], message, Some(help.to_owned()));
        }
        if min > max {
            self.document.problem(&["service", name, "replicas"], "'min' is larger than 'max'", None);
        }
        if min == 0 && (has_routes || w.consumes.as_slice().is_empty()) {
            let message = "only a service that consumes queues and has no routes can wait at zero replicas";
            self.document.problem(&["service", name, "replicas"], message, None);
        }
        Replicas { min, max, idle_ms: w.replicas.idle.map_or(60_000, |d| d.0) }
    }

    /// I8: what comes of a stranger's bytes in one job is gone with the job, unless the manifest says that it need not be.
    fn fresh(&mut self, name: &str, w: &written::Service, has_routes: bool) -> Fresh {
        let consumes = !w.consumes.as_slice().is_empty();
        let fresh = w.fresh.unwrap_or(if w.untrusted_input && consumes { Fresh::Job } else { Fresh::Start });
        if fresh == Fresh::Start {
            return fresh;
        }
        let against = if !consumes {
            "it consumes no queue, so there are no jobs"
        } else if has_routes {
            "its routes are served by a process that outlives jobs"
        } else if w.state {
            "its folder outlives jobs"
        } else {
            return fresh;
        };
        let key: &[&str] = if w.fresh.is_some() { &["service", name, "fresh"] } else { &["service", name] };
        let help = "put that into a service of its own, or write fresh = \"start\" to let one process take all jobs, one after the other";
        let message = format!("each of its jobs gets a sandbox of its own (fresh = \"job\"), but {against}");
        self.document.problem(key, message, Some(help.to_owned()));
        fresh
    }

    fn routes(&mut self, name: &str, key: &str, list: &[written::Route], purposes: &BTreeSet<String>) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        if list.len() > LIST_MAX {
            self.document.problem(&["service", name, key], format!("more than {LIST_MAX} of them"), None);
        }
        for (i, w) in list.iter().enumerate() {
            let i = i.to_string();
            if let Err(why) = is_template(&w.path) {
                self.document.problem(&["service", name, key, &i, "path"], why, None);
            }
            self.purpose(&["service", name, key, &i, "purpose"], &w.purpose, purposes);
            if key != "public" && (w.limit.is_some() || w.concurrency.is_some() || !w.cors.is_empty() || w.step_up) {
                let message = "'limit', 'concurrency', 'cors' and 'step_up' are the edge's, so they are for 'public' routes";
                self.document.problem(&["service", name, key, &i], message, None);
            }
            if let Some(scope) = w.scope.as_deref().filter(|s| !is_scope(s)) {
                let said = format!("'{scope}' is no scope: 1 to 127 of a-z, 0-9 and : . / _ -");
                self.document.problem(&["service", name, key, &i, "scope"], said, None);
            }
            if w.methods.is_empty() {
                self.document.problem(&["service", name, key, &i, "methods"], "name at least one method", None);
            }
            if w.websocket && w.methods.as_slice() != ["GET"] {
                let help = Some("write methods = [\"GET\"]".to_owned());
                self.document.problem(&["service", name, key, &i, "websocket"], "a WebSocket is opened with GET alone", help);
            }
            for method in &w.methods {
                if !METHODS.contains(&method.as_str()) {
                    let help = suggestion(method, METHODS.iter().copied());
                    self.document.problem(&["service", name, key, &i, "methods"], format!("unknown method '{method}'"), Some(help));
                }
                if routes.iter().any(|r| r.method == *method && shape(&r.path) == shape(&w.path)) {
                    let message = format!("{method} {} is there twice", w.path);
                    self.document.problem(&["service", name, key, &i], message, None);
                }
                let (path, method) = (w.path.clone(), method.clone());
                let body_bytes_max = w.max_body.map_or(1 << 20, |s| s.0);
                let (purpose, scope, public) = (w.purpose.clone(), w.scope.clone(), key == "public");
                let (rate, concurrency) = (w.limit.map(|r| r.0), w.concurrency);
                let cors = w.cors.iter().map(|origin| origin.0.clone()).collect();
                routes.push(Route {
                    path,
                    method,
                    purpose,
                    scope,
                    step_up: w.step_up,
                    public,
                    page: w.page,
                    body_bytes_max,
                    websocket: w.websocket,
                    rate,
                    concurrency,
                    cors,
                });
            }
        }
        routes
    }

    fn flows(
        &mut self,
        name: &str,
        w: &written::Service,
        services: &BTreeMap<String, Service>,
        purposes: &BTreeSet<String>,
        queues: &BTreeMap<String, Queue>,
    ) -> BTreeSet<Flow> {
        let mut flows: BTreeSet<Flow> = BTreeSet::new();
        let own = services.get(name).map(|s| s.purposes(queues)).unwrap_or_default();
        for (i, text) in w.calls.iter().enumerate() {
            let path: &[&str] = &["service", name, "calls", &i.to_string()];
            let parts = match take_apart(text) {
                Ok(parts) => parts,
                Err(why) => {
                    self.document.problem(path, why, None);
                    continue;
                }
            };
            let Some(flow) = self.flow(path, name, &parts, services, purposes, &own) else { continue };
            if flows.iter().any(|f| f.to_string() == flow.to_string()) {
                self.document.problem(path, "this flow is there twice", Some("name several purposes after one 'for'".to_owned()));
            }
            flows.insert(flow);
        }
        flows
    }

    fn flow(
        &mut self,
        path: &[&str],
        name: &str,
        parts: &FlowText<'_>,
        services: &BTreeMap<String, Service>,
        purposes: &BTreeSet<String>,
        own: &BTreeSet<&str>,
    ) -> Option<Flow> {
        let w = self.written;
        let known: Vec<&str> = match parts.kind {
            "service" => w.service.keys().map(String::as_str).collect(),
            "bucket" => w.bucket.keys().map(String::as_str).collect(),
            "queue" => w.queue.keys().map(String::as_str).collect(),
            "secret" => w.secret.keys().map(String::as_str).collect(),
            "egress" => w.egress.keys().map(String::as_str).collect(),
            other => {
                let help = suggestion(other, ["service", "bucket", "queue", "secret", "egress"]);
                self.document.problem(path, format!("a flow cannot lead to a '{other}'"), Some(help));
                return None;
            }
        };
        if !known.contains(&parts.name) {
            let help = suggestion(parts.name, known.iter().copied());
            self.document.problem(path, format!("there is no {} '{}'", parts.kind, parts.name), Some(help));
            return None;
        }
        let target = parts.name.to_owned();
        let unknown = |check: &mut Self, names: &[&str]| {
            let help = suggestion(parts.operation, names.iter().copied());
            check.document.problem(path, format!("'{}' is nothing that can be done with a {}", parts.operation, parts.kind), Some(help));
        };
        match parts.kind {
            "service" => self.call(path, name, parts, services),
            "bucket" => match BucketOperation::parse(parts.operation) {
                Some(operation) => {
                    Some(Flow::Bucket { bucket: target, operation, purposes: self.flow_purposes(path, parts, purposes, own)? })
                }
                None => {
                    unknown(self, &BucketOperation::ALL.map_names());
                    None
                }
            },
            "queue" if parts.operation == "publish" => {
                Some(Flow::Publish { queue: target, purposes: self.flow_purposes(path, parts, purposes, own)? })
            }
            "secret" if SecretOperation::parse(parts.operation).is_some() => {
                self.no_purposes(path, parts);
                SecretOperation::parse(parts.operation).map(|operation| Flow::Secret { secret: target, operation })
            }
            "egress" => self.egress_flow(path, parts, purposes, own),
            "queue" => {
                unknown(self, &["publish"]);
                None
            }
            _ => {
                unknown(self, &["read", "sign"]);
                None
            }
        }
    }

    fn call(&mut self, path: &[&str], name: &str, parts: &FlowText<'_>, services: &BTreeMap<String, Service>) -> Option<Flow> {
        self.no_purposes(path, parts);
        let target = services.get(parts.name)?;
        if parts.name == name {
            self.document.problem(path, "a service does not call itself", None);
            return None;
        }
        let text = |r: &Route| if r.is_tcp() { "tcp".to_owned() } else { format!("{} {}", r.method, r.path) };
        let offered: Vec<String> = target.routes.iter().map(text).collect();
        if !offered.iter().any(|o| o == parts.operation) {
            let help = suggestion(parts.operation, offered.iter().map(String::as_str));
            self.document.problem(path, format!("'{}' has no route '{}'", parts.name, parts.operation), Some(help));
            return None;
        }
        let (method, route) = parts.operation.split_once(' ').unwrap_or((Route::TCP, "/"));
        Some(Flow::Call { service: parts.name.to_owned(), method: method.to_owned(), path: route.to_owned() })
    }

    fn no_purposes(&mut self, path: &[&str], parts: &FlowText<'_>) {
        if !parts.purposes.is_empty() {
            self.document.problem(path, format!("a flow to a {} takes no 'for'", parts.kind), None);
        }
    }

    /// Those after `for`; without it the one purpose that the service works for.
    pub(super) fn flow_purposes(
        &mut self,
        path: &[&str],
        parts: &FlowText<'_>,
        all: &BTreeSet<String>,
        own: &BTreeSet<&str>,
    ) -> Option<BTreeSet<String>> {
        if own.is_empty() {
            let help = Some("give it a route or a queue to consume".to_owned());
            self.document.problem(path, "no authority ever reaches this service: it is never called and gets no job", help);
            return None;
        }
        if parts.purposes.is_empty() {
            if own.len() != 1 {
                let list = own.iter().copied().collect::<Vec<_>>().join(", ");
                let help = Some(format!("append \" for PURPOSE\"; this service works for: {list}"));
                self.document.problem(path, "say for which purpose", help);
                return None;
            }
            return Some(own.iter().map(|p| (*p).to_owned()).collect());
        }
        for purpose in &parts.purposes {
            self.purpose(path, purpose, all);
            if all.contains(*purpose) && !own.contains(purpose) {
                let message = format!("this service never works for '{purpose}', so the flow could never be used");
                self.document.problem(path, message, Some(suggestion(purpose, own.iter().copied())));
            }
        }
        Some(parts.purposes.iter().map(|p| (*p).to_owned()).collect())
    }
}

trait Names {
    fn map_names(&self) -> Vec<&'static str>;
}

impl Names for [BucketOperation] {
    fn map_names(&self) -> Vec<&'static str> {
        self.iter().map(|o| o.as_str()).collect()
    }
}

fn limits(w: &written::Limits) -> Limits {
    // `schema` has bounded cpu to 0.01 to 256, so the thousandths fit.
    let cpu = w.cpu.unwrap_or(1.0) * 1000.0;
    Limits {
        memory_bytes: w.memory.map_or(256 << 20, |s| s.0),
        cpu_milli: cpu.round() as u32,
        pids: w.pids.unwrap_or(64),
        wall_ms: w.wall.map_or(60_000, |d| d.0),
        file_bytes: w.file.map_or(64 << 20, |s| s.0),
        tmp_bytes: w.tmp.map_or(64 << 20, |s| s.0),
        state_bytes: w.state.map_or(1 << 30, |s| s.0),
        open_files: w.open_files.unwrap_or(256),
        concurrency: w.concurrency.unwrap_or(16),
    }
}

/// A path template with its names left out: two routes of the same shape match the same paths.
pub(super) fn shape(path: &str) -> String {
    let segment = |s: &str| match s {
        rest if rest.starts_with("{*") => "{*}".to_owned(),
        name if name.starts_with('{') => "{}".to_owned(),
        literal => literal.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

pub(super) fn is_template(path: &str) -> Result<(), String> {
    let name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let Some(rest) = path.strip_prefix('/') else { return Err("a path begins with '/'".to_owned()) };
    if rest.is_empty() {
        return Ok(());
    }
    let (mut names, last) = (BTreeSet::new(), rest.split('/').count() - 1);
    for (i, segment) in rest.split('/').enumerate() {
        let named = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        let ok = match named {
            Some(n) if n.starts_with('*') => i == last && name(n.trim_start_matches('*')) && names.insert(n.trim_start_matches('*')),
            Some(n) => name(n) && names.insert(n),
            None => segment != "." && segment != ".." && !segment.is_empty() && segment.bytes().all(is_unreserved),
        };
        if !ok {
            return Err(format!(
                "'{segment}' is no segment of a path: letters, digits, '-', '.', '_', '~', or {{name}}, or last {{*name}}"
            ));
        }
    }
    Ok(())
}

/// RFC 3986, section 2.3.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

/// A relative path without `..` and without empty segments; a leading `./` is fine.
fn is_plain_path(path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    !path.is_empty() && path.split('/').all(|s| !s.is_empty() && s != "." && s != "..") && !path.contains('\\')
}

/// A scope: a part of what RFC 6749, section 3.3, allows, which is what providers use.
fn is_scope(text: &str) -> bool {
    (1..=127).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":./_-".contains(&b))
}
