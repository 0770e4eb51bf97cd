//! `cargo xtask floorplan`: the Cargo graph is the trust graph. No arrow up, none sideways.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;

use crate::{Outcome, tree};

/// What each crate may depend on, of ours. A crate that is not here does not belong to the house.
const PLAN: &[(&str, &[&str])] = &[
    ("trust", &[]),
    ("manifest", &["trust"]),
    ("state", &["trust"]),
    ("telemetry", &["trust"]),
    ("contract", &["trust"]),
    ("policy", &["trust", "manifest"]),
    ("proxy", BASE),
    ("sandbox", BASE),
    ("control", BASE),
    ("identity", BASE),
    ("login", BASE),
    ("objects", BASE),
    ("queue", BASE),
    ("evidence", BASE),
    ("console", BASE),
    ("breach", BASE),
    ("video-wire", &[]),
    ("video-api", &["video-wire"]),
    ("video-validator", &["video-wire"]),
    ("video-transcoder", &["video-wire"]),
    // The same application as one process: it is made of the services' own parts, and has its own sign-in and TLS.
    ("video-monolith", &["video-api", "video-validator", "video-transcoder"]),
    ("palisade", EVERYTHING),
    ("xtask", &[]),
];
const BASE: &[&str] = &["trust", "manifest", "state", "telemetry", "contract", "policy"];
const EVERYTHING: &[&str] = &[
    "trust",
    "manifest",
    "state",
    "telemetry",
    "contract",
    "policy",
    "proxy",
    "sandbox",
    "control",
    "identity",
    "login",
    "objects",
    "queue",
    "evidence",
    "console",
    "breach",
];
/// Crates from outside that only some of ours may name: the walls inside the walls.
const WALLED: &[(&str, &[&str])] = &[
    ("rustls", &["proxy"]),
    ("tokio-rustls", &["proxy", "video-monolith"]),
    ("instant-acme", &["proxy"]),
    ("landlock", &["sandbox"]),
    ("seccompiler", &["sandbox"]),
    ("libc", &["sandbox"]),
    ("cedar-policy", &["policy"]),
    ("s3s", &["objects"]),
    ("argon2", &["login", "video-monolith"]),
];

/// A package as cargo describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A dependency as cargo describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// `dev`, `build`, or nothing.
    pub kind: Option<String>,
    /// Where it is, if it is ours.
    pub path: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Checks the plan and prints what breaks it.
///
/// # Errors
/// When an edge is not allowed.
pub fn run() -> Outcome {
    let breaches = breaches(&packages()?);
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { Err(format!("the floor plan is broken in {} places", breaches.len()).into()) }
}

/// The workspace's packages.
///
/// # Errors
/// When cargo cannot tell.
pub fn packages() -> Outcome<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let text = tree::output(Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str::<Metadata>(&text)?.packages)
}

/// Every edge that the plan does not allow.
#[must_use]
pub fn breaches(packages: &[Package]) -> Vec<String> {
    let plan: BTreeMap<&str, &[&str]> = PLAN.iter().copied().collect();
    let mut found = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let Some(allowed) = plan.get(name) else {
            found.push(format!("{name} has no room in the floor plan"));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let ours = dependency.path.is_some();
            // Tests may look sideways within the plan's own rules only: dev-dependencies count too.
            if ours && !allowed.contains(&to) {
                found.push(format!("{name} -> {to}: not an edge of the floor plan"));
            }
            let walled = WALLED.iter().find(|(outside, _)| *outside == to);
            if let Some((outside, rooms)) = walled
                && !rooms.contains(&name)
                && dependency.kind.as_deref() != Some("dev")
            {
                found.push(format!("{name} names {outside}, which is for {} alone", rooms.join(", ")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, ours)| Dependency { name: (*name).to_owned(), kind: None, path: ours.then(|| "x".to_owned()) })
            .collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn the_house_stands_as_planned() {
        assert_eq!(breaches(&packages().unwrap()), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_up_sideways_or_through_a_wall_is_found() {
        for (from, to, ours) in
            [("trust", "contract", true), ("queue", "objects", true), ("login", "rustls", false), ("cellar", "trust", true)]
        {
            assert_eq!(breaches(&[package(from, &[(to, ours)])]).len(), 1, "{from} -> {to}");
        }
        assert_eq!(breaches(&[package("proxy", &[("rustls", false), ("trust", true)])]), Vec::<String>::new());
    }
}
