#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::*;
use crate::predict::tests::{VIDEO, predicted};
use crate::report::Extent;

fn service(name: &str) -> Profile {
    Profile::Service(name.into())
}

// L13: worked out by hand for the reference system.
#[test]
fn what_one_control_alone_protects_is_listed_with_for_whom() {
    let prediction = predicted(VIDEO);
    let defence: BTreeMap<String, Protected> = prediction.defence().into_iter().map(|p| (p.target.clone(), p)).collect();
    // The same person's other uploads are kept from the transcoder by the job's token, and by nothing else.
    let originals = &defence["bucket.originals"];
    assert!(originals.alone[&Control::JobToken].contains(&service("transcoder")), "{originals:?}");
    // Uploads that nobody has looked at: by the quarantine.
    let early = &defence["bucket.originals before its verdict"];
    assert_eq!(early.alone.keys().copied().collect::<Vec<_>>(), [Control::Quarantine], "{early:?}");
    // The catalogue is another's folder: files by namespace and by Landlock, each alone would do.
    let state = &defence["state.api"];
    assert!(state.controls.contains(&Control::Landlock) && state.controls.contains(&Control::MountNamespace));
    assert!(state.alone.is_empty(), "{state:?}");
    // Addresses that no flow leads to.
    assert!(defence["outside"].alone.is_empty(), "{:?}", defence["outside"]);
}

// L13
#[test]
fn leaving_one_control_out_widens_the_radius_by_what_it_alone_protects_and_nothing_else() {
    let prediction = predicted(VIDEO);
    let wider = prediction.without(Control::JobToken);
    let other = Cell::read("bucket.originals", Extent::InFlight);
    assert!(!prediction.report.attackers[&service("transcoder")].reached.contains_key(&other));
    assert!(wider.attackers[&service("transcoder")].reached.contains_key(&other));
    assert_eq!(wider.attackers[&service("web")], prediction.report.attackers[&service("web")], "it has no job");
    for control in [Control::NetworkNamespace, Control::MountNamespace] {
        assert_eq!(prediction.without(control).attackers, prediction.report.attackers, "{control} has another behind it");
    }
    // An answer is something that nobody outside should have; behind it stand policies, so that no data is.
    let mut answered = prediction.report.attackers.clone();
    let answer = Cell::done(crate::report::LISTENERS, "answer", Extent::Public);
    answered.get_mut(&Profile::External).unwrap().add(answer, "without mtls");
    assert_eq!(prediction.without(Control::Mtls).attackers, answered);
}

// L13
#[test]
fn a_service_without_namespaces_has_fewer_controls_between_it_and_others() {
    let confined = VIDEO.replace("tools = [\"/usr/bin/ffmpeg\"", "isolation = \"confined\"\ntools = [\"/usr/bin/ffmpeg\"");
    assert_ne!(confined, VIDEO);
    let defence: BTreeMap<String, Protected> = predicted(&confined).defence().into_iter().map(|p| (p.target.clone(), p)).collect();
    assert!(defence["state.api"].alone[&Control::Landlock].contains(&service("transcoder")));
    assert!(!defence["state.api"].alone[&Control::Landlock].contains(&service("validator")));
}
