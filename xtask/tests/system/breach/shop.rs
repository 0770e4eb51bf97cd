//! Breaking into a system that has nothing in common with the reference system but what every system has: L8, N10.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::demo::Scratch;

use super::{as_nobody, reached};

/// A corner shop: somebody orders at the front, the desk writes the receipt and passes the order on, the till charges a card outside, the
/// books are kept of what was paid, with the till's slips. None of its programs exists: the attacker plays them all.
const SHOP: &str = r#"
[system]
name = "corner-shop"
trust_domain = "corner.example"
purposes = ["look", "buy", "settle"]

[edge]
listen = "127.0.0.1:9443"
hosts = ["127.0.0.1"]

[data.shelf]
sensitivity = 1
[data.money]
sensitivity = 3

[service.storefront]
run = ["./stand-in"]
data = "money"
public = [
  { path = "/", methods = ["GET"], purpose = "look", page = true },
  { path = "/basket/{id}/order", methods = ["POST"], purpose = "buy", scope = "shopping" },
  { path = "/paper/{id}", methods = ["GET"], purpose = "look", scope = "shopping" },
]
calls = ["service.order-desk:POST /orders", "bucket.slips:presign-get for look"]

[service.order-desk]
run = ["./stand-in"]
state = true
data = "money"
internal = [ { path = "/orders", methods = ["POST"], purpose = "buy" } ]
calls = ["queue.placed:publish for buy", "bucket.slips:write for buy"]

[service.till]
run = ["./stand-in"]
data = "money"
consumes = "queue.placed"
syscalls = "lists/till.syscalls"
calls = [
  "egress.acquirer:POST /charges for settle",
  "queue.settled:publish for settle",
  "bucket.slips:write for settle",
  "secret.terminal:read",
]

[service.books]
run = ["./stand-in"]
state = true
data = "money"
consumes = "queue.settled"
calls = ["bucket.slips:read for settle"]

[bucket.slips]
data = "money"
clean_from = ["order-desk", "till"]
max_object = "1MiB"
types = ["text/plain"]

[queue.placed]
data = "money"
purpose = "settle"
[queue.settled]
data = "money"
purpose = "settle"

[secret.terminal]
data = "money"

[egress.acquirer]
host = "acquirer.example"
data = "money"
credential = { header = "authorization", file = "secrets/acquirer" }
"#;

/// The shop in a folder of its own, with the program that breaks in.
fn opened(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let folder = scratch.0.join("shop");
    for part in ["lists", "secrets"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    let manifest = folder.join("palisade.toml");
    std::fs::write(&manifest, SHOP).unwrap();
    std::fs::write(folder.join("stand-in"), "#!/bin/false\n").unwrap();
    std::fs::set_permissions(folder.join("stand-in"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("lists/till.syscalls"), "openat\nclock_nanosleep\n").unwrap();
    std::fs::write(folder.join("secrets/acquirer"), "Bearer of-the-operator\n").unwrap();
    std::fs::set_permissions(folder.join("secrets/acquirer"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let palisade = scratch.0.join("palisade");
    std::fs::copy(Artefacts::beside_us().unwrap().palisade(), &palisade).unwrap();
    (palisade, manifest)
}

// L8, N10: of a system with other names, other routes, jobs without an input and a way out, every cell is as predicted, too.
#[test]
fn what_is_measured_in_another_system_is_what_its_manifest_predicts() {
    let scratch = Scratch::new().unwrap();
    let (palisade, manifest) = opened(&scratch);
    let services = ["storefront", "order-desk", "till", "books"];
    let only: Vec<&str> = services.iter().flat_map(|service| ["--only", service]).collect();
    let output = as_nobody(&scratch, &palisade, &manifest, &only);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{complaints}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let report = &told["report"];
    assert_eq!(told["comparison"]["differences"], serde_json::json!([]), "prediction and measurement differ");
    assert!(output.status.success(), "{complaints}");

    // And it was reached, not only predicted: each kind of thing that this system has.
    let has = |service: &str, kind: &str, cell: &str| {
        let cells = reached(report, &format!("service.{service}"), kind);
        assert!(cells.contains(cell), "{service} {kind} {cell}: {cells:?}");
    };
    has("storefront", "read", "bucket.slips  in-flight");
    has("storefront", "done", "service.order-desk POST /orders in-flight");
    has("order-desk", "written", "bucket.slips  in-flight");
    has("order-desk", "done", "queue.placed publish in-flight");
    has("till", "read", "queue.placed  job");
    // Jobs without an input have no folder that would bound them: what the person has is theirs, and so it was predicted.
    has("till", "written", "bucket.slips  in-flight");
    has("books", "read", "bucket.slips  in-flight");
    // Declared, and served by nothing: told, and no difference.
    assert_eq!(report["unserved"], serde_json::json!({ "till": ["secret.terminal:read"] }));
    assert_eq!(reached(report, "service.till", "secret"), std::collections::BTreeSet::new());
    has("till", "egress", "egress.acquirer POST /charges in-flight");
    assert_eq!(reached(report, "service.storefront", "egress"), std::collections::BTreeSet::new(), "the till alone has a way out");
    assert_eq!(report["lateral"], serde_json::json!({ "storefront": { "order-desk": ["POST /orders"] } }));
    // A list as short as that is only the attacker's own need.
    let beyond: Vec<&str> = report["beyond"]["till"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(beyond.contains(&"socket") && !beyond.contains(&"openat") && !beyond.contains(&"getdents64"), "{beyond:?}");
}

// L13, D10: a guard that lets its service name the destination is found by who comes there. (With its list nobody comes: that is above.)
#[test]
fn a_guard_without_its_list_of_destinations_is_found_by_whoever_is_there() {
    let scratch = Scratch::new().unwrap();
    let (palisade, manifest) = opened(&scratch);
    let options = ["--dangerous-without", "egress-list@till", "--only", "till", "--only", "other-destinations", "--only", "own-work"];
    let absent = crate::switched::came_of(&as_nobody(&scratch, &palisade, &manifest, &options));
    let one = crate::switched::of(&absent, "egress-list@till");
    assert_eq!(crate::switched::listed(one), ["outside"].into());
    assert_eq!(crate::switched::reached(one), ["outside"].into());
}
