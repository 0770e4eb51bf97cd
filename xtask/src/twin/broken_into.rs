//! Broken into: the same program in FFmpeg's place on both sides, on a job of its own, beside the videos of somebody else.
//!
//! Guarantees: L14. What is said to be out of reach was there at that moment, and its door noticed nobody.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::side::{Side, Wanted, Which};
use crate::artefacts::Artefacts;
use crate::functional::FIRST;
use crate::{Outcome, media, processes, tree};

/// How long a video may take to be given up.
const READY: Duration = Duration::from_secs(120);

/// What code that runs in FFmpeg's place reaches.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Reached {
    /// Assets of which it read something, with how many files of each.
    pub read: Vec<(String, u64)>,
    /// Assets that it could change.
    pub changed: Vec<String>,
    /// Doors outside that it came through.
    pub doors: Vec<String>,
    /// Processes whose memory it could read.
    pub memories: Vec<String>,
    /// Whether it had its own job's input.
    pub own_input: bool,
    /// All assets that there were.
    pub assets: Vec<String>,
}

/// Doors beside the system: a neighbour on this machine, and what stands for any address elsewhere.
struct Doors(TcpListener, TcpListener);

impl Doors {
    fn open() -> Outcome<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.2:0")?))
    }

    fn told(&self) -> Outcome<Value> {
        let (near, far) = (self.0.local_addr()?, self.1.local_addr()?);
        Ok(json!({ "a neighbour's port": ["tcp", "127.0.0.1", near.port()], "an address elsewhere": ["tcp", "127.0.0.2", far.port()] }))
    }

    /// How many of the doors somebody came through.
    fn came(&self) -> Outcome<usize> {
        let mut came = 0;
        for door in [&self.0, &self.1] {
            door.set_nonblocking(true)?;
            came += usize::from(door.accept().is_ok());
        }
        Ok(came)
    }
}

/// Breaks into one side.
///
/// # Errors
/// When the side does not come up, the stand-in does not report, or what it should look for is not there.
pub fn measure(which: Which, built: &Artefacts, scratch: &Path) -> Outcome<Reached> {
    let folder = scratch.join(if which == Which::Palisade { "broken-palisade" } else { "broken-twin" });
    std::fs::create_dir_all(&folder)?;
    tree::run(std::process::Command::new("chmod").arg("755").args([scratch, &folder]))?;
    let doors = Doors::open()?;
    let wanted = Wanted { built, scratch: &folder, stand_in: None };
    let assets = wanted.assets(which);
    let told: serde_json::Map<String, Value> = assets.iter().map(|(name, path)| ((*name).to_owned(), json!([path]))).collect();
    let targets = json!({ "assets": told, "doors": doors.told()? });
    let side = Wanted { stand_in: Some(&targets), ..wanted }.start(which)?;
    // The videos of somebody else, whom this job is nothing to; the stand-in spoils their renditions, not their originals.
    let file = folder.join("in.mp4");
    media::make(&file, 1, "320x180", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"])?;
    let (ada, bob) = (side.site().person(FIRST, &folder)?, side.site().person("bob", &folder)?);
    let first = bob.upload(&file, "video/mp4")?;
    bob.wait_for(&first.id, &["failed"], READY)?;
    // Whoever came for bob's video was let in or not just as for ada's; only the second visit counts.
    doors.came()?;
    let uploaded = ada.upload(&file, "video/mp4")?;
    let video = ada.wait_for(&uploaded.id, &["failed"], READY)?;
    let mut reached = read(&side, video["reason"].as_str().unwrap_or_default())?;
    for (name, path) in assets {
        if !path.exists() {
            return Err(format!("{name} is not where it was looked for: {}", path.display()).into());
        }
        reached.assets.push(name.to_owned());
    }
    if doors.came()? != reached.doors.len() {
        return Err(format!("the doors noticed others than the stand-in says: {reached:?}").into());
    }
    Ok(reached)
}

fn read(side: &Side, reason: &str) -> Outcome<Reached> {
    let no = || format!("the stand-in did not report: {reason}");
    let said = reason.find('{').zip(reason.rfind('}')).and_then(|(from, to)| reason.get(from..=to)).ok_or_else(no)?;
    let said: Value = serde_json::from_str(said).map_err(|_| no())?;
    let list = |name: &str| -> Vec<String> {
        said[name].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let read = said["read"].as_object().into_iter().flatten();
    // Its own parent is the program that it stands in for a part of; beside that, only what belongs to the system counts.
    let ours: Vec<String> = processes::tree(side.pid())?.into_iter().map(|process| process.name).collect();
    let short =
        |name: &String| ours.iter().any(|ours| ours.starts_with(name.as_str()) || ours.replace(' ', "-").starts_with(name.as_str()));
    Ok(Reached {
        read: read.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default())).collect(),
        changed: list("changed"),
        doors: list("doors"),
        memories: list("memories").into_iter().filter(short).collect(),
        own_input: said["own_input"] == true,
        assets: Vec::new(),
    })
}
