//! What a workload needs to know besides policies: who may connect to it, whom it may call, and its service's limits.
//!
//! Everything follows from the manifest's flows and from which role serves which contract; nothing else is reachable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::control::{
    BucketProfile, EdgeProfile, FaultAct, FaultProfile, HealthProfile, IssuerProfile, OUTSIDE_ROLE, Outbound, Outside, PepProfile,
    Protocol, PublicRoute, QueueProfile, RouteRate, ServiceLimits, ServiceProfile,
};
use contract::identity::Artefact;
use manifest::{Backend, Flow, Fresh, Isolation, Lock, Manifest, Search, Service};
use trust::{SpiffeId, Workload};

/// Palisade's own processes.
pub(crate) const ROLES: &[&str] = &["control", "identity", "login", "objects", "queue", "evidence", "edge"];

/// Ports on a sandbox's own loopback; nothing outside of it sees them.
const PORT_OBJECTS: u16 = 9000;
const PORT_QUEUE: u16 = 9001;
const PORT_TELEMETRY: u16 = 4318;
const PORT_SERVICES: u16 = 9100;
/// A service has fewer flows than there are ports between these.
const PORT_OUTSIDE: u16 = 9400;

fn publishes(service: &Service) -> bool {
    service.flows.iter().any(|f| matches!(f, Flow::Publish { .. }))
}

fn stores(service: &Service) -> bool {
    service.flows.iter().any(|f| matches!(f, Flow::Bucket { .. }))
}

/// Roles that a role calls. `control` and `identity` and `evidence` serve everybody: views, renewals, records.
fn roles_called(role: &str) -> &'static [&'static str] {
    match role {
        "control" => &["identity", "evidence"],
        "identity" => &["control", "evidence"],
        "login" | "queue" => &["control", "identity", "evidence"],
        "objects" => &["control", "identity", "evidence", "queue"],
        "evidence" => &["control", "identity", "queue"],
        "edge" => &["control", "identity", "evidence", "login", "objects"],
        _ => &[],
    }
}

/// Whom `id` may call.
fn callees(manifest: &Manifest, id: &SpiffeId) -> BTreeSet<SpiffeId> {
    let domain = &manifest.trust_domain;
    let mut callees = BTreeSet::new();
    if let Some(role) = id.as_role() {
        callees.extend(roles_called(role).iter().map(|r| domain.role(r)));
        let called = |name: &String, service: &Service| match role {
            "queue" => manifest.queues.keys().any(|q| manifest.consumer(q) == Some(name)),
            "edge" => service.routes.iter().any(|r| r.public),
            _ => false,
        };
        callees.extend(manifest.services.iter().filter(|(n, s)| called(n, s)).map(|(n, _)| domain.service(n)));
    } else if let Workload::Pdp(_) = &id.workload {
        callees.extend(["control", "identity", "evidence", "login"].map(|r| domain.role(r)));
    } else if let Workload::Pep(name) = &id.workload {
        let offered = manifest.peps.get(name).into_iter().flat_map(|pep| manifest.offered(pep));
        callees.extend(offered.map(|(service, _)| domain.service(service)));
    } else if let Some(service) = manifest.services.get(id.workload.name()) {
        callees.extend(["control", "identity", "evidence"].map(|r| domain.role(r)));
        callees.extend(stores(service).then(|| domain.role("objects")));
        callees.extend((publishes(service) || !service.consumes.is_empty()).then(|| domain.role("queue")));
        callees.extend(manifest.callees(id.workload.name()).into_iter().map(|s| domain.service(s)));
    }
    callees
}

/// Every workload of the system that decides something, and so has a view.
pub(crate) fn workloads(manifest: &Manifest) -> Vec<SpiffeId> {
    let roles = ROLES.iter().map(|r| manifest.trust_domain.role(r));
    let services = manifest.services.keys().map(|s| manifest.trust_domain.service(s));
    roles.chain(services).chain(manifest.peps.keys().map(|p| manifest.trust_domain.pdp(p))).collect()
}

/// Every workload of the system that only calls: enforcement points of somebody else's making.
pub(crate) fn proxies(manifest: &Manifest) -> impl Iterator<Item = SpiffeId> {
    manifest.peps.keys().map(|p| manifest.trust_domain.pep(p))
}

/// Who may open a connection to whom.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Whom each workload may call.
    pub(crate) callees: BTreeMap<SpiffeId, BTreeSet<SpiffeId>>,
    /// Who may call each workload: exactly those that it is a callee of.
    pub(crate) callers: BTreeMap<SpiffeId, BTreeSet<SpiffeId>>,
}

/// Every connection of the system.
pub(crate) fn connections(manifest: &Manifest) -> Connections {
    let mut all = Connections::default();
    for id in workloads(manifest).into_iter().chain(proxies(manifest)) {
        let callees = callees(manifest, &id);
        for callee in callees.iter().filter(|callee| **callee != id) {
            all.callers.entry(callee.clone()).or_default().insert(id.clone());
        }
        all.callees.insert(id, callees);
    }
    all
}

/// What a guard needs to know of its service.
pub(crate) fn service(manifest: &Manifest, lock: &Lock, search: &Search, name: &str) -> Option<ServiceProfile> {
    let service = manifest.services.get(name)?;
    let absolute = |path: &str| search.absolute(path).display().to_string();
    let below = |argument: &str| {
        service.files.iter().any(|f| argument == f || argument.strip_prefix(f.as_str()).is_some_and(|r| r.starts_with('/')))
    };
    let mut run = Vec::new();
    for (i, argument) in service.run.iter().enumerate() {
        run.push(if i == 0 || below(argument) { absolute(argument) } else { argument.clone() });
    }
    let artefacts = lock.artefacts(name).into_iter().flatten();
    Some(ServiceProfile {
        name: name.to_owned(),
        run,
        artefacts: artefacts.map(|(path, digest)| Artefact { path: absolute(path), digest: *digest }).collect(),
        tools: service.tools.iter().map(|t| absolute(t)).collect(),
        read: service.files.iter().map(|f| absolute(f)).collect(),
        state: service.state,
        routes: service.routes.iter().map(|r| format!("{} {}", r.method, r.path)).collect(),
        websockets: service.routes.iter().filter(|r| r.websocket).map(|r| format!("{} {}", r.method, r.path)).collect(),
        protocol: match service.protocol {
            manifest::Protocol::Http => Protocol::Http,
            manifest::Protocol::Grpc => Protocol::Grpc,
            manifest::Protocol::Tcp => Protocol::Tcp,
        },
        consumes: service.consumes.iter().cloned().collect(),
        outbound: outbound(manifest, search, name, service),
        faults: faults(manifest, name),
        health: service.health.as_ref().map(|health| HealthProfile {
            path: health.path.clone(),
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            unhealthy: health.unhealthy,
            healthy: health.healthy,
        }),
        isolation: match service.isolation {
            Isolation::Full => "full".to_owned(),
            Isolation::Confined => "confined".to_owned(),
        },
        bwrap: service.sandbox == Backend::Bwrap,
        syscalls: service.syscalls.as_ref().map(|path| search.folder.join(path).display().to_string()),
        fresh_per_job: service.fresh == Fresh::Job,
        limits: ServiceLimits {
            memory_bytes: service.limits.memory_bytes,
            cpu: f64::from(service.limits.cpu_milli) / 1000.0,
            pids: u64::from(service.limits.pids),
            files: u64::from(service.limits.open_files),
            file_bytes: service.limits.file_bytes,
            tmp_bytes: service.limits.tmp_bytes,
            state_bytes: service.limits.state_bytes,
            wall_s: seconds(service.limits.wall_ms),
            concurrency: service.limits.concurrency,
        },
        replicas_min: service.replicas.min,
        replicas_max: service.replicas.max,
        idle_stop_s: seconds(service.replicas.idle_ms),
    })
}

/// What goes wrong on purpose before a service; the manifest has none unless its system takes them.
fn faults(manifest: &Manifest, name: &str) -> Vec<FaultProfile> {
    let own = manifest.faults.iter().filter(|(_, fault)| fault.service == name);
    let profile = |(name, fault): (&String, &manifest::Fault)| FaultProfile {
        name: name.clone(),
        route: fault.route.clone(),
        from: fault.from.clone(),
        header: fault.header.clone(),
        percent: fault.percent,
        act: match fault.act {
            manifest::FaultAct::DelayMs(ms) => FaultAct::DelayMs(ms),
            manifest::FaultAct::Abort(status) => FaultAct::Abort(status),
            manifest::FaultAct::Reset => FaultAct::Reset,
        },
    };
    own.map(profile).collect()
}

/// Whole seconds, at least one: zero means "no limit" in a profile.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000).max(1)
}

/// One listener for each peer of the service, in the order of ports; the ports do not move when a flow is added behind them.
fn outbound(manifest: &Manifest, search: &Search, name: &str, service: &Service) -> Vec<Outbound> {
    let to = |port, env: &str, peer| Outbound { port, env: env.to_owned(), peer, routes: Vec::new(), outside: None };
    let role = |port, env: &str, role: &str| to(port, env, manifest.trust_domain.role(role));
    let env = |name: &str| format!("{}_URL", name.to_uppercase().replace('-', "_"));
    let mut all = vec![role(PORT_TELEMETRY, "OTEL_EXPORTER_OTLP_ENDPOINT", "evidence")];
    if stores(service) {
        all.push(role(PORT_OBJECTS, "AWS_ENDPOINT_URL", "objects"));
    }
    if publishes(service) {
        all.push(role(PORT_QUEUE, "QUEUE_URL", "queue"));
    }
    for (port, callee) in (PORT_SERVICES..).zip(manifest.callees(name)) {
        let routes = service.flows.iter().filter_map(|f| match f {
            Flow::Call { service, method, path } if service == callee => Some(format!("{method} {path}")),
            _ => None,
        });
        all.push(Outbound { routes: routes.collect(), ..to(port, &env(callee), manifest.trust_domain.service(callee)) });
    }
    let mut outside: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for flow in &service.flows {
        if let Flow::Egress { destination, method, path, .. } = flow {
            outside.entry(destination).or_default().push(format!("{method} {path}"));
        }
    }
    for (port, (destination, routes)) in (PORT_OUTSIDE..).zip(outside) {
        let outside = manifest.egress.get(destination).map(|to| Arc::new(self::outside(search, destination, to)));
        all.push(Outbound { routes, outside, ..to(port, &env(destination), manifest.trust_domain.role(OUTSIDE_ROLE)) });
    }
    all
}

/// A destination as a guard reaches it.
fn outside(search: &Search, name: &str, to: &manifest::Destination) -> Outside {
    // An absolute path stays what it is.
    let absolute = |file: &String| search.folder.join(file).display().to_string();
    Outside {
        name: name.to_owned(),
        host: to.host.clone(),
        port: to.port,
        networks: to.networks.iter().copied().collect(),
        root: to.root.as_ref().map(absolute),
        certificate: to.certificate.as_ref().map(|(chain, key)| (absolute(chain), absolute(key))),
        credential: to.credential.as_ref().map(|(header, file)| (header.clone(), absolute(file))),
        body_bytes_max: to.body_bytes_max,
        answer_bytes_max: to.answer_bytes_max,
        wall_ms: to.wall_ms,
        concurrency: to.concurrency,
        trace: to.trace,
    }
}

/// The enforcement point of a decision point.
pub(crate) fn pep(manifest: &Manifest, name: &str, addresses: &BTreeMap<SpiffeId, Vec<String>>) -> Option<PepProfile> {
    let pep = manifest.peps.get(name)?;
    let offered = manifest.offered(pep).map(|(service, _)| manifest.trust_domain.service(service));
    let services = offered.map(|id| (id.clone(), addresses.get(&id).cloned().unwrap_or_default())).collect();
    Some(PepProfile { spiffe_id: manifest.trust_domain.pep(name), uid: pep.uid, services })
}

/// What comes in at an enforcement point of somebody else's making.
pub(crate) fn door(manifest: &Manifest, name: &str) -> Option<EdgeProfile> {
    let pep = manifest.peps.get(name)?;
    let offered: BTreeSet<String> = manifest.offered(pep).map(|(service, route)| route.id(service)).collect();
    let EdgeProfile { mut routes, issuers, buckets: _ } = edge(manifest);
    routes.retain(|r| r.service.as_service().is_some_and(|service| offered.contains(&format!("{service}:{} {}", r.method, r.path))));
    Some(EdgeProfile { routes, buckets: BTreeMap::new(), issuers })
}

/// What the edge serves.
pub(crate) fn edge(manifest: &Manifest) -> EdgeProfile {
    let mut routes = Vec::new();
    for (name, service) in &manifest.services {
        for route in service.routes.iter().filter(|r| r.public) {
            routes.push(Arc::new(PublicRoute {
                service: manifest.trust_domain.service(name),
                host: service.public_at.host.clone(),
                headers: service.public_at.headers.clone(),
                method: route.method.clone(),
                path: route.path.clone(),
                scope: route.scope.clone(),
                step_up: route.step_up,
                purpose: route.purpose.clone(),
                page: route.page,
                body_bytes_max: route.body_bytes_max,
                websocket: route.websocket,
                rate: route.rate.map(|r| RouteRate { requests: r.requests, period_ms: r.period_ms, burst: r.burst }),
                concurrency_max: route.concurrency,
                cors: route.cors.clone(),
            }));
        }
    }
    let issuers = manifest.edge.issuers.iter().map(|(name, issuer)| IssuerProfile {
        name: name.clone(),
        url: issuer.url.clone(),
        audience: issuer.audience.clone(),
        scopes: issuer.scopes.clone(),
        keys: issuer.keys.iter().map(|key| serde_json::json!(key)).collect(),
    });
    let presignable = manifest.buckets.iter().filter(|(name, _)| manifest.is_presignable(name));
    EdgeProfile { routes, buckets: presignable.map(|(name, b)| (name.clone(), b.max_object_bytes)).collect(), issuers: issuers.collect() }
}

/// What `objects` needs to know.
pub(crate) fn buckets(manifest: &Manifest) -> BTreeMap<String, BucketProfile> {
    let profile = |bucket: &manifest::Bucket| BucketProfile {
        class: bucket.data.clone(),
        quarantine_until: bucket.quarantine_until.clone(),
        object_bytes_max: bucket.max_object_bytes,
        types: bucket.types.iter().cloned().collect(),
        created_queue: bucket.created.clone(),
    };
    manifest.buckets.iter().map(|(name, bucket)| (name.clone(), profile(bucket))).collect()
}

/// What `queue` needs to know.
pub(crate) fn queues(manifest: &Manifest) -> BTreeMap<String, QueueProfile> {
    let mut queues = BTreeMap::new();
    for (name, queue) in &manifest.queues {
        let consumer = manifest.consumer(name);
        // More than all replicas take at once would only be refused and come again.
        let at_once = consumer.and_then(|c| manifest.services.get(c)).map_or(1, |s| s.limits.concurrency.saturating_mul(s.replicas.max));
        queues.insert(
            name.clone(),
            QueueProfile {
                class: queue.data.clone(),
                consumer: consumer.map(|c| manifest.trust_domain.service(c)),
                in_flight_max: at_once,
                lease_s: seconds(queue.lease_ms),
                attempts_max: queue.attempts,
                backoff_ms: queue.backoff.first_ms,
                backoff_ms_max: queue.backoff.max_ms,
                purpose: queue.purpose.clone(),
                depth_max: u64::from(queue.depth_max),
                dead_letters_to: queue.dead_letters_to.clone(),
            },
        );
    }
    queues
}
