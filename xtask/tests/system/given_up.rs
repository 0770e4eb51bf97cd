//! H1, N1: work that is given up, and work on what its person has deleted meanwhile.

use std::time::{Duration, Instant};

use xtask::demo::Scratch;

use crate::contained::{UNLISTED, copied};
use crate::{READY, Stage};

/// Answers every delivery with 500.
const STUBBORN: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

class Server(HTTPServer):
    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", self.server_address[1]

Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

// A transcode that is given up: its person hears of it, and may delete the video and upload it again.
#[test]
fn a_video_whose_work_is_given_up_is_failed_with_a_reason() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(
        &scratch,
        &[
            (
                "run = [\"./video-transcoder\"]\ntools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]",
                "run = [\"/usr/bin/python3\", \"stubborn.py\"]\nfiles = [\"stubborn.py\"]",
            ),
            UNLISTED,
        ],
    );
    let program = setting.manifest.parent().unwrap().join("stubborn.py");
    std::fs::write(&program, STUBBORN).unwrap();
    xtask::tree::run(std::process::Command::new("chmod").arg("644").arg(&program)).unwrap();
    let stage = Stage::set_with(scratch, setting);
    let file = stage.video(2);
    let uploaded = stage.ada.upload(&file, "video/mp4").unwrap();
    let video = stage.ada.wait_for(&uploaded.id, &["failed"], READY).unwrap();
    assert!(video["reason"].as_str().unwrap().contains("given up"), "{video}");
    stage.ada.api("DELETE", &format!("/api/videos/{}", uploaded.id), None, 204).unwrap();
    stage.ada.upload(&file, "video/mp4").unwrap();
}

// What is made of a video that was deleted meanwhile does not stay behind, as anybody's.
#[test]
fn a_video_that_is_deleted_while_it_is_transcoded_leaves_nothing() {
    let stage = Stage::set();
    let uploaded = stage.ada.upload(&stage.video(20), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["transcoding"], READY).unwrap();
    stage.ada.api("DELETE", &format!("/api/videos/{}", uploaded.id), None, 204).unwrap();
    let poster = format!("renditions/{}/poster.jpg", uploaded.id);
    let start = Instant::now();
    loop {
        let audit = stage.audit();
        if audit.lines().any(|line| line.contains(&poster) && line.contains("objectDelete") && line.contains("\"allow\"")) {
            break;
        }
        assert!(start.elapsed() < READY, "nobody deleted what was made of a deleted video");
        std::thread::sleep(Duration::from_millis(500));
    }
    let left = std::fs::read_dir(stage.running.dir.join("data/objects/store/blobs")).unwrap().count();
    assert_eq!(left, 0, "files of a deleted video are left");
}
