//! Insiders with and without a second proof, where a manifest asks for one: B13, L7, L8.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;

use super::{as_nobody, reached};

/// A ledger: anybody may read, closing a year takes a second proof.
const LEDGER: &str = r#"
[system]
name = "ledger"
trust_domain = "ledger.example"
purposes = ["keep"]

[edge]
listen = "127.0.0.1:9443"
hosts = ["127.0.0.1"]

[data.books]
sensitivity = 2

[service.ledger]
run = ["./stand-in"]
data = "books"
public = [
  { path = "/years/{id}", methods = ["GET"], purpose = "keep" },
  { path = "/years/{id}", methods = ["DELETE"], purpose = "keep", step_up = true },
]
"#;

/// The ledger in a folder of its own, with the program that breaks in.
fn opened(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let folder = scratch.0.join("ledger");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = folder.join("palisade.toml");
    std::fs::write(&manifest, LEDGER).unwrap();
    std::fs::write(folder.join("stand-in"), "#!/bin/false\n").unwrap();
    std::fs::set_permissions(folder.join("stand-in"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let palisade = scratch.0.join("palisade");
    std::fs::copy(Artefacts::beside_us().unwrap().palisade(), &palisade).unwrap();
    (palisade, manifest)
}

// L13, B13: a gateway that asks for no second proof is found by whoever has none to give.
#[test]
fn a_gateway_that_asks_for_no_second_proof_is_found() {
    let scratch = Scratch::new().unwrap();
    let (palisade, manifest) = opened(&scratch);
    let options = ["--dangerous-without", "step-up", "--profile", "person", "--profile", "insider", "--only", "cross-person"];
    let absent = crate::switched::came_of(&as_nobody(&scratch, &palisade, &manifest, &options));
    let one = crate::switched::of(&absent, "step-up");
    assert_eq!(crate::switched::listed(one), ["service.ledger"].into());
    assert_eq!(crate::switched::reached(one), ["service.ledger"].into(), "and nothing else");
}

// B13, L7, L8: an administrator's session of before and their password are stopped where a second proof is asked for; who has just given
// one is not. All cells are as predicted, and the one difference between the two is that route.
#[test]
fn an_insider_is_stopped_by_step_up_and_one_with_the_second_factor_is_not() {
    let scratch = Scratch::new().unwrap();
    let (palisade, manifest) = opened(&scratch);
    let people = ["person", "insider", "insider-mfa"];
    let only: Vec<&str> = people.iter().flat_map(|who| ["--profile", who]).collect();
    let output = as_nobody(&scratch, &palisade, &manifest, &only);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{complaints}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let report = &told["report"];
    assert_eq!(told["comparison"]["differences"], serde_json::json!([]), "prediction and measurement differ");
    assert!(output.status.success(), "{complaints}");

    let done = |who: &str| reached(report, who, "done");
    let more: Vec<String> = done("insider-mfa").difference(&done("insider")).cloned().collect();
    assert_eq!(more, ["service.ledger DELETE /years/{id} own"]);
    assert!(done("insider").is_subset(&done("insider-mfa")) && done("insider").contains("role.evidence GET /console everybody"));
    assert!(
        done("person").contains("service.ledger GET /years/{id} own") && !done("person").contains("service.ledger DELETE /years/{id} own")
    );
    let attempts = report["attempts"].as_array().unwrap();
    let by = |who: &str, technique: &str, control: &str| {
        attempts.iter().find(|a| a["profile"] == who && a["technique"] == technique && a["outcome"]["by"] == control)
    };
    for who in ["person", "insider"] {
        let stopped = by(who, "cross-person", "step-up").unwrap_or_else(|| panic!("{who} was not stopped: {attempts:?}"));
        assert_eq!(stopped["detected"]["event"], "step_up_missing", "{stopped}");
    }
    assert!(by("insider-mfa", "cross-person", "step-up").is_none());
    let password = by("insider", "insider", "sign-in").unwrap_or_else(|| panic!("the password alone was not tried: {attempts:?}"));
    assert!(password["seen"].as_str().unwrap().contains("a code is asked for"), "{password}");
}
