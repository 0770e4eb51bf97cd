//! N2, G6: an upload that breaks, together with the store that it goes to, and goes on with what the store has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::curl::Ask;
use xtask::{processes, tree};

use crate::{READY, Stage};

const MIB: usize = 1 << 20;
const PART: usize = 8 * MIB;

/// A video with so many bytes more in a box that players skip (ISO/IEC 14496-12, section 8.1.2), no two MiB alike.
pub fn padded(video: &Path, to: &Path, bytes: usize) {
    let mut content = std::fs::read(video).unwrap();
    content.extend_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
    content.extend_from_slice(b"free");
    content.extend((0..bytes - 8).map(|n| u8::try_from((n / MIB * 31 + n) % 251).unwrap()));
    std::fs::write(to, content).unwrap();
}

/// The file's parts as files.
fn cut(file: &Path, folder: &Path) -> Vec<PathBuf> {
    let content = std::fs::read(file).unwrap();
    let pieces = content.chunks(PART).enumerate();
    pieces
        .map(|(n, piece)| {
            let path = folder.join(format!("part-{}", n + 1));
            std::fs::write(&path, piece).unwrap();
            path
        })
        .collect()
}

fn numbers(all: &Value) -> Vec<u64> {
    all.as_array().unwrap().iter().map(|part| part["number"].as_u64().unwrap()).collect()
}

/// Every file that the store keeps bytes in.
fn blobs(stage: &Stage) -> Vec<Vec<u8>> {
    let folder = stage.running.dir.join("data/objects/store/blobs");
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_broken_upload_goes_on_with_what_the_store_has() {
    let stage = Stage::set();
    let eve = stage.invited("eve");
    let file = stage.scratch.0.join("long.mp4");
    padded(&stage.video(2), &file, 20 * MIB);
    let size = std::fs::metadata(&file).unwrap().len();
    let parts = cut(&file, &stage.scratch.0);
    assert_eq!(parts.len(), 3);
    let made = stage.ada.api("POST", "/api/videos", Some(&json!({ "name": "long.mp4", "size": size, "type": "video/mp4" })), 201).unwrap();
    let id = made["id"].as_str().unwrap();
    let path = format!("/api/videos/{id}/upload");
    let plan = stage.ada.api("POST", &path, None, 200).unwrap();
    assert_eq!((numbers(&plan["stored"]), numbers(&plan["parts"])), (vec![], vec![1, 2, 3]), "{plan}");
    let send = |plan: &Value, number: u64| {
        let part = plan["parts"].as_array().unwrap().iter().find(|part| part["number"] == number).unwrap();
        let file = Some(parts[usize::try_from(number).unwrap() - 1].as_path());
        stage.ada.curl.ask(part["url"].as_str().unwrap(), &Ask { method: "PUT", file, ..Ask::default() })
    };
    assert_eq!(send(&plan, 1).unwrap().status, 200);

    // The second is on its way, slowly, when the store dies.
    let mut slow = Command::new("curl");
    slow.args(["--silent", "--limit-rate", "1M", "--max-time", "120", "--write-out", "%{http_code}"]);
    slow.arg("--cacert").arg(&stage.running.certificate).arg("--upload-file").arg(&parts[1]).arg(plan["parts"][1]["url"].as_str().unwrap());
    let under_way = slow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let incoming = stage.running.dir.join("data/objects/store/incoming");
    let start = Instant::now();
    while std::fs::read_dir(&incoming).unwrap().count() == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the second part never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = processes::tree(stage.running.pid()).unwrap().into_iter().find(|process| process.name == "objects").unwrap().pid;
    tree::run(Command::new("kill").args(["-KILL", &pid.to_string()])).unwrap();
    let answer = under_way.wait_with_output().unwrap();
    assert_ne!(answer.stdout, b"200", "the second part was taken by a dead store");

    // Nobody else can go on with it; its person can, with what is missing.
    eve.api("POST", &path, None, 404).unwrap();
    let start = Instant::now();
    let plan = loop {
        match stage.ada.api("POST", &path, None, 200) {
            Ok(plan) => break plan,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "the store did not come back: {error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        (numbers(&plan["stored"]), numbers(&plan["parts"])),
        (vec![1], vec![2, 3]),
        "bytes that are there are not asked for: {plan}"
    );
    let digest = tree::output(Command::new("sha256sum").arg(&parts[0])).unwrap();
    assert_eq!(plan["stored"][0]["sha256"], digest.split(' ').next().unwrap());
    // Last part first: the order is nobody's concern.
    assert_eq!(send(&plan, 3).unwrap().status, 200);
    let again = stage.ada.api("POST", &path, None, 200).unwrap();
    assert_eq!((numbers(&again["stored"]), numbers(&again["parts"])), (vec![1, 3], vec![2]));
    assert_eq!(send(&plan, 2).unwrap().status, 200);
    // Refused before its end, an upload over HTTP/2 may see its stream reset instead of the answer.
    assert!(send(&plan, 2).map_or(true, |answer| answer.status == 403), "a URL works once");
    assert_eq!(stage.ada.api("POST", &path, None, 200).unwrap()["complete"], true);

    stage.ada.wait_for(id, &["ready"], READY).unwrap();
    let kept = blobs(&stage);
    for part in &parts {
        let sent = std::fs::read(part).unwrap();
        assert_eq!(kept.iter().filter(|blob| **blob == sent).count(), 1, "{} is there once, byte for byte", part.display());
    }
    assert_eq!(kept.iter().filter(|blob| blob.len() > 2 * MIB).count(), 3, "and nothing else is");
}
