//! N1, M8, H8, J3: a video goes all the way.

use xtask::demo::{self, Scratch};
use xtask::media;
use xtask::running::Setting;

use crate::Stage;

// N1: MP4, bytes verified by a decoder; the system starts from nothing and drains.
#[test]
fn an_mp4_goes_from_upload_to_checked_renditions() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.0.join("in.mp4");
    media::make(&file, 3, "1280x720", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]).unwrap();
    let running = Setting::reference(&scratch.0.join("system")).unwrap().start().unwrap();
    let report = demo::through(&running, &file, &scratch.0).unwrap();
    let mut names: Vec<&str> = report.renditions.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["360p", "720p"]);
    running.stop().unwrap();
}

// N1: WebM, smaller than every target: one rendition, never larger than the source.
#[test]
fn a_small_webm_gets_one_rendition_of_its_own_size() {
    let stage = Stage::set();
    let file = stage.scratch.0.join("in.webm");
    media::make(&file, 2, "320x180", &["-c:v", "libvpx", "-b:v", "300k", "-c:a", "libopus"]).unwrap();
    let uploaded = stage.ada.upload(&file, "video/webm").unwrap();
    let video = stage.ada.wait_for(&uploaded.id, &["ready"], crate::READY).unwrap();
    let renditions = video["renditions"].as_array().unwrap();
    assert_eq!(renditions.len(), 1, "{video}");
    assert_eq!(renditions[0]["height"], 180);
}

// J3, J4, H8: one trace from the browser's upload to the last rendition, with a decision at each hop.
#[test]
fn one_trace_shows_the_whole_way_with_the_decision_at_each_hop() {
    let stage = Stage::set();
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], crate::READY).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let trace = stage.running.cli(&["trace", &uploaded.trace]).unwrap();
    for hop in ["role/edge", "role/objects", "role/queue", "service/validator", "service/transcoder", "service/api"] {
        assert!(trace.contains(hop), "{hop} is not in the trace: {trace}");
    }
    assert!(trace.contains("objectWrite") && trace.contains("consume"), "no decisions in the trace: {trace}");
}

// D2, M8: everything without root, capabilities or a home.
#[test]
fn an_unprivileged_user_runs_the_whole_system() {
    let scratch = Scratch::new().unwrap();
    let mut setting = Setting::reference(&scratch.0.join("system")).unwrap();
    if xtask::tree::output(std::process::Command::new("id").arg("-u")).unwrap().trim() == "0" {
        // As `nobody`, who may not read this tree: everything that is needed is copied to where it may.
        setting = crate::contained::copied(&scratch, &[]);
        setting.user = Some(65_534);
        let owner = format!("{0}:{0}", 65_534);
        xtask::tree::run(std::process::Command::new("chown").args(["-R", &owner]).arg(&scratch.0)).unwrap();
    }
    let file = crate::made(&scratch.0, 2);
    let running = setting.start().unwrap();
    demo::through(&running, &file, &scratch.0).unwrap();
    running.stop().unwrap();
}
