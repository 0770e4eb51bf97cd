//! `cargo xtask deputy`: the confused deputy, failing closed. The api is replaced by one that does to any object whatever it is asked.
//!
//! The api may hand out every rendition and delete every video: it is a deputy with a lot of power, and here it has no judgement left.
//! What stops it is not in it: a person's authority travels with the request, and the store asks whose object it is.
//!
//! Guarantees: N5, N6, H4, G9.
//! Not here:   what a taken-over api can do to the very person whose request it has in hand: that is theirs, while it lasts.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::artefacts::Artefacts;
use crate::curl::Ask;
use crate::demo::Scratch;
use crate::person::Person;
use crate::{Outcome, copied, media, packages, tree};

/// How long a short video may take.
const READY: Duration = Duration::from_secs(180);

/// One step of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is tried, as a sentence.
    pub what: &'static str,
    /// What the store answered.
    pub status: u64,
    /// Whether it should have been let.
    pub allowed: bool,
}

impl Step {
    /// Whether it went as it should.
    #[must_use]
    pub fn holds(&self) -> bool {
        (200..300).contains(&self.status) == self.allowed
    }
}

/// Plays the story in a system of its own and prints it.
///
/// # Errors
/// When a step does not go as it should.
pub fn run() -> Outcome {
    packages::ensure(packages::RUN)?;
    packages::ensure(packages::DEMO)?;
    let built = Artefacts::build()?;
    let scratch = Scratch::new()?;
    let steps = play(&built, &scratch.0)?;
    for step in &steps {
        let meant = if step.allowed { "let through" } else { "refused" };
        println!("{} {} {:<10} {}", if step.holds() { "  " } else { "!!" }, step.status, meant, step.what);
    }
    if steps.iter().all(Step::holds) { Ok(()) } else { Err("a step did not go as it should".into()) }
}

/// Plays the story; `built` has the programs.
///
/// # Errors
/// When the scene cannot be set.
pub fn play(built: &Artefacts, scratch: &Path) -> Outcome<Vec<Step>> {
    let run = "run = [\"/usr/bin/python3\", \"deputy/deputy.py\"]\nfiles = [\"deputy\"]";
    let setting = copied::reference(scratch, built, &[("run = [\"./video-api\"]", run)])?;
    let folder = setting.manifest.with_file_name("deputy");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("deputy.py"), include_str!("deputy/deputy.py"))?;
    tree::run(std::process::Command::new("chmod").args(["-R", "755"]).arg(&folder))?;
    let system = setting.start()?;
    let ada = system.person("ada", scratch);
    ada.enrol(system.first_link.as_deref().ok_or("no one-time link")?)?;
    ada.sign_in()?;
    let bob = system.person("bob", scratch);
    bob.enrol(&system.invite("bob")?)?;
    bob.sign_in()?;
    let file = scratch.join("in.mp4");
    media::make(&file, 1, "320x180", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])?;
    let id = ada.upload(&file, "video/mp4")?.id;
    ready(&ada, &id)?;
    let steps = steps(&ada, &bob, &id)?;
    system.stop()?;
    Ok(steps)
}

fn ready(person: &Person, id: &str) -> Outcome {
    let start = Instant::now();
    while start.elapsed() < READY {
        let states = person.api("GET", "/api/videos", None, 200)?;
        match states["states"][id].as_str() {
            Some("video.ready") => return Ok(()),
            Some("video.failed" | "video.rejected") => return Err(format!("the video: {states}").into()),
            _ => std::thread::sleep(Duration::from_millis(300)),
        }
    }
    Err("the video was not made".into())
}

fn steps(ada: &Person, bob: &Person, id: &str) -> Outcome<Vec<Step>> {
    let (rendition, original) = (format!("renditions/{id}/small.mp4"), format!("originals/{id}/original"));
    let ask = |person: &Person, method: &str, act: &str, object: &str, token: &str| -> Outcome<Value> {
        let path = if method == "DELETE" { format!("/api/videos/{id}") } else { "/api/videos".to_owned() };
        person.api(method, &format!("{path}?act={act}&object={object}&token={token}"), None, 200)
    };
    let mut steps = Vec::new();
    let mut step = |what, answer: Value, allowed| {
        steps.push(Step { what, status: answer["status"].as_u64().unwrap_or(0), allowed });
        answer
    };
    let granted = step("ada asks the deputy for her video", ask(ada, "GET", "presign", &rendition, "own")?, true);
    let url = granted["url"].as_str().ok_or("no address was granted")?.to_owned();
    // Its own request's authority is kept by the deputy, for later.
    ada.api("GET", "/api/videos?keep=ada", None, 200)?;
    step("bob tricks the deputy into handing out ada's video", ask(bob, "GET", "presign", &rendition, "own")?, false);
    step("bob tricks it into deleting ada's video", ask(bob, "DELETE", "delete", &rendition, "own")?, false);
    step("bob tricks it into deleting what ada uploaded", ask(bob, "DELETE", "delete", &original, "own")?, false);
    step("bob tricks it into writing over what ada uploaded", ask(bob, "GET", "overwrite", &original, "own")?, false);
    step("the deputy reads ada's video on nobody's behalf", ask(bob, "GET", "presign", &rendition, "none")?, false);
    step("the deputy deletes it on nobody's behalf", ask(bob, "DELETE", "delete", &rendition, "none")?, false);
    step("the deputy uses ada's authority after her request", ask(bob, "GET", "presign", &rendition, "kept:ada")?, false);
    step("the deputy reads what ada uploaded, at ada's own request", ask(ada, "GET", "read", &original, "own")?, false);
    step("the deputy deletes ada's video when she only looks at it", ask(ada, "GET", "delete", &rendition, "own")?, false);
    let status = ada.curl.ask(&url, &Ask::default())?.status;
    step("ada's video is there, as it was", serde_json::json!({ "status": status }), true);
    step("ada deletes it herself", ask(ada, "DELETE", "delete", &rendition, "own")?, true);
    Ok(steps)
}
