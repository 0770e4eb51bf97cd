//! The system as the console draws it: what there is, and who may do what to whom.

use std::collections::BTreeMap;

use contract::control::{Flow as Line, Node, System};
use manifest::{Flow, Manifest};

use crate::profile::ROLES;

/// The map of a manifest under an epoch.
pub(crate) fn system(manifest: &Manifest, epoch: u64) -> System {
    let node = |id: String, owner: &str, class: &str, untrusted_input| {
        let sensitivity = if class.is_empty() { 0 } else { manifest.sensitivity(class) };
        Node { id, owner: owner.to_owned(), class: class.to_owned(), sensitivity, untrusted_input }
    };
    let mut nodes: Vec<Node> = ROLES.iter().map(|r| node(format!("role/{r}"), "", "", false)).collect();
    for (name, s) in &manifest.services {
        let (owner, class) = (s.owner.as_deref().unwrap_or_default(), s.data.as_deref().unwrap_or_default());
        nodes.push(node(format!("service/{name}"), owner, class, s.untrusted_input));
    }
    nodes.extend(manifest.peps.iter().map(|(name, p)| node(format!("pep/{name}"), p.owner.as_deref().unwrap_or_default(), "", false)));
    nodes.extend(manifest.buckets.iter().map(|(name, b)| node(format!("bucket/{name}"), "", &b.data, false)));
    nodes.extend(manifest.queues.iter().map(|(name, q)| node(format!("queue/{name}"), "", &q.data, false)));
    nodes.extend(manifest.secrets.iter().map(|(name, s)| node(format!("secret/{name}"), "", &s.data, false)));
    nodes.extend(manifest.egress.iter().map(|(name, d)| node(format!("egress/{name}"), "", &d.data, false)));

    let mut lines: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut line = |from: String, to: String, action: String| lines.entry((from, to)).or_default().push(action);
    for (name, service) in &manifest.services {
        let from = format!("service/{name}");
        for route in service.routes.iter().filter(|r| r.public) {
            line("role/edge".to_owned(), from.clone(), format!("{} {}", route.method, route.path));
        }
        for flow in &service.flows {
            let (to, action) = match flow {
                Flow::Call { service, method, path } => (format!("service/{service}"), format!("{method} {path}")),
                Flow::Bucket { bucket, operation, .. } => (format!("bucket/{bucket}"), operation.as_str().to_owned()),
                Flow::Publish { queue, .. } => (format!("queue/{queue}"), "publish".to_owned()),
                Flow::Secret { secret, operation } => (format!("secret/{secret}"), operation.as_str().to_owned()),
                Flow::Egress { destination, method, path, .. } => (format!("egress/{destination}"), format!("{method} {path}")),
            };
            line(from.clone(), to, action);
        }
        for queue in &service.consumes {
            line(format!("queue/{queue}"), from.clone(), "deliver".to_owned());
        }
    }
    for (name, pep) in &manifest.peps {
        for (service, route) in manifest.offered(pep) {
            line(format!("pep/{name}"), format!("service/{service}"), format!("{} {}", route.method, route.path));
        }
    }
    for (name, bucket) in &manifest.buckets {
        if manifest.is_presignable(name) {
            line("role/edge".to_owned(), format!("bucket/{name}"), "presigned".to_owned());
        }
        if let Some(queue) = &bucket.created {
            line(format!("bucket/{name}"), format!("queue/{queue}"), "created".to_owned());
        }
    }
    let flows = lines.into_iter().map(|((from, to), actions)| Line { from, to, actions }).collect();
    System { name: manifest.name.clone(), manifest: manifest.digest(), epoch, nodes, flows }
}
