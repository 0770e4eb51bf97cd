#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::technique::{Control, Detected, Outcome, Stride};

const MANIFEST: &str = "[system]\nname = \"small\"\ntrust_domain = \"small.example\"\n[edge]\nlisten = \"127.0.0.1:8443\"\nhosts = [\"localhost\"]\n[data.page]\nsensitivity = 1\n[service.web]\nrun = [\"./web\"]\ndata = \"page\"\npublic = [ { path = \"/\", methods = [\"GET\"], purpose = \"view\" } ]\n";

fn report() -> Report {
    let text = MANIFEST.replace("trust_domain", "purposes = [\"view\"]\ntrust_domain");
    let mut report = Report::new(How::Measured, &manifest::Manifest::parse("m.toml", &text).unwrap());
    let mut radius = Radius { lasts: Lasts::Job, ..Radius::default() };
    radius.add(Cell::read("bucket.b", Extent::JobInput), "objects-own");
    radius.add(Cell::done("queue.q", "publish", Extent::InFlight), "queue-publish");
    report.attackers.insert(Profile::Service("web".into()), radius);
    report.attackers.insert(Profile::External, Radius::default());
    report.lateral.add("web", "api", "GET /x");
    let attempt = |technique: &str, outcome| Attempt {
        profile: Profile::Service("web".into()),
        technique: technique.into(),
        outcome,
        seen: "EACCES".into(),
        detected: Some(Detected::No),
    };
    report.attempts.push(attempt("zz", Outcome::Reached));
    report.attempts.push(attempt("aa", Outcome::Stopped { by: Some(Control::Landlock) }));
    report.techniques.push(Technique {
        id: "aa".into(),
        title: "Reads everything.".into(),
        attack: "T1611".into(),
        stride: Stride::I,
        controls: vec![Control::Landlock],
    });
    report
}

// L8
#[test]
fn a_report_comes_back_from_json_and_its_bytes_do_not_depend_on_order() {
    let (one, mut other) = (report(), report());
    other.attempts.reverse();
    let text = one.to_json().unwrap();
    assert_eq!(text, other.to_json().unwrap());
    let back = Report::from_json(&text).unwrap();
    assert_eq!((back.attackers, back.lateral), (one.attackers, one.lateral));
    assert!(text.contains("\"service.web\": {") && text.contains("\"extent\": \"job-input\""), "{text}");
}

#[test]
fn a_report_of_another_version_is_refused_by_its_number() {
    let text = report().to_json().unwrap().replacen("\"version\": 1", "\"version\": 2", 1);
    assert!(matches!(Report::from_json(&text), Err(ReportError::Version(2))));
    assert!(matches!(Report::from_json("{}"), Err(ReportError::Malformed(_))));
}

#[test]
fn a_wider_cell_stands_for_the_narrower_ones_of_the_same_thing() {
    let mut radius = Radius::default();
    for extent in [Extent::JobInput, Extent::InFlight, Extent::Shared] {
        radius.add(Cell::read("bucket.a", extent), "x");
    }
    radius.add(Cell::read("bucket.b", Extent::JobInput), "x");
    let widest: Vec<String> = radius.of(Kind::Read).map(ToString::to_string).collect();
    assert_eq!(widest, ["bucket.a: of the person in flight", "bucket.a: shared with that person", "bucket.b: the job's input object (1)"]);
    radius.add(Cell::read("bucket.a", Extent::Everybody), "x");
    assert_eq!(radius.of(Kind::Read).count(), 2);
}

// L7
#[test]
fn a_profile_is_a_word_and_what_is_none_is_refused() {
    for word in ["external", "person", "service.api", "insider", "insider-mfa", "vendor"] {
        assert_eq!(word.parse::<Profile>().unwrap().to_string(), word);
    }
    for word in ["service.", "service", "root", ""] {
        assert!(word.parse::<Profile>().is_err(), "{word}");
    }
}

#[test]
fn no_two_controls_have_the_same_name() {
    let names: BTreeSet<&str> = Control::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(names.len(), Control::ALL.len());
    for control in Control::ALL {
        assert_eq!(serde_json::to_value(control).unwrap(), control.as_str());
    }
}
