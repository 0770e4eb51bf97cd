#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use std::collections::BTreeMap;

use super::*;
use crate::compare::{Between, compare};
use crate::predict::predict;
use crate::predict::tests::{VIDEO, parsed, predicted};

// O16: the sentence that the project is about.
#[test]
fn the_first_line_about_the_transcoder_is_the_answer() {
    let report = predicted(VIDEO).report;
    let shown = attacker(&report, &"service.transcoder".parse().unwrap());
    let first = shown.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ");
    assert!(
        first.starts_with(
            "Whoever takes over `transcoder` reaches 1 input object, 1 output folder, 0 secrets, 0 other services, 0 destinations outside; it ends with the job."
        ),
        "{shown}"
    );
    assert!(shown.contains("Behind one control alone"), "{shown}");
}

#[test]
fn no_line_of_a_table_is_wider_than_a_terminal() {
    let report = predicted(VIDEO).report;
    let whole = table(&report);
    let each: String = report.attackers.keys().map(|who| attacker(&report, who)).collect();
    for line in whole.lines().chain(each.lines()) {
        assert!(line.chars().count() <= 110, "{}: {line}", line.chars().count());
    }
    let first = whole.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ");
    assert_eq!(
        first,
        "Of the 4 services of video, once taken over, 1 can reach everybody's data (api), 0 a secret, 0 the outside, 1 another service. Predicted; nothing ran."
    );
}

// L9
#[test]
fn a_widened_manifest_is_told_in_markdown_and_sarif_with_its_line() {
    let more = VIDEO.replace("  \"bucket.renditions:write\",\n", "  \"bucket.renditions:write\",\n  \"bucket.originals:delete\",\n");
    let (before, after) = (predicted(VIDEO).report, predict(&parsed(&more), &BTreeMap::new()).unwrap().report);
    let comparison = compare(&before, &after, Between::Revisions);
    let text = markdown(&after, Some(&comparison));
    assert!(
        text.contains("| **+** | `service.transcoder` | service.transcoder now writes bucket.originals: the job's folder (1) |"),
        "{text}"
    );
    let log = sarif(&comparison, "palisade.toml", &more);
    assert_eq!((log["version"].as_str(), log["runs"][0]["results"].as_array().unwrap().len()), (Some("2.1.0"), 1));
    let result = &log["runs"][0]["results"][0];
    assert_eq!((result["ruleId"].as_str(), result["level"].as_str()), (Some("widened"), Some("error")));
    let line = result["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap();
    assert!(more.lines().nth(usize::try_from(line).unwrap() - 1).unwrap().starts_with("[service.transcoder]"));
    let rules: Vec<&str> =
        log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert!(rules.contains(&"widened"), "every result's rule is described");
    assert!(markdown(&before, Some(&compare(&before, &before, Between::Revisions))).contains("Nobody reaches more or less"));
}

#[test]
fn the_matrix_is_the_same_picture_each_time_and_says_in_words_what_it_shows() {
    let report = predicted(VIDEO).report;
    let picture = matrix(&report);
    assert_eq!(picture, matrix(&report));
    assert!(picture.contains("web can call api: GET /api/videos") && picture.contains("transcoder cannot call api"), "{picture}");
    assert!(picture.contains("prefers-color-scheme:dark"));
}
