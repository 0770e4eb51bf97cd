//! Where switches are refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use telemetry::{MemorySink, Metrics};
use trust::{SystemClock, SystemEntropy};

use super::*;

fn switches(texts: &[&str]) -> Result<Vec<DangerousSwitch>, String> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    dangerous_switches(&texts, &BTreeSet::from(["api", "web"]))
}

// L13: whoever starts a process with a switch anywhere but in a copy is refused, whatever its folder is called.
#[test]
fn a_process_that_is_told_to_go_without_a_control_does_not_start_outside_of_a_copy() {
    let sink = Arc::new(MemorySink::default());
    let recorder = Recorder::new(sink.clone(), SystemClock::shared(), SystemEntropy::shared(), Arc::new(Metrics::new()));
    let domain = trust::TrustDomain::parse("test.example").unwrap();
    let boot = |dir: &str, without: BTreeSet<Control>| Boot {
        spiffe_id: domain.service("api"),
        trust_domain: domain.clone(),
        dir: dir.into(),
        identity_socket: "identity.sock".into(),
        token: String::new(),
        roots: Vec::new(),
        addresses: BTreeMap::new(),
        listeners: Vec::new(),
        artefacts: Vec::new(),
        sealing_key: String::new(),
        dangerous_without: without,
        settings: serde_json::Value::Null,
    };
    for dir in ["/var/lib/palisade/data/guard-api", "/tmp/palisade-breach-0123456789abcdef/system/data/guard-api"] {
        for (control, _) in DangerousSwitch::all() {
            let refused = admit(&boot(dir, BTreeSet::from([control])), &recorder).unwrap_err();
            assert!(matches!(&refused, StartError::Refused(why) if why.contains(control.as_str())), "{refused}");
        }
        // Without one nothing is asked, and nothing said.
        admit(&boot(dir, BTreeSet::new()), &recorder).unwrap();
    }
    // What is not said is not written, so that a description of a system that somebody relies on does not know of switches at all.
    let text = serde_json::to_string(&boot("/x", BTreeSet::new())).unwrap();
    assert!(!text.contains("dangerous"), "{text}");
}

#[test]
fn a_switch_is_one_control_at_one_place_and_never_two_walls_of_one_sandbox() {
    let good = [
        "seccomp",
        "landlock@web",
        "policy@objects",
        "policy@api",
        "lease",
        "lease@objects",
        "transaction-token@web",
        "limits@edge",
        "sign-in",
        "scope@edge",
        "mtls@login",
        "mtls@web",
        "guard-in@api",
        "job-token",
        "quarantine@objects",
        "sealing@identity",
        "audit-chain",
        "artefact-digest@web",
        "egress-list@api",
    ];
    for text in good {
        assert_eq!(switches(&[text]).unwrap().first().unwrap().to_string(), text);
    }
    let bad = [
        "",
        "user-namespace",
        "process-namespace",
        "no-new-privileges",
        "file-modes",
        "peer-credentials",
        "input-parser",
        "seccomp@objects",
        "lease@web",
        "policy@edge",
        "sign-in@web",
        "mtls@edge",
        "sealing@objects",
        "job-token@queue",
        "seccomp@nobody",
        "@web",
        "seccomp@",
    ];
    for text in bad {
        assert!(switches(&[text]).is_err(), "{text}");
    }
    assert!(switches(&["seccomp@api", "landlock@web", "policy@queue"]).is_ok());
    for two in [["seccomp@api", "landlock@api"], ["seccomp", "landlock@web"], ["limits", "mount-namespace"]] {
        assert!(switches(&two).unwrap_err().contains("one wall"));
    }
    assert!(switches(&["limits@edge", "seccomp"]).is_ok());
    assert!(switches(&["policy@objects", "job-token"]).unwrap_err().contains("one part"));
    assert!(switches(&["policy@queue", "job-token"]).is_ok());
}

#[test]
fn a_switch_reaches_the_members_that_make_its_control_and_no_other() {
    let of = |text: &str, member: &str| !dangerous_of(&switches(&[text]).unwrap(), member).is_empty();
    for (text, member, concerns) in [
        ("seccomp", "guard-web", true),
        ("seccomp@web", "guard-web.2", true),
        ("seccomp@web", "guard-api", false),
        ("seccomp", "objects", false),
        ("policy", "guard-api", true),
        ("policy", "objects", true),
        ("policy", "edge", false),
        ("policy@objects", "guard-api", false),
        ("policy@objects", "queue", false),
        ("lease", "objects", true),
        ("lease", "queue", false),
        ("fresh-sandbox", "control", false),
        ("limits", "edge", true),
        ("limits@edge", "guard-web", false),
        ("mtls", "guard-api", true),
        ("mtls", "queue", true),
        ("mtls", "edge", false),
        ("sealing", "identity", true),
        ("sealing", "guard-api", false),
        ("sign-in", "edge", true),
        ("audit-chain", "evidence", true),
    ] {
        assert_eq!(of(text, member), concerns, "{text} {member}");
    }
}
