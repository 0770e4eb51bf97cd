//! Small systems whose radius is worked out by hand, and the reference system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use manifest::Manifest;

use super::*;
use crate::report::Kind;

mod shop;

pub(crate) const VIDEO: &str = include_str!("../../../../apps/video/palisade.toml");

/// One bucket, one queue, one service between them; `calls` and `more` fill it in.
const SMALL: &str = r#"
[system]
name = "small"
trust_domain = "small.example"
purposes = ["look", "work"]
[edge]
listen = "127.0.0.1:8443"
hosts = ["localhost"]
[data.thing]
sensitivity = 2
[service.front]
run = ["./front"]
data = "thing"
public = [ { path = "/list", methods = ["GET", "POST"], purpose = "look", scope = "things" } ]
calls = [ "bucket.things:presign-put for look", "bucket.things:share for look", "service.back:GET /things" ]
[service.back]
run = ["./back"]
data = "thing"
internal = [ { path = "/things", methods = ["GET"], purpose = "look" }, { path = "/hidden", methods = ["GET"], purpose = "look" } ]
calls = [ "bucket.things:read for look" ]
[service.worker]
run = ["./worker"]
untrusted_input = true
consumes = "queue.made"
calls = [ "bucket.things:read", "bucket.things:verdict" ]
[bucket.things]
data = "thing"
max_object = "1MiB"
types = ["text/plain"]
quarantine_until = "worker"
events = { created = "queue.made" }
[queue.made]
data = "thing"
purpose = "work"
"#;

pub(crate) fn parsed(text: &str) -> Manifest {
    Manifest::parse("palisade.toml", text).unwrap_or_else(|e| panic!("{e:?}\n{text}"))
}

pub(crate) fn predicted(text: &str) -> Prediction {
    predict(&parsed(text), &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"))
}

fn cells(prediction: &Prediction, profile: &str, kind: Kind) -> Vec<String> {
    prediction.report.attackers[&profile.parse().unwrap()].of(kind).map(ToString::to_string).collect()
}

fn deputies(prediction: &Prediction, profile: &str) -> Vec<String> {
    let of = |d: &&Deputy| d.profile.to_string() == profile;
    prediction.report.deputies.iter().filter(of).map(|d| format!("{} {} {}", d.via, d.cell.kind.words(), d.cell)).collect()
}

// O16, L8
#[test]
fn a_taken_over_transcoder_reaches_one_input_one_folder_no_secret_no_service_and_nothing_outside() {
    let video = predicted(VIDEO);
    let who = "service.transcoder";
    assert_eq!(
        cells(&video, who, Kind::Read),
        ["bucket.originals: the job's input object (1)", "files.transcoder: in its own name", "queue.validated: the message in hand"]
    );
    assert_eq!(cells(&video, who, Kind::Written), ["bucket.renditions: the job's folder (1)"]);
    for none in [Kind::Secret, Kind::Egress, Kind::Disturbed] {
        assert!(cells(&video, who, none).is_empty());
    }
    assert!(!video.report.lateral.0.contains_key("transcoder"), "no other service");
    let radius = &video.report.attackers[&Profile::Service("transcoder".into())];
    assert_eq!(radius.lasts, Lasts::Job);
    // The one thing that it can have done: the api hears of its job, and may remove renditions on the authority of its person.
    assert_eq!(deputies(&video, who), ["service.api writes bucket.renditions: of the person in flight"]);
}

// N5
#[test]
fn a_taken_over_api_reaches_no_bytes_of_people_who_are_not_in_flight() {
    let video = predicted(VIDEO);
    for kind in [Kind::Read, Kind::Written] {
        let wide: Vec<String> = cells(&video, "service.api", kind).into_iter().filter(|cell| cell.contains("everybody")).collect();
        assert_eq!(wide, ["state.api: everybody's"], "its own folder, and no bucket");
    }
}

// L8: a flow that nothing serves is told, and nobody reaches anything by it.
#[test]
fn what_nothing_serves_is_told_and_reaches_nothing() {
    let told = predicted(SMALL).report;
    assert_eq!(told.unserved["front"].iter().collect::<Vec<_>>(), ["bucket.things:share"]);
    let without = predicted(&SMALL.replace("\"bucket.things:share for look\", ", "")).report;
    assert!(without.unserved.is_empty());
    assert_eq!(told.attackers, without.attackers);
}

// L12
#[test]
fn lateral_movement_is_exactly_the_declared_flows() {
    let video = parsed(VIDEO);
    let mut declared = Lateral::default();
    for (name, service) in &video.services {
        for flow in &service.flows {
            if let manifest::Flow::Call { service, method, path } = flow {
                declared.add(name, service, format!("{method} {path}"));
            }
        }
    }
    assert_eq!(predicted(VIDEO).report.lateral, declared);
    assert!(!declared.0.is_empty());
}

// L7, L8: worked out by hand from `SMALL`.
#[test]
fn a_small_system_has_the_radius_that_was_worked_out_by_hand() {
    let small = predicted(SMALL);
    // front: requests pass through it; it uploads for the person, and asks back for them.
    assert_eq!(
        cells(&small, "service.front", Kind::Read),
        ["files.front: in its own name", "service.back: of the person in flight", "service.front: of the person in flight"]
    );
    assert_eq!(
        cells(&small, "service.front", Kind::Written),
        ["bucket.things: of the person in flight", "service.front: of the person in flight"]
    );
    // back may read what front cannot; so front's deputy is back, and whoever hears of what front uploads.
    let person = ["bucket.things: of the person in flight"];
    assert_eq!(cells(&small, "service.back", Kind::Read)[..1], person);
    assert_eq!(
        deputies(&small, "service.front"),
        [
            "service.back reads bucket.things: of the person in flight",
            "service.worker reads bucket.things: the job's input object (1)",
            "service.worker does bucket.things verdict: the job's input object (1)"
        ]
    );
    // worker: its input, though it is not validated, as it is the validator; nothing else of that person.
    assert_eq!(
        cells(&small, "service.worker", Kind::Read),
        ["bucket.things: the job's input object (1)", "files.worker: in its own name", "queue.made: the message in hand"]
    );
    assert!(deputies(&small, "service.worker").is_empty());
    // From outside: sign-in and nothing of the system.
    let outside: Vec<String> = cells(&small, "external", Kind::Done).into_iter().filter(|c| !c.starts_with("role.login")).collect();
    assert!(outside.is_empty() && cells(&small, "external", Kind::Read).is_empty(), "{outside:?}");
    // A person: their own, by the one public service.
    assert_eq!(cells(&small, "person", Kind::Read), ["service.front: its own"]);
    assert_eq!(small.report.lateral.0.len(), 1);
    assert!(small.report.lateral.routes("front", "back").unwrap().contains("GET /things"));
}

// L7: a policy written by hand is asked like the others.
#[test]
fn a_policy_written_by_hand_widens_or_narrows_what_is_predicted() {
    let by_hand = |text: &str| BTreeMap::from([("more.cedar".to_owned(), text.to_owned())]);
    let all = "@id(\"all\")\n@reason(\"for a test of the prediction\")\npermit(principal == Workload::\"back\", action == Action::\"objectRead\", resource) when { resource.bucket == Bucket::\"things\" };";
    let wide = predict(&parsed(SMALL), &by_hand(all)).unwrap();
    assert!(cells(&wide, "service.back", Kind::Read).contains(&"bucket.things: everybody's".to_owned()));
    let own = "@id(\"own\")\nforbid(principal == Workload::\"back\", action == Action::\"objectRead\", resource) when { context has authority && !(resource has owner && resource.owner == context.authority.user) };";
    let narrow = predict(&parsed(SMALL), &by_hand(&format!("{all}\n{own}"))).unwrap();
    let read = cells(&narrow, "service.back", Kind::Read);
    assert!(read.contains(&"bucket.things: of the person in flight".to_owned()), "{read:?}");
    assert!(!read.contains(&"bucket.things: everybody's".to_owned()), "{read:?}");
}

// L7
#[test]
fn an_administrator_sees_and_changes_nothing_with_or_without_a_second_proof() {
    let video = predicted(VIDEO);
    for who in ["insider", "insider-mfa"] {
        let seen = cells(&video, who, Kind::Read);
        assert!(seen.contains(&"plane.audit: everybody's".to_owned()), "{seen:?}");
        assert!(!cells(&video, who, Kind::Written).iter().any(|cell| cell.contains("everybody")));
        assert!(!seen.iter().any(|cell| cell.starts_with("bucket.") || cell.starts_with("state.")), "{seen:?}");
    }
    assert!(!cells(&video, "person", Kind::Done).iter().any(|cell| cell.contains("/console")));
    assert_eq!(cells(&video, "vendor", Kind::Read), cells(&video, "person", Kind::Read));
}

#[test]
fn the_same_manifest_gives_the_same_bytes() {
    assert_eq!(predicted(VIDEO).report.to_json().unwrap(), predicted(VIDEO).report.to_json().unwrap());
}

// L8: every flow of the small systems in turn, and of the reference system those that a seed chooses.
#[test]
fn removing_a_flow_never_adds_reach() {
    for (text, every, seed) in [(SMALL, 1, 0), (shop::SHOP, 1, 0), (VIDEO, 5, 3)] {
        let whole = predicted(text).report;
        for (service, flow) in removable(text).into_iter().skip(seed).step_by(every) {
            let less = text.replacen(&flow, "", 1);
            let Ok(manifest) = Manifest::parse("palisade.toml", &less) else { continue };
            let less = predict(&manifest, &BTreeMap::new()).unwrap().report;
            let difference = crate::compare::compare(&whole, &less, crate::compare::Between::Revisions);
            assert!(!difference.fails(), "without {flow} of {service}: {:?}", difference.differences);
        }
    }
}

/// Texts of flows, each with its comma.
fn removable(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, service) in &parsed(text).services {
        for flow in &service.flows {
            let quoted = format!("\"{flow}");
            let Some(at) = text.find(&quoted) else { continue };
            let end = at + 1 + text[at + 1..].find('"').unwrap() + 1;
            let comma = text[end..].starts_with(',');
            all.push((name.clone(), text[at..end + usize::from(comma)].to_owned()));
        }
    }
    assert!(all.len() > 2);
    all
}

// B13, L8: what asks for a second proof stops everybody who has none, an administrator among them; who has one is let in.
#[test]
fn a_route_with_step_up_is_open_to_who_proved_a_second_factor_and_to_nobody_else() {
    let asking = SMALL.replace("scope = \"things\" } ]", "scope = \"things\", step_up = true } ]");
    assert_ne!(asking, SMALL);
    let (before, after) = (predicted(SMALL), predicted(&asking));
    let has = |prediction: &Prediction, who: &str| {
        cells(prediction, who, Kind::Done).iter().any(|cell| cell.contains("service.front POST /list"))
    };
    for who in ["person", "vendor", "insider", "insider-mfa"] {
        assert!(has(&before, who), "{who}");
        assert_eq!(has(&after, who), who == "insider-mfa", "{who}");
    }
}
