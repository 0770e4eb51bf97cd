//! Controls switched off, one at a time, in a throw-away copy: each is found by breaking in, and none can be switched off elsewhere (L13).
//!
//! What is tried here in a few runs is what decides; `each_control_alone_…` go through the table of docs/breach.md, one run
//! for each row: `cargo nextest run -p xtask each_control_alone --run-ignored all --no-capture`, about fifteen minutes.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use xtask::demo::Scratch;

use crate::breach::breach;
use crate::contained::copied;

/// Attackers that are no service.
const PEOPLE: &[&str] = &["external", "person", "vendor"];

/// Measures without these controls, by these attackers or techniques; gives what came of each, by its name.
fn without(switches: &[&str], only: &[&str]) -> Vec<(String, Value)> {
    let (output, _scratch) = breach(&options(switches, only));
    came_of(&output)
}

fn options<'a>(switches: &[&'a str], only: &[&'a str]) -> Vec<&'a str> {
    let who = |only: &'a str| [if PEOPLE.contains(&only) { "--profile" } else { "--only" }, only];
    switches.iter().flat_map(|switch| ["--dangerous-without", switch]).chain(only.iter().flat_map(|only| who(only))).collect()
}

/// What came of each control that was left out.
pub fn came_of(output: &std::process::Output) -> Vec<(String, Value)> {
    let absent = told(output);
    assert_eq!(output.status.code(), Some(1), "nothing was found: {}", String::from_utf8_lossy(&output.stderr));
    absent
}

/// The same, whether anything was found or not.
fn told(output: &std::process::Output) -> Vec<(String, Value)> {
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let absent = report["absent"].as_array().unwrap_or_else(|| panic!("{complaints}")).clone();
    let name = |one: &Value| match one["at"].as_str() {
        Some(at) => format!("{}@{at}", one["control"].as_str().unwrap()),
        None => one["control"].as_str().unwrap().to_owned(),
    };
    absent.into_iter().map(|one| (name(&one), one)).collect()
}

pub fn of<'a>(absent: &'a [(String, Value)], switch: &str) -> &'a Value {
    absent.iter().find(|(name, _)| name == switch).map(|(_, one)| one).unwrap_or_else(|| panic!("{switch}: {absent:?}"))
}

/// Targets that were reached because of it.
pub fn reached(one: &Value) -> BTreeSet<&str> {
    one["reached"].as_array().into_iter().flatten().filter_map(|beyond| beyond["cell"]["target"].as_str()).collect()
}

/// Those that are listed as behind it alone.
pub fn listed(one: &Value) -> BTreeSet<&str> {
    let all = one["reached"].as_array().into_iter().flatten().filter(|beyond| beyond["listed"] == true);
    all.filter_map(|beyond| beyond["cell"]["target"].as_str()).collect()
}

fn noticed(one: &Value) -> usize {
    one["noticed"].as_array().map_or(0, Vec::len)
}

fn stops(one: &Value, technique: &str, control: &str) -> bool {
    one["stopped"][technique].as_array().is_some_and(|by| by.iter().any(|it| it == control))
}

// L13: a wall of each service's sandbox, and a check of its guard: more is reached, and listed as behind it alone, or it is seen missing
// and another control still stops what is tried.
#[test]
fn a_wall_or_a_guards_check_that_is_missing_is_found_where_it_is_missing() {
    let switches = [
        "seccomp@web",
        "guard-out@web",
        "landlock@api",
        "transaction-token@api",
        "network-namespace@validator",
        "fresh-sandbox@validator",
        "mount-namespace@transcoder",
    ];
    let techniques = ["walls", "programs", "namespaces", "files", "addresses", "after", "leftovers", "routes"];
    let only = ["web", "api", "validator", "transcoder"].into_iter().chain(techniques).collect::<Vec<_>>();
    let absent = without(&switches, &only);
    let of = |switch| of(&absent, switch);
    // Reached, and listed.
    assert!(listed(of("seccomp@web")).contains("kernel"));
    assert!(listed(of("landlock@api")).contains("programs"));
    assert!(listed(of("transaction-token@api")).contains("bucket.renditions"));
    assert!(listed(of("fresh-sandbox@validator")).contains("files.validator of earlier jobs"));
    // Seen missing, and stopped by another.
    for (switch, technique, by) in [
        ("network-namespace@validator", "addresses", "landlock"),
        ("mount-namespace@transcoder", "files", "landlock"),
        ("landlock@api", "files", "mount-namespace"),
        ("seccomp@web", "addresses", "network-namespace"),
    ] {
        assert!(noticed(of(switch)) > 0, "{switch} was not seen missing: {}", of(switch));
        assert!(stops(of(switch), technique, by), "{switch}: {}", of(switch));
    }
    assert!(noticed(of("guard-out@web")) > 0 && noticed(of("transaction-token@api")) == 0);
    // It is found where it is, and nowhere else.
    assert!(!reached(of("network-namespace@validator")).contains("outside"), "the rules about ports still stand");
    assert_eq!(reached(of("mount-namespace@transcoder")), BTreeSet::new());
}

// L13: the object store and the queue ask policies and leases for themselves; limits.
#[test]
fn a_store_or_a_queue_that_asks_nobody_is_found() {
    let switches = ["policy@objects", "policy@queue", "lease@objects", "limits@transcoder"];
    let absent = without(&switches, &["transcoder", "objects-of-others", "queues-of-others", "exhaustion"]);
    let of = |switch| of(&absent, switch);
    assert!(noticed(of("policy@objects")) > 0 && noticed(of("policy@queue")) > 0 && noticed(of("lease@objects")) > 0);
    assert!(listed(of("policy@objects")).contains("bucket.originals"));
    assert!(listed(of("policy@queue")).contains("queue.uploaded"));
    assert!(listed(of("limits@transcoder")).contains("machine.processes"));
}

// L13: what the gateway asks of people, and what keeps a worker to its job: each is reached, and listed as behind it alone.
#[test]
fn a_gateway_that_asks_for_less_is_found_by_whoever_has_less() {
    let switches = ["sign-in", "scope", "limits@edge", "job-token", "role@edge"];
    let techniques = ["own-token", "scopes", "rates", "console", "objects-of-others"];
    let absent = without(&switches, &[PEOPLE, &["transcoder"], &techniques].concat());
    let of = |switch| of(&absent, switch);
    assert!(listed(of("sign-in")).is_superset(&BTreeSet::from(["service.api", "service.web", "role.evidence"])), "{}", of("sign-in"));
    assert_eq!(listed(of("scope")), BTreeSet::from(["scope.videos"]));
    assert_eq!(listed(of("limits@edge")), BTreeSet::from(["role.edge"]));
    assert!(listed(of("job-token")).contains("bucket.originals"), "{}", of("job-token"));
    // Whoever has the page asks for the role once more, also the run, which comes in the gateway's place.
    assert!(noticed(of("role@edge")) > 0 && listed(of("role@edge")).is_empty(), "{}", of("role@edge"));
    assert!(of("role@edge")["stands"].to_string().contains("evidence"), "{}", of("role@edge"));
    for (switch, one) in &absent {
        let unlisted = reached(one).difference(&listed(one)).copied().collect::<Vec<_>>();
        assert_eq!(unlisted, Vec::<&str>::new(), "{switch}: reached, and not listed as behind it alone");
    }
}

// L13: what no attacker of the model comes to is tried by the run itself, where it is left out and where it is not.
#[test]
fn doors_programs_disks_and_logs_are_looked_at_where_their_controls_are_left_out_and_where_not() {
    let switches = ["quarantine", "role", "mtls@objects", "guard-in@api", "artefact-digest@web", "sealing@login", "audit-chain"];
    let absent = without(&switches, &["external", "person", "validator", "transcoder", "unvalidated", "console", "handshakes"]);
    let of = |switch| of(&absent, switch);
    assert_eq!(listed(of("quarantine")), BTreeSet::from(["bucket.originals before its verdict"]));
    assert!(listed(of("role")).is_superset(&BTreeSet::from(["role.evidence", "plane.audit"])), "{}", of("role"));
    for (switch, place, stands) in [
        ("guard-in@api", "api", &["web", "validator", "transcoder"] as &[&str]),
        ("artefact-digest@web", "web", &["api"]),
        ("sealing@login", "login", &["identity", "control", "evidence"]),
        ("audit-chain", "evidence", &[]),
        // Asked in the gateway's place, whoever has the pages gives them.
        ("role", "evidence", &[]),
    ] {
        let told = |name: &str| -> BTreeSet<String> {
            let all = of(switch)[name].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.map(|text| text.split(':').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(told("noticed"), BTreeSet::from([place.to_owned()]), "{switch}");
        assert!(stands.iter().all(|place| told("stands").contains(*place)), "{switch}: {}", of(switch));
    }
    // Somebody nearby finds that listener, and no other.
    let answers: BTreeSet<&str> =
        of("mtls@objects")["reached"].as_array().unwrap().iter().filter_map(|it| it["cell"]["action"].as_str()).collect();
    assert_eq!((listed(of("mtls@objects")), answers), (BTreeSet::from(["inner listeners"]), BTreeSet::from(["answer of role/objects"])));
    assert!(of("guard-in@api")["noticed"].to_string().contains("authority_missing"), "what stopped it is named");
}

/// What is switched off, and who tries.
type Row = (&'static str, &'static [&'static str]);

/// The rows of the table in docs/breach.md about sandboxes, guards, and what the object store and the queue ask.
const INSIDE: &[Row] = &[
    ("seccomp@web", &["web"]),
    ("landlock@api", &["api"]),
    ("network-namespace@validator", &["validator"]),
    ("mount-namespace@transcoder", &["transcoder"]),
    ("limits@web", &["web"]),
    ("fresh-sandbox@validator", &["validator"]),
    ("transaction-token@api", &["api"]),
    ("guard-out@web", &["web"]),
    ("policy@api", &["web"]),
    ("policy@objects", &["transcoder"]),
    ("policy@queue", &["transcoder"]),
    ("lease@objects", &["api"]),
    ("job-token", &["transcoder"]),
    ("quarantine", &["validator", "transcoder"]),
];

/// The rows about what the gateway asks, and about what the run tries itself.
const AROUND: &[Row] = &[
    ("sign-in", &["external"]),
    ("scope", &["vendor"]),
    ("role", &["person"]),
    ("role@edge", &["person"]),
    ("role@evidence", &["person"]),
    ("limits@edge", &["person"]),
    ("mtls@objects", &["external"]),
    ("guard-in@api", &["web"]),
    ("artefact-digest@web", &["web"]),
    ("sealing", &["external"]),
    ("audit-chain", &["external"]),
];

// L13: each alone, with every technique of the one who tries.
#[test]
#[ignore = "about seven minutes: a run for each control"]
fn each_control_alone_is_found_missing_by_who_is_inside() {
    each_alone(INSIDE);
}

// L13: each alone.
#[test]
#[ignore = "about five minutes: a run for each control"]
fn each_control_alone_is_found_missing_by_who_comes_from_outside_and_by_the_run() {
    each_alone(AROUND);
}

fn each_alone(rows: &[Row]) {
    let mut wrong = Vec::new();
    for (switch, who) in rows {
        let (output, _scratch) = breach(&options(&[switch], who));
        let absent = told(&output);
        let one = of(&absent, switch);
        let unlisted: Vec<&Value> = one["reached"].as_array().into_iter().flatten().filter(|it| it["listed"] != true).collect();
        let by: BTreeSet<&str> =
            one["reached"].as_array().into_iter().flatten().flat_map(|it| it["by"].as_array().unwrap()).filter_map(Value::as_str).collect();
        let still: BTreeSet<&str> = one["stopped"]
            .as_object()
            .into_iter()
            .flat_map(|all| all.iter().filter(|(technique, _)| *technique != "walls"))
            .flat_map(|(_, by)| by.as_array().unwrap())
            .filter_map(Value::as_str)
            .collect();
        println!("| `{switch}` | {} | {} | {by:?} {:?} | {still:?} |", who.join(", "), reached(one).len(), one["noticed"]);
        if !unlisted.is_empty() {
            wrong.push(format!("{switch}: reached, and not listed as behind it alone: {unlisted:?}"));
        }
        if reached(one).is_empty() && noticed(one) == 0 {
            wrong.push(format!("{switch} was not found"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

// L13: nothing but a copy that is broken into goes without a control: no option, no manifest, no process that is told to.
#[test]
fn a_control_cannot_be_switched_off_in_a_system_that_somebody_relies_on() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    let palisade = || Command::new(&setting.palisade);
    let (manifest, dir) = (setting.manifest.display().to_string(), scratch.0.join("system").display().to_string());
    let refused = |command: &mut Command, code: i32, why: &str| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(why)), (Some(code), true), "{command:?}: {said}");
    };
    // No option.
    for verb in ["up", "apply", "check"] {
        refused(palisade().args([verb, "--dangerous-without", "seccomp", "--manifest", &manifest]), 64, "--dangerous-without");
    }
    // No manifest.
    let text = std::fs::read_to_string(&setting.manifest).unwrap();
    let changed = setting.manifest.with_file_name("changed.toml");
    for line in ["dangerous_without = [\"seccomp\"]", "dangerous_simulate = {}"] {
        std::fs::write(&changed, text.replacen("[service.web] ", &format!("[service.web]\n{line}\n# "), 1)).unwrap();
        let changed = changed.display().to_string();
        refused(palisade().args(["up", "--dir", &dir, "--manifest", &changed]), 64, line.split(' ').next().unwrap());
    }
    // Not the process that starts a copy, either: this is no copy.
    refused(palisade().args(["breach-system", &manifest, &dir, "seccomp@web"]), 69, "outer network");
    // Not as root, and no switch that there is not.
    refused(palisade().args(["breach", "--dangerous-without", "user-namespace", "--manifest", &manifest]), 64, "cannot be switched off");
    // A process that is handed one by its parent, as those of a copy are.
    for (verb, name, id) in [("guard", "api", "service/api"), ("role", "objects", "role/objects")] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let boot = json!({
            "spiffe_id": format!("spiffe://video.example/{id}"), "trust_domain": "video.example", "dir": scratch.0.join(name),
            "identity_socket": scratch.0.join("identity.sock"), "token": "", "roots": [], "addresses": {}, "listeners": [],
            "artefacts": [], "sealing_key": "", "dangerous_without": ["policy"], "settings": {},
        });
        std::fs::create_dir_all(scratch.0.join(name)).unwrap();
        let text = boot.to_string().into_bytes();
        ours.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
        ours.write_all(&text).unwrap();
        let output = palisade().args([verb, name]).stdin(Stdio::from(OwnedFd::from(theirs))).output().unwrap();
        let mut told = String::new();
        std::io::Read::read_to_string(&mut ours, &mut told).unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("refused") && told.contains("go without policy"), "{told}");
    }
}
