//! N9, J12 and the third point: a person with a browser. Headless Chromium, through the real pages.
//!
//! Pictures are left in `target/screenshots`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use xtask::demo::Scratch;
use xtask::running::Setting;
use xtask::webdriver::Browser;

use crate::READY;

const SOON: Duration = Duration::from_secs(20);
const PASSWORD: &str = "long walks over quiet hills";
const FRACTAL: &str = "mandelbrot=size=1280x720:rate=25:maxiter=600:inner=black:outer=normalized_iteration_count:end_scale=0.05:end_pts=500,\
    format=gray,format=yuv444p,pseudocolor=preset=inferno";
/// What the page shows of its cards, looked at every few milliseconds.
const RECORDER: &str = "window.seen = []; setInterval(() => { for (const card of document.querySelectorAll('#grid .card')) { \
    const at = card.querySelector('progress'), last = window.seen.at(-1), \
    now = [card.dataset.video, card.dataset.state, at.hidden ? null : at.value, card.querySelector('.chip').textContent]; \
    if (JSON.stringify(last) !== JSON.stringify(now)) window.seen.push(now); } }, 15)";

/// A moving picture that is worth a look, made with FFmpeg.
fn picture(folder: &Path, name: &str, source: &str, seconds: u32) -> PathBuf {
    let file = folder.join(name);
    let tone = format!("sine=frequency=330:duration={seconds}");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", &tone, "-t", &seconds.to_string()]);
    ffmpeg.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "24", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    xtask::tree::run(ffmpeg.arg(&file)).unwrap();
    file
}

fn screenshot(browser: &Browser, name: &str) {
    browser.screenshot(&xtask::tree::root().join("target/screenshots").join(name)).unwrap();
}

fn fill(browser: &Browser, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        browser.keys(&browser.find(&format!("input[name={name}]"), SOON).unwrap(), value).unwrap();
    }
}

fn send(browser: &Browser) {
    browser.click(&browser.find("form button[type=submit]", SOON).unwrap()).unwrap();
}

fn choose(browser: &Browser, file: &Path) {
    browser.keys(&browser.find("#file", SOON).unwrap(), &file.display().to_string()).unwrap();
}

#[test]
fn a_person_enrols_signs_in_uploads_plays_and_looks_at_the_trace() {
    let scratch = Scratch::new().unwrap();
    let running = Setting::reference(&scratch.0.join("system")).unwrap().start().unwrap();
    let browser = Browser::start(&scratch.0).unwrap();
    let main = picture(&scratch.0, "Into the fractal.mp4", FRACTAL, 20);
    let others = [
        picture(
            &scratch.0,
            "Slow colours.mp4",
            "gradients=size=1280x720:rate=25:speed=0.01:c0=0x0b3d91:c1=0xf2a65a:c2=0x5b2a86:c3=0x1fa187:nb_colors=4",
            4,
        ),
        picture(
            &scratch.0,
            "Evening light.mp4",
            "gradients=size=1280x720:rate=25:speed=0.01:c0=0x101430:c1=0x6b2a6b:c2=0xe0566f:c3=0xffd27d:nb_colors=4:seed=7",
            4,
        ),
    ];

    // The one-time link; then out, and in again by name and password.
    browser.go(running.first_link.as_deref().unwrap()).unwrap();
    screenshot(&browser, "enrol.png");
    fill(&browser, &[("name", "ada"), ("password", PASSWORD), ("repeat", PASSWORD)]);
    send(&browser);
    browser.until("document.querySelector('#person').textContent === 'ada'", SOON).unwrap();
    screenshot(&browser, "empty.png");
    browser.click(&browser.find("header a[href='/auth/logout']", SOON).unwrap()).unwrap();
    browser.until("!document.querySelector('#file')", SOON).unwrap();
    browser.go(&running.address).unwrap();
    browser.find("input[name=password]", SOON).unwrap();
    screenshot(&browser, "sign-in.png");
    fill(&browser, &[("name", "ada"), ("password", "not this one at all")]);
    send(&browser);
    browser.find("#error", SOON).unwrap();
    // A refused sign-in is answered with 401, which a browser notes.
    browser.complaints().unwrap();
    browser.script("document.querySelector('input[name=name]').value = ''").unwrap();
    fill(&browser, &[("name", "ada"), ("password", PASSWORD)]);
    send(&browser);
    browser.find("#file", SOON).unwrap();
    browser.until("document.querySelector('#person').textContent === 'ada'", SOON).unwrap();

    // Upload: slowly, so that the bar can be watched.
    browser.script(RECORDER).unwrap();
    browser.slow_network(2_000_000).unwrap();
    choose(&browser, &main);
    browser.until("window.seen.some((s) => s[1] === 'uploading' && s[2] > 20)", SOON).unwrap();
    screenshot(&browser, "uploading.png");
    browser.until("window.seen.some((s) => s[1] !== 'uploading')", Duration::from_secs(60)).unwrap();
    browser.fast_network().unwrap();
    browser.until("window.seen.some((s) => s[1] === 'transcoding' && s[2] > 10)", READY).unwrap();
    screenshot(&browser, "transcoding.png");
    let id = browser.until("document.querySelector('#grid .card[data-state=ready]')?.dataset.video", READY).unwrap();
    let id = id.as_str().unwrap().to_owned();
    let seen = browser.script("return window.seen").unwrap();
    println!("seen: {seen}");
    let values = |state: &str| -> Vec<f64> {
        let of = seen.as_array().unwrap().iter().filter(|s| s[0] == id.as_str() && s[1] == state);
        let mut values: Vec<f64> = of.filter_map(|s| s[2].as_f64()).collect();
        values.dedup();
        values
    };
    for (state, least) in [("uploading", 4), ("transcoding", 2)] {
        let values = values(state);
        assert!(values.len() >= least && values.is_sorted(), "the bar while {state}: {values:?}");
    }
    for chip in ["Uploading", "Transcoding", "Ready"] {
        assert!(seen.to_string().contains(&format!("\"{chip}\"")), "no chip {chip}");
    }

    // Two more, for company.
    for file in &others {
        choose(&browser, file);
    }
    browser.until("document.querySelectorAll('#grid .card[data-state=ready] img:not([hidden])').length === 3", READY).unwrap();
    screenshot(&browser, "list.png");

    // An upload that a reload interrupts: the same file chosen again, it goes on where it was, in the same card.
    let long = scratch.0.join("A long walk.mp4");
    crate::resumed::padded(&others[0], &long, 40 << 20);
    let state = |name: &str| format!("document.querySelector('#grid .card[data-state={name}]')");
    browser.slow_network(8_000_000).unwrap();
    choose(&browser, &long);
    browser.until(&format!("{}?.querySelector('progress').value > 60", state("uploading")), Duration::from_secs(60)).unwrap();
    let cut = browser.script(&format!("return {}.dataset.video", state("uploading"))).unwrap();
    browser.go(&running.address).unwrap();
    browser.until(&format!("{}?.dataset.video === '{}'", state("awaiting_upload"), cut.as_str().unwrap()), SOON).unwrap();
    screenshot(&browser, "unfinished.png");
    browser.script(RECORDER).unwrap();
    browser.slow_network(8_000_000).unwrap();
    choose(&browser, &long);
    browser.until("window.seen.some((s) => s[1] === 'uploading' && s[2] > 20)", SOON).unwrap();
    screenshot(&browser, "resumed.png");
    let seen = browser.script("return window.seen.filter((s) => s[1] === 'uploading')").unwrap();
    println!("resumed: {seen}");
    assert!(seen.as_array().unwrap().iter().all(|s| s[0] == cut), "another card: {seen}");
    let shown: Vec<f64> = seen.as_array().unwrap().iter().filter_map(|s| s[2].as_f64()).filter(|value| *value > 0.0).collect();
    assert!(shown[0] > 30.0 && shown.is_sorted(), "it began anew: {shown:?}");
    browser.fast_network().unwrap();
    browser
        .until(&format!("document.querySelector('#grid .card[data-video=\"{}\"]').dataset.state === 'ready'", cut.as_str().unwrap()), READY)
        .unwrap();
    browser.complaints().unwrap();

    // Play.
    browser.click(&browser.find(&format!("#grid .card[data-video='{id}'] .still"), SOON).unwrap()).unwrap();
    browser.script("document.querySelector('#video').muted = true").unwrap();
    browser.until("document.querySelector('#video').currentTime > 0.5", SOON).unwrap();
    screenshot(&browser, "player.png");
    let first = browser.script("return document.querySelector('#video').currentTime").unwrap().as_f64().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let second = browser.script("return document.querySelector('#video').currentTime").unwrap().as_f64().unwrap();
    assert!(second > first + 0.5, "played from {first} to {second}");
    let size = browser.script("const v = document.querySelector('#video'); return [v.videoWidth, v.videoHeight, v.duration]").unwrap();
    assert_eq!((size[0].as_u64(), size[1].as_u64()), (Some(1280), Some(720)), "{size}");
    browser.click(&browser.find("#player-close", SOON).unwrap()).unwrap();
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());

    // The trace, from the card.
    browser.click(&browser.find(&format!("#grid .card[data-video='{id}'] .trace"), SOON).unwrap()).unwrap();
    browser.find("table", SOON).unwrap();
    screenshot(&browser, "traces.png");
    let widest = "[...document.querySelectorAll('td.work a')].sort((a, b) => +b.closest('tr').querySelector('.num').textContent - +a.closest('tr').querySelector('.num').textContent)[0]";
    browser.script(&format!("{widest}.click()")).unwrap();
    browser.find(".waterfall", SOON).unwrap();
    let stops = browser.script("return [...document.querySelectorAll('.waterfall .what .stop')].map((s) => s.textContent)").unwrap();
    for hop in ["edge", "objects", "queue", "validator", "transcoder", "api"] {
        assert!(stops.as_array().unwrap().iter().any(|stop| stop == hop), "{hop} is not in the waterfall: {stops}");
    }
    assert!(
        browser.script("return document.querySelectorAll('.waterfall .decision.yes').length").unwrap().as_u64() > Some(4),
        "no decisions"
    );
    screenshot(&browser, "trace.png");
    for (path, name) in [("/console", "map.png"), ("/console/audit", "audit.png"), ("/console/decisions", "decisions.png")] {
        browser.go(&format!("{}{path}", running.address)).unwrap();
        browser.find("main", SOON).unwrap();
        std::thread::sleep(Duration::from_millis(800));
        screenshot(&browser, name);
    }
    // What the last minute saw is on the map: also the calls from before anybody looked at it.
    browser.go(&format!("{}/console", running.address)).unwrap();
    browser.find("main .line", SOON).unwrap();
    let live =
        browser.script("return [...document.querySelectorAll('.line.live title')].map((t) => t.textContent.split('\\n')[0])").unwrap();
    println!("live: {live}");
    for flow in ["bucket/renditions", "queue/status"] {
        assert!(live.as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(flow)), "nothing of {flow} is live: {live}");
    }
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    drop(browser);
    running.stop().unwrap();
}
