//! The Cedar schema: one vocabulary for every enforcement point. Only the purposes change with the manifest.
//!
//! The principal is always the calling workload, the person is optional context: strict validation then refuses every policy that
//! reads the person without having looked whether there is one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use manifest::Manifest;

use crate::question::Action;

const ENTITIES: &str = r#"
entity Team;
entity Class = { sensitivity: Long };
entity Verdict enum ["untyped", "clean", "rejected"];
entity Workload = { team: Team, untrusted_input: Bool };
entity User = { roles: Set<String> };
entity Route = { service: Workload, class: Class };
entity Bucket = { class: Class };
entity Object = { bucket: Bucket, folder: String, verdict: Verdict, owner?: User, shared_with: Set<User> };
entity Queue = { class: Class };
entity Secret = { class: Class };
entity Destination = { class: Class };
entity Outside = { destination: Destination, class: Class };
entity Plane = { class: Class };
type Authority = { user: User, purpose: Purpose, scopes: Set<String>, step_up: Bool };
type Job = { consumer: Workload, inputs: Set<Object>, folder: String };
type Carried = { authority?: Authority, job?: Job };
action objectAny;
action objectGet, objectChange in [objectAny];
action adminAny;
action adminChange in [adminAny];
"#;

/// The schema's text for a manifest.
pub(crate) fn text(manifest: &Manifest) -> String {
    let purposes: Vec<String> = manifest.purposes.iter().map(|p| format!("\"{p}\"")).collect();
    let mut out = format!("entity Purpose enum [{}];{ENTITIES}", purposes.join(", "));
    // Actions of the same groups and resource type share a declaration.
    let mut alike: BTreeMap<(Option<&str>, &str), Vec<&str>> = BTreeMap::new();
    for action in Action::ALL {
        // The first group is the nearest; it is itself in the wider one.
        alike.entry((action.groups().first().copied(), action.resource_type())).or_default().push(action.as_str());
    }
    for ((group, resource), names) in alike {
        let group = group.map_or(String::new(), |g| format!(" in [{g}]"));
        let _ = writeln!(
            out,
            "action {}{group} appliesTo {{ principal: [Workload], resource: [{resource}], context: Carried }};",
            names.join(", ")
        );
    }
    out
}
