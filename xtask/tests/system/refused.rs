//! N4 in part, I10: bad media is refused by the validator, with a reason for the person, and FFmpeg never runs.

use std::path::PathBuf;
use std::process::Command;

use xtask::artefacts::Artefacts;

use crate::{READY, Stage};

fn bad_media(stage: &Stage) -> Vec<PathBuf> {
    let folder = stage.scratch.0.join("bad");
    std::fs::create_dir_all(&folder).unwrap();
    let good = stage.video(2);
    let program = Artefacts::beside_us().unwrap().bin.join("bad-media");
    xtask::tree::run(Command::new(program).arg(&folder).arg(&good)).unwrap();
    let files = xtask::tree::files(&folder, "mp4").unwrap();
    for needed in ["text", "playlist", "truncated", "external", "bomb"] {
        assert!(files.iter().any(|f| f.display().to_string().contains(needed)), "no {needed} among {files:?}");
    }
    files
}

#[test]
fn bad_media_is_refused_with_a_reason_before_ffmpeg_sees_a_byte() {
    let stage = Stage::set();
    let files = bad_media(&stage);
    for file in &files {
        let uploaded = stage.ada.upload(file, "video/mp4").unwrap();
        let video = stage.ada.wait_for(&uploaded.id, &["rejected"], READY).unwrap();
        let reason = video["reason"].as_str().unwrap_or_default();
        println!("{}: {reason}", file.display());
        assert!(reason.len() > 10 && reason.contains(' '), "{}: no reason for a person: {video}", file.display());
        // Nobody can watch it, and no URL to it is handed out.
        let watch = stage.ada.api("GET", &format!("/api/videos/{}/watch", uploaded.id), None, 200);
        assert!(watch.is_err() || watch.unwrap()["renditions"].as_array().is_none_or(Vec::is_empty));
    }
    // The transcoder scales from zero: it was never even started, so FFmpeg never ran.
    assert!(!stage.log("guard-transcoder").contains("sandbox.start"), "the transcoder was started");
    assert!(stage.log("guard-validator").contains("sandbox.start"), "this test looks for the wrong words");
}
