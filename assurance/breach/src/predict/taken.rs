//! A service that was taken over: code runs in its sandbox, with its sockets, its files, and the authority of the work it is given.

use std::collections::BTreeSet;

use contract::Who;
use manifest::{Flow, Fresh, Isolation, Service};
use policy::{Action, Question, Resource};

use super::deputy;
use super::held::{self, Held};
use super::objects;
use super::{Found, Model, Probe, Work};
use crate::attacker::techniques::programs::BY_LOADER;
use crate::names;
use crate::report::{Cell, Extent, Kind, Lasts, Profile};
use crate::technique::Control as C;

/// Everything about one service.
pub(crate) fn service(model: &Model<'_>, found: &mut Found, name: &str) {
    let Some(own) = model.manifest.services.get(name) else { return };
    let profile = Profile::Service(name.to_owned());
    found.lasts.insert(profile.clone(), if own.fresh == Fresh::Job { Lasts::Job } else { Lasts::Start });
    let held = held::of(model.manifest, &model.inputs, name);
    for one in &held {
        for probe in model.probes(&Work { service: name.to_owned(), held: one.clone() }).iter() {
            found.take(&profile, probe);
            if let (Kind::Done, true, Some(callee)) = (probe.cell.kind, probe.stops.is_empty(), probe.cell.target.strip_prefix("service."))
            {
                found.lateral.add(name, callee, probe.cell.action.clone());
            }
        }
    }
    given(model, found, &profile, name, &held);
    itself(found, &profile, name, own);
    around(model, found, &profile, name, own);
    deputy::of_service(model, found, &profile, name, &held);
}

/// Where its sockets lead with that authority.
pub(crate) fn probes(model: &Model<'_>, name: &str, held: &Held) -> Vec<Probe> {
    let Some(own) = model.manifest.services.get(name) else { return Vec::new() };
    let mut found = calls(model, own, name, held);
    let socket = if objects::has_socket(&own.flows) { BTreeSet::new() } else { network(own, true) };
    for bucket in model.manifest.buckets.keys() {
        let behind = |probe: Probe| Probe { stops: probe.stops.union(&socket).copied().collect(), ..probe };
        found.extend(objects::probes(model, name, held, bucket).into_iter().map(behind));
    }
    let authority = held.authority(name);
    let extent = if authority.is_some() { Extent::InFlight } else { Extent::Standing };
    let ask = |action, resource: &Resource| model.allowed(&Question { caller: name, action, resource, authority: authority.as_ref() });
    let open = |cell, by| Probe { cell, stops: BTreeSet::new(), by };
    if own.flows.iter().any(|flow| matches!(flow, Flow::Publish { .. })) {
        for queue in model.manifest.queues.keys() {
            let cell = Cell::done(format!("queue.{queue}"), "publish", extent);
            found.push(match ask(Action::Publish, &Resource::Queue(queue.clone())) {
                Some(by) => open(cell, by),
                None => Probe { cell, stops: BTreeSet::from([C::Policy]), by: "publishes by its socket".to_owned() },
            });
        }
    }
    for flow in &own.flows {
        match flow {
            Flow::Egress { destination, method, path, .. } => {
                let resource = Resource::outside(destination, method, path);
                let cell = Cell::egress(format!("egress.{destination}"), format!("{method} {path}"), extent);
                found.extend(ask(Action::Egress, &resource).map(|by| open(cell, by)));
            }
            // No role serves secrets yet: a flow to one is told as declared and not served.
            Flow::Secret { .. } => {}
            Flow::Call { .. } | Flow::Bucket { .. } | Flow::Publish { .. } => {}
        }
    }
    found
}

/// Calls of other services: the guard lets declared routes out, the callee's guard asks the policy.
fn calls(model: &Model<'_>, own: &Service, name: &str, held: &Held) -> Vec<Probe> {
    let authority = held.authority(name);
    let extent = if authority.is_some() { Extent::InFlight } else { Extent::Standing };
    let mut found = Vec::new();
    for (callee, to) in model.manifest.services.iter().filter(|(callee, _)| *callee != name) {
        let socket: Vec<(&str, &str)> = own
            .flows
            .iter()
            .filter_map(|f| match f {
                Flow::Call { service, method, path } if service == callee => Some((method.as_str(), path.as_str())),
                _ => None,
            })
            .collect();
        // With a raw flow comes nobody's authority, whatever is in hand.
        for route in to.routes.iter().filter(|route| !route.is_tcp() || authority.is_none()) {
            let resource = Resource::route(callee, &route.method, &route.path);
            let question = Question { caller: name, action: Action::Call, resource: &resource, authority: authority.as_ref() };
            let mut stops = if socket.is_empty() { network(own, true) } else { BTreeSet::new() };
            if !socket.is_empty() && !socket.contains(&(route.method.as_str(), route.path.as_str())) {
                stops.insert(C::GuardOut);
            }
            let permitted = model.allowed(&question);
            if permitted.is_none() {
                stops.insert(C::Policy);
            }
            let by = permitted.unwrap_or_else(|| "calls it".to_owned());
            let action = format!("{} {}", route.method, route.path);
            for cell in Cell::of_call(&format!("service.{callee}"), &route.method, &action, extent) {
                found.push(Probe { cell, stops: stops.clone(), by: by.clone() });
            }
        }
    }
    found
}

/// What comes in with its work: requests and answers that pass through it, messages.
fn given(model: &Model<'_>, found: &mut Found, profile: &Profile, name: &str, held: &BTreeSet<Held>) {
    for one in held {
        match one {
            Held::Nothing => {}
            Held::Request { purpose } => {
                let by = format!("requests for {purpose}");
                found.open(profile, Cell::read(format!("service.{name}"), Extent::InFlight), by.clone());
                found.open(profile, Cell::written(format!("service.{name}"), Extent::InFlight), by);
            }
            Held::Job { queue, .. } => {
                let resource = Resource::Queue(queue.clone());
                let authority = one.authority(name);
                let question = Question { caller: name, action: Action::Consume, resource: &resource, authority: authority.as_ref() };
                if let Some(by) = model.allowed(&question) {
                    found.open(profile, Cell::read(format!("queue.{queue}"), Extent::Job), by.clone());
                    found.open(profile, Cell::done(format!("queue.{queue}"), "consume", Extent::Job), by);
                }
            }
        }
    }
    let flows = model.manifest.services.values().flat_map(|service| &service.flows);
    let mut raw = flows.filter(|flow| matches!(flow, Flow::Call { service, method, .. } if service == name && method == "TCP"));
    if raw.next().is_some() {
        found.open(profile, Cell::read(format!("service.{name}"), Extent::Standing), "raw flows to it");
        found.open(profile, Cell::written(format!("service.{name}"), Extent::Standing), "raw flows to it");
    }
    for queue in model.manifest.queues.keys() {
        let own = model.manifest.services.get(name).is_some_and(|own| own.consumes.contains(queue));
        let others = Cell::read(format!("queue.{queue}"), Extent::Everybody);
        // A lease by another name than the consumer's: the queue knows its consumer, and so does the policy. Its own messages come
        // one by one, each on its lease.
        let stops: &[C] = if own { &[C::Lease] } else { &[C::Policy, C::Mtls] };
        found.stopped(profile, others, stops.iter().copied(), "leases messages that it was not given");
    }
}

/// Its own: files, folder, telemetry.
fn itself(found: &mut Found, profile: &Profile, name: &str, own: &Service) {
    found.open(profile, Cell::read(format!("files.{name}"), Extent::Standing), "runs there");
    if own.state {
        found.open(profile, Cell::read(format!("state.{name}"), Extent::Everybody), "its folder");
        found.open(profile, Cell::written(format!("state.{name}"), Extent::Everybody), "its folder");
    }
    let offered = |route: &&contract::Route| route.who == Who::Policy && route.action != "evidence.append";
    for route in contract::evidence::ROUTES.iter().filter(offered) {
        let cell = Cell::done("role.evidence", format!("{} {}", route.method, route.path), Extent::Standing);
        found.open(profile, cell, "its telemetry");
    }
    if own.fresh == Fresh::Job {
        let earlier = Cell::read(format!("files.{name} of earlier jobs"), Extent::Everybody);
        found.stopped(profile, earlier, [C::FreshSandbox], "looks for what earlier jobs left");
    }
}

/// What is around its sandbox: other people's files, processes, addresses.
fn around(model: &Model<'_>, found: &mut Found, profile: &Profile, name: &str, own: &Service) {
    let full = own.isolation == Isolation::Full;
    let namespace = |control: C| full.then_some(control);
    let files: BTreeSet<C> = [Some(C::Landlock), namespace(C::MountNamespace)].into_iter().flatten().collect();
    let processes: BTreeSet<C> =
        [Some(C::Seccomp), namespace(C::ProcessNamespace), namespace(C::UserNamespace)].into_iter().flatten().collect();
    for (other, service) in model.manifest.services.iter().filter(|(other, _)| *other != name) {
        if service.state {
            for cell in [Cell::read(names::state(other), Extent::Everybody), Cell::written(names::state(other), Extent::Everybody)] {
                found.stopped(profile, cell, files.iter().copied(), "opens its folder");
            }
        }
    }
    let sealed = files.iter().copied().chain([C::Sealing]);
    found.stopped(profile, Cell::secret(names::AUTHORITY_KEY), sealed, "opens Palisade's folder");
    let spool = Cell::written(names::EVIDENCE, Extent::Everybody);
    found.stopped(profile, spool, files.iter().copied().chain([C::AuditChain]), "edits the audit log");
    found.stopped(profile, Cell::secret(names::PRIVATE_KEY), processes.iter().copied(), "reads its guard's memory");
    found.stopped(profile, Cell::read(names::PROCESSES, Extent::Everybody), processes, "reads what other processes have");
    for cell in [Cell::read(names::FILES, Extent::Everybody), Cell::written(names::FILES, Extent::Everybody)] {
        found.stopped(profile, cell, files.iter().copied(), "opens files of the machine");
    }
    let operator = Cell::done(names::SOCKETS, names::CONNECT, Extent::Everybody);
    found.stopped(profile, operator, files.iter().copied().chain([C::Seccomp]), "connects to the operator's socket");
    let anywhere = Cell::egress(names::OUTSIDE, names::TCP, Extent::Standing);
    found.stopped(profile, anywhere, network(own, false), "connects to an address");
    if own.flows.iter().any(|flow| matches!(flow, Flow::Egress { .. })) {
        let elsewhere = Cell::egress(names::OUTSIDE, names::TCP, Extent::Standing);
        found.stopped(profile, elsewhere, [C::EgressList], "asks its guard for another destination");
    }
    // Rules about ports say nothing of datagrams, lists of families do.
    let datagrams: BTreeSet<C> = [Some(C::Seccomp), namespace(C::NetworkNamespace)].into_iter().flatten().collect();
    for way in [names::UDP, names::DNS] {
        let sent = Cell::egress(names::OUTSIDE, way, Extent::Standing);
        found.stopped(profile, sent, datagrams.iter().copied(), "sends a datagram");
    }
    let ports = Cell::egress(names::LOOPBACK, names::TCP, Extent::Standing);
    found.stopped(profile, ports, network(own, true), "connects to a port of the machine");
    let metadata = Cell::secret(names::METADATA);
    found.stopped(profile, metadata, network(own, false), "asks 169.254.169.254");
    // A person's authority that is not in flight here: its guard knows what it delivered, and the other end verifies.
    let forged = [C::GuardOut, C::TransactionToken];
    for bucket in model.manifest.buckets.keys().filter(|_| objects::has_socket(&own.flows)) {
        found.stopped(profile, Cell::read(objects::target(bucket), Extent::Everybody), forged, "forges or replays a token");
    }
    // A genuine one that is kept beyond its work, or that another service holds: for people's requests, whether it is in flight here is all
    // that stands against that. (A job's dies with its lease, and with its sandbox.)
    if own.routes.iter().any(|route| !route.is_tcp()) {
        let by = "keeps or passes on a genuine token";
        for flow in &own.flows {
            let cell = match flow {
                Flow::Bucket { bucket, .. } => Cell::read(objects::target(bucket), Extent::Everybody),
                Flow::Publish { queue, .. } => Cell::done(format!("queue.{queue}"), "publish", Extent::Everybody),
                Flow::Call { service, method, path } if method != "TCP" => {
                    Cell::done(format!("service.{service}"), format!("{method} {path}"), Extent::Everybody)
                }
                Flow::Call { .. } | Flow::Egress { .. } | Flow::Secret { .. } => continue,
            };
            found.stopped(profile, cell, [C::TransactionToken], by);
        }
    }
    let kernel = Cell::done("kernel", "calls that only escapes need", Extent::Standing);
    found.stopped(profile, kernel, [C::Seccomp], "calls the kernel");
    found.stopped(profile, Cell::done("programs", "execute", Extent::Standing), [C::Landlock], "starts a program that was not declared");
    // Any of the distribution that it may read, in the same sandbox.
    let loaded = Cell::done("programs", BY_LOADER, Extent::Standing);
    found.open(profile, loaded, "the dynamic loader runs any program");
    found.stopped(profile, Cell::done("machine.cores", "leave", Extent::Standing), [C::Limits], "crashes");
    let others: BTreeSet<C> = [Some(C::Landlock), namespace(C::ProcessNamespace)].into_iter().flatten().collect();
    found.stopped(profile, Cell::done(names::PROCESSES, "signal", Extent::Everybody), others, "signals whoever is there");
    // That one is in its process namespace.
    let init = Cell::done(names::PROCESSES, names::SIGNAL_INIT, Extent::Standing);
    found.stopped(profile, init, [C::Landlock], "signals its init");
    for used_up in ["machine.memory", "machine.processes"] {
        found.stopped(profile, Cell::disturbed(used_up), [C::Limits], "takes more than it may");
    }
    for neighbour in model.manifest.services.keys().filter(|other| *other != name) {
        found.stopped(profile, Cell::disturbed(format!("service.{neighbour}")), [C::Limits], "uses up what they share");
    }
}

/// What keeps a sandbox from an address that no flow leads to. A workload of ours asks for an SVID besides.
fn network(own: &Service, ours: bool) -> BTreeSet<C> {
    let mut stops = BTreeSet::from([C::Landlock]);
    match own.isolation {
        Isolation::Full => stops.insert(C::NetworkNamespace),
        Isolation::Confined => stops.insert(C::Seccomp),
    };
    if ours {
        stops.insert(C::Mtls);
    }
    stops
}
