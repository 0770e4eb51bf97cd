#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::predict::tests::{VIDEO, predicted};
use crate::technique::Attempt;

fn service(name: &str) -> Profile {
    Profile::Service(name.into())
}

/// What is predicted, measured without these controls, with these cells more.
fn judged(absent: &[Absent], more: &[(&str, Cell)]) -> Report {
    let prediction = predicted(VIDEO);
    let mut measured = prediction.report.clone();
    measured.absent = absent.to_vec();
    measured.techniques = crate::attacker::techniques::catalogue();
    for (name, cell) in more {
        measured.attackers.get_mut(&service(name)).unwrap().add(cell.clone(), "a technique");
    }
    let outcome = Outcome::Stopped { by: Some(Control::MountNamespace) };
    let attempt = Attempt { profile: service("web"), technique: "files".into(), outcome, seen: "not there".into(), detected: None };
    measured.attempts.push(attempt);
    measured.judge_absent(&prediction);
    measured
}

// L13: what was reached is held against what the model lists as behind that control alone.
#[test]
fn what_is_reached_without_a_control_is_listed_as_behind_it_alone_or_said_not_to_be() {
    let policy = Absent::new(Control::Policy, Some("objects".into()), BTreeSet::new());
    let of_bob = Cell::read("bucket.originals", Extent::Everybody);
    let key = Cell::secret("key.authority");
    let report = judged(&[policy], &[("transcoder", of_bob.clone()), ("transcoder", key.clone())]);
    let found = &report.absent[0];
    assert!(found.is_found() && !found.is_listed());
    let listed: BTreeMap<&Cell, bool> = found.reached.iter().map(|beyond| (&beyond.cell, beyond.listed)).collect();
    assert_eq!(listed, BTreeMap::from([(&of_bob, true), (&key, false)]));
}

// L13: with several controls missing, what is reached is put down to those that the technique tests.
#[test]
fn what_is_reached_is_put_down_to_the_control_that_the_technique_tests() {
    let prediction = predicted(VIDEO);
    let mut measured = prediction.report.clone();
    measured.techniques = crate::attacker::techniques::catalogue();
    measured.absent = [Control::Policy, Control::Limits].map(|control| Absent::new(control, None, BTreeSet::new())).to_vec();
    let radius = measured.attackers.get_mut(&service("transcoder")).unwrap();
    radius.add(Cell::read("bucket.originals", Extent::Everybody), "objects-of-others");
    measured.judge_absent(&prediction);
    let found: Vec<bool> = measured.absent.iter().map(Absent::is_found).collect();
    assert_eq!(found, [true, false], "the limits were not found: {:?}", measured.absent);
    // What nobody tells of is shown for all of them, and finds none; where one alone was missing, it can be no other's doing.
    measured.attackers.get_mut(&service("transcoder")).unwrap().add(Cell::egress("outside", "tcp", Extent::Standing), "doors");
    measured.absent = [Control::Policy, Control::Limits].map(|control| Absent::new(control, None, BTreeSet::new())).to_vec();
    measured.judge_absent(&prediction);
    let unsure = |one: &Absent| one.reached.iter().filter(|beyond| beyond.unsure).count();
    assert_eq!(measured.absent.iter().map(|one| (one.is_found(), unsure(one))).collect::<Vec<_>>(), [(true, 1), (false, 1)]);
    measured.absent = vec![Absent::new(Control::Limits, None, BTreeSet::new())];
    measured.judge_absent(&prediction);
    assert!(measured.absent[0].is_found() && unsure(&measured.absent[0]) == 0);
}

// L13: one control that is missing at two places is found at each by what is reached there.
#[test]
fn a_control_is_found_at_the_place_that_was_asked_for_what_was_reached() {
    let prediction = predicted(VIDEO);
    let without = |absent: &[(Control, &str)], cells: &[(&str, Cell)]| -> Vec<bool> {
        let mut measured = prediction.report.clone();
        measured.techniques = crate::attacker::techniques::catalogue();
        measured.absent = absent.iter().map(|(control, at)| Absent::new(*control, Some((*at).into()), BTreeSet::new())).collect();
        for (name, cell) in cells {
            measured.attackers.get_mut(&service(name)).unwrap().add(cell.clone(), "objects-of-others");
        }
        measured.judge_absent(&prediction);
        measured.absent.iter().map(Absent::is_found).collect()
    };
    let stores = [(Control::Policy, "objects"), (Control::Policy, "queue"), (Control::Policy, "api")];
    let object = ("transcoder", Cell::read("bucket.originals", Extent::Everybody));
    let message = ("transcoder", Cell::done("queue.uploaded", "publish", Extent::InFlight));
    let call = ("web", Cell::done("service.api", "POST /api/videos", Extent::InFlight));
    assert_eq!(without(&stores, std::slice::from_ref(&object)), [true, false, false]);
    assert_eq!(without(&stores, std::slice::from_ref(&message)), [false, true, false]);
    assert_eq!(without(&stores, &[call]), [false, false, true]);
    assert_eq!(without(&stores, &[object, message]), [true, true, false]);
    // What nobody is asked for is behind what is around the attacker.
    let kernel = ("web", Cell::done("kernel", "unshare", Extent::Standing));
    assert_eq!(without(&[(Control::Policy, "web"), (Control::Policy, "api")], &[kernel]), [true, false]);
}

// L13: where another control still stops it, the missing one is seen, and those that stopped it are named.
#[test]
fn a_missing_wall_is_noticed_at_its_place_though_another_stops_what_is_tried() {
    let at = |control, at: &str| Absent::new(control, Some(at.into()), BTreeSet::new());
    let all = [at(Control::Landlock, "web"), at(Control::Seccomp, "api"), at(Control::Landlock, "api")];
    let report = judged(&all, &[("web", Cell::done("control.landlock", "missing", Extent::Standing))]);
    let [web, api, other] = report.absent.as_slice() else { panic!("{:?}", report.absent) };
    assert!(web.is_found() && web.is_listed() && web.reached.is_empty());
    assert_eq!(web.stopped, BTreeMap::from([("files".to_owned(), BTreeSet::from([Control::MountNamespace]))]));
    assert!(!api.is_found() && !other.is_found(), "it was seen at web alone: {api:?} {other:?}");
    // With every control there is nothing to say.
    assert!(!judged(&[at(Control::Landlock, "web")], &[]).absent[0].is_found());
}
