//! I8: what one job leaves behind, the next one does not find, whoever's it is.
//!
//! `leftover.py` is put in FFmpeg's place, looks around, and leaves what it can: a file, shared memory, a process, open sockets.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::demo::Scratch;
use xtask::person::Person;
use xtask::processes;

use crate::contained::{UNLISTED, copied};
use crate::{READY, Stage};

/// A system whose FFmpeg is `leftover.py`, with more said of the transcoder.
fn stage(more: &str) -> Stage {
    let scratch = Scratch::new().unwrap();
    let place = |path: &str| scratch.0.join(path).display().to_string();
    let (transcoder, stand_in) = (place("bin/video-transcoder"), place("apps/leftover/leftover.py"));
    let run = format!("run = [\"/usr/bin/env\", \"FFMPEG={stand_in}\", \"{transcoder}\"]\nfiles = [\"leftover\"]\n{more}");
    let tools = format!("tools = [\"{transcoder}\", \"{stand_in}\", \"/usr/bin/python3\"]");
    let replace = [
        ("run = [\"./video-transcoder\"]", run.as_str()),
        ("tools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]", tools.as_str()),
        UNLISTED,
    ];
    let setting = copied(&scratch, &replace);
    let folder = setting.manifest.parent().unwrap().join("leftover");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/leftover.py"), folder.join("leftover.py")).unwrap();
    xtask::tree::run(std::process::Command::new("chmod").args(["-R", "755"]).arg(&folder)).unwrap();
    Stage::set_with(scratch, setting)
}

/// What the stand-in found in this person's job, and that it left all it could.
fn found(stage: &Stage, person: &Person) -> Value {
    let uploaded = person.upload(&stage.video(2), "video/mp4").unwrap();
    let video = person.wait_for(&uploaded.id, &["failed"], READY).unwrap();
    let reason = video["reason"].as_str().unwrap();
    let said = reason.get(reason.find('{').unwrap_or_else(|| panic!("no finding: {reason}"))..=reason.rfind('}').unwrap()).unwrap();
    let mut said: Value = serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let mut said = said["leftover"].take();
    println!("found: {said}");
    let left = said.as_object_mut().unwrap().remove("left").unwrap();
    assert_eq!((&left["file"], &left["process"]), (&json!(true), &json!(true)), "what is not left is not worth looking for");
    assert!(left["processes"].as_u64().unwrap() >= 1, "{left}");
    said
}

/// How many processes of jobs the transcoder's guard has below it: all but the init that waits for the next, which has nobody below itself.
fn below_the_guard(stage: &Stage) -> usize {
    let all = processes::tree(stage.running.pid()).unwrap();
    let guard = all.iter().find(|process| process.name == "guard transcoder").unwrap().pid;
    let below: Vec<_> = processes::tree(guard).unwrap().into_iter().filter(|process| process.pid != guard).collect();
    let waits = matches!(below.as_slice(), [one] if one.name == "sandbox-init");
    if waits { 0 } else { below.len() }
}

// I8
#[test]
fn a_job_finds_nothing_of_the_job_before_it() {
    let stage = stage("");
    let nothing = json!({ "files": [], "sockets": [], "memory": false, "others": [] });
    assert_eq!(found(&stage, &stage.ada), nothing);
    // The process that ignores every request to end has ended with its job, before there is another.
    let start = Instant::now();
    while below_the_guard(&stage) > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "something of the job outlives it: {:?}", processes::tree(stage.running.pid()));
        std::thread::sleep(Duration::from_millis(50));
    }
    let bob = stage.invited("bob");
    assert_eq!(found(&stage, &bob), nothing, "Ada's job is over");
    assert_eq!(found(&stage, &stage.ada), nothing);
    assert!(stage.audit().matches("sandbox.start").count() >= 6, "three jobs each of validator and transcoder");
}

// I8, the other way round: with one sandbox for all jobs the same program does find what it left, so the test above can fail.
#[test]
fn a_manifest_that_asks_for_one_sandbox_gets_its_leftovers() {
    let stage = stage("fresh = \"start\"");
    assert_eq!(found(&stage, &stage.ada)["files"], json!([]));
    let bob = stage.invited("bob");
    let after = found(&stage, &bob);
    let mut files: Vec<&str> = after["files"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    files.sort_unstable();
    assert_eq!(files, ["/tmp/left-again", "/tmp/left-behind"]);
    assert!(after["others"].as_array().unwrap().iter().any(|other| other.as_str().unwrap().starts_with("process ")), "{after}");
}
