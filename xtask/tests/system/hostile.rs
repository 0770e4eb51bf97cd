//! N4, I10, I7: hostile media against the real system. What the check does not stop meets the sandbox, and nobody else notices.

mod expected;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::artefacts::Artefacts;
use xtask::curl::Ask;
use xtask::demo::Scratch;
use xtask::person::Person;

use self::expected::{Expected, FILES};
use crate::contained::copied;
use crate::{READY, Stage};

/// What no rendition may have in it.
const FOREIGN: &[&[u8]] = &[b"<script", b"onload=", b"EICAR", b"PK\x05\x06", b"#EXTM3U", b"executed"];
const LIMITS: &str =
    "limits = { memory = \"2GiB\", cpu = 2.0, pids = 128, wall = \"1h\", file = \"4GiB\", tmp = \"4GiB\", concurrency = 1 }";
const TIGHT: &str =
    "limits = { memory = \"384MiB\", cpu = 2.0, pids = 96, wall = \"1h\", file = \"48MiB\", tmp = \"96MiB\", concurrency = 1 }";

/// The corpus: each file with its declared type.
fn corpus(folder: &Path, door: &str) -> Vec<(PathBuf, String)> {
    // The same bytes each time: what is damaged at random is damaged alike.
    let fixtures = xtask::tree::root().join("apps/video/validator/fixtures");
    let (fragmented, live) = (fixtures.join("fragmented.mp4"), fixtures.join("live.webm"));
    let out = folder.join("hostile");
    let program = Artefacts::beside_us().unwrap().bin.join("bad-media");
    xtask::tree::run(Command::new(program).arg("--hostile").arg(&out).arg(&fragmented).arg(&live).arg(door)).unwrap();
    let list = std::fs::read_to_string(out.join("corpus.tsv")).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        (out.join(fields[0]), fields[1].to_owned())
    };
    list.lines().map(line).collect()
}

/// All videos of a person by their ids, once none of them is under way.
fn settled(person: &Person, count: usize) -> BTreeMap<String, Value> {
    let start = Instant::now();
    loop {
        let list = person.api("GET", "/api/videos?limit=100", None, 200).unwrap();
        let videos = list["videos"].as_array().unwrap();
        let over = videos.iter().filter(|video| ["ready", "rejected", "failed"].contains(&video["state"].as_str().unwrap())).count();
        if over >= count {
            return videos.iter().map(|video| (video["id"].as_str().unwrap().to_owned(), video.clone())).collect();
        }
        assert!(start.elapsed() < READY, "{over} of {count} are over: {list}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The bytes of each of a video's renditions.
fn renditions(person: &Person, id: &str) -> Vec<Vec<u8>> {
    let watch = person.api("GET", &format!("/api/videos/{id}/watch"), None, 200).unwrap();
    let all = watch["renditions"].as_array().unwrap();
    assert!(!all.is_empty(), "{id} is ready, and there is nothing to watch: {watch}");
    let bytes = |made: &Value| {
        let answer = person.curl.ask(made["url"].as_str().unwrap(), &Ask::default()).unwrap();
        assert_eq!(answer.status, 200);
        answer.body
    };
    all.iter().map(bytes).collect()
}

/// The bytes of a video's first rendition.
fn rendition(person: &Person, id: &str) -> Vec<u8> {
    renditions(person, id).remove(0)
}

// N4, I10: the whole corpus, uploaded by one person beside another's video.
#[test]
fn every_hostile_file_is_refused_with_a_reason_or_processed_with_nothing_else_touched() {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let stage = Stage::set();
    let bob = stage.invited("bob");
    let good = stage.video(1);
    let bobs = bob.upload(&good, "video/mp4").unwrap();
    bob.wait_for(&bobs.id, &["ready"], READY).unwrap();
    let before = rendition(&bob, &bobs.id);

    let corpus = corpus(&stage.scratch.0, &format!("http://{}", door.local_addr().unwrap()));
    let mut names = BTreeMap::new();
    for (file, declared) in &corpus {
        let id = stage.ada.upload(file, declared).unwrap().id;
        names.insert(id, file.file_name().unwrap().display().to_string());
    }
    let during = bob.upload(&good, "video/mp4").unwrap();
    let videos = settled(&stage.ada, corpus.len());
    assert_eq!((corpus.len(), names.len()), (FILES, FILES));
    for (id, name) in &names {
        let (state, reason) = (videos[id]["state"].as_str().unwrap(), videos[id]["reason"].as_str().unwrap_or_default());
        println!("{name}: {state}: {reason}");
        match expected::of(name) {
            Some(Expected::Refused(word)) => {
                assert!(state == "rejected" && reason.contains(word), "{name} is not refused as \"{word}\": {reason}")
            }
            Some(Expected::Ready) => {
                assert_eq!(state, "ready", "{name}: {reason}");
                // What was made of it is video and nothing else.
                for made in renditions(&stage.ada, id) {
                    let foreign = FOREIGN.iter().find(|foreign| made.windows(foreign.len()).any(|window| window == **foreign));
                    assert!(foreign.is_none(), "{name}: {foreign:?} is in what was made of it");
                    assert_eq!(made.get(4..8), Some(&b"ftyp"[..]), "{name}: what was made of it is no MP4");
                }
            }
            None => panic!("nothing is expected of {name}"),
        }
    }
    // Bob has noticed nothing, and his second video was made meanwhile.
    bob.wait_for(&during.id, &["ready"], READY).unwrap();
    assert_eq!(rendition(&bob, &bobs.id), before);
    assert_eq!(bob.api("GET", "/api/videos", None, 200).unwrap()["videos"].as_array().unwrap().len(), 2);
    // Nobody followed a reference; the door does notice who comes.
    door.set_nonblocking(true).unwrap();
    assert!(door.accept().is_err(), "somebody followed a reference in a file");
    let _caller = std::net::TcpStream::connect(door.local_addr().unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(door.accept().is_ok());
}

// N4: names and types that lie are told so at the announcement, or are text wherever they are shown.
#[test]
fn names_and_types_that_lie_are_refused_or_are_only_text() {
    let stage = Stage::set();
    let announce = |name: &str, media_type: &str, status: u16| {
        let wish = serde_json::json!({ "name": name, "size": 100, "type": media_type });
        stage.ada.api("POST", "/api/videos", Some(&wish), status).unwrap_or_else(|e| panic!("{name:?}, {media_type}: {e}"))
    };
    for name in ["a\u{0}.mp4", "a\r\nset-cookie: x=y", "", &"x".repeat(201)] {
        announce(name, "video/mp4", 400);
    }
    for media_type in ["text/html", "image/svg+xml", "application/x-mpegurl", "video/mp4,text/html", "video/x-matroska", "*/*", ""] {
        announce("a.mp4", media_type, 400);
    }
    let names =
        ["../../../etc/passwd", "<img src=x onerror=alert(1)>.mp4", "gpj.\u{202e}4pm", "CON", "\"; rm -rf /; \"", "</script><script>"];
    for name in names {
        announce(name, "video/mp4", 201);
    }
    let list = stage.ada.api("GET", "/api/videos", None, 200).unwrap();
    let shown: Vec<&str> = list["videos"].as_array().unwrap().iter().rev().map(|video| video["name"].as_str().unwrap()).collect();
    assert_eq!(shown, names);
    let page = stage.ada.curl.page("/").unwrap().text();
    assert!(page.contains("etc/passwd") && !page.contains("<img src=x") && !page.contains("</script><script>"), "a name is more than text");
}

// N4, I7, I8: bombs that the check cannot see go off in their own sandbox; another's upload goes on meanwhile, and each person is told.
#[test]
fn bombs_that_pass_the_check_end_their_own_job_and_nobody_elses() {
    let scratch = Scratch::new().unwrap();
    let place = |path: &str| scratch.0.join(path).display().to_string();
    let (transcoder, stand_in) = (place("bin/video-transcoder"), place("apps/bombs/bombs.py"));
    let run = format!("run = [\"/usr/bin/env\", \"FFMPEG={stand_in}\", \"TRANSCODE_WALL_S=20\", \"{transcoder}\"]\nfiles = [\"bombs\"]");
    let tools = format!("tools = [\"{transcoder}\", \"{stand_in}\", \"/usr/bin/python3\", \"/usr/bin/ffmpeg\"]");
    let replace = [
        ("run = [\"./video-transcoder\"]", run.as_str()),
        ("tools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]", tools.as_str()),
        (LIMITS, TIGHT),
        xtask::copied::UNLISTED,
    ];
    let setting = copied(&scratch, &replace);
    let folder = setting.manifest.with_file_name("bombs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/bombs.py"), folder.join("bombs.py")).unwrap();
    xtask::tree::run(Command::new("chmod").args(["-R", "755"]).arg(&folder)).unwrap();
    let stage = Stage::set_with(scratch, setting);
    let bob = stage.invited("bob");
    let good = stage.video(1);
    let bomb = |kind: &str| {
        let (path, text) = (stage.scratch.0.join(format!("{kind}.mp4")), format!("bomb:{kind}"));
        let mut bytes = std::fs::read(&good).unwrap();
        bytes.extend(u32::try_from(text.len() + 8).unwrap().to_be_bytes());
        bytes.extend([b"free", text.as_bytes()].concat());
        std::fs::write(&path, bytes).unwrap();
        stage.ada.upload(&path, "video/mp4").unwrap().id
    };

    let slow = bomb("time");
    stage.ada.wait_for(&slow, &["transcoding"], READY).unwrap();
    let bobs = bob.upload(&good, "video/mp4").unwrap();
    bob.wait_for(&bobs.id, &["validated"], READY).unwrap();
    let still = stage.ada.api("GET", &format!("/api/videos/{slow}"), None, 200).unwrap();
    assert_eq!(still["state"], "transcoding", "bob's upload was checked while the bomb ticked: {still}");

    let others = ["memory", "processes", "disk", "crash"].map(|kind| (kind, bomb(kind)));
    let words: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("time", &["did not end"][..]),
        ("memory", &["MemoryError", "signal", "given up"][..]),
        ("processes", &["no more than"][..]),
        ("disk", &["too large", "No space", "signal"][..]),
        ("crash", &["signal 11"][..]),
    ]);
    for (kind, id) in [("time", slow)].into_iter().chain(others) {
        let video = stage.ada.wait_for(&id, &["failed"], READY).unwrap();
        let reason = video["reason"].as_str().unwrap();
        println!("{kind}: {reason}");
        assert!(words[kind].iter().any(|word| reason.contains(word)), "{kind}: {reason}");
    }
    bob.wait_for(&bobs.id, &["ready"], READY).unwrap();
    let after = stage.ada.upload(&good, "video/mp4").unwrap();
    stage.ada.wait_for(&after.id, &["ready"], READY).unwrap();
    // What they made is gone with them.
    let left: Vec<String> = xtask::processes::tree(stage.running.pid()).unwrap().into_iter().map(|process| process.name).collect();
    assert!(!left.iter().any(|name| name.contains("bombs")), "a bomb's processes are left: {left:?}");
}
