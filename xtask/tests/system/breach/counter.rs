//! Breaking into a system whose services speak gRPC and a protocol of their own: L8, L12, D8.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;

use super::{as_nobody, reached};

/// Somebody looks at the menu and pays at the counter, the ledger books it and has the drawer opened.
const COUNTER: &str = r#"
[system]
name = "counter"
trust_domain = "counter.example"
purposes = ["pay"]

[edge]
listen = "127.0.0.1:9443"
hosts = ["127.0.0.1"]

[data.money]
sensitivity = 2

[service.front]
run = ["./stand-in"]
data = "money"
public = [{ path = "/pay/{id}", methods = ["POST"], purpose = "pay", scope = "paying" }]
calls = ["service.ledger:POST /counter.Ledger/Book"]

[service.menu]
run = ["./stand-in"]
protocol = "grpc"
data = "money"
public = [{ path = "/counter.Menu/Show", methods = ["POST"], purpose = "pay", scope = "paying" }]

[service.ledger]
run = ["./stand-in"]
protocol = "grpc"
data = "money"
internal = [
  { path = "/counter.Ledger/Book", methods = ["POST"], purpose = "pay" },
  { path = "/counter.Ledger/Void", methods = ["POST"], purpose = "pay" },
]
calls = ["service.drawer:tcp", "bucket.receipts:write for pay"]

[service.drawer]
run = ["./stand-in"]
protocol = "tcp"
data = "money"

[bucket.receipts]
data = "money"
clean_from = ["ledger"]
max_object = "1MiB"
types = ["text/plain"]
"#;

// L8, L12: what speaks gRPC or a raw protocol is played like everybody else, and every cell is as predicted.
#[test]
fn what_is_measured_of_services_that_speak_grpc_and_raw_tcp_is_what_is_predicted() {
    let scratch = Scratch::new().unwrap();
    let folder = scratch.0.join("counter");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = folder.join("palisade.toml");
    std::fs::write(&manifest, COUNTER).unwrap();
    std::fs::write(folder.join("stand-in"), "#!/bin/false\n").unwrap();
    std::fs::set_permissions(folder.join("stand-in"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let palisade = scratch.0.join("palisade");
    std::fs::copy(Artefacts::beside_us().unwrap().palisade(), &palisade).unwrap();
    let services = ["front", "menu", "ledger", "drawer"];
    let only: Vec<&str> = services.iter().flat_map(|service| ["--only", service]).collect();
    let output = as_nobody(&scratch, &palisade, &manifest, &only);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{complaints}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let report = &told["report"];
    assert_eq!(told["comparison"]["differences"], serde_json::json!([]), "prediction and measurement differ");
    assert!(output.status.success(), "{complaints}");

    let has = |service: &str, kind: &str, cell: &str| {
        let cells = reached(report, &format!("service.{service}"), kind);
        assert!(cells.contains(cell), "{service} {kind} {cell}: {cells:?}");
    };
    has("front", "done", "service.ledger POST /counter.Ledger/Book in-flight");
    has("menu", "read", "service.menu  in-flight");
    has("ledger", "read", "service.ledger  in-flight");
    has("ledger", "written", "bucket.receipts  in-flight");
    has("ledger", "done", "service.drawer TCP / standing");
    has("drawer", "read", "service.drawer  standing");
    let movement = serde_json::json!({ "front": { "ledger": ["POST /counter.Ledger/Book"] }, "ledger": { "drawer": ["TCP /"] } });
    assert_eq!(report["lateral"], movement);
    // Each was really taken over, and had something to be refused.
    for (who, technique) in [
        ("front", "routes-of-others"),
        ("front", "forged"),
        ("front", "after"),
        ("ledger", "routes-of-others"),
        ("ledger", "standing"),
        ("ledger", "replay"),
        ("menu", "tracing"),
        ("drawer", "files"),
    ] {
        let of = |attempt: &&Value| attempt["profile"] == format!("service.{who}") && attempt["technique"] == technique;
        let stopped = report["attempts"].as_array().unwrap().iter().filter(of).any(|one| one["outcome"]["end"] == "stopped");
        assert!(stopped, "{who} was not refused {technique}");
    }
    // What speaks gRPC to the edge is a neighbour like everybody else.
    let pressed = |one: &&Value| one["profile"] == "service.ledger" && one["neighbour"] == "service.menu";
    let neighbour = report["neighbours"].as_array().unwrap().iter().find(pressed).expect("the menu was asked while the ledger pressed");
    assert!(neighbour["during"]["requests"].as_u64().unwrap() > 0 && neighbour["quiet"]["errors"] == 0, "{neighbour}");
}
