//! L15: a service that was taken over is contained while it works, and everything else stays up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use xtask::demo::Scratch;

use crate::contained::{copied, runs};
use crate::{READY, Stage};

fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// A job is called transcoding when it begins, which is before its input has come.
fn until_ffmpeg_runs(stage: &Stage) {
    let begun = std::time::Instant::now();
    while !runs(stage, "ffmpeg") {
        assert!(begun.elapsed() < READY, "FFmpeg was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// L15, D13: FFmpeg is at work; one command stops it and keeps what is there; nobody else notices; released, the work is done.
#[test]
fn a_contained_transcoder_stands_still_and_nobody_else_notices() {
    let stage = Stage::set();
    let (first, second) = (stage.video(30), stage.video(2));
    let uploaded = stage.ada.upload(&first, "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["transcoding"], READY).unwrap();
    until_ffmpeg_runs(&stage);

    // Somebody uses the rest of the system all the time.
    let done = Arc::new(AtomicBool::new(false));
    let bob = stage.invited("bob");
    let others = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut statuses = Vec::new();
            while !done.load(Ordering::SeqCst) {
                statuses.push(bob.curl.page("/").unwrap().status);
                bob.api("GET", "/api/videos", None, 200).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            statuses
        }
    });
    let text = stage.running.cli(&["contain", "transcoder", "--reason", "a drill"]).unwrap();
    let contained: Value = serde_json::from_str(&text).unwrap();
    println!("contained: cut {} ms, frozen {} ms: {contained}", contained["cut_ms"], contained["frozen_ms"]);
    assert_eq!(contained["failures"], serde_json::json!([]));

    // The evidence: the stranger's bytes, and who was working on them, standing still.
    let folder = std::path::PathBuf::from(contained["evidence"].as_str().unwrap());
    let epoch = folder.join(format!("epoch-{}", contained["epoch"])).join("replica-0");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(epoch.join("report.json")).unwrap()).unwrap();
    let sandboxes = report["sandboxes"].as_object().unwrap();
    let processes: Vec<(&String, &Value)> = sandboxes.values().flat_map(|one| one["processes"].as_object().unwrap()).collect();
    assert!(processes.iter().any(|(_, one)| one["program"].as_str().unwrap().ends_with("ffmpeg")), "{report}");
    for (pid, one) in &processes {
        assert_eq!(state_of(pid), Some('T'), "{one}");
    }
    let inputs: Vec<String> = sandboxes
        .iter()
        .flat_map(|(n, one)| one["files"].as_object().unwrap().keys().map(move |file| format!("sandbox-{n}/tmp/{file}")))
        .filter(|file| file.ends_with("/in"))
        .collect();
    assert_eq!(inputs.len(), 1, "{report}");
    assert_eq!(std::fs::read(epoch.join(&inputs[0])).unwrap(), std::fs::read(&first).unwrap(), "the input as it was");

    // Another upload goes its way up to where the transcoder would be needed.
    let later = stage.ada.upload(&second, "video/mp4").unwrap();
    stage.ada.wait_for(&later.id, &["validated"], READY).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    for (pid, one) in &processes {
        assert_eq!(state_of(pid), Some('T'), "it goes on: {one}");
    }
    let again: Value = serde_json::from_str(&stage.running.cli(&["contain", "transcoder"]).unwrap()).unwrap();
    assert_eq!(again["processes"], contained["processes"], "asked twice is done once");

    let released: Value = serde_json::from_str(&stage.running.cli(&["release", "transcoder"]).unwrap()).unwrap();
    assert_eq!(released["contained"], serde_json::json!([]));
    for id in [&uploaded.id, &later.id] {
        stage.ada.wait_for(id, &["ready"], READY).unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let statuses = others.join().unwrap();
    assert!(statuses.len() > 20 && statuses.iter().all(|status| *status == 200), "others: {statuses:?}");
    let audit = stage.audit();
    for act in ["control.contain", "service.frozen", "control.release"] {
        assert!(audit.contains(act), "{act}");
    }
    assert!(processes.iter().all(|(pid, _)| state_of(pid) != Some('T')), "what was frozen ends with its guard");
    assert!(epoch.join("report.json").exists(), "the evidence stays");
    let failed = stage.running.cli(&["contain", "transcode"]).unwrap_err().to_string();
    assert!(failed.contains("there is no service"), "{failed}");
}

// L15: containment outlives a restart. The guard comes up, takes the order anew and starts nothing; released, it goes on.
#[test]
fn a_contained_service_stays_contained_over_a_restart_of_the_system() {
    let Stage { running, ada: _, scratch, setting } = Stage::set();
    running.cli(&["contain", "transcoder", "--reason", "over night"]).unwrap();
    running.stop().unwrap();
    let running = setting.start().unwrap();
    let ada = running.person("ada", &scratch.0);
    ada.sign_in().unwrap();
    let started = |dir: &std::path::Path| {
        let audit = crate::audit_text(dir);
        audit.lines().filter(|line| line.contains("sandbox.start") && line.contains("\"transcoder\"")).count()
    };
    let before = started(&running.dir);
    let uploaded = ada.upload(&crate::made(&scratch.0, 2), "video/mp4").unwrap();
    ada.wait_for(&uploaded.id, &["validated"], READY).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    ada.wait_for(&uploaded.id, &["validated"], READY).unwrap();
    assert_eq!(started(&running.dir), before, "a sandbox of a contained service was started");
    let released: Value = serde_json::from_str(&running.cli(&["release", "transcoder"]).unwrap()).unwrap();
    assert_eq!(released["contained"], serde_json::json!([]));
    ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
}

// I16, L15: bubblewrap built the sandbox. A real job is done in it; contained, what stands still is the job, and not who supervises it.
#[test]
fn in_bubblewraps_sandbox_a_job_is_done_and_a_contained_one_stands_still() {
    let scratch = Scratch::new().unwrap();
    let by_bwrap = |service: &str| (format!("[service.{service}] "), format!("[service.{service}]\nsandbox = \"bwrap\" "));
    let replace = ["validator", "transcoder"].map(by_bwrap);
    let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let setting = copied(&scratch, &replace);
    let stage = Stage::set_with(scratch, setting);
    let file = stage.video(30);
    let uploaded = stage.ada.upload(&file, "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["transcoding"], READY).unwrap();
    until_ffmpeg_runs(&stage);

    let contained: Value = serde_json::from_str(&stage.running.cli(&["contain", "transcoder", "--reason", "a drill"]).unwrap()).unwrap();
    assert_eq!(contained["failures"], serde_json::json!([]));
    assert!(runs(&stage, "bwrap"));
    let epoch = std::path::Path::new(contained["evidence"].as_str().unwrap()).join(format!("epoch-{}/replica-0", contained["epoch"]));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(epoch.join("report.json")).unwrap()).unwrap();
    let sandboxes = report["sandboxes"].as_object().unwrap();
    let processes: Vec<(&String, &Value)> = sandboxes.values().flat_map(|one| one["processes"].as_object().unwrap()).collect();
    let programs: Vec<&str> = processes.iter().map(|(_, one)| one["program"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert!(
        programs.contains(&"ffmpeg") && programs.iter().all(|program| ["ffmpeg", "video-transcoder"].contains(program)),
        "{programs:?}"
    );
    assert!(processes.iter().all(|(pid, _)| state_of(pid) == Some('T')), "{programs:?}");
    let kept = sandboxes.iter().flat_map(|(n, one)| one["files"].as_object().unwrap().keys().map(move |file| (n, file)));
    let inputs: Vec<_> =
        kept.filter(|(_, file)| file.ends_with("/in")).map(|(n, file)| epoch.join(format!("sandbox-{n}/tmp/{file}"))).collect();
    assert!(inputs.len() == 1 && std::fs::read(&inputs[0]).unwrap() == std::fs::read(&file).unwrap(), "the input as it was: {report}");

    stage.running.cli(&["release", "transcoder"]).unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
}
