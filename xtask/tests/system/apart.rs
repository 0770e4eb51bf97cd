//! G12: what people have stored is at an origin of its own, and nothing of it runs in a browser, whatever it is.
//!
//! The transcoder is taken over: a program in FFmpeg's place makes renditions that are a page, too, and a poster that is nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::curl::Ask;
use xtask::demo::Scratch;
use xtask::webdriver::Browser;

use crate::contained::copied;
use crate::{READY, Stage};

const SOON: Duration = Duration::from_secs(20);
const PASSWORD: &str = "long walks over quiet hills";
/// Loads an address in every way that a page has, and gives whether anything of it ran.
const TRY_ALL: &str = "const url = arguments[0] ?? ADDRESS; for (const [kind, name] of [['script', 'src'], ['iframe', 'src'], ['embed', 'src'], \
    ['object', 'data'], ['img', 'src'], ['video', 'src']]) { const one = document.createElement(kind); one[name] = url; document.body.append(one); } \
    return true;";

fn polyglots() -> Stage {
    let scratch = Scratch::new().unwrap();
    let place = |path: &str| scratch.0.join(path).display().to_string();
    let (transcoder, stand_in) = (place("bin/video-transcoder"), place("apps/polyglot/polyglot.py"));
    let run = format!("run = [\"/usr/bin/env\", \"FFMPEG={stand_in}\", \"{transcoder}\"]\nfiles = [\"polyglot\"]");
    let tools = format!("tools = [\"{transcoder}\", \"{stand_in}\", \"/usr/bin/python3\", \"/usr/bin/ffmpeg\"]");
    let replace = [
        ("run = [\"./video-transcoder\"]", run.as_str()),
        ("tools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]", tools.as_str()),
        xtask::copied::UNLISTED,
    ];
    let setting = copied(&scratch, &replace);
    let folder = setting.manifest.with_file_name("polyglot");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/polyglot.py"), folder.join("polyglot.py")).unwrap();
    xtask::tree::run(Command::new("chmod").args(["-R", "755"]).arg(&folder)).unwrap();
    Stage::set_with(scratch, setting)
}

// G12
#[test]
fn what_people_have_stored_is_apart_and_never_runs_in_a_browser() {
    let stage = polyglots();
    let uploaded = stage.ada.upload(&stage.video(1), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let watch = stage.ada.api("GET", &format!("/api/videos/{}/watch", uploaded.id), None, 200).unwrap();
    let urls = [watch["renditions"][0]["url"].as_str().unwrap(), watch["poster_url"].as_str().unwrap()];
    let apart = stage.running.address.replace("https://localhost", "https://content.localhost");
    for (url, media_type) in urls.iter().zip(["video/mp4", "image/jpeg"]) {
        assert!(url.starts_with(&format!("{apart}/renditions/")), "{url}");
        let answer = stage.ada.curl.ask(url, &Ask::default()).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("<script>"), "the stand-in did not put a page into it");
        let field = |name: &str| answer.headers.get(name).map_or("", String::as_str);
        assert_eq!((field("content-type"), field("x-content-type-options")), (media_type, "nosniff"));
        assert_eq!(field("content-security-policy"), "default-src 'none'; sandbox");
        assert_eq!((field("cross-origin-resource-policy"), field("set-cookie")), ("cross-origin", ""));
        // At the origin of the pages there is nothing of it.
        let here = url.replace(&apart, &stage.running.address);
        assert_eq!(stage.ada.curl.ask(&here, &Ask::default()).unwrap().status, 404);
    }

    let browser = Browser::start(&stage.scratch.0).unwrap();
    // What is in them does run where a browser takes it for a page.
    let control = stage.scratch.0.join("control.html");
    std::fs::write(&control, stage.ada.curl.ask(urls[1], &Ask::default()).unwrap().body).unwrap();
    browser.go(&format!("file://{}", control.display())).unwrap();
    browser.until("window.executed && document.title === 'executed'", SOON).unwrap();

    browser.go(&stage.running.address).unwrap();
    for (name, value) in [("name", "ada"), ("password", PASSWORD)] {
        browser.keys(&browser.find(&format!("input[name={name}]"), SOON).unwrap(), value).unwrap();
    }
    browser.click(&browser.find("form button[type=submit]", SOON).unwrap()).unwrap();
    browser.find("#file", SOON).unwrap();
    for url in urls {
        browser.script(&TRY_ALL.replace("ADDRESS", &format!("'{url}'"))).unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    let ran = browser.script("return [window.executed ?? null, document.title]").unwrap();
    assert!(ran[0].is_null() && ran[1] != "executed", "on a page of ours: {ran}");
    // Our pages may read it, without the person's cookie; the browser has none for it.
    let read = format!("return fetch('{}', {{ credentials: 'omit' }}).then((a) => a.status)", urls[1]);
    assert_eq!(browser.script(&read).unwrap(), 200);
    let with_cookies = format!("return fetch('{}', {{ credentials: 'include' }}).then((a) => a.status, () => 'refused')", urls[1]);
    assert_eq!(browser.script(&with_cookies).unwrap(), "refused");
    for url in urls {
        // A video's own page of the browser may take its time.
        let _slow = browser.go(url);
        std::thread::sleep(Duration::from_secs(1));
        let seen = browser.script("return [window.executed ?? null, document.title, document.cookie ?? '']");
        // Where even the browser's own scripts do not run, nothing does.
        if let Ok(seen) = seen {
            assert!(seen[0].is_null() && seen[1] != "executed" && seen[2] == "", "opened by itself: {seen}");
        }
    }
}
