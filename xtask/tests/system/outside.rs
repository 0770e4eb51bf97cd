//! D10: a service in a real sandbox reaches a declared destination outside, and nothing else.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use xtask::artefacts::{Artefacts, PACKAGES};
use xtask::demo::Scratch;
use xtask::running::Setting;

use crate::{Stage, certificates};

/// The shop's process; it ends with the test.
struct Shop(Child);

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn manifest(port: u16) -> String {
    format!(
        r#"
[system]
name = "buying"
trust_domain = "buying.example"
purposes = ["buy"]

[data.words]
sensitivity = 1

[service.front]
owner = "buying"
run = ["/usr/bin/python3", "outside/caller.py"]
files = ["outside"]
data = "words"
public = [
  {{ path = "/", methods = ["GET"], purpose = "buy", page = true }},
  {{ path = "/buy", methods = ["GET"], purpose = "buy" }},
  {{ path = "/near", methods = ["GET"], purpose = "buy" }},
]
calls = ["egress.shop:POST /v1/charges", "egress.near:POST /v1/charges"]

[service.other]
owner = "buying"
run = ["/usr/bin/python3", "outside/caller.py"]
files = ["outside"]
data = "words"
public = [{{ path = "/other", methods = ["GET"], purpose = "buy" }}]

[egress.shop]
host = "localhost"
port = {port}
data = "words"
root = "tls/shop.pem"
networks = ["127.0.0.0/8", "::1"]
credential = {{ header = "authorization", file = "shop.token" }}

[egress.near]              # the same place, without leave to be so near
host = "localhost"
port = {port}
data = "words"
root = "tls/shop.pem"
"#
    )
}

fn give(path: &Path, secret: &str) {
    std::fs::write(path, format!("Bearer {secret}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

// D10
#[test]
fn a_service_reaches_a_declared_destination_and_its_neighbour_reaches_nothing() {
    let scratch = Scratch::new().unwrap();
    let (bin, apps, told) = (scratch.0.join("bin"), scratch.0.join("apps"), scratch.0.join("told.jsonl"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/outside");
    for folder in [bin.clone(), apps.join("outside"), apps.join("tls")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let built = Artefacts::beside_us().unwrap();
    for program in PACKAGES {
        std::fs::copy(built.bin.join(program), bin.join(program)).unwrap();
    }
    std::fs::copy(here.join("caller.py"), apps.join("outside/caller.py")).unwrap();
    certificates::certificate(&apps.join("tls"), "shop", &["localhost"]);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(here.join("shop.py")).arg(apps.join("tls/shop.pem")).arg(apps.join("tls/shop.key")).arg(&told);
    let mut shop = Shop(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(shop.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    std::fs::write(apps.join("palisade.toml"), manifest(line.trim().parse().unwrap())).unwrap();
    xtask::tree::run(Command::new("chmod").args(["-R", "u+rwX,go+rX"]).arg(&scratch.0)).unwrap();
    let token = apps.join("shop.token");
    give(&token, "operators-first-secret");
    let (manifest, dir) = (apps.join("palisade.toml"), scratch.0.join("system"));
    let stage = Stage::set_with(scratch, Setting { manifest, dir, palisade: bin.join("palisade"), user: None, more: Vec::new() });

    let mut check = Command::new(&stage.running.palisade);
    let listed = xtask::tree::output(check.args(["check", "--manifest"]).arg(&stage.setting.manifest)).unwrap();
    assert!(listed.contains("egress.near: localhost:") && listed.contains("may have 'words'"), "{listed}");
    let ask = |path: &str| -> Value {
        let answer = stage.ada.curl.page(path).unwrap();
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}: {}", answer.status, answer.text()))
    };
    assert_eq!(ask("/buy"), json!({ "status": 200, "text": "thank you" }), "{}", stage.log("guard-front"));
    let last = || -> Value { serde_json::from_str(std::fs::read_to_string(&told).unwrap().lines().last().unwrap()).unwrap() };
    let seen = last();
    assert_eq!((&seen["path"], &seen["body"]), (&json!("/v1/charges"), &json!("7 coins")));
    assert_eq!(seen["fields"]["authorization"], "Bearer operators-first-secret");
    assert_eq!(seen["fields"]["host"], format!("localhost:{}", line.trim()));
    assert!(seen["fields"].get("txn-token").is_none() && seen["fields"].get("traceparent").is_none(), "{seen}");
    // Another secret in the file: no restart, no signal.
    give(&token, "operators-second-secret");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(ask("/buy")["status"], 200);
    assert_eq!(last()["fields"]["authorization"], "Bearer operators-second-secret");

    let near = ask("/near");
    assert!(near["status"] == 403 && near["text"].as_str().unwrap().contains("address_forbidden"), "{near}");
    let other = ask("/other");
    assert_eq!(other["absent"], "SHOP_URL");
    // Landlock refuses it where the kernel can; else nobody listens there.
    assert!(other["port"] == "PermissionError" || other["port"] == "ConnectionRefusedError", "{other}");
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().count(), 2);

    let audit = stage.audit();
    let decided = |outcome: &str| audit.lines().any(|line| line.contains("\"point\":\"egress\"") && line.contains(outcome));
    assert!(decided("flow.front.egress.shop.POST /v1/charges") && decided("address_forbidden"));
    stage.counted("to shop");
    let everything = stage.running.dir.clone();
    stage.running.stop().unwrap();
    let found = Command::new("grep").args(["-rl", "operators-.*-secret"]).arg(&everything).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the credential is kept nowhere");
}
