//! `cargo xtask tidy`: the taste of the code, as far as a program can check it. A ratchet: the list of old sinners may only shrink.

use std::path::Path;

use crate::{Outcome, tree};

/// Product lines of one file.
const LINES_MAX: usize = 500;
/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "misc", "manager", "core", "types", "mod"];
/// Files that broke a rule before it was one. May only shrink.
const OLD_SINNERS: &[&str] = &[];

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
        ];
        for (name, text, count) in cases {
            assert_eq!(of_file(name, text).len(), count, "{name}");
        }
    }
}
