#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::predict::tests::{VIDEO, predicted};
use crate::report::{How, Measured};

fn said(before: &Report, after: &Report, between: Between) -> Vec<String> {
    compare(before, after, between).differences.iter().map(|d| d.sentence(between)).collect()
}

// L9
#[test]
fn a_flow_more_is_told_as_what_it_adds_and_for_whom() {
    let more = VIDEO.replace("  \"bucket.renditions:write\",\n", "  \"bucket.renditions:write\",\n  \"bucket.originals:delete\",\n");
    assert_ne!(more, VIDEO);
    let (before, after) = (predicted(VIDEO).report, predicted(&more).report);
    let added = said(&before, &after, Between::Revisions);
    assert_eq!(added, ["service.transcoder now writes bucket.originals: the job's folder (1)"]);
    assert!(compare(&before, &after, Between::Revisions).fails());
    assert!(!compare(&after, &before, Between::Revisions).fails(), "less is no failure");
    assert_eq!(said(&after, &before, Between::Revisions), ["service.transcoder no longer writes bucket.originals: the job's folder (1)"]);
    assert!(said(&before, &before, Between::Revisions).is_empty());
}

// L8: a measurement that differs in either direction is a finding; attackers that were not tried are none.
#[test]
fn prediction_and_measurement_must_agree_cell_by_cell() {
    let predicted = predicted(VIDEO).report;
    let profile: Profile = "service.transcoder".parse().unwrap();
    let mut measured = Report { how: How::Measured, ..predicted.clone() };
    measured.attackers.retain(|who, _| *who == profile);
    assert!(compare(&predicted, &measured, Between::Measurement).differences.is_empty());
    let radius = measured.attackers.get_mut(&profile).unwrap();
    radius.add(Cell::read("bucket.originals", Extent::Everybody), "objects-of-others");
    let found = compare(&predicted, &measured, Between::Measurement);
    assert_eq!(
        found.differences.iter().map(|d| d.sentence(Between::Measurement)).collect::<Vec<_>>(),
        ["service.transcoder reads bucket.originals: everybody's, which was not predicted"]
    );
    assert!(found.fails() && found.differences[0].by.contains("objects-of-others"));
    let radius = measured.attackers.get_mut(&profile).unwrap();
    radius.reached.clear();
    let less = compare(&predicted, &measured, Between::Measurement);
    assert!(less.fails() && less.differences.iter().all(|d| d.change == Change::Removed));
}

// L8: some techniques alone reach a part, and nothing that was not predicted.
#[test]
fn a_part_of_a_measurement_may_reach_less_and_never_more() {
    let predicted = predicted(VIDEO).report;
    let mut part = Report { how: How::Measured, ..predicted.clone() };
    part.lateral = Default::default();
    part.attackers.values_mut().for_each(|radius| radius.reached.clear());
    assert!(!compare(&predicted, &part, Between::Part).fails());
    part.attackers.get_mut(&Profile::External).unwrap().add(Cell::read("bucket.originals", Extent::Everybody), "edge-surfaces");
    let found = compare(&predicted, &part, Between::Part);
    assert!(found.fails() && found.differences.len() == 1 && found.differences[0].rule(Between::Part) == "reached-not-predicted");
    part.attackers.clear();
    part.attackers.insert(Profile::Service("web".to_owned()), Radius::default());
    part.lateral.add("web", "api", "DELETE /api/videos/{id}");
    assert!(compare(&predicted, &part, Between::Part).fails(), "a route more");
}

// L12
#[test]
fn a_route_that_can_be_called_and_was_not_declared_is_a_finding() {
    let predicted = predicted(VIDEO).report;
    let mut measured = predicted.clone();
    measured.lateral.add("transcoder", "api", "GET /api/videos");
    assert_eq!(
        said(&predicted, &measured, Between::Measurement),
        ["service.transcoder calls api GET /api/videos, which was not predicted"]
    );
}

// L8: what services without a network of their own show to others of the machine is held against a measurement of such services alone.
#[test]
fn what_is_predicted_of_weaker_sandboxes_is_not_expected_of_strong_ones() {
    let confined = VIDEO.replacen("[service.web] ", "[service.web]\nisolation = \"confined\" ", 1);
    let (strict, accepts) = (predicted(VIDEO).report, predicted(&confined).report);
    let plain = Cell::done(LISTENERS, names::PLAIN_ANSWER, Extent::Public);
    let has = |report: &Report| report.attackers[&Profile::External].reached.contains_key(&plain);
    assert!(has(&accepts) && !has(&strict));
    let at = |level| {
        let measured = Measured { accepts: Isolation::Confined, at: BTreeSet::from([level]) };
        let isolation = std::collections::BTreeMap::from([("web".to_owned(), measured)]);
        has(&measurable(accepts.clone(), &Report { isolation, ..accepts.clone() }))
    };
    assert!(at(Isolation::Confined) && !at(Isolation::Full));
}
