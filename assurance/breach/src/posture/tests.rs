#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::predict::tests::{VIDEO, parsed, predicted};
use crate::report::Cell;
use crate::untried::tests::whole;
use crate::{Absent, Control};

fn line(boundary: &str, state: State) -> Line {
    let text = |t: &str| t.to_owned();
    Line { area: Area::Build, boundary: text(boundary), claim: text("c"), state, why: text("w"), evidence: text("e") }
}

// P5
#[test]
fn the_score_is_the_weakest_boundarys_and_never_the_mean() {
    let mut lines: Vec<Line> = (0..99).map(|n| line(&format!("b{n}"), State::Held)).collect();
    assert_eq!(Posture::of("s", lines.clone()).score, 100);
    lines.push(line("b7", State::Weak));
    let posture = Posture::of("s", lines.clone());
    assert_eq!((posture.score, posture.boundaries["b7"], posture.boundaries["b8"]), (50, 50, 100));
    lines.push(line("b8", State::Unknown));
    assert_eq!(Posture::of("s", lines).score, 0, "what nobody looked at counts as the worst");
    assert_eq!(Posture::of("s", Vec::new()).score, 0);
}

// P5
#[test]
fn what_was_never_measured_is_unknown_and_what_differs_is_broken() {
    let (manifest, report) = (parsed(VIDEO), predicted(VIDEO).report);
    let states = |measured: Option<&Report>| -> Vec<State> {
        let lines = of_system(&manifest, &report, measured);
        lines.into_iter().filter(|l| l.claim.starts_with("an attack")).map(|l| l.state).collect()
    };
    assert_eq!(states(None), [State::Unknown; 4]);
    assert_eq!(states(Some(&report)), [State::Unknown; 4], "a prediction is no measurement");
    let mut measured = whole(&report);
    // What nobody of a copy has is not missing.
    for radius in measured.attackers.values_mut() {
        radius.reached.retain(|cell, _| cell.extent != Extent::Shared);
    }
    assert_eq!(states(Some(&measured)), [State::Held; 4]);
    let mut partial = measured.clone();
    partial.attempts.retain(|one| one.technique != "files" || one.profile != Profile::Service("web".into()));
    assert_eq!(states(Some(&partial)), [State::Held, State::Held, State::Held, State::Unknown]);
    let absent = vec![Absent::new(Control::Policy, None, Default::default())];
    assert_eq!(states(Some(&Report { absent, ..measured.clone() })), [State::Unknown; 4]);
    let radius = measured.attackers.get_mut(&Profile::Service("api".into())).unwrap();
    radius.add(Cell::secret("key.authority"), "memory");
    assert_eq!(states(Some(&measured)), [State::Broken, State::Held, State::Held, State::Held]);
    measured.manifest = trust::Digest::of(b"another");
    assert_eq!(states(Some(&measured)), [State::Unknown; 4]);
}

// P5
#[test]
fn every_line_says_where_its_evidence_is() {
    let posture = Posture::of("video", of_system(&parsed(VIDEO), &predicted(VIDEO).report, None));
    assert!(posture.lines.iter().all(|line| line.evidence.starts_with("palisade ")), "{posture:?}");
    assert!(posture.text().starts_with("video: 0 of 100, which is its weakest trust boundary"), "{}", posture.text());
}
