//! The functional suite: what the video application does for people, whoever runs it. The reference system and its twin must both pass.
//!
//! Guarantees: N8, N1, N3. A check sees a site only as a person does: addresses, cookies, pages, bytes.
//! Not here:   what Palisade adds (traces, audit log, containment).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::curl::Ask;
use crate::person::Person;
use crate::running::Running;
use crate::{Outcome, demo, media};

/// How long a short video may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(180);

/// A running video application.
pub trait Site {
    /// Somebody with a browser of their own who is not known there.
    fn visitor(&self, name: &str, scratch: &Path) -> Person;

    /// The path or address of a one-time link for one more person.
    ///
    /// # Errors
    /// When the site gives none.
    fn invitation(&self, name: &str) -> Outcome<String>;

    /// A new person, signed in.
    ///
    /// # Errors
    /// When enrolment or sign-in fails.
    fn person(&self, name: &str, scratch: &Path) -> Outcome<Person> {
        let person = self.visitor(name, scratch);
        person.enrol(&self.invitation(name)?)?;
        person.sign_in()?;
        Ok(person)
    }
}

impl Site for Running {
    fn visitor(&self, name: &str, scratch: &Path) -> Person {
        Running::person(self, name, scratch)
    }

    fn invitation(&self, name: &str) -> Outcome<String> {
        match &self.first_link {
            // The first link makes an administrator, once.
            Some(link) if name == FIRST => Ok(link.clone()),
            _ => self.invite(name),
        }
    }
}

/// The first person of a site.
pub const FIRST: &str = "ada";

/// What checks work with: two people, and a video of the first that is ready.
pub struct Scene<'a> {
    site: &'a dyn Site,
    scratch: PathBuf,
    ada: Person,
    bob: Person,
    file: PathBuf,
    ready: String,
}

/// What one check came to.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// What is checked, as a sentence.
    pub name: &'static str,
    /// Why it did not hold; nothing when it did.
    pub problem: Option<String>,
}

type Check = fn(&Scene<'_>) -> Outcome;

/// Every check, in the order in which they run: the last ones take away what the others look at.
const CHECKS: &[(&str, Check)] = &[
    ("strangers get nothing", strangers_get_nothing),
    ("the page shows who is signed in, and their videos", the_page_shows_the_list),
    ("an upload becomes renditions and a poster that decode", renditions_decode),
    ("a small WebM gets one rendition of its own size", a_small_webm),
    ("two people never see each other's videos", nobody_sees_anothers),
    ("a range of a rendition is that part of it", ranges),
    ("what is no video is refused, with a reason", wrong_types),
    ("an upload that is not as announced is refused, and it works once", as_announced_and_once),
    ("an upload in parts goes on with what is there", in_parts),
    ("a list has pages, newest first", pages),
    ("another site's page changes nothing", cross_site),
    ("what is deleted is gone", deleted),
    ("who has signed out is a stranger", signed_out),
];

/// Runs all checks against a site that nobody has enrolled in yet.
///
/// # Errors
/// When not even the scene can be set: two people and a video that is ready.
pub fn run(site: &dyn Site, scratch: &Path) -> Outcome<Vec<Checked>> {
    let file = scratch.join("made.mp4");
    media::make(&file, 2, "640x360", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])?;
    let (ada, bob) = (site.person(FIRST, scratch)?, site.person("bob", scratch)?);
    let ready = ada.upload(&file, "video/mp4")?.id;
    ada.wait_for(&ready, &["ready"], READY)?;
    let scene = Scene { site, scratch: scratch.to_path_buf(), ada, bob, file, ready };
    let checked = CHECKS.iter().map(|(name, check)| Checked { name, problem: check(&scene).err().map(|error| error.to_string()) });
    Ok(checked.collect())
}

/// Says so when something does not hold.
fn holds(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

fn strangers_get_nothing(scene: &Scene<'_>) -> Outcome {
    let stranger = scene.site.visitor("stranger", &scene.scratch).curl;
    let list = stranger.ask("/api/videos", &Ask::default())?;
    holds(list.status == 401, || format!("the list: {}", list.status))?;
    let page = stranger.ask("/", &Ask::default())?;
    holds((300..400).contains(&page.status), || format!("the page: {}", page.status))?;
    let one = stranger.ask(&format!("/api/videos/{}", scene.ready), &Ask { headers: &[("palisade-user", FIRST)], ..Ask::default() })?;
    holds(one.status == 401, || format!("a video, with a name in a header: {}", one.status))
}

fn the_page_shows_the_list(scene: &Scene<'_>) -> Outcome {
    let page = scene.ada.curl.page("/")?;
    let text = page.text();
    holds(page.status == 200 && text.contains("id=\"file\"") && text.contains(&scene.ready), || format!("{}: {text}", page.status))?;
    let me = scene.ada.api("GET", "/auth/me", None, 200)?;
    holds(me["name"] == FIRST, || format!("the person: {me}"))?;
    let script = scene.ada.curl.ask("/static/app.js", &Ask::default())?;
    holds(script.status == 200 && script.text().contains("fetch("), || format!("the script: {}", script.status))
}

fn renditions_decode(scene: &Scene<'_>) -> Outcome {
    let video = scene.ada.api("GET", &format!("/api/videos/{}", scene.ready), None, 200)?;
    let made = demo::download(&scene.ada, &video, &scene.ready, &media::probe(&scene.file)?, &scene.scratch)?;
    let names: Vec<&str> = made.iter().map(|made| made.name.as_str()).collect();
    holds(names == ["360p"], || format!("renditions: {names:?}"))
}

fn a_small_webm(scene: &Scene<'_>) -> Outcome {
    let file = scene.scratch.join("small.webm");
    media::make(&file, 1, "320x180", &["-c:v", "libvpx", "-b:v", "300k", "-c:a", "libopus"])?;
    let uploaded = scene.ada.upload(&file, "video/webm")?;
    let video = scene.ada.wait_for(&uploaded.id, &["ready"], READY)?;
    let made = video["renditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    holds(made.len() == 1 && made.iter().all(|made| made["height"] == 180), || format!("{video}"))
}

fn nobody_sees_anothers(scene: &Scene<'_>) -> Outcome {
    let list = scene.bob.api("GET", "/api/videos", None, 200)?.to_string();
    holds(!list.contains(&scene.ready), || list)?;
    for (method, path) in [("GET", ""), ("GET", "/watch"), ("POST", "/upload"), ("DELETE", "")] {
        scene.bob.api(method, &format!("/api/videos/{}{path}", scene.ready), None, 404)?;
    }
    scene.ada.api("GET", &format!("/api/videos/{}", scene.ready), None, 200).map(drop)
}

/// The address of the first rendition of the video that is ready.
fn rendition(scene: &Scene<'_>) -> Outcome<String> {
    let watch = scene.ada.api("GET", &format!("/api/videos/{}/watch", scene.ready), None, 200)?;
    let url = watch["renditions"].as_array().and_then(|all| all.first()).and_then(|made| made["url"].as_str());
    Ok(url.ok_or("no rendition is offered")?.to_owned())
}

fn ranges(scene: &Scene<'_>) -> Outcome {
    let url = rendition(scene)?;
    let get = |range: &str| scene.ada.curl.ask(&url, &Ask { headers: &[("range", range)], ..Ask::default() });
    let whole = scene.ada.curl.ask(&url, &Ask::default())?;
    let size = whole.body.len();
    holds(whole.status == 200 && size > 1000 && whole.headers.get("accept-ranges").is_some_and(|unit| unit == "bytes"), || {
        format!("the whole: {} with {size} bytes, {:?}", whole.status, whole.headers)
    })?;
    for (asked, from, to) in [("bytes=0-99", 0, 100), ("bytes=500-", 500, size), ("bytes=-200", size - 200, size)] {
        let part = get(asked)?;
        let told = format!("bytes {from}-{}/{size}", to - 1);
        holds(
            part.status == 206 && whole.body.get(from..to) == Some(&part.body) && part.headers.get("content-range") == Some(&told),
            || format!("{asked}: {} with {} bytes, {:?}", part.status, part.body.len(), part.headers),
        )?;
    }
    let beyond = get(&format!("bytes={}-", size + 10))?;
    holds(beyond.status == 416, || format!("a range behind the end: {}", beyond.status))
}

fn wrong_types(scene: &Scene<'_>) -> Outcome {
    for (size, media_type) in [(10, "image/png"), (10, "text/html"), (0, "video/mp4"), (3 << 30, "video/mp4")] {
        scene.ada.api("POST", "/api/videos", Some(&json!({ "name": "x.mp4", "size": size, "type": media_type })), 400)?;
    }
    let text = scene.scratch.join("text.mp4");
    std::fs::write(&text, "Dear reader, this was never a video.\n".repeat(20))?;
    let uploaded = scene.ada.upload(&text, "video/mp4")?;
    let video = scene.ada.wait_for(&uploaded.id, &["rejected"], READY)?;
    holds(video["reason"].as_str().is_some_and(|reason| reason.contains("text")), || format!("the reason: {video}"))?;
    let watch = scene.ada.api("GET", &format!("/api/videos/{}/watch", uploaded.id), None, 409);
    watch.map(drop)
}

fn announced(scene: &Scene<'_>, size: usize) -> Outcome<(String, String)> {
    let made = scene.ada.api("POST", "/api/videos", Some(&json!({ "name": "a.mp4", "size": size, "type": "video/mp4" })), 201)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok((text(&made["id"]).ok_or("no id")?, text(&made["upload"]["url"]).ok_or("no address")?))
}

fn as_announced_and_once(scene: &Scene<'_>) -> Outcome {
    let (id, url) = announced(scene, 100)?;
    let put = |length: usize, media_type: &str| {
        let (data, headers) = (vec![7; length], [("content-type", media_type)]);
        // Some break the connection off instead of answering.
        scene.ada.curl.ask(&url, &Ask { method: "PUT", headers: &headers, data: Some(&data), ..Ask::default() }).map_or(0, |a| a.status)
    };
    for (what, status) in
        [("a byte more", put(101, "video/mp4")), ("a byte less", put(99, "video/mp4")), ("another type", put(100, "video/webm"))]
    {
        holds((400..500).contains(&status), || format!("{what}: {status}"))?;
    }
    let video = scene.ada.api("GET", &format!("/api/videos/{id}"), None, 200)?;
    holds(video["state"] == "awaiting_upload", || format!("after what was refused: {video}"))?;
    let (first, second) = (put(100, "video/mp4"), put(100, "video/mp4"));
    holds(first == 200 && (400..500).contains(&second), || format!("as announced: {first}, again: {second}"))
}

fn in_parts(scene: &Scene<'_>) -> Outcome {
    let mut bytes = std::fs::read(&scene.file)?;
    // A box that means nothing makes it longer than a part.
    let more: usize = 9 << 20;
    bytes.extend(u32::try_from(more)?.to_be_bytes().into_iter().chain(*b"free").chain(std::iter::repeat_n(0, more - 8)));
    let (id, _) = announced(scene, bytes.len())?;
    let plan = || scene.ada.api("POST", &format!("/api/videos/{id}/upload"), None, 200);
    let send = |plan: &Value| -> Outcome {
        let part = plan["parts"].as_array().and_then(|parts| parts.first()).ok_or("no part is missing")?;
        let size = usize::try_from(plan["part_bytes"].as_u64().ok_or("no size of parts")?)?;
        let from = usize::try_from(part["number"].as_u64().ok_or("no number")?.saturating_sub(1))?.saturating_mul(size);
        let data = bytes.get(from..from.saturating_add(size).min(bytes.len()));
        let answer = scene.ada.curl.ask(
            part["url"].as_str().ok_or("no address")?,
            &Ask { method: "PUT", data, headers: &[("content-type", "")], ..Ask::default() },
        )?;
        holds(answer.status == 200, || format!("part {}: {} {}", part["number"], answer.status, answer.text()))
    };
    let first = plan()?;
    holds(first["complete"] == false && first["parts"].as_array().map(Vec::len) == Some(2), || format!("the plan: {first}"))?;
    send(&first)?;
    let second = plan()?;
    let stored = second["stored"].as_array().map(Vec::as_slice).unwrap_or_default();
    holds(stored.len() == 1 && stored.iter().all(|part| part["number"] == 1), || format!("the plan with one part there: {second}"))?;
    send(&second)?;
    scene.ada.wait_for(&id, &["ready"], READY).map(drop)
}

fn pages(scene: &Scene<'_>) -> Outcome {
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let page = scene.ada.api("GET", &format!("/api/videos?limit=2{before}"), None, 200)?;
        let ids = page["videos"].as_array().into_iter().flatten().filter_map(|video| video["id"].as_str().map(str::to_owned));
        seen.extend(ids);
        match page["next_before"].as_str() {
            Some(id) => before = format!("&before={id}"),
            None => break,
        }
    }
    let sorted = seen.is_sorted_by(|a, b| a > b);
    holds(sorted && seen.len() > 2 && seen.last() == Some(&scene.ready), || format!("{seen:?}"))
}

fn cross_site(scene: &Scene<'_>) -> Outcome {
    let body = json!({ "name": "x", "size": 10, "type": "video/mp4" }).to_string();
    let headers = [("origin", "https://evil.example"), ("content-type", "application/json")];
    let ask = Ask { method: "POST", headers: &headers, data: Some(body.as_bytes()), ..Ask::default() };
    let answer = scene.ada.curl.ask("/api/videos", &ask)?;
    holds(answer.status == 403, || format!("{}: {}", answer.status, answer.text()))
}

fn deleted(scene: &Scene<'_>) -> Outcome {
    let url = rendition(scene)?;
    scene.ada.api("DELETE", &format!("/api/videos/{}", scene.ready), None, 204)?;
    for path in ["", "/watch"] {
        scene.ada.api("GET", &format!("/api/videos/{}{path}", scene.ready), None, 404)?;
    }
    let list = scene.ada.api("GET", "/api/videos", None, 200)?.to_string();
    holds(!list.contains(&scene.ready), || list)?;
    let bytes = scene.ada.curl.ask(&url, &Ask::default())?;
    holds((400..500).contains(&bytes.status), || format!("its bytes: {}", bytes.status))
}

fn signed_out(scene: &Scene<'_>) -> Outcome {
    scene.bob.api("GET", "/api/videos", None, 200)?;
    // A click on a link of our own page, as browsers tell it.
    let click = Ask { headers: &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")], follow: true, ..Ask::default() };
    scene.bob.curl.ask("/auth/logout", &click)?;
    scene.bob.api("GET", "/api/videos", None, 401).map(drop)
}
