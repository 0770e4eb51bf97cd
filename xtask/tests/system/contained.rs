//! Containment, from the inside: D7, D10, I2, I3, I4, I11, H5, G9, F8, and the fourth point.
//!
//! `attacker.py` is put in a program's place and reports what it reached; this side compares that with what the manifest declares.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::artefacts::Artefacts;
use xtask::curl::Ask;
use xtask::demo::Scratch;
use xtask::running::Setting;

use crate::{READY, Stage};

/// What nobody inside a sandbox may ever come across.
const CANARY: &str = "canary-7c1f0b52";

pub use xtask::copied::UNLISTED;

/// The reference system in a folder of its own, with `replace` done to its manifest: programs, manifest and page, readable for any user.
pub fn copied(scratch: &Scratch, replace: &[(&str, &str)]) -> Setting {
    xtask::copied::reference(&scratch.0, &Artefacts::beside_us().unwrap(), replace).unwrap()
}

/// Doors outside of every sandbox that the attacker knows of, and that notice who comes in.
struct Doors {
    tcp: std::net::TcpListener,
    named: std::os::unix::net::UnixListener,
}

impl Doors {
    fn open() -> Self {
        let name = format!("palisade-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let doors = Self {
            tcp: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            named: std::os::unix::net::UnixListener::bind_addr(&address).unwrap(),
        };
        doors.tcp.set_nonblocking(true).unwrap();
        doors.named.set_nonblocking(true).unwrap();
        doors
    }

    fn assert_nobody_came(&self) {
        assert!(self.tcp.accept().is_err(), "somebody inside reached a port of this machine");
        assert!(self.named.accept().is_err(), "somebody inside reached an abstract socket of this machine");
        // They do notice.
        let _caller = std::net::TcpStream::connect(self.tcp.local_addr().unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(self.tcp.accept().is_ok());
    }
}

/// Files and sockets that the attacker tries; each is there while the system runs.
fn targets_of(dir: &Path, manifest: &Path) -> (Vec<String>, Vec<String>) {
    let mut files: Vec<String> =
        ["/etc/shadow", "/etc/hostname", "/root", "/home", "/var", "/proc/1/environ", "/proc/1/root", "/proc/1/mem", "/sys/kernel"]
            .map(str::to_owned)
            .to_vec();
    files.push(manifest.display().to_string());
    for part in [
        "",
        "keys",
        "data",
        "log",
        "run",
        "palisade.lock",
        "data/objects",
        "data/queue",
        "data/evidence",
        "data/login",
        "data/identity",
        "data/guard-api",
    ] {
        files.push(dir.join(part).display().to_string());
    }
    let sockets = ["identity", "control", "login", "evidence"].map(|role| dir.join(format!("run/{role}.sock")).display().to_string());
    (files, sockets.to_vec())
}

/// Puts the attacker and what it should try beside the manifest.
fn armed(setting: &Setting, doors: &Doors) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/attacker.py");
    let folder = setting.manifest.parent().unwrap().join("attacker");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(here, folder.join("attacker.py")).unwrap();
    let (files, sockets) = targets_of(&setting.dir, &setting.manifest);
    let targets = json!({
        "canary": CANARY,
        "files": files,
        "sockets": sockets,
        "hosts": ["127.0.0.2", "::1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "1.1.1.1"],
        "listener": doors.tcp.local_addr().unwrap().port(),
        "abstract": doors.named.local_addr().unwrap().as_abstract_name().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap(),
        "hold_s": 6,
    });
    std::fs::write(folder.join("targets.json"), targets.to_string()).unwrap();
    xtask::tree::run(std::process::Command::new("chmod").args(["-R", "755"]).arg(&folder)).unwrap();
}

/// Waits for a line of the attacker in a guard's log.
fn finding(stage: &Stage, guard: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    while start.elapsed() < READY {
        let log = stage.log(guard);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let said = lines.filter_map(|line| serde_json::from_str::<Value>(line["fields"]["service_line"].as_str()?).ok());
        if let Some(found) = said.filter(|line| line.get("finding").is_some()).find(|line| fits(line)) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the attacker did not report; log of {guard}: {}", stage.log(guard));
}

/// What every sandbox shows besides `/usr`: for the dynamic linker, and names of its own making.
const GIVEN: &[&str] = &[
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d/",
    "alternatives/",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "hosts",
    "passwd",
    "group",
];

/// What a probe from inside may have reached: nothing but the given ports of its own loopback.
fn assert_contained(probe: &Value, ports: &BTreeSet<u64>) {
    println!("probe: {probe}");
    let walked = probe["walked"].as_array().unwrap().iter().filter_map(Value::as_str);
    let strange: Vec<&str> =
        walked.filter(|path| !GIVEN.iter().any(|given| path.strip_prefix("/etc/").is_some_and(|p| p.starts_with(given)))).collect();
    assert_eq!(strange, Vec::<&str>::new(), "files that were not declared can be opened");
    for nothing in ["opened", "secret_files", "written", "spied", "calls", "beyond", "unix", "raw"] {
        assert_eq!(probe[nothing], json!([]), "{nothing}");
    }
    assert_ne!(probe["users"].as_str().unwrap(), std::fs::read_to_string("/etc/passwd").unwrap().get(..300).unwrap_or_default());
    assert_eq!(probe["memory"]["found"], json!({}), "a secret in memory, environment or arguments");
    assert_ne!(probe["uid"], 0);
    let reached: BTreeSet<u64> = probe["ports"].as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
    assert_eq!(&reached, ports, "ports of loopback that answer");
}

fn assert_targets_exist(stage: &Stage) {
    let (files, sockets) = targets_of(&stage.running.dir, &stage.setting.manifest);
    for path in files.iter().chain(&sockets) {
        assert!(Path::new(path).symlink_metadata().is_ok(), "{path} is not there, so that nobody could open it proves nothing");
    }
}

// I2, I3, I4, I11, F8: a program in FFmpeg's place, started by the real transcoder on a real job.
#[test]
fn a_program_in_ffmpegs_place_reaches_nothing() {
    in_ffmpegs_place("", false);
}

// I16, I2, I3, I4, I11, F8: the same in a sandbox that bubblewrap built.
#[test]
fn a_program_in_ffmpegs_place_reaches_nothing_in_bubblewraps_sandbox() {
    in_ffmpegs_place("sandbox = \"bwrap\"\n", true);
}

/// Whether this program runs now, in a sandbox or not.
pub fn runs(stage: &Stage, program: &str) -> bool {
    xtask::processes::tree(stage.running.pid()).unwrap().iter().any(|process| process.name == program)
}

/// With `more` in the transcoder's table, and bubblewrap at work or not.
fn in_ffmpegs_place(more: &str, by_bwrap: bool) {
    let scratch = Scratch::new().unwrap();
    let place = |path: &str| scratch.0.join(path).display().to_string();
    let (transcoder, stand_in) = (place("bin/video-transcoder"), place("apps/attacker/attacker.py"));
    let run = format!("{more}run = [\"/usr/bin/env\", \"FFMPEG={stand_in}\", \"{transcoder}\"]\nfiles = [\"attacker\"]");
    let tools = format!("tools = [\"{transcoder}\", \"{stand_in}\", \"/usr/bin/python3\"]");
    let setting = copied(
        &scratch,
        &[("run = [\"./video-transcoder\"]", &run), ("tools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]", &tools), UNLISTED],
    );
    let doors = Doors::open();
    armed(&setting, &doors);
    let stage = Stage::set_with(scratch, setting);
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    // What it complains is what the person is told.
    let done = AtomicBool::new(false);
    let (video, built_by_bwrap) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                if runs(&stage, "bwrap") {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        });
        let video = stage.ada.wait_for(&uploaded.id, &["failed"], READY);
        done.store(true, Ordering::SeqCst);
        (video.unwrap(), watching.join().unwrap())
    });
    assert_eq!(built_by_bwrap, by_bwrap);
    let reason = video["reason"].as_str().unwrap();
    let said = reason.get(reason.find('{').unwrap_or_else(|| panic!("no finding: {reason}"))..=reason.rfind('}').unwrap()).unwrap();
    let probe: Value = serde_json::from_str(said).unwrap_or_else(|e| panic!("{e}: {said}"));
    // Its own job folder is the one thing that it may see, and of other processes its parent's names of neighbours and its open files.
    let mut contained = probe.clone();
    let but = |what: &str, fits: &dyn Fn(&str) -> bool| -> Vec<Value> {
        probe[what].as_array().unwrap().iter().filter(|found| !fits(found.as_str().unwrap())).cloned().collect()
    };
    contained["walked"] = but("walked", &|path| path.starts_with("/tmp/job-") || path == transcoder).into();
    contained["spied"] = but("spied", &|what| ["parent/environ", "parent/fd"].contains(&what)).into();
    let ports: BTreeSet<u64> = probe["ports"].as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
    assert_eq!(ports.len(), 3, "the store, the queue, and OTLP: {ports:?}");
    assert_contained(&contained, &ports);
    assert!(
        probe["walked"].as_array().unwrap().iter().any(|p| p.as_str().unwrap().ends_with("/in")),
        "it did not even see its input: {probe}"
    );
    assert_targets_exist(&stage);
    doors.assert_nobody_came();
    let audit = stage.audit();
    assert!(audit.contains("sandbox.start"));
    // I6: what it tried is told.
    for tried in ["bpf", "unshare", "mount", "socket inet raw"] {
        let told = audit.lines().any(|line| line.contains("SyscallDenied") && line.contains("\"transcoder\"") && line.contains(tried));
        assert!(told, "{tried} was tried and denied, and nobody was told");
    }
}

// D7, D10, H5, G9, I2, I3: the whole transcoder is taken over, with a genuine authority in its hands; and so is the web service.
#[test]
fn a_service_that_was_taken_over_has_one_job_and_nothing_else() {
    let scratch = Scratch::new().unwrap();
    let run = "run = [\"/usr/bin/python3\", \"attacker/attacker.py\"]";
    let with_files = format!("{run}\nfiles = [\"attacker\"]");
    let setting = copied(
        &scratch,
        &[
            ("run = [\"./video-transcoder\"]", &with_files),
            UNLISTED,
            // One process takes all jobs: it can try the token of a job that is over, and remembers whose the job before was.
            ("consumes = \"queue.validated\"", "consumes = \"queue.validated\"\nfresh = \"start\""),
            ("run = [\"/usr/bin/python3\", \"web/server.py\"]", run),
            ("files = [\"web/server.py\", \"web/static\"]", "files = [\"attacker\"]"),
        ],
    );
    let doors = Doors::open();
    armed(&setting, &doors);
    let stage = Stage::set_with(scratch, setting);
    let file = stage.video(2);

    // Ada's job: probe, misuse, replay elsewhere, use after the end.
    let adas = stage.ada.upload(&file, "video/mp4").unwrap();
    let delivery = finding(&stage, "guard-transcoder", |f| f["finding"] == "delivery" && f["video"] == adas.id.as_str());
    let flows = delivery["flows"].as_object().unwrap();
    let flow_names: Vec<&str> = flows.keys().map(String::as_str).collect();
    assert_eq!(flow_names, ["AWS_ENDPOINT_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "QUEUE_URL"], "no way to the api, not even an address");
    let ports = flows.values().map(|url| url.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()).collect();
    assert_contained(&delivery["probe"], &ports);
    assert_misuse_refused(&delivery["statuses"]);
    assert!(
        delivery["probe"]["memory"]["scanned"].as_i64().unwrap() > 1 << 20,
        "its memory was not looked through: {}",
        delivery["probe"]["memory"]
    );

    // The token is in flight at the transcoder's guard now; at the web service's guard it is worth nothing.
    let token = delivery["token"].as_str().unwrap();
    let answer = stage.ada.curl.ask(&format!("/?t={token}"), &Ask::default()).unwrap();
    let replay = answer.json(200).unwrap();
    println!("replay: {replay}");
    assert_eq!(replay["own"], 200, "the way itself is open");
    assert_eq!(replay["stolen"], 403);
    assert_eq!(replay["none"], 403);
    assert_eq!(replay["undeclared_route"], 404);

    let after = finding(&stage, "guard-transcoder", |f| f["finding"] == "after" && f["video"] == adas.id.as_str());
    assert_eq!(after["read"], 403, "the job's object after the job: {after}");

    // Bob's job: Ada's video is another job's object now.
    let bob = stage.invited("bob");
    let bobs = bob.upload(&file, "video/mp4").unwrap();
    let delivery = finding(&stage, "guard-transcoder", |f| f["finding"] == "delivery" && f["video"] == bobs.id.as_str());
    assert_eq!(delivery["other"], adas.id.as_str());
    assert_misuse_refused(&delivery["statuses"]);
    let after = finding(&stage, "guard-transcoder", |f| f["finding"] == "after" && f["video"] == bobs.id.as_str());
    assert_eq!(after["read"], 403, "the job's object after the job: {after}");

    assert_targets_exist(&stage);
    doors.assert_nobody_came();
    assert_refusals_recorded(&stage, &adas.id);
}

/// Every wrong use of a genuine token was refused, and the right ones were not.
fn assert_misuse_refused(statuses: &Value) {
    println!("misuse: {statuses}");
    for (what, status) in statuses.as_object().unwrap() {
        let status = status.as_u64().unwrap();
        if what.starts_with("own_") {
            assert!((200..300).contains(&status), "{what}: {status}");
        } else {
            assert!([400, 401, 403, 404, 405].contains(&status), "{what}: {status}");
        }
    }
    for refused in [
        "read_other_object",
        "write_other_folder",
        "write_original",
        "delete_original",
        "list_originals",
        "presign",
        "verdict",
        "publish_validated",
        "publish_uploaded",
    ] {
        assert_eq!(statuses[refused], 403, "{refused}");
    }
}

/// Each refusal is in the audit log, with its reason and whose it is.
fn assert_refusals_recorded(stage: &Stage, other: &str) {
    let audit = stage.audit();
    let refused = |reason: &str, words: &[&str]| {
        let found = audit.lines().any(|line| line.contains(&format!("\"{reason}\"")) && words.iter().all(|word| line.contains(word)));
        if !found {
            let near: Vec<&str> = audit.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect();
            panic!("no refusal {reason} with {words:?}; records with these words: {near:#?}");
        }
    };
    refused("authority_not_in_flight", &["service/transcoder", "guard.out"]);
    refused("authority_not_in_flight", &["service/web", "guard.out"]);
    refused("job_mismatch", &["service/transcoder", &format!("originals/{other}/original")]);
    refused("job_mismatch", &["service/transcoder", &format!("renditions/{other}/720p.mp4")]);
    refused("policy_denied", &["service/transcoder", "validated"]);
    refused("route_unknown", &["service/web", "/api/videos/x"]);
}
