//! Sandboxes of a whole system: without user namespaces, with lists of system calls of their own, and watched while they run.
//! I1, I3, I6, I15.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::demo::Scratch;
use xtask::running::Setting;

use crate::contained::copied;
use crate::{READY, Stage};

/// A program that starts another one with all arguments, and something before them.
fn wrapper(scratch: &Scratch, name: &str, script: &str) -> PathBuf {
    let path = scratch.0.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    xtask::tree::run(std::process::Command::new("chmod").arg("755").arg(&path)).unwrap();
    path
}

/// Audit records that have all these words.
fn records(audit: &str, words: &[&str]) -> Vec<String> {
    audit.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

// I1, I3: no root, no capability, and user namespaces forbidden by the kernel: the whole system works nevertheless, at the level that its
// manifest accepts.
#[test]
fn the_reference_system_works_where_user_namespaces_are_forbidden() {
    let scratch = Scratch::new().unwrap();
    let confined = |service: &str| format!("[service.{service}]\nisolation = \"confined\"");
    let replace: Vec<(String, String)> = ["web", "api", "validator", "transcoder"]
        .map(|service| (format!("[service.{service}] "), confined(service) + " "))
        .into_iter()
        .collect();
    let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let setting = copied(&scratch, &replace);
    // The limit counts below this namespace, whoever is in it; nobody has a capability when Palisade starts.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \"$0\" \"$@\"";
    let script = format!(
        "exec unshare --user --map-user=1000 --map-group=1000 --keep-caps /bin/sh -c '{forbid}' {} \"$@\"",
        setting.palisade.display()
    );
    let palisade = wrapper(&scratch, "without-namespaces", &script);
    let stage = Stage::set_with(scratch, Setting { palisade, ..setting });
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let bob = stage.invited("bob");
    bob.api("GET", &format!("/api/videos/{}", uploaded.id), None, 404).unwrap();
    let audit = stage.audit();
    for service in ["web", "api", "validator", "transcoder"] {
        let starts = records(&audit, &["sandbox.start", &format!("\"{service}\"")]);
        assert!(!starts.is_empty() && starts.iter().all(|start| start.contains("Confined")), "{service}: {starts:?}");
    }
}

// I5: the same host, and a manifest that accepts nothing less than every layer.
#[test]
fn a_manifest_that_asks_for_every_layer_does_not_start_where_one_is_missing() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \"$0\" \"$@\"";
    let script = format!(
        "exec unshare --user --map-user=1000 --map-group=1000 --keep-caps /bin/sh -c '{forbid}' {} \"$@\"",
        setting.palisade.display()
    );
    let palisade = wrapper(&scratch, "without-namespaces", &script);
    let why = Setting { palisade, ..setting }.start().unwrap_err().to_string();
    assert!(why.contains("this host cannot give the isolation that the manifest requires") && why.contains("user namespace"), "{why}");
}

/// The services that have a list.
const LISTED: [&str; 2] = ["validator", "transcoder"];

fn list(service: &str) -> BTreeSet<String> {
    let path = xtask::artefacts::manifest().parent().unwrap().join(format!("profiles/{service}.syscalls"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Traces one service of the reference system through a job, and gives what `palisade sandbox trace` wrote and printed.
fn traced(service: &str) -> (BTreeSet<String>, Value) {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    let written = setting.manifest.parent().unwrap().join(format!("profiles/{service}.syscalls"));
    let _none = std::fs::remove_file(&written);
    let manifest = std::fs::read_to_string(&setting.manifest).unwrap();
    std::fs::write(&setting.manifest, LISTED.iter().fold(manifest, |text, service| without_list(&text, service))).unwrap();
    let out = scratch.0.join("printed");
    // `--format json up …` becomes `--format json sandbox trace SERVICE …`.
    let script = format!(
        "if [ \"$3\" != up ]; then exec {0} \"$@\"; fi; shift 3; {0} --format json sandbox trace {service} \"$@\" | (trap '' PIPE; exec tee {1})",
        setting.palisade.display(),
        out.display()
    );
    let palisade = wrapper(&scratch, "tracing", &script);
    let stage = Stage::set_with(scratch, Setting { palisade, ..setting });
    for file in [stage.video(2), webm(&stage.scratch.0)] {
        let kind = if file.extension().is_some_and(|end| end == "webm") { "video/webm" } else { "video/mp4" };
        let uploaded = stage.ada.upload(&file, kind).unwrap();
        stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    }
    // Ctrl-C, for the one below the shell.
    let all = xtask::processes::tree(stage.running.pid()).unwrap();
    let palisade = all.iter().find(|process| process.name == "palisade" || process.name.starts_with("sandbox")).or(all.get(1)).unwrap();
    xtask::tree::run(std::process::Command::new("kill").args(["-INT", &palisade.pid.to_string()])).unwrap();
    let start = Instant::now();
    while !written.exists() {
        let printed = || std::fs::read_to_string(&out).unwrap_or_default();
        let left = || xtask::processes::tree(stage.running.pid()).map(|left| left.into_iter().map(|one| one.name).collect::<Vec<_>>());
        assert!(start.elapsed() < Duration::from_secs(60), "no list was written: {} {:?} {all:?}", printed(), left());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(500));
    let printed = std::fs::read_to_string(&out).unwrap();
    let said = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let text = std::fs::read_to_string(&written).unwrap();
    println!("{text}");
    (text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect(), said)
}

/// The manifest as if nobody had traced this service yet.
fn without_list(manifest: &str, service: &str) -> String {
    let line = format!("syscalls = \"profiles/{service}.syscalls\"\n");
    manifest.replace(&line, "")
}

fn webm(folder: &Path) -> PathBuf {
    let path = folder.join("made.webm");
    xtask::media::make(&path, 2, "320x240", &["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"]).unwrap();
    path
}

// I6: the committed lists are what a trace of real jobs sees, and hardly more.
#[test]
fn a_trace_sees_what_the_committed_lists_allow() {
    for service in LISTED {
        let (seen, said) = traced(service);
        let committed = list(service);
        let missing: Vec<_> = seen.difference(&committed).collect();
        assert!(missing.is_empty(), "{service} makes calls that its list lacks; add them to profiles/{service}.syscalls: {missing:?}");
        println!("{service}: {} on the list, {} seen, {} allowed of {}", committed.len(), seen.len(), said["allowed"], said["general"]);
        assert!(said["allowed"].as_u64().unwrap() * 2 < said["general"].as_u64().unwrap(), "{said}");
    }
}

// I6: real jobs are denied nothing by the lists, and what is published is what holds.
#[test]
fn real_jobs_are_denied_nothing_and_the_count_of_calls_is_published() {
    let stage = Stage::set();
    for file in [stage.video(3), webm(&stage.scratch.0)] {
        let kind = if file.extension().is_some_and(|end| end == "webm") { "video/webm" } else { "video/mp4" };
        let uploaded = stage.ada.upload(&file, kind).unwrap();
        stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    }
    let audit = stage.audit();
    let denied = records(&audit, &["SyscallDenied"]);
    assert!(denied.is_empty(), "{denied:#?}");
    for service in LISTED {
        let explained = std::process::Command::new(&stage.setting.palisade)
            .args(["--format", "json", "sandbox", "explain", service, "--manifest"])
            .arg(&stage.setting.manifest)
            .output()
            .unwrap();
        let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
        let (allowed, general) = (explained["syscalls"]["allowed"].as_u64().unwrap(), explained["syscalls"]["general"].as_u64().unwrap());
        println!("{service}: {allowed} of {general}");
        assert!(allowed * 2 < general + 1, "{explained}");
        let started =
            records(&audit, &["sandbox.start", &format!("\"{service}\""), &format!("{allowed} calls allowed, a list of its own")]);
        assert!(!started.is_empty(), "the audit log does not say with how many calls {service} was started");
    }
}

// I15: a script is changed under the running service.
#[test]
fn a_script_that_is_changed_under_its_service_stops_it_with_an_alert() {
    let stage = Stage::set_with_copy(&[]);
    let script = stage.setting.manifest.parent().unwrap().join("web/server.py");
    assert_eq!(stage.ada.curl.ask("/", &xtask::curl::Ask::default()).unwrap().status, 200);
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, format!("{text}\n# changed\n")).unwrap();
    let start = Instant::now();
    loop {
        let found = records(&crate::audit_text(&stage.running.dir), &["TamperingFound", "artefact", "while it ran", "server.py"]);
        if !found.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "nobody reported it");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    let runs = xtask::processes::tree(stage.running.pid()).unwrap().into_iter().any(|process| process.name.contains("server.py"));
    assert!(!runs, "the changed script runs");
    // Put back, it is started again.
    std::fs::write(&script, text).unwrap();
    let start = Instant::now();
    while stage.ada.curl.ask("/", &xtask::curl::Ask::default()).unwrap().status != 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come back");
        std::thread::sleep(Duration::from_millis(500));
    }
}
