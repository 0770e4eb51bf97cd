//! H1, A17, D13 and the sixth point: `kill -9` of any one process while a video is transcoded.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::processes;

use crate::{READY, Stage};

/// The processes of a system, as `xtask::processes` names them.
const ALL: &[&str] = &[
    "identity",
    "control",
    "evidence",
    "login",
    "objects",
    "queue",
    "edge",
    "guard web",
    "guard api",
    "guard validator",
    "guard transcoder",
    "video-transcoder",
    "ffmpeg",
    "video-api",
];

fn pid_of(stage: &Stage, name: &str) -> Option<u32> {
    processes::tree(stage.running.pid()).unwrap().into_iter().find(|p| p.name == name).map(|p| p.pid)
}

fn kill(pid: u32) {
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
}

// Each process in turn, in one system: a video is on its way, the process dies, the video gets ready, exactly once.
#[test]
fn a_video_survives_the_death_of_any_one_process() {
    let stage = Stage::set();
    let file = stage.video(20);
    for name in ALL {
        let uploaded = stage.ada.upload(&file, "video/mp4").unwrap();
        stage.ada.wait_for(&uploaded.id, &["transcoding", "ready"], READY).unwrap();
        let Some(pid) = pid_of(&stage, name) else { panic!("{name} does not run: {:?}", processes::tree(stage.running.pid())) };
        kill(pid);
        // What is not on the way of a page goes on serving it.
        if ["identity", "control", "evidence", "login", "objects", "queue", "guard validator", "guard transcoder"].contains(name) {
            let answer = stage.ada.curl.page("/").unwrap();
            assert_eq!(answer.status, 200, "{name} is dead, and the page is gone with it");
        }
        let start = Instant::now();
        let video = stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
        println!("{name}: ready {:.1} s after kill -9", start.elapsed().as_secs_f64());
        let list = stage.ada.api("GET", "/api/videos?limit=100", None, 200).unwrap().to_string();
        assert_eq!(list.matches(&format!("\"id\":\"{}\"", uploaded.id)).count(), 1, "{name}: {list}");
        assert_eq!(video["renditions"].as_array().unwrap().len(), 1, "{name}: {video}");
    }
}

// The supervisor's death ends everything; the next start goes on where it was.
#[test]
fn a_video_survives_the_death_of_the_supervisor() {
    let stage = Stage::set();
    let uploaded = stage.ada.upload(&stage.video(20), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["transcoding"], READY).unwrap();
    let pids: Vec<u32> = processes::tree(stage.running.pid()).unwrap().iter().map(|p| p.pid).collect();
    let (setting, scratch) = (stage.setting.clone(), stage.scratch);
    stage.running.kill().unwrap();
    let start = Instant::now();
    while pids.iter().any(|pid| std::path::Path::new(&format!("/proc/{pid}/root")).exists() && !is_zombie(*pid)) {
        assert!(start.elapsed() < Duration::from_secs(20), "processes outlive their supervisor");
        std::thread::sleep(Duration::from_millis(100));
    }
    let running = setting.start().unwrap();
    assert_eq!(running.first_link, None, "a second one-time link for a first administrator");
    let ada = running.person("ada", &scratch.0);
    ada.sign_in().unwrap();
    ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    running.stop().unwrap();
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}
