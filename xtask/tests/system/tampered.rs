//! The ninth point; C6, E16, I15, J8: one edited byte is found and reported.

use std::path::{Path, PathBuf};

use xtask::curl::Ask;

use crate::{READY, Stage, audit_text};

/// Flips one bit in the middle of a file.
fn edit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found
}

// J8
#[test]
fn an_edited_audit_log_is_found() {
    let stage = Stage::set();
    let dir = stage.running.dir.clone();
    stage.running.cli(&["audit", "verify"]).unwrap();
    stage.running.stop().unwrap();
    let log = xtask::tree::files(&dir.join("data/evidence"), "jsonl").unwrap().remove(0);
    let palisade = stage.setting.palisade.clone();
    let verify = || std::process::Command::new(&palisade).args(["audit", "verify", "--dir"]).arg(&dir).output().unwrap();
    assert!(verify().status.success(), "{}", String::from_utf8_lossy(&verify().stdout));
    edit(&log);
    let output = verify();
    assert_eq!(output.status.code(), Some(2));
    println!("{}", String::from_utf8_lossy(&output.stdout));
    // A system with a broken log does not pretend to keep one.
    let failure = stage.setting.start().unwrap_err().to_string();
    println!("{failure}");
    assert!(failure.contains("audit log"), "{failure}");
}

// C6, I15: the lock, and an artefact that the lock pins.
#[test]
fn an_edited_lock_and_a_swapped_program_are_found() {
    let scratch = xtask::demo::Scratch::new().unwrap();
    let setting = crate::contained::copied(&scratch, &[]);
    let stage = Stage::set_with(scratch, setting);
    let setting = stage.setting.clone();
    let dir = stage.running.dir.clone();
    let scratch = stage.scratch;
    stage.running.stop().unwrap();
    let lock = dir.join("palisade.lock");
    let good = std::fs::read(&lock).unwrap();
    edit(&lock);
    let failure = setting.start().unwrap_err().to_string();
    println!("{failure}");
    assert!(failure.contains("lock"), "{failure}");
    // Without a lock nothing is pinned anew in silence.
    std::fs::remove_file(&lock).unwrap();
    let failure = setting.start().unwrap_err().to_string();
    assert!(failure.contains("palisade.lock is gone"), "{failure}");
    std::fs::write(&lock, good).unwrap();
    let program = scratch.0.join("bin/video-api");
    std::fs::write(&program, [std::fs::read(&program).unwrap(), b"x".to_vec()].concat()).unwrap();
    let failure = setting.start().unwrap_err().to_string();
    println!("{failure}");
    assert!(failure.contains("video-api"), "{failure}");
}

// I15: swapped while the system runs: the next start of the service gets no identity and does not run.
#[test]
fn a_program_swapped_under_a_running_system_does_not_start_again() {
    let scratch = xtask::demo::Scratch::new().unwrap();
    let setting = crate::contained::copied(&scratch, &[]);
    let stage = Stage::set_with(scratch, setting);
    let program = stage.scratch.0.join("bin/video-api");
    let swapped = [std::fs::read(&program).unwrap(), b"x".to_vec()].concat();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, swapped).unwrap();
    xtask::tree::run(std::process::Command::new("chmod").arg("755").arg(&program)).unwrap();
    let api = xtask::processes::tree(stage.running.pid()).unwrap().into_iter().find(|p| p.name == "video-api").unwrap();
    std::process::Command::new("kill").args(["-KILL", &api.pid.to_string()]).status().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(!xtask::processes::tree(stage.running.pid()).unwrap().iter().any(|p| p.name == "video-api"), "the swapped program runs");
    let audit = stage.audit();
    assert!(audit.contains("TamperingFound") && audit.contains("artefact"), "nobody reported it");
}

// E16: a kept view.
#[test]
fn an_edited_view_is_found_and_not_used() {
    let stage = Stage::set();
    let dir = stage.running.dir.clone();
    stage.running.stop().unwrap();
    edit(&dir.join("data/guard-api/view.json"));
    let running = stage.setting.start().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let audit = audit_text(&dir);
    assert!(audit.lines().any(|l| l.contains("TamperingFound") && l.contains("view")), "nobody reported it");
    running.stop().unwrap();
}

// G, issue point 9: a stored object.
#[test]
fn an_edited_object_is_never_served_and_reported() {
    let stage = Stage::set();
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let watch = stage.ada.api("GET", &format!("/api/videos/{}/watch", uploaded.id), None, 200).unwrap();
    let url = watch["renditions"][0]["url"].as_str().unwrap();
    assert_eq!(stage.ada.curl.ask(url, &Ask::default()).unwrap().status, 200);
    let store = stage.running.dir.join("data/objects");
    let big: Vec<PathBuf> = files_below(&store)
        .into_iter()
        .filter(|p| std::fs::metadata(p).unwrap().len() > 4096 && !p.to_string_lossy().contains(".db"))
        .collect();
    assert!(!big.is_empty());
    for path in &big {
        edit(path);
    }
    let answer = stage.ada.curl.ask(url, &Ask::default());
    assert!(answer.is_err() || answer.unwrap().status >= 500, "edited bytes were served");
    assert!(stage.audit().lines().any(|l| l.contains("TamperingFound") && l.contains("object")), "nobody reported it");
}
