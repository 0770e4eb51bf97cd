//! `cargo xtask tidy`: the taste of the code, as far as a program can check it. A ratchet: the list of old sinners may only shrink.

use std::path::Path;

use crate::{Outcome, tree};

/// Product lines of one file.
const LINES_MAX: usize = 500;
/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "misc", "manager", "core", "types", "mod"];
/// Files that broke a rule before it was one. May only shrink.
const OLD_SINNERS: &[&str] = &[];
/// Files in which something can be left out in a throw-away copy of a system, or is told to be: what an auditor reads who wants to know that
/// it is nowhere else (docs/adr/0014).
const DANGEROUS: &[&str] = &[
    "base/policy/src/dangerous.rs",
    "base/policy/src/engine.rs",
    "base/trust/src/seal.rs",
    "platform/src/boot.rs",
    "platform/src/breach.rs",
    "platform/src/breach/inside.rs",
    "platform/src/breach/probe.rs",
    "platform/src/breach/probe/disk.rs",
    "platform/src/breach/probe/genuine.rs",
    "platform/src/breach/review.rs",
    "platform/src/breach/stage.rs",
    "platform/src/cli.rs",
    "platform/src/cli/breach.rs",
    "platform/src/cli/up.rs",
    "platform/src/dangerous.rs",
    "platform/src/guard.rs",
    "platform/src/guard/profile.rs",
    "platform/src/process.rs",
    "platform/src/roles.rs",
    "platform/src/roles/edge.rs",
    "platform/src/roles/evidence.rs",
    "platform/src/roles/objects.rs",
    "platform/src/supervisor/run.rs",
    "platform/src/system.rs",
    "services/evidence/src/log.rs",
    "services/evidence/src/room.rs",
    "services/objects/src/gate.rs",
    "services/objects/src/room.rs",
    "services/proxy/src/bundle.rs",
    "services/proxy/src/edge.rs",
    "services/proxy/src/edge/admission.rs",
    "services/proxy/src/edge/entry.rs",
    "services/proxy/src/edge/oidc.rs",
    "services/proxy/src/edge/socket.rs",
    "services/proxy/src/enforce.rs",
    "services/proxy/src/mesh.rs",
    "services/proxy/src/mesh/inbound.rs",
    "services/proxy/src/mesh/outbound.rs",
    "services/proxy/src/mesh/outbound/egress.rs",
    "services/proxy/src/pdp.rs",
    "services/proxy/src/svid.rs",
    "services/proxy/src/view.rs",
    "services/proxy/src/view/decide.rs",
    "services/sandbox/benches/cost.rs",
    "services/sandbox/src/init.rs",
    "services/sandbox/src/lib.rs",
    "services/sandbox/src/namespaces.rs",
    "services/sandbox/src/profile.rs",
    "services/sandbox/src/report.rs",
    "services/sandbox/src/service.rs",
];

/// Checks every file and prints what is wrong.
///
/// # Errors
/// When something is.
pub fn run() -> Outcome {
    let findings = findings(&tree::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() { Ok(()) } else { Err(format!("{} findings", findings.len()).into()) }
}

/// What is untidy below `root`.
///
/// # Errors
/// Those of the file system.
pub fn findings(root: &Path) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for path in tree::files(root, "rs")? {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if OLD_SINNERS.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        found.extend(of_file(&name, &text).into_iter().map(|what| format!("{name}: {what}")));
    }
    Ok(found)
}

/// What is untidy in one file.
#[must_use]
pub fn of_file(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let stem = Path::new(name).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let is_test = stem == "tests" || name.contains("/tests/");
    if EMPTY_NAMES.contains(&stem.as_str()) {
        found.push(format!("the name `{stem}` says nothing"));
    }
    let first = text.lines().find(|line| !line.starts_with("#![")).unwrap_or_default();
    if !is_test && (!first.starts_with("//! ") || first.len() < 12) {
        found.push("the first line is no module doc".to_owned());
    }
    let product = text.lines().take_while(|line| line.trim() != "mod tests {").count();
    if !is_test && product > LINES_MAX {
        found.push(format!("{product} product lines; at most {LINES_MAX}"));
    }
    if !is_test && !name.starts_with("services/sandbox/") && text.contains(&("unsafe".to_owned() + " {")) {
        found.push("unsafe outside of the sandbox's syscall layer".to_owned());
    }
    let switches = ["dangerous_", "Dangerous"].iter().any(|word| text.contains(word));
    let may = name.starts_with("xtask/") || DANGEROUS.contains(&name);
    if !is_test && switches && !may {
        found.push("it can leave out a control, or names what can, and is not in the list of files that may".to_owned());
    }
    if DANGEROUS.contains(&name) && !switches {
        found.push("it leaves out no control: take it from the list of files that may".to_owned());
    }
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME"];
    for mark in marks {
        if text.contains(&mark) {
            found.push(format!("{mark}: do it or write an issue"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        assert_eq!(findings(&tree::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn untidy_files_are_found() {
        let long = format!("//! A module doc.\n{}", "let x = 1;\n".repeat(LINES_MAX));
        let cases = [
            ("a/util.rs", "//! A module doc.\n", 1),
            ("a/b.rs", "fn x() {}\n", 1),
            ("a/b.rs", long.as_str(), 1),
            ("a/b.rs", "//! A module doc.\n", 0),
            ("a/b.rs", "//! A module doc.\nlet engine = Engine::dangerous_open();\n", 1),
            ("a/tests.rs", "//! A module doc.\nlet engine = Engine::dangerous_open();\n", 0),
            ("platform/src/dangerous.rs", "//! A module doc.\n", 1),
            ("platform/src/dangerous.rs", "//! A module doc.\nstruct DangerousSwitch;\n", 0),
        ];
        for (name, text, count) in cases {
            assert_eq!(of_file(name, text).len(), count, "{name}");
        }
    }
}
