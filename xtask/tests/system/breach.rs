//! Breaking in: L7, L8, L10, L12, O16. The whole of `palisade breach`, as an unprivileged user, on the reference manifest.

mod confined;
mod counter;
mod proof;
mod published;
mod revisions;
mod shop;

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use xtask::demo::Scratch;

use crate::contained::copied;

/// Who may not read this tree, and is nobody here.
const NOBODY: u32 = 65_534;

/// What one attacker reaches of one kind: target, action and how much.
fn reached(report: &Value, profile: &str, kind: &str) -> BTreeSet<String> {
    let cells = report["attackers"][profile]["reached"].as_array().unwrap_or_else(|| panic!("{profile} was not measured"));
    let of_kind = cells.iter().filter(|cell| cell["kind"] == kind);
    let text = |cell: &Value, name: &str| cell[name].as_str().unwrap_or_default().to_owned();
    of_kind.map(|cell| format!("{} {} {}", text(cell, "target"), text(cell, "action"), text(cell, "extent"))).collect()
}

/// What those outside have; of every other technique, each service has it.
const OUTSIDE: &[(&str, &[&str])] = &[
    (
        "external",
        &["bound", "console", "edge-surfaces", "elsewhere", "handshakes", "login-surface", "own-token", "public-routes", "tokens-outside"],
    ),
    ("person", &["console", "cross-person", "edge-surfaces", "login-surface", "rates"]),
    ("insider", &["console", "cross-person", "insider", "login-surface", "operator-sockets"]),
    ("insider-mfa", &["console", "cross-person", "insider", "login-surface", "operator-sockets"]),
    ("vendor", &["console", "cross-person", "edge-surfaces", "login-surface", "scopes"]),
];

/// What of the reference system is not tried, by whom, and the beginning of why.
const UNTRIED: &[(&str, &str, &str)] = &[
    ("insider", "operator-sockets", "nobody here can become another user"),
    ("insider-mfa", "operator-sockets", "nobody here can become another user"),
    ("service.api", "leftovers", "it ran, and there is nothing here"),
    ("service.web", "leftovers", "it ran, and there is nothing here"),
    ("service.api", "unvalidated", "it ran, and there is nothing here"),
    ("service.web", "unvalidated", "it ran, and there is nothing here"),
    ("service.validator", "unvalidated", "whoever it was handed to"),
    ("service.api", "other-destinations", "it ran, and there is nothing here"),
    ("service.web", "other-destinations", "it ran, and there is nothing here"),
    ("service.transcoder", "other-destinations", "it ran, and there is nothing here"),
    ("service.validator", "other-destinations", "it ran, and there is nothing here"),
    ("service.transcoder", "leases", "deliveries come to services of themselves"),
    ("service.validator", "leases", "deliveries come to services of themselves"),
    ("service.transcoder", "after", "its sandbox ends with its job"),
    ("service.validator", "after", "its sandbox ends with its job"),
];

// L8, L10: the whole table, technique by attacker: each was tried, or says why not, and for no other reason than those that are known.
fn every_technique_has_its_ending(report: &Value) {
    let attempts = report["attempts"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all: BTreeSet<String> = report["techniques"].as_array().unwrap().iter().map(|technique| text(&technique["id"])).collect();
    let outside: BTreeSet<String> = OUTSIDE.iter().flat_map(|(_, ids)| ids.iter().map(|id| (*id).to_owned())).collect();
    let inside: BTreeSet<String> = all.difference(&outside).cloned().collect();
    assert!(inside.len() >= 35 && outside.is_subset(&all), "{inside:?}");
    let services = ["api", "transcoder", "validator", "web"].map(|name| (format!("service.{name}"), inside.clone()));
    let people = OUTSIDE.iter().map(|(who, ids)| ((*who).to_owned(), ids.iter().map(|id| (*id).to_owned()).collect()));
    for (who, expected) in services.into_iter().chain(people) {
        let told: BTreeSet<String> = attempts.iter().filter(|one| one["profile"] == who).map(|one| text(&one["technique"])).collect();
        assert_eq!(told, expected, "{who}");
    }
    let untried: BTreeSet<(String, String, String)> = attempts
        .iter()
        .filter(|one| one["outcome"]["end"] == "untried" && !text(&one["outcome"]["why"]).starts_with("nobody is there any more"))
        .map(|one| (text(&one["profile"]), text(&one["technique"]), text(&one["outcome"]["why"])))
        .collect();
    for (who, technique, why) in &untried {
        assert!(UNTRIED.iter().any(|(w, t, y)| w == who && t == technique && why.starts_with(y)), "{who} {technique}: {why}");
    }
    // J11: what was not tried was neither seen nor unseen.
    assert!(attempts.iter().filter(|one| one["outcome"]["end"] == "untried").all(|one| one["detected"].is_null()));
}

/// Processes that run a program of this folder.
fn running(folder: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|program| program.starts_with(folder))).count()
}

/// Breaks into a copy of the reference system, as a user without rights.
pub fn breach(more: &[&str]) -> (std::process::Output, Scratch) {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    (as_nobody(&scratch, &setting.palisade, &setting.manifest, more), scratch)
}

/// Breaks into a copy of a system that lies in `scratch`, as a user without rights.
fn as_nobody(scratch: &Scratch, palisade: &Path, manifest: &Path, more: &[&str]) -> std::process::Output {
    let own = scratch.0.join("t");
    std::fs::create_dir_all(&own).unwrap();
    if is_root() {
        xtask::tree::run(Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(&scratch.0)).unwrap();
    }
    let mut command = without_rights(palisade);
    command.args(["breach", "--format", "json"]).args(more).arg("--manifest").arg(manifest).env("TMPDIR", &own);
    command.output().unwrap()
}

fn is_root() -> bool {
    xtask::tree::output(Command::new("id").arg("-u")).unwrap().trim() == "0"
}

/// A program that will run as a user without rights.
fn without_rights(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

// L8, O16: 1 input object, 1 output folder, 0 secrets, 0 other services, nothing outside; and prediction equals measurement everywhere.
#[test]
fn what_is_measured_by_breaking_in_is_what_the_manifest_predicts() {
    let (output, scratch) = breach(&[]);
    let own = scratch.0.join("t");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{complaints}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let report = &told["report"];
    assert_eq!(report["how"], "measured");

    let set = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    let taken_over = "service.transcoder";
    let objects =
        |kind: &str| reached(report, taken_over, kind).into_iter().filter(|cell| cell.starts_with("bucket.")).collect::<BTreeSet<_>>();
    assert_eq!(objects("read"), set(&["bucket.originals  job-input"]), "1 input object");
    assert_eq!(objects("written"), set(&["bucket.renditions  job-folder"]), "1 output folder");
    assert_eq!(reached(report, taken_over, "secret"), set(&[]));
    assert_eq!(reached(report, taken_over, "egress"), set(&[]));
    assert_eq!(reached(report, taken_over, "disturbed"), set(&[]));
    assert_eq!(report["lateral"], serde_json::json!({ "web": { "api": ["GET /api/videos"] } }), "no other service from the transcoder");
    assert_eq!(told["comparison"]["differences"], serde_json::json!([]), "prediction and measurement differ");
    assert!(output.status.success(), "{complaints}");

    // It was really tried, by everybody, with something that could be refused.
    let attempts = report["attempts"].as_array().unwrap();
    let techniques: BTreeSet<&str> = attempts.iter().filter_map(|attempt| attempt["technique"].as_str()).collect();
    assert!(techniques.len() >= 35, "{techniques:?}");
    for (who, technique) in [
        (taken_over, "objects-of-others"),
        (taken_over, "replay"),
        (taken_over, "loopback"),
        ("service.api", "after"),
        ("external", "public-routes"),
        ("external", "handshakes"),
        ("person", "cross-person"),
        ("vendor", "console"),
    ] {
        let refused =
            |attempt: &&Value| attempt["profile"] == who && attempt["technique"] == technique && attempt["outcome"]["end"] == "stopped";
        assert!(attempts.iter().any(|attempt| refused(&attempt)), "{who} was not refused {technique}");
    }
    every_technique_has_its_ending(report);
    // N5, A13: presigned URLs were bent, by each who has an account of their own.
    for who in ["person", "insider", "insider-mfa", "vendor"] {
        for method in ["GET", "PUT"] {
            let bent = |one: &&Value| {
                let refused = one["technique"] == "cross-person" && one["outcome"]["end"] == "stopped";
                refused && one["profile"] == who && one["seen"].as_str().unwrap().starts_with(&format!("a bent grant to {method}: 4"))
            };
            assert!(attempts.iter().any(|one| bent(&one)), "{who} bent no grant to {method}");
        }
    }
    // D1: in ten ways at every inner listener, and each was refused.
    let knocks: Vec<&Value> = attempts.iter().filter(|attempt| attempt["technique"] == "handshakes").collect();
    assert!(knocks.len() >= 10 && knocks.iter().all(|one| one["outcome"]["by"] == "mtls"), "{knocks:?}");
    // L11: what was stolen, in every context that was tried. What is bound counts nowhere; what is not counts where it is at home alone.
    let thefts = report["thefts"].as_array().unwrap();
    for (artefact, contexts) in [
        ("a service's token", 7),
        ("a job's lease", 3),
        ("a person's session", 7),
        ("a partner's key", 6),
        ("an access token", 7),
        ("an access token by reference", 7),
        ("a token bound to a key", 13),
        ("a token bound to a certificate", 12),
        ("a code for a token bound to a key", 6),
        ("a refresh token for a token bound to a key", 3),
        ("a refresh token for a token bound to a certificate", 3),
        ("a member's certificate", 1),
        ("a presigned URL", 1),
    ] {
        let of: Vec<&Value> = thefts.iter().filter(|one| one["artefact"] == artefact).collect();
        assert!(of.len() >= contexts, "{artefact}: {of:?}");
        for one in of {
            let at_home = one["context"].as_str().unwrap().starts_with("where it is at home");
            assert_eq!(one["counts"].as_bool().unwrap(), at_home, "{one}");
        }
    }
    // I6, L8: it had the services' own lists of system calls, and what stands in docs/breach.md beyond them.
    assert_eq!(report["beyond"], serde_json::json!({ "transcoder": [], "validator": ["clone", "wait4"] }));
    let by_seccomp = |attempt: &&Value| attempt["outcome"]["by"] == "seccomp" && attempt["profile"] == "service.validator";
    assert!(attempts.iter().filter(by_seccomp).any(|attempt| attempt["seen"].as_str().unwrap().contains("no folder can be listed")));

    // I1, L8: at which level of isolation, and how long it took, is said.
    for service in ["api", "transcoder", "validator", "web"] {
        assert_eq!(report["isolation"][service], serde_json::json!({ "accepts": "full", "at": ["full"] }), "{service}");
    }
    println!("took {}", report["took"]);
    assert!(report["took"]["prediction_ms"].is_u64() && report["took"]["suite_ms"].as_u64().unwrap() > 0);
    // L8: somebody else was asked while each service used up what it could, and nobody suffered.
    for service in ["api", "transcoder", "validator", "web"] {
        let of = report["neighbours"].as_array().unwrap().iter().filter(|one| one["profile"] == format!("service.{service}"));
        let neighbours: BTreeSet<&str> = of.clone().filter_map(|one| one["neighbour"].as_str()).collect();
        assert!(neighbours.contains("role.login") && neighbours.len() >= 2, "{service}: {neighbours:?}");
        for one in of {
            println!("while {service} presses: {one}");
            assert!(one["quiet"]["requests"].as_u64().unwrap() > 0 && one["during"]["requests"].as_u64().unwrap() > 0, "{one}");
        }
    }

    // J11: what an enforcement point refuses is in the audit log, and so is what a sandbox denies.
    for technique in ["mounts", "namespaces", "tracing", "families"] {
        let seen = |a: &&Value| a["profile"] == taken_over && a["technique"] == technique && a["detected"]["event"] == "SyscallDenied";
        assert!(attempts.iter().any(|a| seen(&a)), "nobody saw {technique}");
    }
    let seen =
        attempts.iter().any(|a| a["profile"] == taken_over && a["technique"] == "objects-of-others" && a["detected"]["seen"] == "yes");
    assert!(seen, "nobody saw it");

    published::sights(report);
    published::thefts(report);

    // Nothing of it is left.
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0, "the copy is still there");
    assert_eq!(running(&scratch.0), 0, "something still runs");
}

// L8: the attacker is a program of this binary, and tries things for real: outside of a sandbox it does nothing.
#[test]
fn the_attacker_does_not_run_outside_of_a_sandbox() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    for first in ["breach-service", "breach-alone"] {
        // A user who could do no harm, should this fail.
        let output = without_rights(&setting.palisade).args([first, "/dev/null", "api", "none"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{first}: {said}");
        assert!(said.contains("would attack this machine"), "{first}: {said}");
    }
}

// L8: an attack without a `/proc` of its own would look for processes where there are others; many containers have a masked one.
#[test]
fn where_a_part_of_proc_is_masked_nothing_is_started_and_it_is_said_why() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    // Masked as container managers do it, in a user namespace that has no right to take that away.
    let masked = "mount --bind /dev/null /proc/version && exec unshare --user --map-user=1000 --map-group=1000 \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", masked, "sh"]);
    let output = command.arg(&setting.palisade).arg("breach").arg("--manifest").arg(&setting.manifest).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{said}");
    assert_eq!(said.matches("give it a whole one").count(), 1, "{said}");
}

// M2: tools close pipes early; what was decided is in the exit code all the same.
#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    let cases: [(&[&str], i32); 3] = [
        (&["no-such-command"], 64),
        (&["lock", "--manifest", "/nowhere/palisade.toml"], 64),
        (&["breach-service", "/dev/null", "api", "none"], 69),
    ];
    for (arguments, code) in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = without_rights(&setting.palisade).args(arguments).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
