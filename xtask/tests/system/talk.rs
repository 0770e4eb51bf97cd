//! Protocols besides plain requests, with services in real sandboxes: A18, D8.
//!
//! `talk/` has three small programs without a line of security code: one in front, one behind it, and a server of a line protocol;
//! and a client that speaks as a browser does, over TLS with a session's cookie.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use xtask::artefacts::{Artefacts, PACKAGES};
use xtask::demo::Scratch;
use xtask::running::Setting;

use crate::Stage;

const MANIFEST: &str = r#"
[system]
name = "talk"
trust_domain = "talk.example"
purposes = ["talk"]

[data.words]
sensitivity = 1

[service.front]
owner = "talk"
run = ["/usr/bin/python3", "talk/front.py"]
files = ["talk"]
data = "words"
public = [
  { path = "/", methods = ["GET"], purpose = "talk", page = true },
  { path = "/live", methods = ["GET"], purpose = "talk", websocket = true },
  { path = "/events", methods = ["GET"], purpose = "talk" },
  { path = "/line", methods = ["GET"], purpose = "talk" },
]
calls = ["service.back:GET /live", "service.lines:tcp"]

[service.back]
owner = "talk"
run = ["/usr/bin/python3", "talk/back.py"]
files = ["talk"]
data = "words"
internal = [{ path = "/live", methods = ["GET"], purpose = "talk", websocket = true }]

[service.lines]
owner = "talk"
run = ["/usr/bin/python3", "talk/lines.py"]
files = ["talk"]
protocol = "tcp"
data = "words"
"#;

fn stage() -> Stage {
    let scratch = Scratch::new().unwrap();
    let (bin, apps) = (scratch.0.join("bin"), scratch.0.join("apps"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(apps.join("talk")).unwrap();
    let built = Artefacts::beside_us().unwrap();
    for program in PACKAGES {
        std::fs::copy(built.bin.join(program), bin.join(program)).unwrap();
    }
    for program in ["front.py", "back.py", "lines.py", "frames.py"] {
        std::fs::copy(here().join(program), apps.join("talk").join(program)).unwrap();
    }
    std::fs::write(apps.join("palisade.toml"), MANIFEST).unwrap();
    xtask::tree::run(Command::new("chmod").args(["-R", "u+rwX,go+rX"]).arg(&scratch.0)).unwrap();
    let (manifest, dir) = (apps.join("palisade.toml"), scratch.0.join("system"));
    Stage::set_with(scratch, Setting { manifest, dir, palisade: bin.join("palisade"), user: None, more: Vec::new() })
}

fn here() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/talk")
}

/// The session's cookie, as the browser sends it.
fn cookie(stage: &Stage) -> String {
    let jar = std::fs::read_to_string(stage.scratch.0.join("ada.cookies")).unwrap();
    let session = jar.lines().find(|line| line.contains("\t__Host-palisade\t")).expect("a session");
    let fields: Vec<&str> = session.split('\t').collect();
    format!("{}={}", fields[5], fields[6])
}

// A18, D8, A14: browser → edge → guard → service → guard → guard → service, and back.
#[test]
fn a_websocket_and_events_pass_edge_and_two_guards() {
    let stage = stage();
    let mut client = Command::new("/usr/bin/python3");
    client.arg(here().join("client.py")).arg(&stage.running.address).arg(&stage.running.certificate).arg(cookie(&stage)).arg("1000");
    let said: Value = serde_json::from_str(&xtask::tree::output(&mut client).unwrap()).unwrap();
    println!("{said:#}");
    let closed = json!([8, "03e8"]);
    let expected = json!({ "status": "101", "right": 1_000, "large_right": true, "close": closed, "rest": 0 });
    assert_eq!(said["talk"], expected, "{}", stage.log("guard-front"));
    assert_eq!((&said["events"]["status"], &said["events"]["events"]), (&json!("200"), &json!(5)));
    // Each event came before the next was made: nothing waited for the end of the answer.
    assert!(said["events"]["late_s"].as_f64().unwrap() < 2.0, "{said}");
    assert_eq!((&said["foreign"], &said["undeclared"], &said["stranger"]), (&json!("403"), &json!("403"), &json!("401")));
    // Through two guards to a server that speaks no HTTP, half-closed before its answers.
    let heard = stage.ada.curl.page("/line?say=hello").unwrap();
    assert_eq!((heard.status, heard.text().as_str()), (200, "heard hello\nheard second\n2 lines\n"), "{}", stage.log("guard-lines"));
    let audit = stage.audit();
    let ended =
        |point: &str| audit.lines().any(|line| line.contains("\"TunnelEnded\"") && line.contains(&format!("\"point\":\"{point}\"")));
    assert!(ended("edge") && ended("guard") && ended("guard.out"), "every hop has recorded the end");
    assert!(audit.contains("upgrade_unlisted") && audit.contains("cross_site"));
    stage.running.stop().unwrap();
}
