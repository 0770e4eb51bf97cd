#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::predict::tests::{VIDEO, predicted};
use crate::report::How;

/// A measurement in which everything that is expected was tried, and stopped.
pub(crate) fn whole(predicted: &Report) -> Report {
    let mut measured = Report { how: How::Measured, ..predicted.clone() };
    let stopped = |profile: &Profile, row: &Row| Attempt {
        profile: profile.clone(),
        technique: row.id.to_owned(),
        outcome: Outcome::Stopped { by: None },
        seen: "refused".to_owned(),
        detected: None,
    };
    for profile in measured.attackers.keys() {
        measured.attempts.extend(ALL.iter().filter(|row| is_expected(row, profile)).map(|row| stopped(profile, row)));
    }
    measured
}

fn without(report: &Report, who: &str, technique: &str) -> Report {
    let mut less = report.clone();
    less.attempts.retain(|one| one.profile.to_string() != who || one.technique != technique);
    less
}

fn gaps(report: &Report, predicted: &Report) -> Vec<String> {
    let mut report = report.clone();
    report.complete(predicted, &|_| true);
    report.gaps().iter().map(ToString::to_string).collect()
}

fn untried(who: &str, technique: &str, why: &str) -> Attempt {
    let outcome = Outcome::Untried { why: why.to_owned() };
    Attempt { profile: who.parse().unwrap(), technique: technique.to_owned(), outcome, seen: String::new(), detected: None }
}

// L8, L10: a technique that did not run is a gap, whoever it is expected of.
#[test]
fn what_did_not_run_is_no_agreement() {
    let predicted = predicted(VIDEO).report;
    let whole = whole(&predicted);
    assert_eq!(gaps(&whole, &predicted), Vec::<String>::new());
    for (who, technique) in
        [("service.web", "exhaustion"), ("service.api", "sockets"), ("external", "handshakes"), ("vendor", "cross-person")]
    {
        let less = without(&whole, who, technique);
        assert_eq!(gaps(&less, &predicted), [format!("{who} did not try {technique}: {MISSING}")]);
    }
    // Of those that were not asked for, nothing is expected.
    let mut part = without(&whole, "service.web", "sockets");
    part.complete(&predicted, &|id| id == "files");
    assert!(part.gaps().is_empty());
}

// L10: a reason that is known beforehand explains it, any other does not, and neither does one that does not hold here.
#[test]
fn what_is_untried_for_a_reason_that_is_not_known_is_a_gap() {
    let predicted = predicted(VIDEO).report;
    let whole = whole(&predicted);
    for (who, technique, why, is_gap) in [
        ("service.web", "leftovers", NOTHING_HERE, false),
        ("insider", "operator-sockets", "nobody here can become another user of the machine (permission denied); run it as root", false),
        ("service.web", "loopback", "its process ended by signal 9", true),
        ("service.web", "replay", NOTHING_STOLEN, true),
        ("external", "tokens-outside", NOTHING_STOLEN, true),
    ] {
        let mut report = without(&whole, who, technique);
        report.attempts.push(untried(who, technique, why));
        assert_eq!(!gaps(&report, &predicted).is_empty(), is_gap, "{who} {technique}: {why}");
    }
    // Of one service alone nothing can be stolen for it.
    let mut alone = without(&whole, "service.web", "replay");
    alone.attackers.retain(|profile, _| *profile == Profile::Service("web".to_owned()));
    alone.attempts.retain(|one| one.profile == Profile::Service("web".to_owned()));
    assert_eq!(gaps(&alone, &predicted), Vec::<String>::new());
    // What is kept beyond a job is not there where the sandbox ends with it, and only there.
    assert!(gaps(&without(&whole, "service.transcoder", "after"), &predicted).is_empty());
    assert!(!gaps(&without(&whole, "service.api", "after"), &predicted).is_empty());
}

#[test]
fn that_one_entry_had_nothing_for_a_technique_is_not_told_beside_others() {
    let predicted = predicted(VIDEO).report;
    let mut report = whole(&predicted);
    let before = report.attempts.len();
    report.attempts.push(untried("service.api", "after", NOTHING_HERE));
    report.complete(&predicted, &|_| true);
    assert_eq!(report.attempts.len(), before);
}

// L8, L10: what was told and lost on the way may be what was reached.
#[test]
fn what_was_told_and_not_heard_is_a_gap() {
    let predicted = predicted(VIDEO).report;
    let mut report = whole(&predicted);
    report.unheard.entry("service.web".parse().unwrap()).or_default().insert("2 lines were lost".to_owned());
    assert_eq!(gaps(&report, &predicted), ["service.web: 2 lines were lost"]);
}
