//! M9: services get new programs while people use them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use xtask::curl::Ask;
use xtask::person::Person;
use xtask::processes;

use crate::Stage;

/// A run gets ready, and the one before it drains.
const REPLACED: Duration = Duration::from_secs(60);

fn guard(stage: &Stage, service: &str) -> Vec<u32> {
    let all = processes::tree(stage.running.pid()).unwrap();
    all.into_iter().filter(|process| process.name == format!("guard {service}")).map(|process| process.pid).collect()
}

fn apply(stage: &Stage) {
    stage.running.cli(&["apply", "--manifest", &stage.setting.manifest.display().to_string()]).unwrap();
}

/// Puts a file in another's place, as an installer does: what runs keeps the old one.
fn install(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::copy(path, &beside).unwrap();
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// One guard of `service`, and it is not `before`.
fn wait_for_another(stage: &Stage, service: &str, before: &[u32]) {
    let start = Instant::now();
    loop {
        let now = guard(stage, service);
        if now.len() == 1 && now != before {
            return;
        }
        assert!(start.elapsed() < REPLACED, "{service}: {before:?}, then {now:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn page(person: &Person) -> Result<String, String> {
    let answer = person.curl.ask("/", &Ask::default()).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    // The page says so when it cannot have the list.
    if answer.status == 200 && !text.contains("keeps trying") { Ok(text) } else { Err(format!("{}: {text}", answer.status)) }
}

// M9: a service without state (web) and one with (api, whose next run must wait for the folder), reads and writes; and a program that
// cannot start, which changes nothing.
#[test]
fn services_are_replaced_while_they_serve_and_no_request_fails() {
    let stage = Stage::set_with_copy(&[]);
    let folder = stage.setting.manifest.parent().unwrap();
    let (index, bin) = (folder.join("web/static/page.html"), stage.setting.palisade.parent().unwrap());
    let (done, asked, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let ask = |one: &dyn Fn() -> Result<(), String>| {
        while !done.load(Ordering::SeqCst) {
            if let Err(error) = one() {
                failed.lock().unwrap().push(error);
            }
            asked.fetch_add(1, Ordering::SeqCst);
            // Below what one person may ask for.
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let new = json!({ "name": "a.mp4", "size": 1000, "type": "video/mp4" });
    // Each with cookies of their own: the client writes them anew at each request.
    let [reader, lister, writer] = ["reader", "lister", "writer"].map(|name| stage.invited(name));
    let (web, api) = (guard(&stage, "web"), guard(&stage, "api"));
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&|| page(&reader).map(drop)));
        scope.spawn(|| ask(&|| lister.api("GET", "/api/videos", None, 200).map(drop).map_err(|error| error.to_string())));
        scope.spawn(|| ask(&|| writer.api("POST", "/api/videos", Some(&new), 201).map(drop).map_err(|error| error.to_string())));
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(Duration::from_secs(1));
            let text = std::fs::read_to_string(&index).unwrap();
            install(&index, format!("{text}<!-- the second edition -->").as_bytes());
            apply(&stage);
            wait_for_another(&stage, "web", &web);
            let start = Instant::now();
            while !page(&stage.ada).unwrap().contains("the second edition") {
                assert!(start.elapsed() < REPLACED, "the page is still the first edition");
            }
            let mut program = std::fs::read(bin.join("video-api")).unwrap();
            program.push(0);
            install(&bin.join("video-api"), &program);
            apply(&stage);
            wait_for_another(&stage, "api", &api);
            std::thread::sleep(Duration::from_secs(2));
        }));
        done.store(true, Ordering::SeqCst);
        replaced.unwrap();
    });
    let failed = failed.into_inner().unwrap();
    println!("{} requests, {} failed", asked.load(Ordering::SeqCst), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(asked.load(Ordering::SeqCst) > 100);

    // What cannot start takes nobody's place; and once the right program is back, nothing is left to do.
    let validator = guard(&stage, "validator");
    let right = std::fs::read(bin.join("video-validator")).unwrap();
    install(&bin.join("video-validator"), b"no program");
    apply(&stage);
    let start = Instant::now();
    while !stage.log("guard-validator").contains("this run is outdated, and stays") {
        assert!(start.elapsed() < REPLACED, "nobody said that the new run did not get ready");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(guard(&stage, "validator"), validator);
    install(&bin.join("video-validator"), &right);
    apply(&stage);
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], crate::READY).unwrap();
    assert_eq!(guard(&stage, "validator"), validator);
    stage.running.cli(&["audit", "verify"]).unwrap();
}
