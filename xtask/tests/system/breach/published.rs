//! What docs/breach.md publishes of the reference system, held against a measurement: J11, L11.
//!
//! Which refusal was told of, and which control refused, may differ from run to run where two stand at one place; whether anything was
//! told, and what counts where, may not.

use std::collections::BTreeSet;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../../docs/breach.md");

/// Cells of the rows of the table whose heading begins so.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let table = DOCUMENT.lines().skip_while(|line| !line.starts_with(heading)).take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    table.map(cells).collect()
}

/// J11: each technique that can be seen or not is there, and what nobody saw or somebody did is what is written.
pub fn sights(report: &Value) {
    let rows = rows("| technique | ATT&CK | told of");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let attempts = report["attempts"].as_array().unwrap();
    let all: BTreeSet<String> = report["techniques"].as_array().unwrap().iter().map(|one| text(&one["id"])).collect();
    let written: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).chain(["own-work".to_owned()]).collect();
    assert_eq!(written, all, "the table of docs/breach.md is to be made anew: palisade breach --format markdown");
    let mut wrong = Vec::new();
    for row in &rows {
        let looked: Vec<&Value> = attempts.iter().filter(|one| one["technique"] == row[0] && !one["detected"].is_null()).collect();
        let seen = looked.iter().any(|one| one["detected"]["seen"] == "yes");
        // As root more is tried than as an unprivileged user.
        let fits = match row[2].as_str() {
            words if words.starts_with("untried here") => looked.is_empty(),
            "no" => !looked.is_empty() && !seen,
            words if words.contains("where root runs it") => looked.is_empty() || seen,
            _ => seen,
        };
        if !fits {
            wrong.push(format!("{}: written is '{}', and seen was {seen} of {}", row[0], row[2], looked.len()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// L11: each stolen artefact in each context is there, with whether it counts.
pub fn thefts(report: &Value) {
    let written: BTreeSet<(String, String, bool)> = rows("| stolen | shown")
        .iter()
        .flat_map(|row| row[1].split("; ").map(|context| (row[0].clone(), context.to_owned(), row[2] == "counts")))
        .collect();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let thefts = report["thefts"].as_array().unwrap();
    let measured: BTreeSet<(String, String, bool)> =
        thefts.iter().map(|one| (text(one, "artefact"), text(one, "context"), one["counts"].as_bool().unwrap())).collect();
    assert_eq!(written, measured, "the table of docs/breach.md is to be made anew: palisade breach --format markdown");
}
